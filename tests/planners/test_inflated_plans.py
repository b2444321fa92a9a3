"""Agreement between a 2D model and a dataset, and whose arrays are shared, without a model on disk."""

import json
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import pytest

from nnunet_temporal.errors import InputError
from nnunet_temporal.planners.inflated_plans import check_agreement, inflated_plans, write_plans
from nnunet_temporal.sequences import Manifest, Sequence
from nnunet_temporal.training.stock_model import StockModel

REGIONS = {"background": 0, "whole": [1, 2], "LV": 1, "ignore": 3}
INTENSITIES = {"0": {"median": 40.0, "percentile_00_5": -100.0, "percentile_99_5": 200.0}}
PLAN_2D = {
    "data_identifier": "nnUNetPlans_2d",
    "preprocessor_name": "DefaultPreprocessor",
    "patch_size": [64, 64],
    "spacing": [1.5, 1.5],
    "normalization_schemes": ["CTNormalization"],
    "use_mask_for_norm": [False],
    "resampling_fn_data": "resample_data_or_seg_to_shape",
    "resampling_fn_seg": "resample_data_or_seg_to_shape",
    "resampling_fn_data_kwargs": {"order": 3, "force_separate_z": None},
    "architecture": {"network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet"},
}
PLANS = {
    "dataset_name": "Dataset001_Heart",
    "plans_name": "nnUNetPlans",
    "transpose_forward": [0, 1, 2],
    "configurations": {"2d": PLAN_2D},
    "foreground_intensity_properties_per_channel": INTENSITIES,
}


@pytest.fixture
def model():
    """Make a 2D model of regions in CT."""
    dataset = {"channel_names": {"0": "CT"}, "labels": REGIONS, "regions_class_order": [2, 1]}
    return StockModel(Path("model"), deepcopy(PLANS), dataset, deepcopy(PLAN_2D))


@pytest.fixture
def planner():
    """Make what is asked of a planner, for a dataset in agreement with the model."""
    return SimpleNamespace(
        dataset_name="Dataset001_Heart",
        plans_identifier="Inflated",
        dataset_json={"channel_names": {"0": "CT"}, "labels": dict(REGIONS), "regions_class_order": [2, 1]},
        dataset_fingerprint={
            "spacings": [[10.0, 1.0, 1.0], [10.0, 2.0, 2.0], [1.0, 1.2, 1.4]],
            "foreground_intensity_properties_per_channel": deepcopy(INTENSITIES),
        },
        manifest=Manifest({"a": Sequence("a", "a", 8, (0,))}),
        generate_data_identifier=lambda configuration: f"Inflated_{configuration}",
        determine_reader_writer=lambda: SimpleNamespace(__name__="SimpleITKIO"),
        plan_sequences=lambda plan_2d: {**plan_2d, "temporal": {}},
    )


@pytest.fixture
def preprocessed(tmp_path):
    """Write the plans and arrays of the model's own dataset."""
    write_plans(PLANS, tmp_path / "nnUNetPlans.json")
    (tmp_path / "nnUNetPlans_2d").mkdir()
    (tmp_path / "nnUNetPlans_2d" / "a.pkl").touch()
    return tmp_path


def identifier(model, planner, preprocessed):
    """Plan, and return where 2d and 2dt have their arrays."""
    configurations = inflated_plans(model, planner, preprocessed)["configurations"]
    (name,) = {configuration["data_identifier"] for configuration in configurations.values()}
    return name


def test_a_dataset_in_agreement_passes(model, planner):
    check_agreement(model, planner)


def test_the_ignore_label_may_differ(model, planner):
    del planner.dataset_json["labels"]["ignore"]
    check_agreement(model, planner)


def test_labels_written_in_another_order_are_the_same(model, planner):
    for dataset in (model.dataset, planner.dataset_json):
        dataset.update(labels={"background": 0, "LV": 1, "MYO": 2}, regions_class_order=None)
    planner.dataset_json["labels"] = {"background": 0, "MYO": 2, "LV": 1}
    check_agreement(model, planner)


@pytest.mark.parametrize(
    "entries",
    [
        {"labels": {"background": 0, "LV": 1, "whole": [1, 2], "ignore": 3}},
        {"regions_class_order": [1, 2]},
        {"labels": {"background": 0, "whole": [1, 2], "ventricle": 1, "ignore": 3}},
    ],
)
def test_regions_in_another_order_are_refused(model, planner, entries):
    planner.dataset_json.update(entries)
    with pytest.raises(InputError, match="regions_class_order"):
        check_agreement(model, planner)


@pytest.mark.parametrize("median", [-984.0, 1064.0])
def test_intensities_in_another_unit_are_refused_where_the_unit_is_kept(model, planner, median):
    planner.dataset_fingerprint["foreground_intensity_properties_per_channel"]["0"]["median"] = median
    with pytest.raises(InputError, match=f"ranges from -100 to 200, but the median of the dataset's is {median:g}"):
        check_agreement(model, planner)
    model.configuration["normalization_schemes"] = ["ZScoreNormalization"]
    check_agreement(model, planner)


@pytest.mark.parametrize(("spacing", "agrees"), [(0.45, False), (0.55, True), (4.4, True), (4.6, False)])
def test_spacings_far_apart_are_refused(model, planner, spacing, agrees):
    planner.dataset_fingerprint["spacings"] = [[10.0, 1.5, spacing]]
    if agrees:
        check_agreement(model, planner)
    else:
        with pytest.raises(InputError, match="more than 3 times apart"):
            check_agreement(model, planner)


def test_a_placeholder_for_the_spacing_has_to_be_the_models_own(model, planner):
    planner.manifest = Manifest({"a": Sequence("a", "a", 8, (0,), pixel_spacing_known=False)})
    planner.dataset_fingerprint["spacings"] = [[10.0, 1.0, 1.0]]
    with pytest.raises(InputError, match="such as a, is not known"):
        check_agreement(model, planner)
    model.configuration["spacing"] = [1.0, 1.0]
    check_agreement(model, planner)


def test_a_network_of_another_kind_is_refused(model, planner):
    model.configuration["architecture"]["network_class_name"] = "my.package.SwinUNet"
    with pytest.raises(InputError, match="its network is SwinUNet"):
        check_agreement(model, planner)


def test_planning_changes_nothing_of_the_model(model, planner, preprocessed):
    plans = inflated_plans(model, planner, preprocessed)
    assert plans["configurations"]["2dt"]["resampling_fn_data_kwargs"]["force_separate_z"] is False
    assert (model.plans, model.configuration) == (PLANS, PLAN_2D)


def test_the_models_own_arrays_are_shared(model, planner, preprocessed):
    assert identifier(model, planner, preprocessed) == "nnUNetPlans_2d"


@pytest.mark.parametrize("key", ["spacing", "use_mask_for_norm", "normalization_schemes"])
def test_arrays_made_by_other_plans_of_the_same_name_are_not_shared(model, planner, preprocessed, key):
    plans = deepcopy(PLANS)
    plans["configurations"]["2d"][key] = "other"
    (preprocessed / "nnUNetPlans.json").write_text(json.dumps(plans))
    assert identifier(model, planner, preprocessed) == "Inflated_2d"


def test_arrays_normalised_by_other_intensities_are_not_shared(model, planner, preprocessed):
    plans = {**PLANS, "foreground_intensity_properties_per_channel": {}}
    (preprocessed / "nnUNetPlans.json").write_text(json.dumps(plans))
    assert identifier(model, planner, preprocessed) == "Inflated_2d"


def test_arrays_of_another_dataset_or_of_a_part_of_it_are_not_shared(model, planner, preprocessed):
    model.plans["dataset_name"] = "Dataset002_Other"
    assert identifier(model, planner, preprocessed) == "Inflated_2d"
    model.plans["dataset_name"] = planner.dataset_name
    (preprocessed / "nnUNetPlans_2d" / "a.pkl").unlink()
    assert identifier(model, planner, preprocessed) == "Inflated_2d"


def test_equal_plans_may_be_written_again_but_not_others(tmp_path):
    write_plans({"patch_size": (1, 2)}, tmp_path / "plans.json")
    write_plans({"patch_size": [1, 2]}, tmp_path / "plans.json")
    with pytest.raises(InputError, match="holds other plans"):
        write_plans({"patch_size": [1, 3]}, tmp_path / "plans.json")
