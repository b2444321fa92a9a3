"""``nnunet_temporal convert DATASET``: heart movies into a raw nnU-Net dataset with manifest and study-wise folds."""

import argparse
from pathlib import Path

from nnunet_temporal.commands.raw_folders import raw_and_known_folders
from nnunet_temporal.datasets import acdc, nifti, sunnybrook
from nnunet_temporal.datasets.problems import listed
from nnunet_temporal.datasets.raw_writer import DatasetInfo, RawDataset, check_dataset_id, write_raw_dataset
from nnunet_temporal.datasets.study_source import IGNORE
from nnunet_temporal.errors import InputError

HELP = "Convert heart movies to a raw nnU-Net dataset with study-wise folds."

_NAMED_AT_MOST = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add one sub-command per dataset."""
    datasets = parser.add_subparsers(dest="dataset", required=True, metavar="DATASET")
    text = "ACDC as downloaded; -i is 'database', the folder it is in, or 'database/training'"
    patients = datasets.add_parser("acdc", help=text, description=text)
    _add_common(patients, acdc.NAME, held_out_by_default="the patients in 'testing'")
    text = "Sunnybrook Cardiac Data in NIfTI form"
    _add_common(datasets.add_parser("sunnybrook", help=text, description=text), sunnybrook.NAME)
    text = "any folder of 4D (x, y, z, t) or 3D (x, y, t) NIfTI files"
    generic = datasets.add_parser("nifti", help=text, description=text)
    _add_common(generic, "Cine")
    generic.add_argument("--images", metavar="GLOB", help="image files relative to -i (default: images/*.nii.gz)")
    generic.add_argument(
        "--labels",
        metavar="TEMPLATE",
        help="label file relative to -i; {name} is the image's file name without ending, {folder} the folder it is in "
        "(default: labels/{name}.nii.gz)",
    )
    generic.add_argument(
        "--classes",
        nargs="+",
        metavar="NAME",
        help="names of label values 1, 2, ...; one value more means 'not labelled' (default: labels in dataset.json)",
    )
    generic.add_argument("--channel", default="cineMRI", help="channel name, by which nnU-Net chooses normalisation")
    generic.add_argument("--cyclic", action="store_true", help="each movie covers exactly one heart beat")
    generic.add_argument(
        "--empty-frames",
        choices=["background", "unlabelled"],
        help="what a frame means whose labels are zero everywhere; such frames are refused without this",
    )


def run(arguments: argparse.Namespace) -> int:
    """Convert, print what was written and the command to run next."""
    folders = raw_and_known_folders()
    if not arguments.input.is_dir():
        raise InputError(f"{arguments.input}: the input folder does not exist; name it with -i")
    dataset = {"acdc": acdc, "sunnybrook": sunnybrook}.get(arguments.dataset)
    labels = dataset.LABELS if dataset else nifti.read_label_names(arguments.input, arguments.classes)
    channel = dataset.CHANNEL if dataset else arguments.channel
    info = DatasetInfo(arguments.dataset_id, arguments.name, labels, channel)
    check_dataset_id(info, folders)
    if dataset:
        sources = dataset.find_studies(arguments.input)
    else:
        sources = nifti.find_studies(arguments.input, _layout(arguments), labels[IGNORE])
    held_out = arguments.held_out
    if held_out is None:
        held_out = acdc.held_out_patients(arguments.input) if dataset is acdc else []
    written = write_raw_dataset(sources, info, folders[0], held_out=held_out, overwrite=arguments.overwrite)
    _print_summary(written, info)
    return 0


def _add_common(parser: argparse.ArgumentParser, name: str, held_out_by_default: str = "none") -> None:
    parser.add_argument("-i", "--input", type=Path, required=True, help="folder of the movies")
    parser.add_argument("-d", "--dataset-id", type=int, required=True, metavar="ID", help="dataset id, 1 to 999")
    parser.add_argument("--name", default=name, help="dataset name (default: %(default)s)")
    parser.add_argument(
        "--held-out",
        nargs="*",
        metavar="STUDY",
        help=f"studies for imagesTs and labelsTs, in no fold; without a name: none (default: {held_out_by_default})",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the dataset if it exists")


def _layout(arguments: argparse.Namespace) -> nifti.NiftiLayout:
    return nifti.NiftiLayout(
        images=(arguments.images,) if arguments.images else nifti.DEFAULT_IMAGES,
        labels=(arguments.labels,) if arguments.labels else nifti.DEFAULT_LABELS,
        cyclic=arguments.cyclic,
        empty_frames=arguments.empty_frames,
    )


def _print_summary(dataset: RawDataset, info: DatasetInfo) -> None:
    sequences = dataset.manifest.values()
    studies = dataset.manifest.studies()
    unlabelled = [study.name for study in studies if not any(s.labelled_frames for s in study.sequences)]
    folds = " ".join(str(fold) for fold in range(len(dataset.splits)))
    print(f"Written: {dataset.folder}")
    print(f"  studies          {len(studies)}, held out: {listed(dataset.held_out, _NAMED_AT_MOST) or 'none'}")
    if unlabelled:
        print(f"  without labels   {listed(unlabelled, _NAMED_AT_MOST)}")
    print(f"  sequences        {len(sequences)}")
    n_labelled = sum(len(sequence.labelled_frames) for sequence in sequences)
    print(f"  frames           {sum(sequence.n_frames for sequence in sequences)}, labelled: {n_labelled}")
    print(f"  folds            {len(dataset.splits)}, by study; pass -f {folds} wherever nnU-Net asks for folds")
    print(f"Next:  nnunet_temporal plan_and_preprocess -d {info.dataset_id}")
