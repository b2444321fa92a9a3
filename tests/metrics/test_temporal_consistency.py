"""Neighbour-interpolation errors against hand computation and on drawn heartbeats."""

import math

import numpy as np
import pytest
from ellipsoid_views import Ellipsoid, draw_view

from nnunet_temporal.metrics.shape_curves import ATTRIBUTES, ShapeCurves, measure_shape_curves
from nnunet_temporal.metrics.temporal_consistency import (
    CAMUS_BOUNDS,
    CAMUS_THRESHOLDS,
    Consistency,
    consistency_thresholds,
    judge_consistency,
    neighbour_interpolation_errors,
)

NO_PIXELS = (1e-9, 1e-9)
PIXEL_MM = 1.3


def curves_of(**values: list[float]) -> ShapeCurves:
    return ShapeCurves({name: np.array(curve, float) for name, curve in values.items()}, {})


def beat(n_frames: int, with_atrium: bool = True) -> dict[str, np.ndarray]:
    """Masks of one heartbeat that contracts smoothly, sways and moves: the truth of a perfect method."""
    views = []
    for frame in range(n_frames):
        systole = 0.5 - 0.5 * math.cos(2 * math.pi * frame / n_frames)
        heart = Ellipsoid(56 * (1 - 0.15 * systole), 23 * (1 - 0.28 * systole), cut=0.45)
        views.append(draw_view(heart, PIXEL_MM, 12 + 3 * systole, shift_mm=(2 * systole, systole)))
    names = ("ventricle", "myocardium", "atrium") if with_atrium else ("ventricle", "myocardium")
    return {name: np.stack([getattr(view, name) for view in views]) for name in names}


def judge(masks: dict[str, np.ndarray]) -> Consistency:
    curves = measure_shape_curves(spacing_mm=(PIXEL_MM, PIXEL_MM), **masks)
    thresholds = consistency_thresholds(curves, (PIXEL_MM, PIXEL_MM), frames_per_cycle=len(masks["ventricle"]))
    return judge_consistency(neighbour_interpolation_errors(curves, cyclic=True), thresholds)


def test_error_is_the_miss_of_the_mean_of_the_neighbours_over_the_range_of_the_population() -> None:
    errors = neighbour_interpolation_errors(curves_of(length_mm=[60, 66, 62, 60]), {"length_mm": (50.0, 90.0)})
    # 66 - (60 + 62) / 2 = 5 and 62 - (66 + 60) / 2 = -1, over 40
    np.testing.assert_allclose(errors["length_mm"], [5 / 40, -1 / 40])


def test_cyclic_errors_join_the_ends() -> None:
    bounds = {"length_mm": (50.0, 90.0)}
    errors = neighbour_interpolation_errors(curves_of(length_mm=[60, 66, 62, 58]), bounds, cyclic=True)
    # 60 - (58 + 66) / 2, 66 - (60 + 62) / 2, 62 - (66 + 58) / 2, 58 - (62 + 60) / 2
    np.testing.assert_allclose(errors["length_mm"], [-2 / 40, 5 / 40, 0 / 40, -3 / 40])


def test_orientation_takes_the_short_way_round() -> None:
    errors = neighbour_interpolation_errors(
        curves_of(orientation_degrees=[178, -178, -178]), {"orientation_degrees": (0.0, 10.0)}
    )
    # steps of +4 and 0 degrees: the middle frame is (4 - 0) / 2 ahead of its neighbours
    np.testing.assert_allclose(errors["orientation_degrees"], [0.2])


def test_a_frame_that_was_not_measured_leaves_itself_and_its_neighbours_without_error() -> None:
    errors = neighbour_interpolation_errors(curves_of(length_mm=[60, 60, np.nan, 60, 60, 60]), cyclic=True)
    assert np.isnan(errors["length_mm"]).tolist() == [False, True, True, True, False, False]


@pytest.mark.parametrize("cyclic", [True, False])
def test_two_frames_have_no_errors(cyclic) -> None:
    assert neighbour_interpolation_errors(curves_of(length_mm=[60, 70]), cyclic=cyclic)["length_mm"].size == 0


@pytest.mark.parametrize(
    ("bounds", "message"), [({}, "bounds must name"), ({"length_mm": (9.0, 9.0)}, "must be .smallest, largest.")]
)
def test_errors_refuse_a_population_without_range(bounds, message) -> None:
    with pytest.raises(ValueError, match=message):
        neighbour_interpolation_errors(curves_of(length_mm=[60, 70, 60]), bounds)


@pytest.mark.parametrize(("frames_per_cycle", "factor"), [(50, 1.0), (100, 0.25), (25, 4.0)])
def test_thresholds_fall_with_the_square_of_the_frame_rate(frames_per_cycle, factor) -> None:
    curves = curves_of(**{attribute: [1600.0] * 3 for attribute in ATTRIBUTES})
    thresholds = consistency_thresholds(curves, NO_PIXELS, frames_per_cycle, reference_frames_per_cycle=50)
    assert thresholds == pytest.approx({name: factor * value for name, value in CAMUS_THRESHOLDS.items()})


def test_the_published_thresholds_are_taken_to_hold_at_50_frames_per_cycle() -> None:
    thresholds = consistency_thresholds(curves_of(ventricle_area_mm2=[1600.0]), NO_PIXELS, frames_per_cycle=50)
    assert thresholds == {"ventricle_area_mm2": 0.016}


def test_thresholds_stay_above_what_pixels_cause() -> None:
    curves = curves_of(**{attribute: [1600.0] * 3 for attribute in ATTRIBUTES})
    thresholds = consistency_thresholds(curves, (4.0, 1.0), frames_per_cycle=1e6)
    ranges = {name: high - low for name, (low, high) in CAMUS_BOUNDS.items()}
    # pixels of sqrt(4 * 1) = 2 mm, a ventricle of sqrt(1600) = 40 mm
    assert thresholds["length_mm"] == pytest.approx(1.25 * 2 / ranges["length_mm"])
    assert thresholds["ventricle_area_mm2"] == pytest.approx(0.6 * 2 * 40 / ranges["ventricle_area_mm2"])
    assert thresholds["orientation_degrees"] == pytest.approx(
        math.degrees(0.5 * 2 / 40) / ranges["orientation_degrees"]
    )


@pytest.mark.parametrize(
    ("spacing_mm", "frames_per_cycle", "reference", "message"),
    [
        ((1.0, 1.0), 0, 50, "frames_per_cycle must be a positive number"),
        ((1.0, 1.0), 20, math.nan, "reference_frames_per_cycle must be a positive number"),
        ((1.0, 0.0), 20, 50, "spacing_mm must be two positive numbers"),
    ],
)
def test_thresholds_refuse_what_is_not_positive(spacing_mm, frames_per_cycle, reference, message) -> None:
    with pytest.raises(ValueError, match=message):
        consistency_thresholds(
            curves_of(ventricle_area_mm2=[1.0]), spacing_mm, frames_per_cycle, reference_frames_per_cycle=reference
        )


def test_shares_are_counted_per_attribute_and_for_any_of_them() -> None:
    errors = {"length_mm": np.array([0.1, -0.3, 0.0, np.nan]), "centre_x_mm": np.array([0.0, 0.5, 0.5, np.nan])}
    found = judge_consistency(errors, {"length_mm": 0.2, "centre_x_mm": 0.25})
    assert found.inconsistent_share == pytest.approx({"length_mm": 1 / 3, "centre_x_mm": 2 / 3})
    assert found.any_inconsistent_share == pytest.approx(2 / 3)  # frames 1 and 2 of the three that were judged
    assert found.judged_share == pytest.approx({"length_mm": 3 / 4, "centre_x_mm": 3 / 4})
    # (0.1 + 0.3 + 0) / 0.2 / 3 and (0 + 0.5 + 0.5) / 0.25 / 3
    assert found.error_to_threshold == pytest.approx({"length_mm": 2 / 3, "centre_x_mm": 4 / 3})


def test_an_attribute_that_was_never_measured_is_nan_and_does_not_hide_the_others() -> None:
    errors = {"length_mm": np.full(4, np.nan), "centre_x_mm": np.array([0.0, 0.5, 0.0, 0.0])}
    found = judge_consistency(errors, {"length_mm": 0.2, "centre_x_mm": 0.25})
    assert math.isnan(found.inconsistent_share["length_mm"])
    assert found.judged_share["length_mm"] == 0.0
    assert found.any_inconsistent_share == pytest.approx(1 / 4)


@pytest.mark.parametrize("with_atrium", [True, False])
@pytest.mark.parametrize("frames_per_cycle", [13, 25, 50, 80])
def test_a_perfect_heartbeat_is_consistent_at_every_frame_rate(frames_per_cycle, with_atrium) -> None:
    found = judge(beat(frames_per_cycle, with_atrium))
    assert found.any_inconsistent_share == 0.0
    assert set(found.judged_share.values()) == {1.0}


@pytest.mark.parametrize("frames_per_cycle", [13, 25, 50, 80])
def test_one_frame_that_lost_half_its_mask_is_seen_at_every_frame_rate(frames_per_cycle) -> None:
    masks = beat(frames_per_cycle)
    frame, middle = frames_per_cycle // 3, masks["ventricle"].shape[2] // 2
    for movie in masks.values():
        movie[frame, :, middle:] = False
    found = judge(masks)
    # the frame itself, and its two neighbours at most, which it pulls to one side
    assert 1 <= round(found.any_inconsistent_share * frames_per_cycle) <= 3
    assert found.inconsistent_share["ventricle_area_mm2"] > 0


@pytest.mark.parametrize("frames_per_cycle", [25, 50, 80])
def test_one_frame_that_jumped_by_six_mm_is_seen(frames_per_cycle) -> None:
    masks = beat(frames_per_cycle)
    for name, movie in masks.items():
        movie[5] = np.roll(masks[name][5], 5, axis=0)  # 5 pixels of 1.3 mm
    found = judge(masks)
    assert found.inconsistent_share["centre_y_mm"] > 0
    assert found.inconsistent_share["ventricle_area_mm2"] == 0.0


def test_thresholds_of_another_rate_would_blame_a_slow_but_perfect_heartbeat() -> None:
    # the CAMUS thresholds as they stand, on 13 frames per cycle: this is why they are scaled
    curves = measure_shape_curves(spacing_mm=(PIXEL_MM, PIXEL_MM), **beat(13))
    unscaled = consistency_thresholds(curves, (PIXEL_MM, PIXEL_MM), frames_per_cycle=50)
    found = judge_consistency(neighbour_interpolation_errors(curves, cyclic=True), unscaled)
    assert found.inconsistent_share["ventricle_area_mm2"] > 0
