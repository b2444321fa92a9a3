"""``nnunet_temporal split``: new 4D movies into sequences for nnU-Net's predict."""

import argparse
from pathlib import Path

from nnunet_temporal.datasets.image_io import find_niftis
from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.study import split_studies

HELP = "Split 4D movies into one sequence per slice, ready for nnUNetv2_predict."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument(
        "-i",
        "--input",
        type=Path,
        required=True,
        help="NIfTI file or folder of files (x, y, z, t). Each becomes a study named like its file, as in 'convert "
        "nifti': X_cine.nii.gz gives X_cine. 'convert sunnybrook' and 'convert acdc' leave such endings out, and so "
        "does --drop-suffix. A raw dataset's imagesTs needs no splitting",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the sequences")
    parser.add_argument(
        "--drop-suffix",
        default="",
        metavar="SUFFIX",
        help="end of the file names that is no part of the study's name: with _cine, X_cine.nii.gz gives study X, the "
        "name that 'convert sunnybrook' gives it, so that predictions can be compared with converted labels "
        "(_4d for ACDC; default: nothing)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Split and say what to run next."""
    source: Path = arguments.input
    if not source.exists():
        raise InputError(f"{source}: the input does not exist; name a NIfTI file or a folder of them with -i")
    originals = find_niftis(source) if source.is_dir() else [source]
    manifest = split_studies(originals, arguments.output, arguments.drop_suffix)
    print(f"{len(manifest.studies())} studies, {len(manifest)} sequences in {arguments.output}")
    print(f"Next:  nnUNetv2_predict -i {arguments.output} -o MASKS -d ID -c 2dt -p nnUNetTemporalPlans -tr TRAINER")
    print("then:  nnunet_temporal merge -i MASKS -o OUT")
    return 0
