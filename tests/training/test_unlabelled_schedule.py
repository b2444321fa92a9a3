"""When unlabelled frames count: short and long trainings go through the same stages."""

import itertools

import pytest

from nnunet_temporal.training.unlabelled_schedule import UnlabelledSchedule

LENGTHS = [1, 2, 5, 12, 20, 250, 1000]


@pytest.fixture(params=LENGTHS)
def schedule(request):
    return UnlabelledSchedule(request.param)


def rounds_of(schedule):
    return [epoch for epoch in range(schedule.epochs) if schedule.starts_round(epoch)]


def active_epochs(schedule):
    return [epoch for epoch in range(schedule.epochs) if schedule.is_active(epoch)]


def test_unlabelled_frames_have_a_part_from_one_epoch_on_in_every_training(schedule):
    assert active_epochs(schedule) == list(range(schedule.first_epoch, schedule.epochs)) != []


def test_the_weight_is_zero_before_and_then_rises_from_above_zero_to_one_by_the_planned_epoch(schedule):
    weights = [schedule.weight(epoch) for epoch in range(schedule.epochs)]
    before, after = weights[: schedule.first_epoch], weights[schedule.first_epoch :]
    assert set(before) <= {0.0}
    assert all(0 < weight <= 1 for weight in after)
    assert after == sorted(after) and after[-1] == 1
    assert weights[max(schedule.first_epoch, int(0.3 * schedule.epochs) - 1)] == 1


def test_a_long_training_ramps_up_evenly():
    schedule = UnlabelledSchedule(1000)
    assert [schedule.weight(epoch) for epoch in (99, 100, 199, 299, 300)] == [0, 0.005, 0.5, 1, 1]


def test_the_first_round_opens_the_unlabelled_part_and_the_others_follow_at_equal_distances(schedule):
    rounds = rounds_of(schedule)
    assert rounds[0] == schedule.first_epoch
    assert len({later - earlier for earlier, later in itertools.pairwise(rounds)}) <= 1
    assert 1 <= len(rounds) <= schedule.rounds


@pytest.mark.parametrize(("epochs", "rounds"), [(1, 1), (5, 5), (12, 6), (20, 9), (1000, 10)])
def test_a_training_has_as_many_rounds_as_fit(epochs, rounds):
    assert len(rounds_of(UnlabelledSchedule(epochs))) == rounds


def test_the_threshold_falls_with_the_rounds_and_only_with_them(schedule):
    first, last = schedule.confidence
    found = [schedule.confidence_threshold(epoch) for epoch in active_epochs(schedule)]
    assert found[0] == first
    assert all(last - 1e-9 <= threshold <= first for threshold in found)
    falls = [schedule.first_epoch + n for n in range(1, len(found)) if found[n] < found[n - 1]]
    assert falls == rounds_of(schedule)[1:]
    assert found == sorted(found, reverse=True)


def test_an_interrupted_round_goes_on_with_its_threshold():
    schedule = UnlabelledSchedule(1000)
    assert schedule.confidence_threshold(189) == schedule.confidence_threshold(100)
    assert schedule.confidence_threshold(190) < schedule.confidence_threshold(189)


def test_the_last_round_comes_near_the_last_threshold():
    assert UnlabelledSchedule(1000).confidence_threshold(999) == pytest.approx(0.80, abs=0.02)
