"""Plans that give a trained 2D model a sense of time: its own plan of ``2d``, and ``2dt`` around it."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.utilities.json_export import recursive_fix_for_json_export

from nnunet_temporal.atomic import read_json_object, write_json
from nnunet_temporal.datasets.problems import raise_problems
from nnunet_temporal.errors import InputError
from nnunet_temporal.planners.temporal_planner import TemporalPlanner
from nnunet_temporal.plans import TEMPORAL_CONFIGURATION
from nnunet_temporal.sequences import Manifest
from nnunet_temporal.training.stock_model import StockModel, channel_names

DEFAULT_PLANS_NAME = "nnUNetTemporalInflatedPlans"

_NETWORKS = ("PlainConvUNet", "ResidualEncoderUNet")
_LARGEST_ZOOM = 3.0
"""Beyond nnU-Net's own threshold of anisotropy the two spacings hardly describe the same kind of image."""
_TIME_FIRST = [0, 1, 2]
# These bring an image of any unit to one scale; under all others the network knows the units of its own images only.
_UNITLESS_SCHEMES = ("ZScoreNormalization", "RescaleTo01Normalization")
_INTENSITIES = "foreground_intensity_properties_per_channel"
_PREPROCESSING = (
    "data_identifier",
    "preprocessor_name",
    "spacing",
    "normalization_schemes",
    "use_mask_for_norm",
    "resampling_fn_data",
    "resampling_fn_seg",
)


def check_agreement(model: StockModel, planner: TemporalPlanner) -> None:
    """Check that a 2D model can segment the frames of a dataset.

    Args:
        model: The trained 2D model.
        planner: The planner of the dataset, which knows its ``dataset.json``, fingerprint and manifest.

    Raises:
        InputError: Lists every disagreement: network, axes, channels, labels, intensities or spacing.
    """
    if len(model.configuration["patch_size"]) != 2:
        raise InputError(f"{model.folder}: is a 3D model; only a 2D model segments single frames")
    problems = [
        *_network_problems(model),
        *_channel_problems(model, planner.dataset_json),
        *_label_problems(model.dataset, planner.dataset_json),
        *_intensity_problems(model, planner.dataset_fingerprint),
        *_spacing_problems(model, planner),
    ]
    raise_problems([f"{model.folder}: {problem}" for problem in problems])


def inflated_plans(model: StockModel, planner: TemporalPlanner, preprocessed_folder: Path) -> dict[str, Any]:
    """Plan ``2dt`` around the 2D model's own plan.

    Architecture, patch size, spacing, normalisation with its intensities, and resampling are the model's. Only what
    the dataset alone can tell is the dataset's: its name, its reader, and time.

    Args:
        model: The trained 2D model, in agreement with the dataset.
        planner: The planner of the dataset; its ``plans_identifier`` names the plans.
        preprocessed_folder: The preprocessed dataset; its arrays are shared where the model was trained on them.

    Returns:
        Plans with the configurations ``2d`` and ``2dt``, ready for JSON.
    """
    plan_2d = {key: value for key, value in deepcopy(model.configuration).items() if key != "inherits_from"}
    for key, value in plan_2d.items():
        if key.startswith("resampling_fn_") and "force_separate_z" in value:
            # As in TemporalPlanner: the axis of coarsest spacing is time, which is never resampled.
            value["force_separate_z"] = False
    if not _shares_arrays(model, planner, preprocessed_folder):
        plan_2d["data_identifier"] = planner.generate_data_identifier("2d")
    plans = {
        **deepcopy(model.plans),
        "dataset_name": planner.dataset_name,
        "plans_name": planner.plans_identifier,
        "image_reader_writer": planner.determine_reader_writer().__name__,
        "configurations": {"2d": plan_2d, TEMPORAL_CONFIGURATION: planner.plan_sequences(plan_2d)},
    }
    recursive_fix_for_json_export(plans)
    return plans


def write_plans(plans: dict[str, Any], file: Path) -> None:
    """Write plans, unless they are there already: all folds of a model must have the same.

    Raises:
        InputError: The file holds other plans.
    """
    if not file.is_file():
        write_json(plans, file)
    elif json.loads(file.read_text(encoding="utf-8")) != json.loads(json.dumps(plans)):
        raise InputError(
            f"{file}: holds other plans, of another 2D model or planned otherwise; the folds of one model must share "
            "theirs. Choose another name with -p, or remove the file if nothing was trained with it"
        )


def is_preprocessed(folder: Path, manifest: Manifest) -> bool:
    """Return whether a folder of preprocessed data holds all sequences of a dataset."""
    return all((folder / f"{case}.pkl").is_file() for case in manifest)


def _shares_arrays(model: StockModel, planner: TemporalPlanner, preprocessed_folder: Path) -> bool:
    """Return whether the arrays the model was trained on lie in the preprocessed dataset, all of them."""
    file = preprocessed_folder / f"{model.plans['plans_name']}.json"
    if model.dataset_name != planner.dataset_name or not file.is_file():
        return False
    made_by = read_json_object(file, "Remove it, or plan again.")
    wanted = {key: model.configuration[key] for key in _PREPROCESSING}
    same_intensities = made_by.get(_INTENSITIES) == model.plans[_INTENSITIES]
    same_arrays = any(
        wanted == {key: configuration.get(key) for key in _PREPROCESSING}
        for configuration in made_by["configurations"].values()
    )
    folder = preprocessed_folder / model.configuration["data_identifier"]
    return same_intensities and same_arrays and is_preprocessed(folder, planner.manifest)


def _network_problems(model: StockModel) -> list[str]:
    problems = []
    network = model.configuration["architecture"]["network_class_name"].rpartition(".")[2]
    if network not in _NETWORKS:
        problems.append(f"its network is {network}; only {' and '.join(_NETWORKS)} can be inflated")
    if model.plans["transpose_forward"] != _TIME_FIRST:
        problems.append(
            f"its transpose_forward is {model.plans['transpose_forward']}, so it was trained on planes along other "
            f"axes than the frames of a sequence, which need {_TIME_FIRST}. Train it again with the plans of "
            "'nnunet_temporal plan_and_preprocess', configuration 2d"
        )
    return problems


def _channel_problems(model: StockModel, dataset: dict[str, Any]) -> list[str]:
    expected, found = model.channel_names, channel_names(dataset)
    if found == expected:
        return []
    return [
        f"its input channels are {expected}, the dataset's {found}. Where these are the same images under other "
        "names, rename the channels in dataset.json and plan again; nnU-Net chooses the normalisation by these names"
    ]


def _label_problems(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    if _classes(found) == _classes(expected):
        return []
    return [
        f"its labels are {expected['labels']} (regions_class_order {expected.get('regions_class_order')}), the "
        f"dataset's {found['labels']} ({found.get('regions_class_order')}). Names, values and, of regions, their order "
        "must be the same, because each head of the network keeps its class; 'ignore' may differ"
    ]


def _classes(dataset: dict[str, Any]) -> tuple[list[tuple[str, Any]], list[int] | None]:
    labels = [(name, value) for name, value in dataset["labels"].items() if name != "ignore"]
    order = dataset.get("regions_class_order")
    # Heads follow the values of labels, but the order in which regions are written down.
    return (labels if order else sorted(labels, key=str)), order


def _intensity_problems(model: StockModel, fingerprint: dict[str, Any]) -> list[str]:
    """Compare intensities where the normalisation keeps their unit: Hounsfield units shifted by 1024 look alike."""
    problems = []
    schemes = model.configuration["normalization_schemes"]
    if len(schemes) != len(model.channel_names):
        problems.append(f"its plans normalise {len(schemes)} channels, but it has {len(model.channel_names)}")
    for channel, scheme in enumerate(schemes):
        expected, found = (source[_INTENSITIES].get(str(channel)) for source in (model.plans, fingerprint))
        if scheme in _UNITLESS_SCHEMES or expected is None or found is None:
            continue
        low, high = expected["percentile_00_5"], expected["percentile_99_5"]
        if not low <= found["median"] <= high:
            problems.append(
                f"its foreground of channel {channel} ({scheme}) ranges from {low:g} to {high:g}, but the median of "
                f"the dataset's is {found['median']:g}; bring the images to the same unit"
            )
    return problems


def _spacing_problems(model: StockModel, planner: TemporalPlanner) -> list[str]:
    expected = np.array(model.configuration["spacing"], float)
    found = np.median(planner.dataset_fingerprint["spacings"], axis=0)[1:]
    unknown = [case for case, sequence in planner.manifest.items() if not sequence.pixel_spacing_known]
    zoom = np.maximum(expected / found, found / expected).max()
    if unknown and not np.isclose(zoom, 1):
        return [
            f"it works at a pixel spacing of {expected.tolist()}, but that of {len(unknown)} sequences of the dataset, "
            f"such as {unknown[0]}, is not known; they cannot be brought to its scale"
        ]
    if zoom > _LARGEST_ZOOM:
        return [
            f"it works at a pixel spacing of {expected.tolist()} (y, x), the dataset's median is {found.tolist()}: "
            f"more than {_LARGEST_ZOOM:g} times apart. Check the unit of the spacing in the files' headers"
        ]
    return []
