"""How many unlabelled frames a semi-supervised step gets, and what goes when they do not fit."""

import pytest

from nnunet_temporal.planners.rules import ClipPlan, Step
from nnunet_temporal.planners.unlabelled_rules import UnlabelledClips, fit_unlabelled_clips, plan_unlabelled_clips


def plan(clips=6, decoded=2, n_frames=25.0) -> UnlabelledClips:
    return plan_unlabelled_clips({"n_frames": {"median": n_frames}}, Step(clips, ClipPlan(decoded + 2, decoded, 5)))


def test_a_step_decodes_as_many_unlabelled_frames_as_labelled_ones():
    assert plan() == UnlabelledClips(3, 4)
    assert plan(clips=42) == UnlabelledClips(21, 4)


@pytest.mark.parametrize("clips", range(1, 20))
@pytest.mark.parametrize("decoded", [1, 2, 5])
@pytest.mark.parametrize("n_frames", [1.0, 2.5, 3.0, 30.0])
def test_the_unlabelled_part_is_about_as_large_as_the_labelled_one_but_has_clips_to_mix(clips, decoded, n_frames):
    planned = plan(clips, decoded, n_frames)
    labelled, unlabelled = clips * decoded, planned.unlabelled_clips * planned.window_frames
    assert planned.unlabelled_clips >= 2 and planned.window_frames == min(4, int(n_frames))
    assert labelled / 2 < unlabelled
    assert unlabelled <= labelled or planned.unlabelled_clips == 2


def fit(budget_gb, wanted=UnlabelledClips(3, 4)):  # noqa: B008 - frozen
    """Fit into a budget where a decoded frame takes 1 GB."""
    return fit_unlabelled_clips(
        wanted, 12, lambda clips: clips.unlabelled_clips * clips.window_frames * 2**30, budget_gb
    )


@pytest.mark.parametrize(
    ("budget_gb", "expected"), [(12, (3, 4)), (11.9, (2, 4)), (4, (1, 4)), (3.5, (1, 3)), (1, (1, 1))]
)
def test_clips_go_before_frames_of_the_window(budget_gb, expected):
    assert fit(budget_gb).value == UnlabelledClips(*expected)


def test_the_reason_says_what_was_wanted_and_what_was_taken():
    assert fit(20).reason == (
        "Semi-supervised trainers add 3 clips x 4 consecutive unlabelled frames to 12 labelled ones; "
        "such a step needs 12 GB of 20."
    )
    assert fit(9).reason.endswith(
        "such a step needs 8 GB of 9; 3 clips x 4 consecutive unlabelled frames would need 12."
    )


def test_what_fits_nowhere_is_planned_as_small_as_possible_and_said():
    choice = fit(0.5)
    assert choice.value == UnlabelledClips(1, 1)
    assert choice.reason.endswith("such a step needs 1 GB of 0.5, and none is smaller.")


def test_a_single_choice_is_taken():
    assert fit(0.5, UnlabelledClips(1, 1)).value == UnlabelledClips(1, 1)
