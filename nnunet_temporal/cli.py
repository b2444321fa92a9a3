"""The command line ``nnunet_temporal VERB ...``: it finds the module of the verb, runs it and reports errors."""

import argparse
import ast
import importlib
import sys
from pathlib import Path

from nnunet_temporal import __version__
from nnunet_temporal.errors import InputError

VERBS = (
    "env",
    "doctor",
    "convert",
    "phantom",
    "split",
    "merge",
    "plan_and_preprocess",
    "inflate",
    "predict",
    "export",
    "ensemble",
    "find_best_configuration",
    "predict_best",
    "evaluate",
    "report",
    "submission",
    "demo",
)
DESCRIPTION = "nnU-Net with a sense of time, for heart movies (cine MRI and echo)."

# Packages whose folders lie beside nnunet_temporal/ in a checkout; only an installation maps them into the namespace.
MAPPED_PACKAGES = ("nnunet_temporal.planners", "nnunet_temporal.trainers")


def verb_help(verb: str) -> str:
    """Return the constant ``HELP`` of a verb's module, read from its source.

    The module is not imported: all verbs would load torch, for seconds, to print one line each.

    Args:
        verb: One of ``VERBS``.

    Returns:
        The text of the module's ``HELP``.

    Raises:
        LookupError: The module has no ``HELP`` that is a plain string.
    """
    source = Path(__file__).parent / "commands" / f"{verb}.py"
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        if isinstance(target, ast.Name) and target.id == "HELP":
            return str(ast.literal_eval(node.value))
    raise LookupError(f'{source} has no line of the form HELP = "..."')


def build_parser(verb: str | None) -> argparse.ArgumentParser:
    """Build the parser: every verb is listed, only the chosen one is imported and has its arguments.

    Args:
        verb: The verb on the command line, or None when there is none.

    Returns:
        The parser of the whole command line; what it parses has the verb's ``run`` as an attribute.
    """
    parser = argparse.ArgumentParser(prog="nnunet_temporal", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"nnunet_temporal {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name in VERBS:
        text = verb_help(name)
        verb_parser = verbs.add_parser(name, help=text, description=text)
        if name == verb:
            module = importlib.import_module(f"nnunet_temporal.commands.{verb}")
            module.add_arguments(verb_parser)
            verb_parser.set_defaults(run=module.run)
    return parser


def _not_installed(package: str) -> str:
    """Return what to tell somebody who runs a checkout in which ``package`` is not mapped."""
    checkout = Path(__file__).resolve().parent.parent
    return (
        f"nnunet_temporal is not installed in this Python, so {package} cannot be found: "
        f"the folders planners/ and trainers/ become part of nnunet_temporal by installation only.\n"
        f"Install it with:\n  {sys.executable} -m pip install -e {checkout}"
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments after the program's name; None takes those of this process.

    Returns:
        The exit code: the verb's own; 2 for bad input; 1 when the package is not installed; 130 when interrupted.
    """
    argv = sys.argv[1:] if argv is None else argv
    verb = argv[0] if argv and argv[0] in VERBS else None
    try:
        arguments = build_parser(verb).parse_args(argv)
        return int(arguments.run(arguments))
    except InputError as error:
        print(f"nnunet_temporal: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        package = next((name for name in MAPPED_PACKAGES if error.name == name), None)
        if package is None:
            raise
        print(_not_installed(package), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("nnunet_temporal: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
