"""The pages of the documentation, their blocks, commands, links and tables, shared by tests. Not a test."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTATION = ROOT / "documentation"
TOP_PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES = sorted(DOCUMENTATION.rglob("*.md"))
PROGRAMS = re.compile(r"nnunet_temporal|nnUNetv2_\w+|python")

_BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_VARIABLE = re.compile(r"\$\{?([A-Za-z_]\w*)\}?")
_INNER = re.compile(r'"?\$\(([^()]*)\)"?')


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text and the line of the page above it."""

    language: str
    text: str
    line: int


@dataclass(frozen=True)
class Command:
    """The words of a command, and whether it stands there whole: in backticks, required options may be left out."""

    words: list[str]
    is_whole: bool

    def __str__(self) -> str:
        return " ".join(self.words)


def page_name(path: Path) -> str:
    """Return a page's path inside the checkout."""
    return path.relative_to(ROOT).as_posix()


def read_page(path: str) -> str:
    """Return the text of a page, named inside ``documentation``."""
    return (DOCUMENTATION / path).read_text(encoding="utf-8")


def blocks_of(text: str, language: str | None = None) -> list[Block]:
    """Return the fenced blocks of a page, all or those of one language."""
    found = [Block(m[1], m[2], text[: m.start()].count("\n") + 1) for m in _BLOCK.finditer(text)]
    return [block for block in found if language is None or block.language == language]


def without_blocks(text: str) -> str:
    """Return a page without its fenced blocks."""
    return _BLOCK.sub("", text)


def links_of(text: str) -> list[str]:
    """Return the targets of all links and pictures outside of code."""
    return _LINK.findall(_CODE.sub("", without_blocks(text)))


def anchors_of(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.*?) *$", without_blocks(text), re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


def section_of(text: str, heading: str) -> str:
    """Return what stands below a heading, up to the next of its level or above; empty without such a heading."""
    level = len(heading) - len(heading.lstrip("#"))
    found = re.search(rf"^{re.escape(heading)}$(.*?)(?=^#{{1,{level}}} |\Z)", text, re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


def table_rows(text: str) -> list[list[str]]:
    """Return the cells of all table rows of a text, headers and rulers left out."""
    rows: list[list[str]] = []
    for line in text.splitlines():
        if not line.startswith("|"):
            continue
        cells = [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if set(line) <= set("|-: "):
            rows.pop()  # The row above a ruler is the header.
        else:
            rows.append(cells)
    return rows


def code_in(cell: str) -> list[str]:
    """Return what a text has in backticks."""
    return _CODE.findall(cell)


def commands_of(text: str) -> list[Command]:
    """Return each of our and nnU-Net's commands, and of each Python script, on a page.

    They are looked for in blocks of bash, and in backticks where options follow. Variables have the value that the page
    gives them, else 0; ``$(...)`` is a command of its own.
    """
    scripts = [(block.text, True) for block in blocks_of(text, "bash")]
    scripts += [(code.replace("\n", " "), False) for code in code_in(without_blocks(text)) if re.search(r"\s-", code)]
    commands: list[Command] = []
    variables: dict[str, str] = {}
    for script, is_whole in scripts:
        for line in script.replace("\\\n", " ").splitlines():
            for part in (*_INNER.findall(line), _INNER.sub("0", line)):
                found = _commands_of_line(part, variables)
                commands += [Command(words, is_whole and "..." not in words) for words in found]
    return commands


def _commands_of_line(line: str, variables: dict[str, str]) -> list[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
    lexer.wordchars += "$~*?{}[]@:%+,="
    commands: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set("();<>|&"):
            commands.append([])
        elif word in ("do", "done", "export", "then", "time") and not commands[-1]:
            continue
        elif not commands[-1] and (assigned := _ASSIGNMENT.fullmatch(word)):
            variables[assigned[1]] = _substituted(assigned[2], variables)
        else:
            commands[-1] += _substituted(word, variables).split() or [""]
    return [words for words in commands if words and PROGRAMS.fullmatch(words[0])]


def _substituted(word: str, variables: dict[str, str]) -> str:
    return _VARIABLE.sub(lambda match: variables.get(match[1], "0"), word)
