"""Bootstrap intervals against cases small enough to enumerate, and coverage on simulated studies."""

import math

import numpy as np
import pytest

from nnunet_temporal.metrics.bootstrap import bootstrap_mean, compare_paired

# Drawn with replacement, two studies give (a, a), (a, b) or (b, a), and (b, b) with probabilities 1/4, 1/2 and 1/4.
# The items of a are 0, 0, 0 and the one of b is 4: the resampled means are 0, 1 and 4.
VALUES = np.array([0.0, 0.0, 0.0, 4.0])
STUDIES = ["a", "a", "a", "b"]


def test_the_mean_is_that_of_the_items() -> None:
    interval = bootstrap_mean(VALUES, STUDIES)
    assert (interval.mean, interval.items, interval.studies) == (1.0, 4, 2)


def test_a_95_percent_interval_reaches_the_rare_resamples() -> None:
    interval = bootstrap_mean(VALUES, STUDIES)
    assert (interval.lower, interval.upper) == (0.0, 4.0)


def test_a_40_percent_interval_stays_within_the_half_of_the_resamples_that_hold_both_studies() -> None:
    interval = bootstrap_mean(VALUES, STUDIES, confidence=0.4)
    assert (interval.lower, interval.upper) == (1.0, 1.0)


def test_the_interval_of_one_resample_is_a_point() -> None:
    interval = bootstrap_mean(VALUES, STUDIES, resamples=1)
    assert interval.lower == interval.upper


def test_a_resample_keeps_all_items_of_a_study() -> None:
    # The mean within each study is 1, however its items scatter: no resample can have another mean.
    interval = bootstrap_mean(np.array([0.0, 2.0, -5.0, 7.0, 1.0]), ["a", "a", "b", "b", "c"])
    assert (interval.lower, interval.upper) == (1.0, 1.0)


def test_items_that_are_nan_are_left_out() -> None:
    interval = bootstrap_mean(np.array([*VALUES, math.nan]), [*STUDIES, "b"])
    assert interval == bootstrap_mean(VALUES, STUDIES)


def test_a_study_of_nan_alone_is_left_out_and_not_counted() -> None:
    interval = bootstrap_mean(np.array([*VALUES, math.nan]), [*STUDIES, "c"])
    assert interval == bootstrap_mean(VALUES, STUDIES)


def test_the_order_of_the_items_does_not_matter() -> None:
    assert bootstrap_mean(VALUES[::-1], STUDIES[::-1]) == bootstrap_mean(VALUES, STUDIES)


def test_one_seed_repeats_and_two_seeds_differ() -> None:
    values, studies = np.random.default_rng(0).normal(size=40), [f"study{item // 2}" for item in range(40)]
    assert bootstrap_mean(values, studies, seed=1) == bootstrap_mean(values, studies, seed=1)
    assert bootstrap_mean(values, studies, seed=1) != bootstrap_mean(values, studies, seed=2)


def test_the_interval_of_independent_items_has_the_width_of_the_normal_one() -> None:
    values = np.random.default_rng(5).normal(size=400)
    interval = bootstrap_mean(values, [str(item) for item in range(400)], resamples=4000)
    half_width = 1.96 * values.std() / math.sqrt(400)
    assert interval.lower == pytest.approx(values.mean() - half_width, abs=0.1 * half_width)
    assert interval.upper == pytest.approx(values.mean() + half_width, abs=0.1 * half_width)


def test_a_single_study_has_a_mean_and_no_interval() -> None:
    interval = bootstrap_mean(np.array([1.0, 3.0]), ["a", "a"])
    assert (interval.mean, interval.studies) == (2.0, 1)
    assert math.isnan(interval.lower) and math.isnan(interval.upper)


def test_nothing_but_nan_has_no_mean() -> None:
    interval = bootstrap_mean(np.array([math.nan, math.nan]), ["a", "b"])
    assert math.isnan(interval.mean)
    assert (interval.items, interval.studies) == (0, 0)


def test_about_95_of_100_intervals_hold_the_true_mean_when_frames_of_a_study_resemble_each_other() -> None:
    generator = np.random.default_rng(11)
    studies = [str(study) for study in range(40) for _ in range(6)]
    hits_by_study, hits_by_frame = 0, 0
    for _ in range(200):
        values = (generator.normal(size=(40, 1)) + 0.5 * generator.normal(size=(40, 6))).ravel()
        by_study = bootstrap_mean(values, studies, resamples=400)
        by_frame = bootstrap_mean(values, [str(item) for item in range(240)], resamples=400)
        hits_by_study += by_study.lower <= 0 <= by_study.upper
        hits_by_frame += by_frame.lower <= 0 <= by_frame.upper
    assert 0.90 <= hits_by_study / 200 <= 0.98
    assert hits_by_frame / 200 < 0.75


def test_the_difference_of_two_methods_is_first_minus_second() -> None:
    comparison = compare_paired(VALUES, np.zeros(4), STUDIES)
    assert comparison.difference == bootstrap_mean(VALUES, STUDIES)


def test_the_p_value_is_twice_the_share_of_resamples_on_the_wrong_side() -> None:
    # Differences -1 and 4: the resampled means are -1 (one in four), 1.5 and 4.
    comparison = compare_paired(np.array([0.0, 4.0]), np.array([1.0, 0.0]), ["a", "b"], resamples=4000)
    assert comparison.p_value == pytest.approx(2 * 0.25, abs=0.03)


def test_the_p_value_is_the_same_for_both_orders() -> None:
    first, second = np.array([0.0, 4.0]), np.array([1.0, 0.0])
    swapped = compare_paired(second, first, ["a", "b"])
    assert swapped.p_value == compare_paired(first, second, ["a", "b"]).p_value


def test_a_difference_of_the_same_sign_in_every_study_has_the_smallest_p_value_there_is() -> None:
    comparison = compare_paired(np.array([2.0, 3.0, 4.0]), np.array([1.0, 1.0, 1.0]), ["a", "b", "c"], resamples=999)
    assert comparison.p_value == pytest.approx(2 * (0 + 1) / (999 + 1))
    assert (comparison.difference.lower, comparison.difference.upper) == (1.0, 3.0)


def test_two_equal_methods_have_a_p_value_of_one() -> None:
    comparison = compare_paired(VALUES, VALUES, STUDIES)
    assert comparison.p_value == 1.0
    assert (comparison.difference.lower, comparison.difference.upper) == (0.0, 0.0)


def test_an_item_that_one_method_alone_scores_is_left_out_and_counted() -> None:
    nan = math.nan
    comparison = compare_paired(np.array([5.0, nan, nan, 2.0]), np.array([1.0, 1.0, nan, 0.0]), ["a", "a", "b", "c"])
    assert comparison.unpaired == 1
    assert (comparison.difference.mean, comparison.difference.items) == ((4 + 2) / 2, 2)


def test_a_comparison_on_one_study_has_no_p_value() -> None:
    assert math.isnan(compare_paired(np.array([1.0, 2.0]), np.zeros(2), ["a", "a"]).p_value)


def test_paired_methods_are_compared_more_sharply_than_their_means_alone() -> None:
    generator = np.random.default_rng(2)
    shared, studies = generator.normal(size=60), [str(item) for item in range(60)]
    better = shared + 0.1 + 0.05 * generator.normal(size=60)
    difference = compare_paired(better, shared, studies).difference
    alone = bootstrap_mean(better, studies)
    assert difference.lower > 0
    assert difference.upper - difference.lower < 0.2 * (alone.upper - alone.lower)


def test_missing_structures_are_not_averaged() -> None:
    with pytest.raises(ValueError, match="values must not be infinite, got 1 infinite values"):
        bootstrap_mean(np.array([1.0, math.inf]), ["a", "b"])
    with pytest.raises(ValueError, match="second must not be infinite"):
        compare_paired(np.ones(2), np.array([1.0, math.inf]), ["a", "b"])


def test_every_item_needs_a_study() -> None:
    with pytest.raises(ValueError, match=r"one value for each of the 2 studies, got shape \(3,\)"):
        bootstrap_mean(np.ones(3), ["a", "b"])


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_a_confidence_that_is_no_share_is_refused(confidence) -> None:
    with pytest.raises(ValueError, match="confidence must lie between 0 and 1"):
        bootstrap_mean(VALUES, STUDIES, confidence=confidence)


def test_no_resamples_are_refused() -> None:
    with pytest.raises(ValueError, match="resamples must be at least 1, got 0"):
        bootstrap_mean(VALUES, STUDIES, resamples=0)
