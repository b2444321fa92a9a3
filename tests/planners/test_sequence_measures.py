"""Measurements of one sequence on arrays whose answers are known."""

import numpy as np
import pytest

from nnunet_temporal.planners.sequence_measures import (
    foreground_structures,
    interframe_change,
    largest_displacement,
    measure_sequence,
)
from nnunet_temporal.sequences import Sequence

LEFT_AND_WALL = {"LV": (1,), "MYO": (2,)}


def disc(radius: int) -> np.ndarray:
    """Return a mask (41, 41) with a centred disc of label 1."""
    y, x = np.mgrid[:41, :41] - 20
    return (np.hypot(y, x) <= radius).astype(np.uint8)


def test_a_frozen_sequence_does_not_change():
    frame = np.random.default_rng(0).normal(size=(2, 1, 16, 16))
    assert interframe_change(np.repeat(frame, 5, axis=1)) == 0


def test_independent_noise_changes_by_two_over_root_pi():
    noise = np.random.default_rng(0).normal(7, 3, (1, 6, 64, 64))
    assert interframe_change(noise) == pytest.approx(2 / np.sqrt(np.pi), rel=0.02)


def test_the_change_does_not_depend_on_the_unit_of_grey_values():
    image = np.random.default_rng(0).normal(size=(1, 6, 16, 16))
    assert interframe_change(1000 * image + 50) == pytest.approx(interframe_change(image))


def test_an_empty_image_does_not_change():
    assert interframe_change(np.zeros((1, 3, 4, 4), np.float32)) == 0


def test_a_single_frame_has_no_change():
    assert interframe_change(np.ones((1, 1, 4, 4))) is None


def test_walls_move_as_far_as_a_disc_shrinks():
    mask = np.stack([disc(12), disc(9), disc(5)])
    assert largest_displacement(mask, (0, 1, 2), (1.0, 1.0), {"LV": (1,)}) == pytest.approx(7, abs=1)
    assert largest_displacement(mask, (0, 1), (2.0, 2.0), {"LV": (1,)}) == pytest.approx(6, abs=2)


def test_the_structure_that_moves_most_counts():
    mask = np.stack([disc(10) * 2, disc(10) * 2])
    mask[0, 5:8, 5:8] = 1
    mask[1, 5:8, 30:33] = 1
    assert largest_displacement(mask, (0, 1), (1.0, 1.0), LEFT_AND_WALL) > 20
    assert largest_displacement(mask, (0, 1), (1.0, 1.0), {"MYO": (2,)}) == 0


def test_unlabelled_frames_are_not_looked_at():
    mask = np.stack([disc(10), np.full((41, 41), 1, np.uint8), disc(10)])
    assert largest_displacement(mask, (0, 2), (1.0, 1.0), {"LV": (1,)}) == 0


@pytest.mark.parametrize("labelled", [(), (0,), (0, 1)])
def test_nothing_moves_without_two_frames_that_show_it(labelled):
    mask = np.stack([disc(10), np.zeros((41, 41), np.uint8)])
    assert largest_displacement(mask, labelled, (1.0, 1.0), {"LV": (1,)}) is None


def test_structures_are_the_foreground_labels_and_regions():
    labels = {"background": 0, "whole": [1, 2], "LV": 1, "ignore": 3}
    assert foreground_structures(labels) == {"whole": (1, 2), "LV": (1,)}


def test_a_cine_the_manifest_calls_one_beat_is_one_whatever_it_looks_like():
    noise = np.random.default_rng(0).normal(size=(1, 7, 16, 16)).astype(np.float32)
    sequence = Sequence("a", "a", 7, (0,), cyclic=True, frame_interval_s=0.04)
    measures = measure_sequence(noise, np.zeros((7, 16, 16), np.uint8), (1.0, 1.0), sequence, {"LV": (1,)})
    assert (measures.frames_per_cycle, measures.cycle_confidence) == (7.0, 1.0)
    assert (measures.n_frames, measures.labelled_frames, measures.frame_interval_s) == (7, (0,), 0.04)
    assert measures.displacement_mm is None


def test_noise_shows_no_beat():
    noise = np.random.default_rng(0).normal(size=(1, 30, 32, 32)).astype(np.float32)
    sequence = Sequence("a", "a", 30, (0,))
    measures = measure_sequence(noise, np.zeros((30, 32, 32), np.uint8), (1.0, 1.0), sequence, {"LV": (1,)})
    assert measures.frames_per_cycle is None or measures.cycle_confidence < 0.5
