"""The memory of pseudo-labels: rounds judged as a whole, nothing frozen for ever, the same on every process."""

import math
import pickle

import numpy as np
import pytest
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_temporal.errors import InputError
from nnunet_temporal.training.pseudo_label_maps import integrate
from nnunet_temporal.training.pseudo_labels import FIRST_WEIGHT, PseudoLabels, label_map

T, Y, X = 4, 12, 10


def disc(shift=0, confidence=0.9):
    """Labels of a square that lies ``shift`` rows lower, and a constant confidence."""
    labels = np.zeros((T, Y, X), np.uint8)
    labels[:, 2 + shift : 6 + shift, 3:8] = 1
    return labels, np.full(labels.shape, confidence, np.float32)


def play(memory, predictions, labelled=()):
    """Play a round of {case: (labels, confidence)}."""
    opened = memory.start_round()
    for case, (labels, confidence) in predictions.items():
        opened.add(case, labels, confidence, labelled)
    return opened.close()


def started(cases="abcd"):
    memory = PseudoLabels()
    play(memory, {case: disc() for case in cases})
    return memory


def shifted(shifts, cases="abcd", confidence=0.9):
    return {case: disc(shift, confidence) for case, shift in zip(cases, shifts, strict=True)}


def contents(memory, cases="abcd"):
    """Everything, comparable by ``==``."""
    return pickle.dumps([memory.state_dict()["cases"][case]["labels"].tolist() for case in cases]) + pickle.dumps(
        [
            {name: getattr(value, "tolist", lambda value=value: value)() for name, value in entry.items()}
            for case, entry in sorted(memory.state_dict()["cases"].items())
        ]
    )


def test_the_first_round_stores_everything_with_the_weight_of_an_average_case():
    memory = PseudoLabels()
    assert memory.read("a") is None
    summary = play(memory, {"a": disc(0, 0.5), "b": disc(1)})
    assert summary.first == ("a", "b")
    assert math.isnan(summary.threshold)
    assert math.isnan(summary.accept_rate)
    labels, confidence, weight = memory.read("a")
    assert np.array_equal(labels, disc()[0])
    assert (confidence == 128).all()
    assert labels.dtype == confidence.dtype == np.uint8
    assert weight == FIRST_WEIGHT == math.exp(-1)


def test_the_threshold_is_the_mean_deviation_of_the_whole_round_not_of_its_last_cases():
    # Squares of four rows: one row of shift is a Dice of 3/4 and an IoU of 3/5.
    one, two, four = 1 - (3 / 4 + 3 / 5) / 2, 1 - (1 / 2 + 1 / 3) / 2, 1
    summary = play(started(), shifted([4, 1, 0, 2]))
    assert summary.threshold == pytest.approx((four + one + 0 + two) / 4)
    assert summary.accepted == ("b", "c")
    assert summary.refused == ("a", "d")
    assert summary.accept_rate == 0.5


def test_nothing_changes_before_a_round_is_closed():
    memory = started()
    before = contents(memory)
    opened = memory.start_round()
    for case, prediction in shifted([0, 1, 2, 3]).items():
        opened.add(case, *prediction, ())
    assert contents(memory) == before


def test_accepted_predictions_are_integrated_and_refused_ones_are_not():
    memory = started()
    predictions = shifted([0, 1, 4, 4], confidence=0.7)
    summary = play(memory, predictions)
    assert summary.refused == ("c", "d")
    levels = (np.full((T, Y, X), round(255 * confidence), np.uint8) for confidence in (0.9, 0.7))
    expected = integrate(disc()[0], next(levels), predictions["b"][0], next(levels))
    for array, wanted in zip(memory.read("b")[:2], expected, strict=True):
        assert np.array_equal(array, wanted)
    assert np.array_equal(memory.read("c")[0], disc()[0])
    assert (memory.read("c")[1] == round(255 * 0.9)).all()


def test_weights_fall_with_the_deviation_in_units_of_the_threshold():
    memory = started()
    summary = play(memory, shifted([0, 1, 2, 4]))
    weights = [memory.read(case)[2] for case in "abcd"]
    assert weights[0] == 1
    assert weights == sorted(weights, reverse=True)
    assert weights[3] == pytest.approx(math.exp(-1 / summary.threshold), rel=1e-4)
    assert all((weights["abcd".index(case)] >= FIRST_WEIGHT) == (case in summary.accepted) for case in "abcd")


@pytest.mark.parametrize("seed", range(5))
def test_cases_that_vary_are_neither_all_accepted_nor_all_refused(seed):
    random = np.random.default_rng(seed)
    cases = [f"case{number}" for number in range(7)]
    memory = started(cases)
    for _ in range(3):
        summary = play(memory, shifted([0, *random.integers(1, 5, size=6)], cases))
        assert 0 < summary.accept_rate < 1


@pytest.mark.parametrize("number", [1, 3, 6, 7, 49])
def test_cases_that_deviate_alike_are_all_accepted(number):
    # The mean of equal floats, summed naively, may be smaller than each of them.
    cases = [f"case{index:02}" for index in range(number)]
    memory = started(cases)
    assert play(memory, shifted([1] * number, cases)).accept_rate == 1
    assert play(memory, shifted([1] * number, cases)).accept_rate == 1


def test_a_round_without_any_change_accepts_all_with_full_weight():
    memory = started()
    summary = play(memory, shifted([0, 0, 0, 0]))
    assert summary.threshold == 0
    assert summary.accept_rate == 1
    assert [memory.read(case)[2] for case in "abcd"] == [1] * 4


def test_a_bad_pseudo_label_gives_way_after_three_refusals_if_confidence_rose():
    memory = started()
    better = {**shifted([0, 0, 0, 0]), "d": disc(4, 0.95)}
    verdicts = [play(memory, better) for _ in range(4)]
    assert [summary.refused for summary in verdicts] == [("d",), ("d",), (), ()]
    assert [summary.replaced for summary in verdicts] == [(), (), ("d",), ()]
    assert verdicts[2].accept_rate == 0.75
    assert np.array_equal(memory.read("d")[0], disc(4)[0])
    assert verdicts[3].accept_rate == 1


def test_what_replaces_a_pseudo_label_counts_like_a_first_prediction():
    memory = started()
    better = {**shifted([0, 0, 0, 0]), "d": disc(4, 0.95)}
    for _ in range(2):
        play(memory, better)
    assert memory.read("d")[2] < 0.1  # it has deviated by the fourfold threshold
    play(memory, better)
    assert memory.read("d")[2] == FIRST_WEIGHT


def test_a_pseudo_label_stays_while_its_challengers_are_less_sure():
    memory = started()
    for _ in range(5):
        assert play(memory, {**shifted([0, 0, 0, 0]), "d": disc(4, 0.9)}).refused == ("d",)
    assert play(memory, {**shifted([0, 0, 0, 0]), "d": disc(4, 0.95)}).replaced == ("d",)


def test_an_accepted_prediction_ends_a_row_of_refusals():
    memory = started()
    sure = {**shifted([0, 0, 0, 0]), "d": disc(4, 0.95)}
    for _ in range(2):
        play(memory, sure)
    assert play(memory, shifted([0, 0, 0, 0])).accept_rate == 1
    for _ in range(2):
        assert play(memory, sure).refused == ("d",)


def test_confidence_is_compared_with_that_of_the_last_prediction_taken_not_of_the_mixture():
    memory = started()
    play(memory, shifted([1, 1, 1, 1]))  # mixes squares in dispute: confidence of the maps falls below 0.9
    assert memory.read("d")[1].mean() / 255 < 0.87
    for _ in range(5):
        assert play(memory, {**shifted([1, 1, 1, 1]), "d": disc(5, 0.88)}).refused == ("d",)


def test_labelled_frames_are_not_judged():
    memory = started("ab")
    labels, confidence = disc(0, 0.5)
    labels[1] = 0
    confidence[1] = 1
    opened = memory.start_round()
    opened.add("a", labels, confidence, (1,))
    opened.add("b", labels, confidence, (2, 3))
    assert opened.predictions["a"].deviation == 0
    assert opened.predictions["a"].mean_confidence == pytest.approx(0.5, abs=0.002)
    assert opened.predictions["b"].deviation == pytest.approx(1 - (2 / 3 + 1 / 2) / 2)
    assert opened.predictions["b"].mean_confidence == pytest.approx(0.75, abs=0.002)


def test_a_case_with_labels_on_every_frame_is_left_out_and_does_not_lower_the_threshold():
    memory = started("ab")
    opened = memory.start_round()
    opened.add("a", *disc(1), ())
    opened.add("dense", *disc(), range(T))
    summary = opened.close()
    assert summary.accepted == ("a",)
    assert summary.threshold > 0
    assert memory.read("dense") is None
    assert memory.read("b") is not None  # what a round leaves out stays


def test_a_new_case_in_a_later_round_does_not_move_the_threshold():
    summary = play(started("ab"), {"a": disc(2), "b": disc(0), "new": disc(3)})
    assert summary.first == ("new",)
    assert summary.threshold == pytest.approx((1 - (1 / 2 + 1 / 3) / 2) / 2)


def test_processes_that_share_a_round_end_with_identical_memories_as_one_alone():
    random = np.random.default_rng(0)
    alone, ranks = PseudoLabels(), [PseudoLabels() for _ in range(2)]
    for _ in range(4):
        predictions = {
            case: (disc(random.integers(0, 5))[0], random.random((T, Y, X), np.float32)) for case in "gfedcba"
        }
        expected = play(alone, predictions, (0,))
        rounds = [memory.start_round() for memory in ranks]
        for place, (case, prediction) in enumerate(predictions.items()):
            rounds[place % 2].add(case, *prediction, (0,))
        parts = pickle.loads(pickle.dumps([dict(opened.predictions) for opened in rounds]))
        for opened, order in zip(rounds, (parts, parts[::-1]), strict=True):
            for part in order:
                opened.merge(part)
            summary = opened.close()
            assert (summary.accepted, summary.refused) == (expected.accepted, expected.refused)
        assert contents(ranks[0], "abcdefg") == contents(ranks[1], "abcdefg") == contents(alone, "abcdefg")


def test_processes_that_disagree_are_told_so():
    memory = started()
    opened, other, stranger = memory.start_round(), memory.start_round(), PseudoLabels().start_round()
    opened.add("a", *disc(), ())
    other.add("a", *disc(1), ())
    stranger.add("b", *disc(), ())
    with pytest.raises(ValueError, match="two different predictions"):
        opened.merge(other.predictions)
    with pytest.raises(ValueError, match="remembered by one process only"):
        opened.merge(stranger.predictions)
    assert set(opened.predictions) == {"a"}


def test_a_memory_survives_a_checkpoint_and_goes_on_alike(tmp_path):
    memory, restored = started(), PseudoLabels()
    play(memory, {**shifted([0, 1, 2, 0]), "d": disc(4, 0.95)})
    torch.save(memory.state_dict(), tmp_path / "sidecar")
    restored.load_state_dict(torch.load(tmp_path / "sidecar", weights_only=True))
    assert contents(restored) == contents(memory)
    for _ in range(2):
        summaries = [play(each, {**shifted([0, 1, 2, 0]), "d": disc(4, 0.95)}) for each in (memory, restored)]
        assert summaries[0] == summaries[1]
    assert contents(restored) == contents(memory)
    assert "d" in summaries[0].replaced


def test_a_memory_can_be_sent_to_the_workers_of_a_loader():
    memory = pickle.loads(pickle.dumps(started()))
    assert np.array_equal(memory.read("a")[0], disc()[0])


def test_a_state_of_another_version_is_refused():
    memory = started()
    before = contents(memory)
    with pytest.raises(InputError, match="version 1 expected, found 7"):
        memory.load_state_dict({**started("a").state_dict(), "version": 7})
    with pytest.raises(InputError, match="found None"):
        memory.load_state_dict({})
    assert contents(memory) == before


@pytest.mark.parametrize(
    "change",
    [
        {"labels": torch.arange(5, dtype=torch.uint8)},
        {"shape": (T, Y, X + 1)},
        {"confidence": "nothing"},
        {"weight": None},
    ],
)
def test_a_broken_state_is_refused_by_the_name_of_its_case(change):
    memory, state = started(), started().state_dict()
    state["cases"]["c"] = {**state["cases"]["c"], **change}
    before = contents(memory)
    with pytest.raises(InputError, match="pseudo-label of c is broken"):
        memory.load_state_dict(state)
    assert contents(memory) == before


def test_a_cut_off_pseudo_label_is_refused():
    state = started().state_dict()
    state["cases"]["b"]["labels"] = state["cases"]["b"]["labels"][:-3]
    with pytest.raises(InputError, match="pseudo-label of b is broken"):
        PseudoLabels().load_state_dict(state)


def test_a_case_that_was_preprocessed_anew_is_refused():
    labels, confidence = disc()
    with pytest.raises(InputError, match="preprocessed anew"):
        started().start_round().add("a", labels[:, 1:], confidence[:, 1:], ())


@pytest.mark.parametrize(
    ("labels", "confidence", "message"),
    [
        (disc()[0].astype(np.int64), disc()[1], "int64"),
        (disc()[0][0], disc()[1][0], "shape"),
        (disc()[0], disc()[1][1:], "shape"),
        (disc()[0], disc()[1] * 255, "0..1"),
        (disc()[0], disc()[1] * np.nan, "0..1"),
    ],
)
def test_predictions_of_another_form_are_refused(labels, confidence, message):
    with pytest.raises(ValueError, match=message):
        PseudoLabels().start_round().add("a", labels, confidence, ())


def test_a_round_is_closed_once_and_not_empty():
    opened = PseudoLabels().start_round()
    opened.add("a", *disc(), ())
    opened.close()
    with pytest.raises(ValueError, match="holds no prediction"):
        opened.close()


def probabilities(outputs, seed=0):
    return torch.rand(outputs, T, Y, X, generator=torch.Generator().manual_seed(seed))


def test_exclusive_labels_are_the_likeliest_and_as_sure_as_it():
    answer = probabilities(3).softmax(0)
    labels, confidence = label_map(answer, regions=None, regions_class_order=None)
    assert labels.dtype == np.uint8
    assert confidence.dtype == np.float32
    assert np.array_equal(labels, answer.argmax(0))
    assert np.array_equal(confidence, answer.amax(0))


def test_regions_follow_nnunets_rule_and_are_as_sure_as_the_least_certain_one():
    names = {"background": 0, "whole": (1, 2, 3), "core": (2, 3), "inner": 3}
    manager = LabelManager(names, regions_class_order=[1, 2, 3])
    answer = probabilities(3)
    labels, confidence = label_map(
        answer, regions=manager.foreground_regions, regions_class_order=manager.regions_class_order
    )
    assert np.array_equal(labels, manager.convert_probabilities_to_segmentation(answer.numpy()))
    for t, y, x in np.ndindex(T, Y, X):
        p = answer[:, t, y, x].tolist()
        inside = [labels[t, y, x] in region for region in ((1, 2, 3), (2, 3), (3,))]
        sure = [p[k] if inside[k] else 1 - p[k] for k in range(3)]
        assert confidence[t, y, x] == pytest.approx(min(sure))
        nested = [value > 0.5 for value in p] == inside
        if nested:
            assert confidence[t, y, x] == pytest.approx(min(max(value, 1 - value) for value in p))
        assert (confidence[t, y, x] >= 0.5) == nested
