"""Each rule: its value for ordinary and for odd data, and the line that explains it."""

import pytest

from nnunet_temporal.planners import rules
from nnunet_temporal.planners.rules import ClipPlan, Geometry, MemorySize
from nnunet_temporal.sequences import Sequence

STRIDES_256 = [(1, 1), (2, 2), (2, 2), (2, 2), (2, 2), (2, 2), (2, 2)]


def sequences(*labelled_frames: tuple[int, ...], n_frames: int = 25) -> list[Sequence]:
    """Return one sequence per entry, with these labelled frames."""
    return [
        Sequence(f"case_{number}", f"case_{number}", n_frames, frames) for number, frames in enumerate(labelled_frames)
    ]


def test_end_diastole_and_end_systole_are_a_clip():
    choice = rules.plan_clip(sequences((0, 8), (0, 8), (0, 8)))
    assert choice.value == ClipPlan(clip_length=2, decoded_frames=2, frame_stride=8)
    assert choice.reason == (
        "Clips of 2 frames, 2 of them decoded, about 8 frames apart: sequences have 2 labelled of 25 frames (median), "
        "8 frames from first to last."
    )


def test_the_gap_of_the_typical_sequence_sets_the_stride():
    assert rules.plan_clip(sequences((0, 3), (0, 12), (0, 24))).value.frame_stride == 12


def test_more_labelled_frames_do_not_make_longer_clips():
    assert rules.plan_clip(sequences(tuple(range(25)))).value == ClipPlan(2, 2, 24)


def test_one_labelled_frame_per_sequence_is_decoded_with_one_context_frame():
    choice = rules.plan_clip(sequences((5,), (7,)))
    assert choice.value == ClipPlan(clip_length=2, decoded_frames=1, frame_stride=12)
    assert "1 of them decoded" in choice.reason
    assert "1 labelled of 25 frames" in choice.reason


def test_most_sequences_with_one_labelled_frame_outvote_few_with_two():
    assert rules.plan_clip(sequences((5,), (7,), (0, 9))).value.decoded_frames == 1


def test_one_frame_sequences_are_clips_of_one_frame():
    assert rules.plan_clip(sequences((0,), (0,), n_frames=1)).value == ClipPlan(1, 1, 1)


@pytest.mark.parametrize("n_frames", [2, 3])
def test_short_sequences_get_clips_of_two_frames(n_frames):
    assert rules.plan_clip(sequences((0, n_frames - 1), n_frames=n_frames)).value == ClipPlan(2, 2, n_frames - 1)


def test_neighbouring_labelled_frames_keep_a_stride_of_one():
    assert rules.plan_clip(sequences((3, 4))).value.frame_stride == 1


def test_very_long_sequences_stretch_the_stride_but_not_the_clip():
    assert rules.plan_clip(sequences((0, 3000), n_frames=5000)).value == ClipPlan(2, 2, 3000)


def test_the_planned_clip_holds_plain_integers_that_json_can_write():
    clip = rules.plan_clip(sequences((0, 9), (1, 10))).value
    assert {type(value) for value in vars(clip).values()} == {int}


def test_a_step_sees_as_many_labelled_frames_as_a_step_in_2d():
    choice = rules.plan_clips_per_step(12, 2)
    assert choice.value == 6
    assert choice.reason == "6 clips per step, 12 labelled frames; 2d: 12."


@pytest.mark.parametrize("labelled_frames_2d", range(2, 40))
@pytest.mark.parametrize("decoded_frames", [1, 2])
def test_an_odd_2d_batch_is_missed_by_half_a_clip_at_most(labelled_frames_2d, decoded_frames):
    seen = rules.plan_clips_per_step(labelled_frames_2d, decoded_frames).value * decoded_frames
    assert abs(seen - labelled_frames_2d) <= decoded_frames / 2


def test_a_step_has_at_least_one_clip():
    assert rules.plan_clips_per_step(0, 2).value == 1


def test_the_prediction_window_is_the_longest_sequence():
    choice = rules.plan_prediction_window([*sequences((), n_frames=12), *sequences((0,), n_frames=30)])
    assert choice.value == 30
    assert choice.reason == "Prediction window of 30 frames: the longest sequence has 30."


def test_the_prediction_window_of_very_long_sequences_is_bounded():
    choice = rules.plan_prediction_window(sequences((0,), n_frames=5000))
    assert choice.value == rules.LONGEST_WINDOW == 128
    assert choice.reason == "Prediction window of 128 frames: the longest sequence has 5000."


def test_the_memory_sits_at_the_deepest_stage_with_eight_pixels():
    choice = rules.plan_memory_stages((256, 256), STRIDES_256)
    assert choice.value == (5,)
    assert choice.reason == "Memory at encoder stage 5 (feature map 8x8)."


def test_the_short_side_of_an_elongated_patch_decides_about_the_memory():
    strides = [(1, 1), (2, 2), (2, 2), (2, 2), (2, 1)]
    assert rules.plan_memory_stages((256, 64), strides).value == (4,)
    assert rules.plan_memory_stages((256, 32), strides).value == (2,)


def test_full_resolution_never_gets_a_memory():
    assert rules.plan_memory_stages((16, 16), [(1, 1), (2, 2), (2, 2)]).value == (1,)


def test_a_tiny_patch_gets_its_memory_at_the_bottleneck():
    choice = rules.plan_memory_stages((8, 8), [(1, 1), (2, 2)])
    assert choice.value == (1,)
    assert choice.reason == "Memory at encoder stage 1 (feature map 4x4)."


@pytest.mark.parametrize(("narrowest", "size"), [(16, 16), (128, 16), (256, 32), (512, 64), (1024, 64)])
def test_memory_keys_follow_the_narrowest_features_within_bounds(narrowest, size):
    choice = rules.plan_memory_size([2048, narrowest])
    assert choice.value == MemorySize(heads=4, key_size=size, value_size=size)
    assert choice.reason == f"4 memory heads with keys and values of {size} channels."


def test_the_size_of_a_memory_is_a_plain_integer():
    assert type(rules.plan_memory_size([100]).value.key_size) is int


def test_cine_is_rotated_as_nnunet_does_in_2d_but_not_mirrored():
    choice = rules.plan_geometry(["cineMRI"], (256, 224))
    assert choice.value == Geometry(None, 180.0)
    assert choice.reason == "Not mirrored, because hearts have a handedness; rotated by up to 180 degrees."


@pytest.mark.parametrize("patch_size", [(320, 192), (192, 320)])
def test_elongated_patches_are_rotated_a_little_only(patch_size):
    assert rules.plan_geometry(["cineMRI"], patch_size).value == Geometry(None, 15.0)


def test_a_patch_of_three_to_two_is_not_elongated():
    assert rules.plan_geometry(["MRI"], (96, 64)).value.rotation_degrees == 180.0


@pytest.mark.parametrize("name", ["US", "ultrasound", "Echo", "echocardiography", "B-mode ultrasound", "2CH echo"])
def test_ultrasound_is_mirrored_left_to_right_only(name):
    choice = rules.plan_geometry([name], (256, 256))
    assert choice.value == Geometry((2,), 15.0)
    assert choice.reason == "Ultrasound: mirrored left to right only, rotated by up to 15 degrees."


@pytest.mark.parametrize("name", ["bus", "plus contrast", "focus", "cineMRI"])
def test_letters_within_a_word_do_not_make_it_ultrasound(name):
    assert rules.plan_geometry([name], (256, 256)).value.mirror_axes is None


def test_one_ultrasound_channel_is_enough():
    assert rules.plan_geometry(["MRI", "us"], (256, 256)).value.mirror_axes == (2,)
