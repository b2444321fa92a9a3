"""``nnunet_temporal merge``: predicted masks back into 4D, on the grid and header of the originals."""

import argparse
from pathlib import Path

from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.study import merge_studies

HELP = "Merge the masks of sequences into one 4D file per study, on the grid of the originals."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("-i", "--input", type=Path, required=True, help="folder of masks, one per sequence")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for <study>.nii.gz")
    parser.add_argument(
        "-s",
        "--sequences",
        type=Path,
        help="folder of the sequences that were predicted; by default read from nnU-Net's record beside the masks",
    )


def run(arguments: argparse.Namespace) -> int:
    """Merge and say what was written."""
    if not arguments.input.is_dir():
        raise InputError(f"{arguments.input}: the folder of masks does not exist; name it with -i")
    written = merge_studies(arguments.input, arguments.output, arguments.sequences)
    print(f"{len(written)} studies in {arguments.output}")
    return 0
