"""Our keys in the plans: they survive JSON, and anything unexpected is named."""

import copy
import json

import pytest

from nnunet_temporal.errors import InputError
from nnunet_temporal.plans import TemporalConfig, check_configuration

VALID = {
    "clip_length": 6,
    "decoded_frames": 2,
    "frame_stride": 2,
    "memory_stages": (3, 4),
    "heads": 4,
    "key_size": 16,
    "value_size": 32,
    "matching_patch": 4,
    "matching_top_k": 4,
    "neighbourhood": (3, 5, 5),
    "unlabelled_clips": 2,
    "window_frames": 4,
    "mirror_axes": (1, 2),
    "rotation_degrees": 15.0,
    "seed": 12345,
}


def configuration(**changes):
    return TemporalConfig(**VALID).to_configuration({"batch_size": 4}) | changes


@pytest.mark.parametrize("mirror_axes", [(1, 2), (2,), None])
def test_a_config_survives_the_plans_file(mirror_axes):
    config = TemporalConfig(**{**VALID, "mirror_axes": mirror_axes})
    stored = json.loads(json.dumps(config.to_configuration({"batch_size": 4})))
    assert stored["batch_size"] == 4
    assert TemporalConfig.from_configuration(stored) == config


def test_reading_and_writing_change_no_argument():
    plain, stored = {"batch_size": 4}, configuration()
    before = copy.deepcopy(stored)
    TemporalConfig.from_configuration(stored)
    TemporalConfig(**VALID).to_configuration(plain)
    assert plain == {"batch_size": 4} and stored == before


COUNTS = ["clip_length", "decoded_frames", "frame_stride", "heads", "key_size", "value_size"]


@pytest.mark.parametrize("name", [*COUNTS, "unlabelled_clips", "window_frames"])
@pytest.mark.parametrize("value", [0, -1, 2.0, "2", None])
def test_counts_must_be_positive_integers(name, value):
    with pytest.raises(InputError, match=rf"temporal\.{name} must be a positive integer, got {value!r}"):
        TemporalConfig(**{**VALID, name: value})


def test_a_clip_cannot_decode_more_frames_than_it_has():
    with pytest.raises(InputError, match="decoded_frames must not exceed clip_length, got 7 > 6"):
        TemporalConfig(**{**VALID, "decoded_frames": 7})


def test_a_window_of_unlabelled_frames_has_at_most_four():
    with pytest.raises(InputError, match=r"temporal\.window_frames must be at most 4, got 5"):
        TemporalConfig(**{**VALID, "window_frames": 5})


def test_context_frames_are_those_that_are_not_decoded():
    assert TemporalConfig(**VALID).context_frames == 4


@pytest.mark.parametrize("axes", [(), (0,), (0, 1, 2), (3,)])
def test_mirroring_time_or_an_unknown_axis_or_an_empty_choice_is_refused(axes):
    with pytest.raises(InputError, match="mirror_axes must be null or hold axes 1"):
        TemporalConfig(**{**VALID, "mirror_axes": axes})


def test_a_configuration_without_time_says_how_to_get_one():
    with pytest.raises(InputError, match="nnunet_temporal plan_and_preprocess"):
        TemporalConfig.from_configuration({"batch_size": 4})


def test_missing_and_unknown_keys_are_named():
    entries = configuration()["temporal"]
    del entries["seed"]
    with pytest.raises(InputError, match=r"lacks \['seed'\] and has unknown keys \['colour'\]"):
        TemporalConfig.from_configuration({"temporal": {**entries, "colour": 1}})


@pytest.mark.parametrize("patch", [1, 3, 5])
def test_an_odd_matching_patch_is_refused(patch):
    with pytest.raises(InputError, match=f"matching_patch must be even, got {patch}"):
        TemporalConfig(**{**VALID, "matching_patch": patch})


@pytest.mark.parametrize("window", [(3, 5), (3, 4, 5), (0, 1, 1), (3.0, 3, 3)])
def test_a_neighbourhood_has_three_odd_extents(window):
    with pytest.raises(InputError, match="neighbourhood must be three odd extents"):
        TemporalConfig(**{**VALID, "neighbourhood": window})


def full_configuration(**changes) -> dict:
    """Return a whole configuration, with entries replaced; those of TemporalConfig among them."""
    temporal = {name: changes.pop(name) for name in list(changes) if name in VALID}
    strides = [[1, 1, 1], [1, 2, 2], [1, 2, 2], [1, 2, 2], [1, 2, 1]]
    plain = {
        "batch_size": 4,
        "patch_size": [25, 64, 32],
        "spacing": [1.25, 1.25],
        "architecture": {
            "arch_kwargs": {
                "strides": changes.pop("strides", strides),
                "kernel_sizes": changes.pop("kernel_sizes", [[1, 3, 3]] * 5),
                "features_per_stage": changes.pop("features_per_stage", [16] * 5),
            }
        },
    }
    stages = {"memory_stages": (2, 3), "matching_patch": 4}
    return TemporalConfig(**{**VALID, **stages, **temporal}).to_configuration({**plain, **changes})


def test_a_planned_configuration_is_accepted():
    check_configuration(full_configuration())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"memory_stages": (5,)}, r"memory_stages \[5\] go beyond the encoder's 5 stages"),
        ({"patch_size": [64, 32]}, r"has a patch_size \(T, Y, X\) of whole numbers and a spacing \(Y, X\)"),
        ({"spacing": [10.0, 1.25, 1.25]}, "time is never resampled"),
        ({"patch_size": [25, 65, 32]}, "patch_size 65 must be a multiple of 16"),
        ({"patch_size": [25, 64, 36]}, "patch_size 36 must be a multiple of 8"),
        ({"batch_size": 0}, "batch_size must be a number of clips, got 0"),
        ({"batch_size": 2.5}, "batch_size must be a number of clips, got 2.5"),
        ({"batch_size": None}, "batch_size must be a number of clips, got None"),
        ({"patch_size": None}, "has a patch_size"),
        ({"patch_size": [0, 64, 32]}, "has a patch_size"),
        ({"patch_size": [25, "64", 32]}, "has a patch_size"),
        ({"spacing": [1.25, -1]}, "a spacing"),
        ({"strides": None}, "strides must be one"),
        ({"strides": [[1, 1, 1], [2, 2, 2]]}, "strides must be one"),
        ({"strides": [[1, 1, 1], [1, 2.0, 2]]}, "strides must be one"),
        ({"kernel_sizes": [[3, 3, 3]] * 5}, "kernel_sizes must be one"),
        ({"kernel_sizes": [[1, 3, 3]] * 4}, "kernel_sizes must have an entry for each of 5 stages"),
        ({"features_per_stage": [16] * 6}, "features_per_stage must have an entry for each of 5 stages"),
        ({"architecture": {}}, "strides must be one"),
        ({"matching_patch": 6}, "matching_patch 6 does not tile a feature map of 8 pixels"),
        ({"matching_patch": 10}, "matching_patch 10 does not tile a feature map of 8 pixels"),
    ],
)
def test_a_configuration_edited_into_a_contradiction_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        check_configuration(full_configuration(**change))
