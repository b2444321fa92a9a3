"""What holds for every page: its commands, links and blocks of code are right, and the index leads to it."""

import argparse
import contextlib
import importlib.metadata
import io
import itertools
import json
import re

import pytest
from documentation_pages import (
    DOCUMENTATION,
    PAGES,
    ROOT,
    TOP_PAGES,
    anchors_of,
    blocks_of,
    commands_of,
    links_of,
    page_name,
)

from nnunet_temporal.cli import VERBS, build_parser
from nnunet_temporal.trainers.variants import VARIANTS

ALL_PAGES = [*TOP_PAGES, *PAGES]
# Words that stand for a number, by option.
PLACEHOLDERS = {"-d": "ID", "-n": "N"}
REAL_PARSE_ARGS = argparse.ArgumentParser.parse_args


class _ParsedError(Exception):
    """The arguments were right: nothing else of the command shall run."""


def complaint_about(command, monkeypatch):
    """Return what the program would say against a command's arguments; nothing if it would take them."""
    program, *words = command.words
    if program == "python":
        return script_complaint(words)
    if program != "nnunet_temporal":
        return stock_complaint(command, monkeypatch)
    if not words or words[0] in ("--version", "VERB"):
        return ""
    if words[0] not in VERBS:
        return f"no verb {words[0]!r}"
    return complaint_of(lambda: parse(build_parser(words[0]), numbered(words), command.is_whole))


def stock_complaint(command, monkeypatch):
    """Parse a command of nnU-Net's by the parser of its own entry point."""
    scripts = [*importlib.metadata.entry_points(group="console_scripts", name=command.words[0])]
    if not scripts:
        return "no such command"

    def parse_and_stop(parser, args=None, namespace=None):
        parse(parser, command.words[1:], command.is_whole)
        raise _ParsedError

    def run():
        with pytest.raises(_ParsedError):
            scripts[0].load()()

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
        return complaint_of(run)


def script_complaint(words):
    """Check that a benchmark exists and that it, or a module beside it, has the options."""
    script = ROOT / words[0]
    if not words[0].startswith("benchmarks/"):
        return ""
    if not script.is_file():
        return "no such script"
    source = "".join(path.read_text(encoding="utf-8") for path in script.parent.glob("*.py"))
    unknown = [word for word in words[1:] if word.startswith("--") and f'"{word}"' not in source]
    return f"no option {unknown}" if unknown else ""


def parse(parser, words, is_whole):
    """Parse words as ``parse_args`` does, but without short forms of options; of a fragment look at options only."""
    known = set()
    for inner in sub_parsers(parser, words):
        known |= set(inner._option_string_actions)
    unknown = [word for word in words if re.match(r"-+[a-zA-Z]", word) and word.split("=")[0] not in known]
    if unknown:
        parser.error(f"no option {unknown}")
    if is_whole:
        REAL_PARSE_ARGS(parser, words)


def sub_parsers(parser, words):
    """Yield a parser and those of the sub-commands that the words choose."""
    yield parser
    inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    chosen = [word for word in words if inner and word in inner[0].choices]
    if chosen:
        yield from sub_parsers(inner[0].choices[chosen[0]], words)


def numbered(words):
    """Put a number in the place of the word that stands for one."""
    before = ["", *words]
    return ["1" if word == PLACEHOLDERS.get(option) else word for option, word in zip(before, words, strict=False)]


def complaint_of(action):
    """Return what argparse complains about; nothing if it does not."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(io.StringIO()):
            action()
    except SystemExit as end:
        return printed.getvalue() if end.code else ""
    return ""


@pytest.mark.parametrize("page", ALL_PAGES, ids=page_name)
def test_every_command_is_one_that_its_program_takes(page, monkeypatch):
    complaints = {
        str(command): complaint_about(command, monkeypatch) for command in commands_of(page.read_text(encoding="utf-8"))
    }
    wrong = [f"{command}\n    {complaint}" for command, complaint in complaints.items() if complaint]
    assert not wrong, "\n".join(wrong)


WRONG_AND_RIGHT = """```bash
nnunet_temporal spilt -i A                                   # no verb
X=$(nnunet_temporal split -i A --outptu B)                   # --outptu
for f in 1 2; do nnUNetv2_train 4 2dt $f --nzp; done && nnUNetv2_tain 4 2dt 0   # --nzp, no such command
nnunet_temporal phantom -d ID --modality cine                # required: -n
python benchmarks/nothing.py --seeds 3                       # no such script
nnunet_temporal split -i A -o B \\
  --drop-suffix _x
```
In the text `nnunet_temporal predict --see
B` and `nnUNetv2_predict -f all`."""


def test_wrong_commands_are_found(monkeypatch):
    complaints = [complaint_about(command, monkeypatch) for command in commands_of(WRONG_AND_RIGHT)]
    expected = ["no verb", "--outptu", "--nzp", "no such command", "-n", "no such script", "", "--see", ""]
    assert len(complaints) == len(expected)
    for complaint, words in zip(complaints, expected, strict=True):
        assert words in complaint if words else not complaint


@pytest.mark.parametrize("page", ALL_PAGES, ids=page_name)
def test_every_trainer_that_a_command_names_exists(page):
    text = page.read_text(encoding="utf-8")
    known = {"nnUNetTrainer", "nnUNetTrainer_1epoch", *VARIANTS, *re.findall(r"^class (\w+)", text, re.MULTILINE)}
    words = [command.words for command in commands_of(text)]
    named = {name for one in words for option, name in itertools.pairwise(one) if option == "-tr"}
    assert not named - known


def broken_links(text, page):
    """Return the relative links of a text that lead to no file or, where they name one, to no heading."""
    broken = []
    for link in links_of(text):
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        is_whole = path.exists() and (not anchor or anchor in anchors_of(path.read_text(encoding="utf-8")))
        if not is_whole and not re.match(r"[a-z]+:", link):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", ALL_PAGES, ids=page_name)
def test_every_link_leads_somewhere(page):
    assert not broken_links(page.read_text(encoding="utf-8"), page)


def test_broken_links_are_found():
    text = (
        "[no](nowhere.md) [no](README.md#nowhere) [yes](README.md#documentation) [yes](https://x.org) `[code](x.md)`\n"
        "```bash\n[code](y.md)\n```\n![no](pictures/nothing.png)\n"
    )
    expected = ["nowhere.md", "README.md#nowhere", "pictures/nothing.png"]
    assert broken_links(text, DOCUMENTATION / "README.md") == expected


@pytest.mark.parametrize("page", ALL_PAGES, ids=page_name)
def test_blocks_of_python_and_json_are_python_and_json(page):
    for block in blocks_of(page.read_text(encoding="utf-8")):
        if block.language == "python":
            compile(block.text, f"{page.name}:{block.line}", "exec")
        if block.language == "json":
            json.loads(block.text if block.text.lstrip().startswith("{") else f"{{{block.text}}}")


def test_the_index_leads_to_every_page():
    index = DOCUMENTATION / "README.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in links_of(index.read_text(encoding="utf-8"))}
    missing = [page_name(page) for page in PAGES if page != index and page not in linked]
    assert not missing, f"documentation/README.md has no link to {missing}"


def test_pages_lie_in_the_four_parts_and_hold_no_python_files():
    parts = {page.parent.name for page in PAGES if page.parent != DOCUMENTATION}
    assert parts == {"getting_started", "how_to", "reference", "explanation"}
    assert [page.name for page in DOCUMENTATION.glob("*.md")] == ["README.md"]
    assert not list(DOCUMENTATION.rglob("*.py"))
