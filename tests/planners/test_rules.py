"""Each rule: its value for ordinary and for odd data, and the line that explains it."""

import itertools

import pytest

from nnunet_temporal.planners import rules
from nnunet_temporal.planners.rules import ClipPlan, Geometry, Span, Step

BEAT_OF_25 = Span(25.0, closes=True)


def measured(
    n_frames=25.0, cycle=None, gap=None, moved=None, labelled=2.0, labelled_share=0.08, longest=None, seen=1.0
) -> dict:
    """Return a fingerprint's entry ``temporal`` with these medians, as far as the rules read it."""
    return {
        "n_frames": {"median": n_frames, "max": longest or n_frames},
        "frames_per_cycle": {"median": 99.0, "share": seen},
        "labelled_movies": {
            "n_frames": n_frames,
            "frames_per_cycle": cycle,
            "labelled_frames": labelled,
            "labelled_frame_share": labelled_share,
            "gap_frames": gap,
            "displacement_mm": moved,
        },
    }


def plan_clip(data: dict, span: Span, cell_mm: float = 10.0, labelled_frames_2d: int = 24) -> ClipPlan:
    """Plan a clip beside a 2D step of 24 labelled frames."""
    return rules.plan_clip(data, span, cell_mm, labelled_frames_2d)


def test_a_clip_spans_the_beat_that_sequences_show():
    choice = rules.plan_span(measured(n_frames=300.0, cycle=42.54, gap=15.0, seen=0.8))
    assert choice.value == Span(42.54, closes=True)
    assert choice.reason == "Clips span a heart beat of 42.5 frames (80% of all sequences show one)."


def test_half_cycles_are_spanned_from_label_to_label():
    choice = rules.plan_span(measured(n_frames=20.0, gap=15.0))
    assert choice.value == Span(16.0, closes=False)
    assert choice.reason == (
        "Clips span the 16 frames from label to label: "
        "labelled sequences, 20 frames (median), show no whole heart beat."
    )


@pytest.mark.parametrize("gap", [None, 0.0])
def test_without_beat_and_labelled_pair_a_clip_spans_the_sequence(gap):
    assert rules.plan_span(measured(gap=gap)).value == Span(25.0, closes=False)


def test_a_clip_follows_the_wall_from_pixel_to_pixel_of_the_memory_and_back():
    data = measured(moved=15.0)
    clip = plan_clip(data, BEAT_OF_25, cell_mm=5.0)
    assert clip == ClipPlan(clip_length=6, decoded_frames=2, frame_stride=4)
    assert rules.explain_clip(data, BEAT_OF_25, clip, 5.0) == (
        "Clip 6 x stride 4 spans 0.96 of a 25-frame cycle; walls move 30.0 mm in it, 6.0 pixels of the memory. "
        "2 of its frames are segmented: 2 of 25 are labelled."
    )


def test_a_half_cycle_is_walked_one_way_from_its_first_to_its_last_frame():
    data, span = measured(moved=15.0), Span(16.0, closes=False)
    clip = plan_clip(data, span, cell_mm=3.0)
    assert clip == ClipPlan(clip_length=6, decoded_frames=2, frame_stride=3)
    assert rules.explain_clip(data, span, clip, 3.0).startswith("Clip 6 x stride 3 spans 1.00 of 16 frames; walls")


@pytest.mark.parametrize(("moved", "length"), [(None, 4), (0.1, 4), (1000.0, 12)])
def test_clips_have_bounds_whatever_moves(moved, length):
    assert plan_clip(measured(moved=moved), Span(24.0, closes=True)).clip_length == length


def test_unknown_motion_is_said_to_be_unknown():
    clip = plan_clip(measured(), BEAT_OF_25)
    assert "how far walls move is not measured" in rules.explain_clip(measured(), BEAT_OF_25, clip, 10.0)


def test_clips_cover_their_span_whatever_its_length():
    for frames, closes, moved in itertools.product(range(8, 130), (True, False), (0.0, 40.0, 1000.0)):
        span = Span(float(frames), closes)
        clip = plan_clip(measured(n_frames=500.0, moved=moved), span)
        covered = clip.clip_length * clip.frame_stride + (0 if closes else 1 - clip.frame_stride)
        assert 0.8 <= covered / frames <= 1.2, (span, clip)
        assert 3 <= clip.clip_length <= rules.LONGEST_CLIP


def test_one_labelled_frame_per_sequence_is_segmented_alone():
    clip = plan_clip(measured(labelled=1.0, labelled_share=0.04), BEAT_OF_25)
    assert (clip.clip_length, clip.decoded_frames) == (4, 1)


def test_densely_labelled_sequences_have_no_context():
    clip = plan_clip(measured(labelled=25.0, labelled_share=1.0, moved=15.0), BEAT_OF_25, cell_mm=5.0)
    assert (clip.clip_length, clip.decoded_frames) == (6, 6)


@pytest.mark.parametrize(("labelled_frames_2d", "decoded"), [(1, 1), (2, 1), (6, 3), (12, 6), (100, 6)])
def test_a_step_keeps_two_clips_however_densely_they_are_labelled(labelled_frames_2d, decoded):
    data = measured(labelled=25.0, labelled_share=1.0, moved=15.0)
    clip = plan_clip(data, BEAT_OF_25, 5.0, labelled_frames_2d)
    assert clip.decoded_frames == decoded
    if labelled_frames_2d > 1:
        assert rules.plan_clips_per_step(labelled_frames_2d, decoded) >= rules.FEWEST_CLIPS


@pytest.mark.parametrize("n_frames", [1, 2, 3])
def test_a_clip_is_no_longer_than_the_typical_sequence(n_frames):
    labelled = min(2.0, n_frames)
    data = measured(float(n_frames), gap=n_frames - 1.0 or None, labelled=labelled, labelled_share=labelled / n_frames)
    assert plan_clip(data, rules.plan_span(data).value) == ClipPlan(n_frames, int(labelled), 1)


def test_very_long_cycles_stretch_the_stride_but_not_the_clip():
    data = measured(n_frames=5000.0, moved=1000.0)
    assert plan_clip(data, Span(3000.0, closes=True)) == ClipPlan(12, 2, 250)


@pytest.mark.parametrize(("closes", "stride"), [(True, 6), (False, 8)])
def test_the_stride_closes_a_beat_and_ends_on_the_last_frame_of_anything_else(closes, stride):
    assert rules.clip_stride(Span(25.0, closes), 4) == stride


def test_the_planned_clip_holds_plain_integers_that_json_can_write():
    clip = plan_clip(measured(moved=15.0), BEAT_OF_25, cell_mm=5.0)
    assert {type(value) for value in vars(clip).values()} == {int}


def test_memory_is_saved_on_clips_first_then_on_context_then_on_labelled_frames():
    steps = rules.smaller_steps(Step(4, ClipPlan(5, 2, 5)), BEAT_OF_25)
    assert [(s.clips, s.clip.clip_length, s.clip.decoded_frames) for s in steps] == [
        (4, 5, 2), (3, 5, 2), (2, 5, 2), (2, 4, 2), (2, 3, 2), (2, 2, 2), (2, 1, 1)
    ]  # fmt: skip


def test_every_step_tried_is_smaller_than_the_one_before():
    for clips, length, decoded in itertools.product((1, 2, 7), (1, 2, 4, 12), (1, 2, 4)):
        wanted = Step(clips, ClipPlan(length, min(decoded, length), 3))
        steps = rules.smaller_steps(wanted, BEAT_OF_25)
        sizes = [s.clips * s.clip.clip_length for s in steps]
        assert steps[0] == wanted and steps[-1].clip.clip_length == 1
        assert sizes == sorted(set(sizes), reverse=True)


def planned_step(budget_gb: float):
    """Plan a step that needs 1 GB per frame, from 4 clips of 6 frames."""
    steps = rules.smaller_steps(Step(4, ClipPlan(6, 2, 4)), BEAT_OF_25)
    return rules.plan_step(steps, lambda step: step.clips * step.clip.clip_length * 2**30, budget_gb)


def test_a_step_that_fits_stays_as_it_is():
    choice = planned_step(24)
    assert choice.value == Step(4, ClipPlan(6, 2, 4))
    assert choice.reason == "A step of 4 clips x 6 frames needs 24 GB of 24."


def test_the_first_step_that_fits_is_taken():
    choice = planned_step(11)
    assert choice.value == Step(2, ClipPlan(5, 2, 5))
    assert choice.reason == "A step of 2 clips x 5 frames needs 10 GB of 11; 4 clips x 6 frames would need 24."


def test_the_smallest_step_is_taken_and_said_to_be_too_large_when_none_fits():
    choice = planned_step(1)
    assert choice.value == Step(2, ClipPlan(1, 1, 25))
    assert "needs 2 GB of 1, and no step is smaller" in choice.reason


def test_a_step_sees_as_many_labelled_frames_as_a_step_in_2d():
    assert rules.plan_clips_per_step(12, 2) == 6
    assert rules.explain_clips(Step(6, ClipPlan(4, 2, 5)), 12) == "6 clips per step, 12 labelled frames; 2d: 12."


@pytest.mark.parametrize("labelled_frames_2d", range(2, 40))
@pytest.mark.parametrize("decoded_frames", [1, 2])
def test_an_odd_2d_batch_is_missed_by_half_a_clip_at_most(labelled_frames_2d, decoded_frames):
    seen = rules.plan_clips_per_step(labelled_frames_2d, decoded_frames) * decoded_frames
    assert abs(seen - labelled_frames_2d) <= decoded_frames / 2


def test_a_step_has_at_least_one_clip():
    assert rules.plan_clips_per_step(0, 2) == 1


def test_the_prediction_window_is_the_longest_sequence():
    choice = rules.plan_prediction_window(measured(n_frames=12.0, longest=30.0))
    assert choice.value == 30
    assert choice.reason == "Prediction window of 30 frames: the longest sequence has 30."


def test_the_prediction_window_of_very_long_sequences_is_bounded():
    choice = rules.plan_prediction_window(measured(n_frames=5000.0))
    assert choice.value == rules.LONGEST_WINDOW == 128
    assert (
        choice.reason
        == "Prediction window of 128 frames: the longest sequence has 5000, and is cut into windows that overlap."
    )


def test_cine_is_rotated_as_nnunet_does_in_2d_but_not_mirrored():
    choice = rules.plan_geometry(["cineMRI"], (256, 224))
    assert choice.value == Geometry(None, 180.0)
    assert choice.reason == "Not mirrored, because hearts have a handedness; rotated by up to 180 degrees."


@pytest.mark.parametrize("patch_size", [(320, 192), (192, 320)])
def test_elongated_patches_are_rotated_a_little_only(patch_size):
    assert rules.plan_geometry(["cineMRI"], patch_size).value == Geometry(None, 15.0)


def test_a_patch_of_three_to_two_is_not_elongated():
    assert rules.plan_geometry(["MRI"], (96, 64)).value.rotation_degrees == 180.0


@pytest.mark.parametrize(
    "name",
    ["US", "ultrasound", "Echo", "echocardiography", "B-mode", "2CH echo", "A4C_US", "us_1", "Ultrasound_B", "TTE"],
)
def test_ultrasound_is_mirrored_left_to_right_only(name):
    choice = rules.plan_geometry([name], (256, 256))
    assert choice.value == Geometry((2,), 15.0)
    assert choice.reason == "Ultrasound: mirrored left to right only, rotated by up to 15 degrees."


@pytest.mark.parametrize(
    "name",
    ["bus", "plus contrast", "focus", "cineMRI", "gradient echo", "spin-echo", "multi-echo T2", "echo1", "EchoPlanar"],
)
def test_letters_within_a_word_do_not_make_it_ultrasound(name):
    assert rules.plan_geometry([name], (256, 256)).value.mirror_axes is None


def test_one_ultrasound_channel_is_enough():
    assert rules.plan_geometry(["MRI", "us"], (256, 256)).value.mirror_axes == (2,)


def test_dice_is_explained_as_the_2d_plan_has_it():
    assert "all frames of a step" in rules.explain_batch_dice(True)
    assert "each clip" in rules.explain_batch_dice(False)
