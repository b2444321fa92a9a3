"""The planner on the phantom: what 2dt shares with 2d, what it adds, and what it writes."""

import contextlib
import io
import json
import os

import nibabel
import numpy as np
import pytest
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from phantom_dataset import HELD_OUT
from torch.utils.flop_counter import FlopCounterMode

from nnunet_temporal.errors import InputError
from nnunet_temporal.planners.temporal_planner import (
    LightTemporalPlanner,
    ResEncLTemporalPlanner,
    ResEncMTemporalPlanner,
    ResEncXLTemporalPlanner,
    TemporalPlanner,
)
from nnunet_temporal.plans import TemporalConfig
from nnunet_temporal.sequences import MANIFEST_NAME, Manifest
from nnunet_temporal.trainers.gdkvm import nnUNetTrainerGDKVM

RESAMPLING = ("resampling_fn_data_kwargs", "resampling_fn_seg_kwargs", "resampling_fn_probabilities_kwargs")
SHARED = ("data_identifier", "spacing", "preprocessor_name", "normalization_schemes", "use_mask_for_norm", *RESAMPLING)


@pytest.fixture(autouse=True)
def one_planning_thread(monkeypatch):
    """nnU-Net's planning takes this for a number of threads, which must not be 0."""
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")


def plan(planner_class=LightTemporalPlanner, *, dataset_per_step=0.05, **arguments):
    """Plan the phantom, of which a step may cover so much; return the planner, whose ``plans`` are the result."""
    with contextlib.redirect_stdout(io.StringIO()):
        planner = planner_class(777, **arguments)
        planner.max_dataset_covered = dataset_per_step
        planner.plan_experiment()
    return planner


def set_fingerprint(phantom, **entries):
    """Replace entries of the fingerprint by the same value for all cases."""
    path = phantom.preprocessed / "dataset_fingerprint.json"
    fingerprint = json.loads(path.read_text())
    for name, value in entries.items():
        fingerprint[name] = [value] * len(fingerprint[name])
    path.write_text(json.dumps(fingerprint))


def test_planning_twice_gives_the_same_plans_byte_by_byte(phantom):
    path = phantom.preprocessed / "nnUNetTemporalLightPlans.json"
    path.unlink()
    first = plan()
    written = path.read_bytes()
    path.unlink()
    plan()
    assert path.read_bytes() == written
    assert json.loads(written)["configurations"]["2dt"] == json.loads(json.dumps(first.plans["configurations"]["2dt"]))


@pytest.mark.parametrize("key", SHARED)
def test_2dt_shares_the_preprocessed_data_of_2d(planned_phantom, key):
    configurations = planned_phantom.plans()["configurations"]
    assert configurations["2dt"][key] == configurations["2d"][key]


def test_2dt_has_two_spacings_and_three_patch_axes(planned_phantom):
    configuration = planned_phantom.plans()["configurations"]["2dt"]
    assert len(configuration["spacing"]) == 2
    # The longest training sequence has 8 frames.
    assert configuration["patch_size"] == [8, *planned_phantom.plans()["configurations"]["2d"]["patch_size"]]


@pytest.mark.parametrize("configuration", ["2dt", "2d", "3d_fullres"])
@pytest.mark.parametrize("key", RESAMPLING)
def test_no_axis_is_ever_resampled_separately(planned_phantom, configuration, key):
    assert planned_phantom.plans()["configurations"][configuration][key]["force_separate_z"] is False


def test_kernels_and_strides_of_2dt_do_not_reach_along_time(planned_phantom):
    manager = PlansManager(planned_phantom.plans()).get_configuration("2dt")
    arguments = manager.network_arch_init_kwargs
    assert {entry[0] for name in ("kernel_sizes", "strides") for entry in arguments[name]} == {1}


def test_the_plans_hold_the_baselines_too(planned_phantom):
    assert set(planned_phantom.plans()["configurations"]) == {"2d", "2dt", "3d_fullres"}


def test_time_stays_first_when_it_is_the_finest_axis(phantom):
    for path in [*(phantom.raw / "imagesTr").iterdir(), *(phantom.raw / "labelsTr").iterdir()]:
        image = nibabel.load(path)
        pixels = np.asanyarray(image.dataobj)
        nibabel.save(nibabel.Nifti1Image(pixels, np.diag([1.25, 1.25, 1.0, 1.0])), path)
    set_fingerprint(phantom, spacings=[1.0, 1.25, 1.25])
    plans = plan(plans_name="FineTime").plans
    assert plans["transpose_forward"] == plans["transpose_backward"] == [0, 1, 2]
    assert list(plans["configurations"]["2dt"]["spacing"]) == [1.25, 1.25]
    assert plans["configurations"]["2dt"]["patch_size"][0] == 8


@pytest.mark.parametrize("planner", [TemporalPlanner, LightTemporalPlanner])
def test_a_step_decodes_the_labelled_frames_of_a_2d_step(phantom, planner):
    configurations = plan(planner, dataset_per_step=2).plans["configurations"]
    decoded = configurations["2dt"]["temporal"]["decoded_frames"]
    assert configurations["2d"]["batch_size"] >= 12
    assert abs(configurations["2dt"]["batch_size"] * decoded - configurations["2d"]["batch_size"]) <= decoded / 2


def test_the_light_preset_bounds_the_labelled_frames_of_both_trainers(phantom):
    configurations = plan(dataset_per_step=1e9).plans["configurations"]
    assert configurations["2d"]["batch_size"] == 12
    assert configurations["2dt"]["batch_size"] == 6


def test_less_memory_never_gives_a_larger_step(phantom):
    set_fingerprint(phantom, shapes_after_crop=[20, 256, 256])
    large, small = (
        plan(TemporalPlanner, dataset_per_step=1e9, gpu_memory_target_in_gb=memory).plans["configurations"]
        for memory in (8, 2)
    )
    for configuration in ("2d", "2dt"):
        sizes = [p[configuration]["batch_size"] * np.prod(p[configuration]["patch_size"]) for p in (small, large)]
        assert sizes[0] < sizes[1]


def test_the_light_network_needs_at_most_8_gflop_per_256x256_frame_of_live_video(phantom):
    set_fingerprint(phantom, shapes_after_crop=[20, 256, 256], spacings=[10.0, 1.25, 1.25])
    manager = PlansManager(json.loads(json.dumps(plan().plans)))
    configuration = manager.get_configuration("2dt")
    assert configuration.patch_size[1:] == [256, 256]
    network = nnUNetTrainerGDKVM.build_network_architecture(manager, configuration, 1, 3, False).eval()
    frames = 2
    # Counts convolutions and matrix products, of the temporal modules too; a multiply-add is two operations.
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.forward_chunk(torch.ones(1, 1, frames, 256, 256))
    assert 1e9 < counter.get_total_flops() / frames <= 8e9


@pytest.mark.parametrize(
    ("planner", "name"),
    [(TemporalPlanner, "nnUNetTemporalPlans"), (LightTemporalPlanner, "nnUNetTemporalLightPlans")],
)
def test_each_planner_has_its_own_plans_name(phantom, planner, name):
    assert planner(777).plans_identifier == name


def test_the_user_may_name_the_plans(phantom):
    planner = plan(plans_name="MyPlans")
    plans = json.loads((phantom.preprocessed / "MyPlans.json").read_text())
    assert plans["plans_name"] == planner.plans_identifier == "MyPlans"
    assert plans["configurations"]["2dt"]["data_identifier"] == "MyPlans_2d"


def test_the_manifest_is_copied_beside_the_plans_without_held_out_studies(planned_phantom):
    copied = Manifest.load(planned_phantom.preprocessed)
    raw = Manifest.load(planned_phantom.raw)
    assert HELD_OUT in {sequence.study for sequence in raw.values()}
    assert HELD_OUT not in {sequence.study for sequence in copied.values()}
    assert all(copied[case] == raw[case] for case in copied)
    assert len(copied) == 8


def test_a_dataset_without_a_manifest_gets_one_derived_from_its_labels(phantom):
    given = Manifest.load(phantom.preprocessed)
    os.remove(phantom.raw / MANIFEST_NAME)
    os.remove(phantom.preprocessed / MANIFEST_NAME)
    plan()
    derived = Manifest.load(phantom.preprocessed)
    assert {case: s.labelled_frames for case, s in derived.items()} == {
        case: s.labelled_frames for case, s in given.items()
    }
    assert {s.study for s in derived.values()} == {s.study for s in given.values()}


def test_a_training_case_without_a_manifest_entry_is_named(phantom):
    manifest = Manifest.load(phantom.raw)
    manifest.subset(case for case in manifest if case != "study_a_z01").write(phantom.raw / MANIFEST_NAME)
    with pytest.raises(InputError, match="study_a_z01"):
        TemporalPlanner(777)


@pytest.mark.parametrize("planner", [ResEncMTemporalPlanner, ResEncLTemporalPlanner, ResEncXLTemporalPlanner])
def test_residual_presets_plan_a_residual_encoder_with_a_memory(phantom, planner):
    planned = plan(planner)
    assert planned.UNet_vram_target_GB == planner.default_memory_gb
    plans = json.loads((phantom.preprocessed / f"{planner.default_plans_name}.json").read_text())
    assert plans["configurations"]["2dt"]["data_identifier"] == f"{planner.default_plans_name}_2d"
    manager = PlansManager(plans)
    network = nnUNetTrainerGDKVM.build_network_architecture(manager, manager.get_configuration("2dt"), 1, 3, False)
    assert type(network.encoder).__name__ == "ResidualEncoder"
    height, width = manager.get_configuration("2dt").patch_size[1:]
    with torch.no_grad():
        assert network(torch.ones(1, 1, 2, height, width)).shape == (1, 3, 2, height, width)


def test_reasons_tell_of_the_step_that_fits_not_of_the_one_that_was_wanted(phantom, monkeypatch):
    sizes = {}

    def bytes_needed(self, configuration):
        sizes[configuration["batch_size"], configuration["temporal"]["clip_length"]] = True
        return configuration["batch_size"] * configuration["temporal"]["clip_length"] * 2**30

    monkeypatch.setattr(TemporalPlanner, "_training_bytes", bytes_needed)
    planner = plan(dataset_per_step=2, gpu_memory_target_in_gb=6)
    planned = planner.plans["configurations"]["2dt"]
    temporal, reasons = planned["temporal"], " ".join(planner.explanations)
    assert len(sizes) > 1 and planned["batch_size"] * temporal["clip_length"] <= 6
    assert f"Clip {temporal['clip_length']} x stride {temporal['frame_stride']} spans" in reasons
    assert f"{planned['batch_size']} clips per step, " in reasons
    assert f"{temporal['decoded_frames']} of its frames are segmented" in reasons
    assert f"A step of {planned['batch_size']} clips x {temporal['clip_length']} frames needs" in reasons
    assert f"Neighbourhoods of {temporal['neighbourhood'][0]} frames" in reasons
    assert temporal["reasons"] == planner.explanations


def test_a_semi_supervised_step_decodes_about_as_many_unlabelled_frames_as_labelled_ones(phantom):
    planner = plan(dataset_per_step=1e9)
    planned = planner.plans["configurations"]["2dt"]
    temporal = planned["temporal"]
    labelled = planned["batch_size"] * temporal["decoded_frames"]
    unlabelled = temporal["unlabelled_clips"] * temporal["window_frames"]
    assert temporal["window_frames"] == 4
    assert labelled - 4 < unlabelled <= labelled
    reason = f"add {temporal['unlabelled_clips']} clips x 4 consecutive unlabelled frames to {labelled} labelled ones"
    assert reason in " ".join(planner.explanations)


def test_unlabelled_clips_give_way_to_memory_and_labelled_ones_do_not(phantom, monkeypatch):
    wanted = plan(dataset_per_step=1e9).plans["configurations"]["2dt"]
    monkeypatch.setattr(
        TemporalPlanner,
        "_semi_supervised_bytes",
        lambda self, plan: plan["temporal"]["unlabelled_clips"] * plan["temporal"]["window_frames"] * 2**30,
    )
    planned = plan(dataset_per_step=1e9).plans["configurations"]["2dt"]
    assert wanted["temporal"]["unlabelled_clips"] == 3 and planned["temporal"]["unlabelled_clips"] == 2
    assert planned["batch_size"] == wanted["batch_size"]


def test_half_written_plans_are_named(phantom):
    (phantom.preprocessed / "nnUNetTemporalLightPlans.json").write_text('{"configurations": {')
    with pytest.raises(InputError, match=r"nnUNetTemporalLightPlans.json: expected JSON, .* Remove it and plan again"):
        plan()


def test_a_fingerprint_without_time_is_refused(phantom):
    path = phantom.preprocessed / "dataset_fingerprint.json"
    fingerprint = json.loads(path.read_text())
    del fingerprint["temporal"]
    path.write_text(json.dumps(fingerprint))
    with pytest.raises(InputError, match="holds nothing about time"):
        TemporalPlanner(777)


def test_the_users_own_configurations_survive_planning_again(phantom):
    path = phantom.preprocessed / "nnUNetTemporalLightPlans.json"
    plans = phantom.plans()
    plans["configurations"]["2dt_small"] = {"inherits_from": "2dt", "batch_size": 1}
    plans["configurations"]["2dt"]["batch_size"] = 99
    path.write_text(json.dumps(plans))
    plan()
    assert phantom.plans()["configurations"]["2dt_small"] == {"inherits_from": "2dt", "batch_size": 1}
    assert phantom.plans()["configurations"]["2dt"]["batch_size"] != 99


def test_a_configuration_that_inherits_from_2dt_is_temporal(phantom):
    plans = phantom.plans()
    plans["configurations"]["2dt_small"] = {"inherits_from": "2dt", "batch_size": 1}
    configuration = PlansManager(plans).get_configuration("2dt_small").configuration
    expected = TemporalConfig.from_configuration(plans["configurations"]["2dt"])
    assert TemporalConfig.from_configuration(configuration) == expected


def test_every_choice_about_time_is_explained_in_one_line(phantom):
    planner = plan()
    assert len(planner.explanations) == 12
    assert not any("\n" in line for line in planner.explanations)
    assert phantom.plans()["configurations"]["2dt"]["temporal"]["reasons"] == planner.explanations


def test_ultrasound_in_the_channel_names_reaches_the_plans(phantom):
    path = phantom.raw / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "channel_names": {"0": "echocardiography"}}))
    temporal = plan().plans["configurations"]["2dt"]["temporal"]
    assert (temporal["mirror_axes"], temporal["rotation_degrees"]) == ([2], 15.0)


def test_the_target_spacing_of_the_user_counts_in_plane(phantom):
    plans = plan(plans_name="Coarse", overwrite_target_spacing=[10.0, 2.5, 2.0]).plans
    assert list(plans["configurations"]["2dt"]["spacing"]) == [2.5, 2.0]
