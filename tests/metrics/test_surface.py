"""Surface distances against geometry that can be worked out by hand."""

import math

import numpy as np
import pytest
from scipy import ndimage

from nnunet_temporal.metrics.surface import SurfaceDistances, surface_distances

METRICS = ["hausdorff", "hausdorff95", "hausdorff95_pooled", "assd", "masd"]


def mask_of(shape: tuple[int, ...], *points: tuple[int, ...]) -> np.ndarray:
    """Return a mask in which exactly the given elements are true."""
    mask = np.zeros(shape, bool)
    mask[tuple(np.transpose(points))] = True
    return mask


def square(shape: tuple[int, int], top: int, left: int, size: int) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[top : top + size, left : left + size] = True
    return mask


def a_line_and_a_line_with_a_far_pixel() -> SurfaceDistances:
    """Prediction to reference 0, 0, 0, 10; back 0, 0, 0."""
    reference = mask_of((3, 15), (1, 0), (1, 1), (1, 2))
    return surface_distances(reference | mask_of((3, 15), (1, 12)), reference, (1.0, 1.0))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("point", "spacing", "expected"),
    [
        ((0, 3), (1.0, 1.0), 3.0),
        ((0, 3), (1.0, 0.5), 1.5),
        ((4, 0), (2.5, 0.5), 10.0),
        ((2, 4), (1.5, 1.0), 5.0),  # 3 mm and 4 mm
        ((1, 2, 2), (7.0, 2.0, 2.0), 9.0),  # 7, 4 and 4 mm: 49 + 16 + 16 = 81
    ],
)
def test_two_single_elements_are_as_far_apart_as_the_spacing_says(metric, point, spacing, expected) -> None:
    shape = (5,) * len(point)
    distances = surface_distances(mask_of(shape, (0,) * len(point)), mask_of(shape, point), spacing)
    assert getattr(distances, metric)() == pytest.approx(expected)


def test_hausdorff_is_the_farthest_element_of_either_surface() -> None:
    assert a_line_and_a_line_with_a_far_pixel().hausdorff() == 10.0


def test_hausdorff95_is_the_larger_percentile_of_the_two_directions() -> None:
    # Four sorted values have their 95th percentile at position 0.95 * 3 = 2.85: 0.85 of the way from 0 to 10.
    assert a_line_and_a_line_with_a_far_pixel().hausdorff95() == pytest.approx(8.5)


def test_pooled_hausdorff95_is_the_percentile_of_both_directions_together() -> None:
    # Seven sorted values: position 0.95 * 6 = 5.7, 0.7 of the way from 0 to 10.
    assert a_line_and_a_line_with_a_far_pixel().hausdorff95_pooled() == pytest.approx(7.0)


def test_assd_averages_over_the_elements_of_both_surfaces() -> None:
    assert a_line_and_a_line_with_a_far_pixel().assd() == pytest.approx(10 / 7)


def test_masd_averages_the_two_directed_means() -> None:
    assert a_line_and_a_line_with_a_far_pixel().masd() == pytest.approx((10 / 4 + 0) / 2)


@pytest.mark.parametrize(("tolerance", "expected"), [(0.0, 6 / 7), (9.9, 6 / 7), (10.0, 1.0)])
def test_nsd_is_the_share_of_both_surfaces_within_the_tolerance(tolerance, expected) -> None:
    assert a_line_and_a_line_with_a_far_pixel().nsd(tolerance) == pytest.approx(expected)


def test_the_directions_are_kept_apart() -> None:
    distances = a_line_and_a_line_with_a_far_pixel()
    np.testing.assert_array_equal(distances.prediction_to_reference, [0, 0, 0, 10])
    np.testing.assert_array_equal(distances.reference_to_prediction, [0, 0, 0])


@pytest.mark.parametrize("metric", METRICS)
def test_swapping_the_masks_changes_no_metric(metric) -> None:
    first, second = square((12, 12), 1, 1, 4), square((12, 12), 3, 4, 7)
    there, back = surface_distances(first, second, (1.3, 0.7)), surface_distances(second, first, (1.3, 0.7))
    assert getattr(there, metric)() == pytest.approx(getattr(back, metric)())


@pytest.mark.parametrize("metric", METRICS)
def test_a_mask_has_no_distance_to_itself(metric) -> None:
    mask = square((9, 9), 2, 3, 4)
    assert getattr(surface_distances(mask, mask, (1.0, 2.0)), metric)() == 0.0


def test_a_square_inside_a_larger_one_is_measured_from_edge_to_edge() -> None:
    # Margins of 2 pixels: corners are sqrt(8) apart, no element of the inner edge is farther than 2.
    distances = surface_distances(square((9, 9), 2, 2, 5), square((9, 9), 0, 0, 9), (1.0, 1.0))
    assert distances.hausdorff() == pytest.approx(math.sqrt(8))
    assert distances.prediction_to_reference.max() == 2.0


def test_the_inside_of_a_mask_is_no_surface() -> None:
    square_5 = square((9, 9), 2, 2, 5)
    assert surface_distances(square_5, square_5, (1.0, 1.0)).prediction_to_reference.size == 5 * 5 - 3 * 3
    cube_3 = np.pad(np.ones((3, 3, 3), bool), 2)
    assert surface_distances(cube_3, cube_3, (1.0, 1.0, 1.0)).prediction_to_reference.size == 3**3 - 1


def test_an_element_that_meets_the_background_at_a_corner_only_is_no_surface() -> None:
    # A 4x4 square has 12 edge pixels. Without one corner there are 11; the pixel diagonally behind it stays inside.
    notched = square((8, 8), 2, 2, 4)
    notched[2, 2] = False
    assert surface_distances(notched, notched, (1.0, 1.0)).prediction_to_reference.size == 11


def test_a_mask_that_fills_the_image_has_its_surface_at_the_border() -> None:
    distances = surface_distances(np.ones((5, 5), bool), mask_of((5, 5), (2, 2)), (1.0, 1.0))
    assert distances.prediction_to_reference.size == 16
    np.testing.assert_array_equal(distances.reference_to_prediction, [2.0])
    assert distances.hausdorff() == pytest.approx(math.sqrt(8))


@pytest.mark.parametrize("density", [0.2, 0.01, 0.001], ids=["near", "mixed", "far"])
@pytest.mark.parametrize(
    ("shape", "spacing"),
    [
        ((70,), (0.6,)),
        ((64, 47), (0.7, 0.7)),
        ((40, 90), (2.7, 0.8)),
        ((9, 50), (30.0, 1.0)),
        ((6, 25, 30), (9.0, 1.1, 1.3)),
        ((15,) * 3, (1.0,) * 3),
    ],
)
def test_every_distance_is_the_smallest_over_all_pairs_of_elements(shape, spacing, density) -> None:
    generator = np.random.default_rng(3)
    for _ in range(4):
        prediction, reference = generator.random((2, *shape)) < density
        prediction.flat[0] = reference.flat[generator.integers(reference.size)] = True
        edges = [np.argwhere(mask & ~ndimage.binary_erosion(mask)) * spacing for mask in (prediction, reference)]
        pairwise = np.linalg.norm(edges[0][:, None] - edges[1][None], axis=-1)
        distances = surface_distances(prediction, reference, spacing)
        np.testing.assert_allclose(distances.prediction_to_reference, pairwise.min(axis=1))
        np.testing.assert_allclose(distances.reference_to_prediction, pairwise.min(axis=0))


@pytest.mark.parametrize("straight", range(1, 30))
def test_a_nearer_element_straight_ahead_wins_over_a_diagonal_one(straight) -> None:
    diagonal = int(straight / math.sqrt(2)) + 1  # sqrt(2) * diagonal is more than straight
    reference = mask_of((31, 31), (straight, 0), (diagonal, diagonal))
    distances = surface_distances(mask_of((31, 31), (0, 0)), reference, (0.7, 0.7))
    np.testing.assert_allclose(distances.prediction_to_reference, [0.7 * straight])


def test_background_around_the_masks_changes_nothing() -> None:
    first, second = square((12, 12), 3, 2, 4), square((12, 12), 5, 3, 6)
    near = surface_distances(first, second, (1.5, 0.5))
    far = surface_distances(np.pad(first, (7, 20)), np.pad(second, (7, 20)), (1.5, 0.5))
    np.testing.assert_array_equal(near.prediction_to_reference, far.prediction_to_reference)
    np.testing.assert_array_equal(near.reference_to_prediction, far.reference_to_prediction)


def test_the_masks_are_not_changed() -> None:
    masks = [square((6, 6), 0, 0, 4), square((6, 6), 2, 2, 4)]
    copies = [mask.copy() for mask in masks]
    surface_distances(*masks, (1.0, 1.0))
    np.testing.assert_array_equal(masks, copies)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("swap", [False, True])
def test_distances_are_infinite_when_exactly_one_mask_is_empty(metric, swap) -> None:
    masks = [np.zeros((6, 6), bool), square((6, 6), 1, 1, 3)]
    assert getattr(surface_distances(*(masks[::-1] if swap else masks), (1.0, 1.0)), metric)() == math.inf


@pytest.mark.parametrize("metric", METRICS)
def test_distances_are_nan_when_both_masks_are_empty(metric) -> None:
    empty = np.zeros((6, 6), bool)
    assert math.isnan(getattr(surface_distances(empty, empty, (1.0, 1.0)), metric)())


def test_nsd_is_zero_when_exactly_one_mask_is_empty_and_nan_when_both_are() -> None:
    empty = np.zeros((6, 6), bool)
    assert surface_distances(empty, square((6, 6), 1, 1, 3), (1.0, 1.0)).nsd(100.0) == 0.0
    assert math.isnan(surface_distances(empty, empty, (1.0, 1.0)).nsd(100.0))


@pytest.mark.parametrize("tolerance", [-0.1, math.nan, math.inf])
def test_nsd_refuses_a_tolerance_that_is_no_length(tolerance) -> None:
    with pytest.raises(ValueError, match="tolerance must be a finite number >= 0"):
        a_line_and_a_line_with_a_far_pixel().nsd(tolerance)


@pytest.mark.parametrize("spacing", [(1.0,), (1.0, 1.0, 1.0), (1.0, 0.0), (1.0, -2.0), (1.0, math.nan)])
def test_a_spacing_that_is_not_one_positive_number_per_axis_is_refused(spacing) -> None:
    with pytest.raises(ValueError, match="spacing must be 2 positive numbers, one per axis"):
        surface_distances(np.ones((2, 2), bool), np.ones((2, 2), bool), spacing)


def test_label_maps_are_refused() -> None:
    with pytest.raises(ValueError, match="reference must be a boolean mask, got dtype uint8"):
        surface_distances(np.ones((2, 2), bool), np.ones((2, 2), np.uint8), (1.0, 1.0))


def test_masks_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="reference must have the shape of prediction"):
        surface_distances(np.ones((2, 2), bool), np.ones((2, 3), bool), (1.0, 1.0))
