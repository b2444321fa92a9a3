"""``nnunet_temporal plan_and_preprocess``: nnU-Net's command, with a planner that knows about time."""

import argparse
import math
from pathlib import Path

from nnunetv2.experiment_planning.plan_and_preprocess_api import (
    extract_fingerprint_dataset,
    preprocess_dataset,
)
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
from nnunetv2.utilities.dataset_name_id_conversion import convert_id_to_dataset_name
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_temporal.atomic import write_json
from nnunet_temporal.datasets.integrity import manifest_of
from nnunet_temporal.datasets.problems import listed
from nnunet_temporal.datasets.splits_file import SPLITS_NAME, check_same_splits, read_splits
from nnunet_temporal.datasets.unlabelled import cases_of, extend_splits, label_unlabelled_images
from nnunet_temporal.errors import InputError
from nnunet_temporal.planners.temporal_fingerprint import TemporalFingerprintExtractor
from nnunet_temporal.planners.temporal_planner import PLANNERS
from nnunet_temporal.plans import TEMPORAL_CONFIGURATION
from nnunet_temporal.sequences import Manifest, check_splits, study_splits

HELP = "fingerprint, plan and preprocess datasets of sequences; flags as nnUNetv2_plan_and_preprocess"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the stock command's flags, except those that name classes only nnU-Net's own package can hold."""
    add = parser.add_argument
    add("-d", nargs="+", type=int, required=True, help="dataset ids")
    add("-pl", choices=sorted(PLANNERS), default="TemporalPlanner", help="planner (default: %(default)s)")
    add(
        "-c", nargs="+", default=[TEMPORAL_CONFIGURATION], help="configurations to preprocess (default: 2dt; 2d shares)"
    )
    add("-npfp", type=int, default=8, help="processes for the fingerprint (default: %(default)s)")
    add("-np", nargs="+", type=int, default=[8], help="processes for preprocessing, one or one per configuration")
    add(
        "-gpu_memory_target",
        type=_above_zero,
        help="memory budget in GB (default: the planner's; 8, ResEncL 24, ResEncXL 40)",
    )
    add("-overwrite_target_spacing", nargs=3, type=_above_zero, help="target spacing t y x; 2dt and 2d use y and x")
    add("-overwrite_plans_name", help="name of the plans, instead of the planner's own")
    add("-preprocessor_name", default="DefaultPreprocessor", help="nnU-Net preprocessor (default: %(default)s)")
    add("--verify_dataset_integrity", action="store_true", help="also run nnU-Net's own check")
    add("--no_pp", action="store_true", help="plan only, no preprocessing")
    add("--clean", action="store_true", help="extract the fingerprint anew; needed after changes to the dataset")
    add("--verbose", action="store_true", help="print more")
    add("--no_pbar", action="store_true", help="no progress bars from nnU-Net")


def run(arguments: argparse.Namespace) -> int:
    """Label what nobody labelled as ignore, check, fingerprint, plan and preprocess, and print how to train."""
    for variable in (nnUNet_raw, nnUNet_preprocessed):
        if not variable.is_set():
            raise InputError(
                "nnUNet_raw and nnUNet_preprocessed must be set. For example: "
                "export nnUNet_raw=/data/nnUNet_raw nnUNet_preprocessed=/data/nnUNet_preprocessed"
            )
    for dataset in arguments.d:
        _plan_and_preprocess(dataset, arguments)
    return 0


def _above_zero(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text}")
    return value


def _plan_and_preprocess(dataset: int, arguments: argparse.Namespace) -> None:
    try:
        name = convert_id_to_dataset_name(dataset)
    except RuntimeError as error:
        raise InputError(f"-d {dataset}: {error}") from error
    raw, preprocessed = (Path(str(folder)) / name for folder in (nnUNet_raw, nnUNet_preprocessed))
    for line in label_unlabelled_images(raw):
        print(line)
    _train_on_unlabelled(raw, preprocessed)
    check_same_splits(raw, preprocessed)
    extract_fingerprint_dataset(
        dataset,
        TemporalFingerprintExtractor,
        arguments.npfp,
        arguments.verify_dataset_integrity,
        arguments.clean,
        arguments.verbose,
        show_progress_bar=not arguments.no_pbar,
    )
    plans_name = _plan(dataset, arguments)
    folds = _prepare_splits(preprocessed)
    if not arguments.no_pp:
        plans_file = preprocessed / f"{plans_name}.json"
        processes = _processes_per_configuration(plans_file, arguments.c, arguments.np)
        preprocess_dataset(
            dataset,
            plans_name,
            list(processes),
            list(processes.values()),
            arguments.verbose,
            show_progress_bar=not arguments.no_pbar,
        )
    _print_next_steps(dataset, plans_name, folds)


def _plan(dataset: int, arguments: argparse.Namespace) -> str:
    """Plan, print why each choice about time was made, and return the name of the plans."""
    # nnU-Net's plan_experiment_dataset would do, but it drops the planner with its explanations.
    planner = PLANNERS[arguments.pl](
        dataset,
        arguments.gpu_memory_target,
        arguments.preprocessor_name,
        arguments.overwrite_plans_name,
        arguments.overwrite_target_spacing,
    )
    planner.plan_experiment()
    print("\nChoices about time:", *planner.explanations, sep="\n  ", end="\n\n")
    return planner.plans_identifier


def _train_on_unlabelled(raw_folder: Path, preprocessed_folder: Path) -> None:
    """Add sequences without labels that came after the folds were made; nnU-Net would leave them unused."""
    files = [path for folder in (raw_folder, preprocessed_folder) if (path := folder / SPLITS_NAME).is_file()]
    if not files:
        return
    manifest = manifest_of(raw_folder)
    for path in files:
        splits = read_splits(path)
        extended = extend_splits(splits, manifest)
        if extended == splits:
            continue
        try:
            write_json(extended, path)
        except OSError as error:
            raise InputError(f"{path}: unlabelled sequences cannot be added to its folds: {error}") from error
        added = sorted({case for fold in extended for case in fold["train"]} - cases_of(splits))
        print(f"{path}: added {len(added)} unlabelled sequences to training: {listed(added, 5)}")


def _prepare_splits(preprocessed_folder: Path) -> int:
    """Return the number of folds; write a split by study where the raw dataset brought none."""
    path = preprocessed_folder / SPLITS_NAME
    manifest = Manifest.load(preprocessed_folder)
    if not path.is_file():
        write_json(study_splits(manifest), path)
    splits = read_splits(path)
    check_splits(splits, manifest)
    used = cases_of(splits)
    if left_out := [case for case, sequence in manifest.items() if sequence.labelled_frames and case not in used]:
        raise InputError(
            f"{path}: no fold uses {listed(left_out, 5)}, which have labelled frames. Remove the file, and folds are "
            "made anew, or add the sequences to it."
        )
    return len(splits)


def _processes_per_configuration(plans_file: Path, configurations: list[str], processes: list[int]) -> dict[str, int]:
    """Pair configurations with numbers of processes; of several that share data, as 2dt and 2d, keep the first."""
    plans = PlansManager(str(plans_file))
    unknown = [name for name in configurations if name not in plans.available_configurations]
    if unknown:
        raise InputError(f"-c {' '.join(unknown)}: not in the plans, which have {plans.available_configurations}")
    if len(processes) not in (1, len(configurations)):
        raise InputError(f"-np: expected one number or one per configuration {configurations}, got {processes}")
    distinct: dict[str, tuple[str, int]] = {}
    numbers = processes if len(processes) > 1 else processes * len(configurations)
    for name, number in zip(configurations, numbers, strict=True):
        distinct.setdefault(plans.get_configuration(name).data_identifier, (name, number))
    return dict(distinct.values())


def _print_next_steps(dataset: int, plans_name: str, folds: int) -> None:
    numbers = " ".join(str(fold) for fold in range(folds))
    print(
        f"\nNext, for each of the {folds} folds ({numbers}; split by study):\n"
        '  eval "$(nnunet_temporal env)"\n'
        f"  nnUNetv2_train {dataset} {TEMPORAL_CONFIGURATION} FOLD -tr nnUNetTrainerGDKVM -p {plans_name}\n"
        "then predict new sequences with the ensemble:\n"
        f"  nnUNetv2_predict -d {dataset} -c {TEMPORAL_CONFIGURATION} -tr nnUNetTrainerGDKVM -p {plans_name} "
        f"-f {numbers} -i SEQUENCES -o MASKS"
    )
