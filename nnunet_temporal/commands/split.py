"""``nnunet_temporal split``: new 4D movies into sequences for nnU-Net's predict."""

import argparse
from pathlib import Path

from nnunet_temporal.datasets.image_io import find_niftis
from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.study import split_studies

HELP = "Split 4D movies into one sequence per slice, ready for nnUNetv2_predict."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("-i", "--input", type=Path, required=True, help="NIfTI file or folder of files (x, y, z, t)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the sequences")


def run(arguments: argparse.Namespace) -> int:
    """Split and say what to run next."""
    source: Path = arguments.input
    if not source.exists():
        raise InputError(f"{source}: the input does not exist; name a NIfTI file or a folder of them with -i")
    manifest = split_studies(find_niftis(source) if source.is_dir() else [source], arguments.output)
    print(f"{len(manifest.studies())} studies, {len(manifest)} sequences in {arguments.output}")
    print(f"Next:  nnUNetv2_predict -i {arguments.output} -o MASKS -d ID -c 2dt -p nnUNetTemporalPlans -tr TRAINER")
    print("then:  nnunet_temporal merge -i MASKS -o OUT")
    return 0
