"""``nnunet_temporal phantom``: a raw dataset of synthetic beating hearts, with the truth of every frame beside it."""

import argparse

from nnunet_temporal.commands.raw_folders import raw_and_known_folders
from nnunet_temporal.datasets.phantom.dataset import (
    DEFAULT_FRAMES_PER_CYCLE,
    DEFAULT_SIZE,
    MODALITIES,
    TRUTH_FOLDER,
    PhantomPlan,
    Range,
    write_phantom_dataset,
)
from nnunet_temporal.datasets.raw_writer import DatasetInfo, RawDataset, check_dataset_id

HELP = "Draw beating-heart phantoms with labels at ED and ES, and the truth of every frame beside them."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments; ranges are written 12-80, or as one number."""
    add = parser.add_argument
    add("-d", "--dataset-id", type=int, required=True, metavar="ID", help="dataset id, 1 to 999")
    add("--modality", choices=sorted(MODALITIES), required=True, help="short-axis cine MRI or apical echo views")
    add("-n", "--studies", type=int, required=True, metavar="N", help="training studies with labels at ED and ES")
    add("--unlabelled", type=int, default=0, metavar="M", help="training studies without labels")
    add("--test", type=int, default=0, metavar="K", help="held-out studies, in imagesTs and labelsTs and in no fold")
    add("--size", type=int, default=DEFAULT_SIZE, help="rows and columns of a frame (default: %(default)s)")
    add(
        "--frames-per-cycle",
        type=_range,
        default=DEFAULT_FRAMES_PER_CYCLE,
        metavar="LOW-HIGH",
        help=f"frames in a heart beat, drawn for each study (default: {_range_text(DEFAULT_FRAMES_PER_CYCLE)})",
    )
    usual = ", ".join(f"{_range_text(modality.beats)} for {name}" for name, modality in MODALITIES.items())
    add(
        "--beats",
        type=_range,
        metavar="LOW-HIGH",
        help=f"heart beats in a sequence, drawn for each study; 1 makes cyclic ones (default: {usual})",
    )
    add(
        "--lost-segment",
        action="store_true",
        help="echo: a segment of the ventricle's wall is lost for a third of every beat, in half of the studies at ED "
        "or ES; the masks stay those of the whole heart",
    )
    add(
        "--jitter",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="each beat is up to this share longer or shorter, 0.15 for instance; not with --beats 1 (default: 0)",
    )
    add("--seed", type=int, default=0, help="another seed draws other studies (default: %(default)s)")
    add("--name", help="dataset name (default: PhantomCine or PhantomEcho)")
    add("--overwrite", action="store_true", help="replace the dataset if it exists")


def run(arguments: argparse.Namespace) -> int:
    """Draw, print what was written and the command to run next."""
    modality = MODALITIES[arguments.modality]
    plan = PhantomPlan(
        modality=arguments.modality,
        n_studies=arguments.studies,
        n_unlabelled=arguments.unlabelled,
        n_test=arguments.test,
        size=arguments.size,
        frames_per_cycle=arguments.frames_per_cycle,
        beats=arguments.beats or modality.beats,
        jitter=arguments.jitter,
        seed=arguments.seed,
        lost_segment=arguments.lost_segment,
    )
    name = arguments.name or f"Phantom{arguments.modality.capitalize()}"
    info = DatasetInfo(arguments.dataset_id, name, modality.labels, modality.channel)
    folders = raw_and_known_folders()
    check_dataset_id(info, folders)
    _print_summary(write_phantom_dataset(plan, info, folders[0], overwrite=arguments.overwrite), info)
    return 0


def _range(text: str) -> Range:
    """Read ``12-80`` or ``30``; whether the numbers make sense is checked with the rest of the plan."""
    words = text.split("-")
    try:
        low, high = (float(word) for word in (words if len(words) > 1 else 2 * words))
    except ValueError:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a range such as 12-80, or one number") from None
    return low, high


def _range_text(limits: Range) -> str:
    low, high = limits
    return f"{low:g}" if low == high else f"{low:g}-{high:g}"


def _print_summary(dataset: RawDataset, info: DatasetInfo) -> None:
    sequences = dataset.manifest.values()
    n_labelled = sum(len(sequence.labelled_frames) for sequence in sequences)
    folds = " ".join(str(fold) for fold in range(len(dataset.splits)))
    print(f"Written: {dataset.folder}")
    print(f"  studies          {len(dataset.manifest.studies())}, held out: {len(dataset.held_out)}")
    print(f"  sequences        {len(sequences)}")
    print(f"  frames           {sum(sequence.n_frames for sequence in sequences)}, labelled: {n_labelled}")
    print(f"  truth            of every frame, volumes and ejection fractions: {dataset.folder / TRUTH_FOLDER}")
    print(f"  folds            {len(dataset.splits)}, by study; pass -f {folds} wherever nnU-Net asks for folds")
    print(f"Next:  nnunet_temporal plan_and_preprocess -d {info.dataset_id}")
