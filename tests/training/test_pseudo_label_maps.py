"""Pseudo-labels as maps: deviation by hand, integration pixel by pixel, and what is confident enough to train on."""

import numpy as np
import pytest

from nnunet_temporal.training.pseudo_label_maps import PackedMaps, confident_labels, deviation, integrate


def line(*labels):
    return np.array(labels, np.uint8).reshape(1, 1, -1)


@pytest.mark.parametrize(
    ("labels", "others", "expected"),
    [
        (line(1, 1, 0, 0), line(1, 1, 0, 0), 0),
        (line(1, 1, 0, 0), line(0, 0, 1, 1), 1),
        (line(1, 1, 0, 0), line(0, 1, 1, 0), 1 - (1 / 2 + 1 / 3) / 2),  # Dice 1/2, IoU 1/3
        (line(1, 1, 2, 2), line(0, 1, 2, 2), (1 - (2 / 3 + 1 / 2) / 2) / 2),  # the second label agrees
        (line(1, 1, 0, 2), line(1, 1, 0, 0), 1 / 2),  # a label in one map only counts, one in neither does not
        (line(0, 0, 0, 0), line(0, 0, 0, 0), 0),
        (line(0, 0, 0, 0), line(0, 0, 0, 255), 1),
    ],
)
def test_the_deviation_is_that_by_hand_and_the_same_both_ways(labels, others, expected):
    assert deviation(labels, others) == pytest.approx(expected, abs=1e-12)
    assert deviation(others, labels) == deviation(labels, others)


def test_the_deviation_is_pooled_over_frames():
    labels, others = (np.concatenate(frames) for frames in ((line(1, 1), line(0, 0)), (line(1, 1), line(0, 1))))
    assert deviation(labels, others) == pytest.approx(1 - (4 / 5 + 2 / 3) / 2)


def test_integration_equals_the_loop_reference():
    random = np.random.default_rng(0)
    labels, new_labels = random.integers(3, size=(2, 4, 5, 6), dtype=np.uint8)
    confidence, new_confidence = random.integers(256, size=(2, 4, 5, 6), dtype=np.uint8)
    mixed_labels, mixed = integrate(labels, confidence, new_labels, new_confidence)
    assert mixed_labels.dtype == mixed.dtype == np.uint8
    for place in np.ndindex(labels.shape):
        old, new = int(confidence[place]), int(new_confidence[place])
        if labels[place] == new_labels[place]:
            assert (mixed_labels[place], mixed[place]) == (labels[place], round((old + new) / 2))
        else:
            winner = labels[place] if old >= new else new_labels[place]
            assert (mixed_labels[place], mixed[place]) == (winner, round(max(old, new) / 2))


def test_in_a_tie_the_stored_label_stays():
    assert integrate(line(2, 1), line(200, 0), line(1, 2), line(200, 0))[0].tolist() == line(2, 1).tolist()


def test_a_dispute_is_not_trained_on_and_agreement_restores_confidence():
    labels, confidence = integrate(line(1), line(255), line(2), line(250))
    assert confidence.item() <= 128
    for _ in range(3):
        labels, confidence = integrate(labels, confidence, line(1), line(255))
    assert labels.item() == 1
    assert confidence.item() > 0.9 * 255


def test_labels_below_the_threshold_are_ignored_and_those_at_it_are_not():
    labels, confidence = line(0, 1, 2, 1), np.rint(255 * np.array([0.949, 0.95, 1, 0])).astype(np.uint8)
    confidence = confidence.reshape(labels.shape) - np.array([1, 0, 0, 0], np.uint8)
    trained = confident_labels(labels, confidence, 0.95, ignore_label=3)
    assert trained.dtype == np.int16
    assert trained.tolist() == line(3, 1, 2, 3).tolist()
    assert confident_labels(labels, confidence, 0, ignore_label=3).tolist() == labels.tolist()
    assert confident_labels(labels, confidence, 1, ignore_label=300).tolist() == [[[300, 300, 2, 300]]]


def test_packed_maps_are_the_same_again_and_smaller():
    labels = np.zeros((5, 32, 32), np.uint8)
    labels[:, 8:20, 8:20] = 2
    packed = PackedMaps.pack(labels[:, ::-1], 255 - labels)
    assert len(packed.labels) + len(packed.confidence) < labels.size / 5
    for array, expected in zip(packed.unpack(), (labels[:, ::-1], 255 - labels), strict=True):
        assert np.array_equal(array, expected)
