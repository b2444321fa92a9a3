"""``nnunet_temporal convert DATASET``: heart movies into a raw nnU-Net dataset with manifest and study-wise folds."""

import argparse
import warnings
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from nnunet_temporal.commands.converter_kinds import Converter, Folds, Found
from nnunet_temporal.commands.converters import CONVERTERS
from nnunet_temporal.commands.raw_folders import raw_and_known_folders
from nnunet_temporal.datasets.problems import listed
from nnunet_temporal.datasets.raw_writer import (
    DEFAULT_WORKERS,
    DatasetInfo,
    RawDataset,
    check_dataset_id,
    target_folder,
    write_raw_dataset,
)
from nnunet_temporal.errors import InputError

HELP = "Convert heart movies to a raw nnU-Net dataset with study-wise folds."

_NAMED_AT_MOST = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add one sub-command per dataset."""
    datasets = parser.add_subparsers(dest="dataset", required=True, metavar="DATASET")
    for dataset, converter in CONVERTERS.items():
        sub_parser = datasets.add_parser(dataset, help=converter.text, description=converter.text)
        _add_common(sub_parser, converter)
        converter.add_arguments(sub_parser)


def run(arguments: argparse.Namespace) -> int:
    """Convert, print what was written and the command to run next."""
    folders = raw_and_known_folders()
    if not arguments.input.is_dir():
        raise InputError(f"{arguments.input}: the input folder does not exist; name it with -i")
    if arguments.workers < 1:
        raise InputError(f"--workers: found {arguments.workers}, expected 1 or more")
    # Converters warn of what they leave out; one list at the end is read, lines between progress bars are not.
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always", UserWarning)
        written = _convert(CONVERTERS[arguments.dataset], arguments, folders)
    _print_summary(written, arguments, list(dict.fromkeys(str(warning.message) for warning in noted)))
    return 0


def _add_common(parser: argparse.ArgumentParser, converter: Converter) -> None:
    parser.add_argument("-i", "--input", type=Path, required=True, help="folder of the movies")
    parser.add_argument("-d", "--dataset-id", type=int, required=True, metavar="ID", help="dataset id, 1 to 999")
    parser.add_argument("--name", default=converter.module.NAME, help="dataset name (default: %(default)s)")
    parser.add_argument(
        "--held-out",
        nargs="*",
        metavar="STUDY",
        help=f"studies for imagesTs and labelsTs, in no fold; without a name: none (default: {converter.held_out})",
    )
    if converter.has_official_folds:
        text = "folds: made by study, or those of the dataset (default: official where there are some)"
        parser.add_argument("--folds", choices=["study", "official"], help=text)
    text = "studies converted at a time, each in memory (default: %(default)s)"
    parser.add_argument("--workers", type=int, default=DEFAULT_WORKERS, metavar="N", help=text)
    parser.add_argument("--overwrite", action="store_true", help="replace the dataset if it exists")


def _convert(converter: Converter, arguments: argparse.Namespace, folders: list[Path]) -> RawDataset:
    info = DatasetInfo(arguments.dataset_id, arguments.name, labels={}, channel="")
    # First of all, because to find videos means to decode them, which takes hours for thousands.
    check_dataset_id(info, folders)
    target_folder(info, folders[0], arguments.overwrite)
    found = converter.find(arguments)
    return write_raw_dataset(
        found.sources,
        replace(info, labels=found.labels, channel=found.channel),
        folders[0],
        held_out=_held_out(converter, arguments, found),
        folds=_folds(converter, arguments),
        workers=arguments.workers,
        overwrite=arguments.overwrite,
    )


def _held_out(converter: Converter, arguments: argparse.Namespace, found: Found) -> Collection[str]:
    if arguments.held_out is not None:
        return arguments.held_out
    # A part of a download, or one view of it, need not have all of the official test studies.
    return set(converter.held_out_studies(arguments)) & {source.study for source in found.sources}


def _folds(converter: Converter, arguments: argparse.Namespace) -> Folds | None:
    wanted = arguments.folds if converter.has_official_folds else "study"
    if wanted == "study":
        return None
    folds = converter.official_folds(arguments)
    if wanted == "official" and not folds:
        raise InputError(f"--folds official: found no official folds in {arguments.input}; pass --folds study")
    return folds or None


def _print_summary(dataset: RawDataset, arguments: argparse.Namespace, remarks: list[str]) -> None:
    sequences = dataset.manifest.values()
    studies = dataset.manifest.studies()
    unlabelled = [study.name for study in studies if not any(s.labelled_frames for s in study.sequences)]
    folds = " ".join(str(fold) for fold in range(len(dataset.splits)))
    print(f"Written: {dataset.folder}")
    print(f"  studies          {len(studies)}, held out: {listed(dataset.held_out, _NAMED_AT_MOST) or 'none'}")
    if dataset.n_resumed:
        print(f"  taken over       {dataset.n_resumed} movies that a stopped conversion had finished")
    if unlabelled:
        print(f"  without labels   {listed(unlabelled, _NAMED_AT_MOST)}")
    print(f"  sequences        {len(sequences)}")
    n_labelled = sum(len(sequence.labelled_frames) for sequence in sequences)
    print(f"  frames           {sum(sequence.n_frames for sequence in sequences)}, labelled: {n_labelled}")
    how = f"{len(dataset.splits)}, {dataset.split_kind}"
    print(f"  folds            {how}; pass -f {folds} wherever nnU-Net asks for folds")
    if remarks:
        print("  remarks")
        for remark in remarks[:_NAMED_AT_MOST]:
            print(f"    - {remark}")
        if len(remarks) > _NAMED_AT_MOST:
            print(f"    and {len(remarks) - _NAMED_AT_MOST} more")
    print(f"Next:  nnunet_temporal plan_and_preprocess -d {arguments.dataset_id}")
