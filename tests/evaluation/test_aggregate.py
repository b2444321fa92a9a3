"""Means, agreement and comparison of tables."""

import math

import pytest

from nnunet_temporal.evaluation.aggregate import agreement, compare, numeric_columns, summarise
from nnunet_temporal.evaluation.measure import Measurements
from nnunet_temporal.evaluation.options import Options
from nnunet_temporal.metrics.overlap import OverlapCounts

OPTIONS = Options(resamples=200)


def frames(*values, column="hd_mm"):
    """One frame per value, in a study of its own."""
    return Measurements(
        frames=[
            {"case": f"c{i}", "study": f"s{i}", "frame": 0, "label": "LV", column: value}
            for i, value in enumerate(values)
        ]
    )


def studies(column, *values):
    return Measurements(
        studies=[
            {"study": f"s{i}", "label": "LV", **dict(zip(column, pair, strict=True))} for i, pair in enumerate(values)
        ]
    )


def test_means_run_over_what_is_finite_and_count_what_is_missing():
    figures = summarise(frames(1.0, math.inf, 3.0, math.nan), OPTIONS)["frames"]["LV"]["hd_mm"]
    assert (figures["mean"], figures["items"], figures["missing"]) == (2.0, 2, 1)


def test_a_structure_missing_everywhere_is_counted_without_a_mean():
    figures = summarise(frames(math.inf, math.inf), OPTIONS)["frames"]["LV"]["hd_mm"]
    assert math.isnan(figures["mean"])
    assert figures["missing"] == 2


def test_the_interval_draws_whole_studies():
    rows = [{"case": f"c{i}", "study": f"s{i % 2}", "frame": 0, "label": "LV", "dice": float(i % 2)} for i in range(40)]
    figures = summarise(Measurements(frames=rows), OPTIONS)["frames"]["LV"]["dice"]
    # Both studies drawn twice, or one of each: means of 0, 0.5 and 1, however many frames there are.
    assert (figures["lower"], figures["upper"], figures["studies"]) == (0.0, 1.0, 2)


def test_one_seed_repeats_the_intervals():
    measured = frames(1.0, 2.0, 4.0, 8.0)
    assert summarise(measured, OPTIONS) == summarise(measured, OPTIONS)
    assert summarise(measured, OPTIONS) != summarise(measured, Options(resamples=200, seed=1))


def test_agreement_pairs_prediction_and_reference():
    columns = ("ef_predicted_percent", "ef_reference_percent")
    figures = agreement(studies(columns, (50.0, 55.0), (61.0, 60.0), (40.0, 40.0)))["LV"]["ef_percent"]
    # Differences -5, 1 and 0.
    assert figures["bias"] == pytest.approx(-4 / 3)
    assert figures["mean_absolute_error"] == 2.0
    assert (figures["count"], figures["left_out"]) == (3, 0)


def test_agreement_counts_the_studies_it_leaves_out():
    columns = ("edv_predicted_ml", "edv_reference_ml")
    figures = agreement(studies(columns, (100.0, 90.0), (math.nan, 90.0)))["LV"]["edv_ml"]
    assert (figures["count"], figures["left_out"]) == (1, 1)


def test_studies_without_the_quantity_are_not_called_left_out():
    measured = studies(("edv_predicted_ml", "edv_reference_ml"), (100.0, 90.0))
    measured.studies.append({"study": "other", "label": "LV", "dice_ed": 0.9})
    assert agreement(measured)["LV"]["edv_ml"]["left_out"] == 0


def test_figures_of_compatibility_modes_do_not_enter_the_agreement():
    columns = ("camus_script_ef_predicted_percent", "camus_script_ef_reference_percent")
    assert agreement(studies(columns, (50.0, 55.0))) == {}


def test_two_predictions_are_compared_on_the_same_items():
    first, second = frames(0.9, 0.8, 0.7, column="dice"), frames(0.8, 0.7, 0.6, column="dice")
    second.frames.reverse()
    (row,) = compare(first, second, OPTIONS)
    assert row["difference"] == pytest.approx(0.1)
    assert (row["first"], row["second"]) == (pytest.approx(0.8), pytest.approx(0.7))
    # All resampled differences are 0.1: the observed data count as one more, on either side.
    assert row["p_value"] == pytest.approx(2 / 201)


def test_items_that_one_prediction_misses_are_counted_and_left_out():
    (row,) = compare(frames(1.0, 2.0, math.inf), frames(2.0, 4.0, 5.0), OPTIONS)
    assert row["difference"] == pytest.approx(-1.5)
    assert (row["items"], row["unpaired"], row["missing_first"], row["missing_second"]) == (2, 1, 1, 0)


def test_errors_of_volumes_are_compared_by_size():
    column = ("ef_difference_percent",)
    (row,) = compare(studies(column, (-5.0,), (5.0,)), studies(column, (2.0,), (2.0,)), OPTIONS)
    assert row["metric"] == "ef_absolute_difference_percent"
    assert row["difference"] == pytest.approx(3.0)


def test_figures_of_the_reference_are_not_compared():
    column = ("ef_reference_percent",)
    assert compare(studies(column, (50.0,)), studies(column, (50.0,)), OPTIONS) == []


def test_descriptions_of_a_row_are_no_figures():
    assert numeric_columns([{"case": "a", "frame": 3, "labelled": 1, "dice": 0.5}]) == ["dice"]


def test_overlap_of_studies_adds_up():
    total = Measurements(counts={"LV": OverlapCounts(1, 2, 3)})
    total.extend(Measurements(counts={"LV": OverlapCounts(1, 1, 1), "RV": OverlapCounts(0, 1, 0)}))
    assert total.counts == {"LV": OverlapCounts(2, 3, 4), "RV": OverlapCounts(0, 1, 0)}
