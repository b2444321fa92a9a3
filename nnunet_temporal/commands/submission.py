"""``nnunet_temporal submission KIND``: masks as a challenge wants them, or a model as a container for a platform."""

import argparse
from pathlib import Path

from nnunet_temporal.commands.container import write_recipe
from nnunet_temporal.datasets.challenges import CHALLENGES
from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.submission import write_submission

HELP = "Write masks as ACDC, M&Ms-2 or CAMUS want them, or a model as a container for grand-challenge."

_NAMES = {"acdc": "ACDC", "mnms2": "M&Ms-2", "camus": "CAMUS"}
_CONTAINER = "container"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add one sub-command per challenge, and one for containers."""
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    for kind in CHALLENGES:
        text = f"masks of ED and ES, named and on the grid as {_NAMES[kind]} wants them"
        _add_masks(kinds.add_parser(kind, help=text, description=text))
    text = "what 'docker build' needs to make an algorithm for grand-challenge of a trained model"
    _add_container(kinds.add_parser(_CONTAINER, help=text, description=text))


def run(arguments: argparse.Namespace) -> int:
    """Write what was asked for, and say what it is."""
    if arguments.kind == _CONTAINER:
        sockets = (arguments.input_socket, arguments.output_socket)
        write_recipe(arguments.model, arguments.output, sockets, arguments.f)
        print(f"{arguments.output} written; its README.md says how to build, test and save the image")
        return 0
    for name, folder in (("-i", arguments.input), ("--images", arguments.images)):
        if folder is not None and not folder.is_dir():
            raise InputError(f"{folder}: the folder does not exist; name another with {name}")
    written = write_submission(
        arguments.input,
        arguments.output,
        CHALLENGES[arguments.kind],
        manifest=arguments.manifest,
        images=arguments.images,
        pack=arguments.zip,
    )
    packed = f", packed in {arguments.output}.zip" if arguments.zip else ""
    print(f"{len(written)} masks in {arguments.output}{packed}; the first is {written[0]}")
    return 0


def _add_masks(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-i", "--input", type=Path, required=True, help="folder of masks, of sequences or merged")
    add("-o", "--output", type=Path, required=True, help="folder to make for the submission")
    add(
        "--manifest",
        type=Path,
        metavar="FILE",
        help="sequences.json of 'nnunet_temporal convert', which knows ED and ES (default: the one beside the masks, "
        "or of the images that they were predicted from)",
    )
    add(
        "--images",
        type=Path,
        metavar="FOLDER",
        help="folder of the challenge's images for testing (default: where the movies were converted from)",
    )
    add("--zip", action="store_true", help="also write OUTPUT.zip")


def _add_container(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "-m",
        "--model",
        type=Path,
        required=True,
        help="model folder TRAINER__PLANS__CONFIGURATION, or a file of nnUNetv2_export_model_to_zip",
    )
    add("-o", "--output", type=Path, required=True, help="folder to make for the recipe")
    add("-f", nargs="+", metavar="FOLD", help="folds to average (default: all that are trained)")
    text = "last part of the path of the platform's {} images, the NAME of {}"
    add("--input-socket", required=True, metavar="NAME", help=text.format("input", "/input/images/NAME"))
    add("--output-socket", required=True, metavar="NAME", help=text.format("output", "/output/images/NAME"))
