"""Agreement against hand computation and a published table."""

import dataclasses
import math

import numpy as np
import pytest

from nnunet_temporal.metrics.agreement import (
    concordance_correlation,
    intraclass_correlation,
    measure_agreement,
    pearson_r,
)

# Differences 2, 2, -1; means 6 and 5. Deviations -2, 0, 2 and -3, -1, 4.
PREDICTION = np.array([4.0, 6.0, 8.0])
REFERENCE = np.array([2.0, 4.0, 9.0])


def test_bias_is_the_mean_of_prediction_minus_reference() -> None:
    assert measure_agreement(PREDICTION, REFERENCE).bias == pytest.approx((2 + 2 - 1) / 3)


def test_the_sd_is_that_of_the_differences_divided_by_n_minus_one() -> None:
    # Deviations from the bias of 1: 1, 1, -2.
    assert measure_agreement(PREDICTION, REFERENCE).sd_of_differences == pytest.approx(math.sqrt((1 + 1 + 4) / 2))


def test_the_limits_of_agreement_are_the_bias_and_1_96_sds_around_it() -> None:
    agreement = measure_agreement(PREDICTION, REFERENCE)
    assert agreement.lower_limit == pytest.approx(1 - 1.96 * math.sqrt(3))
    assert agreement.upper_limit == pytest.approx(1 + 1.96 * math.sqrt(3))


def test_the_mean_absolute_error_does_not_cancel() -> None:
    assert measure_agreement(PREDICTION, REFERENCE).mean_absolute_error == pytest.approx((2 + 2 + 1) / 3)


def test_pearson_r_is_the_covariance_over_both_standard_deviations() -> None:
    # Covariance (-2)(-3) + 0 (-1) + 2 * 4 = 14; squares 4 + 0 + 4 = 8 and 9 + 1 + 16 = 26.
    assert pearson_r(PREDICTION, REFERENCE) == pytest.approx(14 / math.sqrt(8 * 26))


def test_the_concordance_correlation_pays_for_the_bias() -> None:
    # 2 * 14 / 3 over 8 / 3 + 26 / 3 + 1 squared.
    assert concordance_correlation(PREDICTION, REFERENCE) == pytest.approx(28 / (8 + 26 + 3))


def test_the_intraclass_correlation_of_two_raters_follows_the_anova_table() -> None:
    # Grand mean 5.5; targets 3, 5, 8.5 give SS 2 (6.25 + 0.25 + 9) = 31 and B = 31 / 2. Raters 6, 5 give
    # SS 3 (0.25 + 0.25) = 1.5 = J. Total SS 2.25 + 0.25 + 6.25 + 12.25 + 2.25 + 12.25 = 35.5, residual 3, E = 3 / 2.
    expected = (15.5 - 1.5) / (15.5 + 1.5 + 2 * (1.5 - 1.5) / 3)
    assert measure_agreement(PREDICTION, REFERENCE).icc == pytest.approx(expected)


def test_the_intraclass_correlation_of_shrout_and_fleiss_is_0_29() -> None:
    ratings = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    assert intraclass_correlation(np.array(ratings)) == pytest.approx(0.29, abs=0.005)


def test_perfect_agreement_has_correlations_of_one_and_no_error() -> None:
    agreement = dataclasses.asdict(measure_agreement(REFERENCE, REFERENCE))
    ones, zeros = {"pearson_r", "icc", "ccc"}, {"bias", "sd_of_differences", "mean_absolute_error"}
    assert {name: agreement[name] for name in ones} == pytest.approx(dict.fromkeys(ones, 1.0))
    assert {name: agreement[name] for name in zeros} == pytest.approx(dict.fromkeys(zeros, 0.0))


def test_a_constant_offset_leaves_pearson_r_at_one_and_lowers_icc_and_ccc() -> None:
    agreement = measure_agreement(REFERENCE + 10, REFERENCE)
    assert agreement.pearson_r == pytest.approx(1.0)
    assert agreement.ccc == pytest.approx(2 * (26 / 3) / (26 / 3 + 26 / 3 + 100))
    assert agreement.icc < 0.3


def test_a_reversed_order_has_negative_correlations() -> None:
    agreement = measure_agreement(REFERENCE[::-1], np.array([2.0, 4.0, 9.0]))
    assert max(agreement.pearson_r, agreement.icc, agreement.ccc) < 0


def test_a_constant_prediction_has_no_pearson_r_and_no_concordance() -> None:
    agreement = measure_agreement(np.full(3, 0.1), REFERENCE)
    assert math.isnan(agreement.pearson_r)
    assert agreement.ccc == pytest.approx(0.0)
    assert agreement.bias == pytest.approx(0.1 - 5)


def test_a_constant_reference_has_no_pearson_r() -> None:
    assert math.isnan(pearson_r(REFERENCE, np.full(3, 0.1)))


def test_correlations_of_one_value_repeated_everywhere_are_nan() -> None:
    agreement = measure_agreement(np.full(3, 0.1), np.full(3, 0.1))
    assert np.isnan([agreement.pearson_r, agreement.icc, agreement.ccc]).all()
    assert agreement.mean_absolute_error == 0.0


def test_the_intraclass_correlation_is_nan_where_its_denominator_vanishes() -> None:
    # Exchanged ratings: B = J = 0, so that the denominator is E + 2 (0 - E) / 2.
    assert math.isnan(intraclass_correlation(np.array([[0.1, 0.2], [0.2, 0.1]])))


@pytest.mark.filterwarnings("error")
def test_one_pair_has_a_bias_and_nothing_that_needs_a_spread() -> None:
    agreement = measure_agreement(np.array([3.0]), np.array([5.0]))
    assert (agreement.count, agreement.bias, agreement.mean_absolute_error) == (1, -2.0, 2.0)
    undefined = [agreement.sd_of_differences, agreement.lower_limit, agreement.pearson_r, agreement.icc, agreement.ccc]
    assert np.isnan(undefined).all()


@pytest.mark.filterwarnings("error")
def test_no_pairs_have_no_agreement() -> None:
    agreement = dataclasses.asdict(measure_agreement(np.empty(0), np.empty(0)))
    assert agreement.pop("count") == 0
    assert np.isnan(list(agreement.values())).all()


def test_a_pair_without_a_value_is_refused() -> None:
    with pytest.raises(ValueError, match="reference must be finite, got 1 values that are not"):
        measure_agreement(np.array([1.0, 2.0]), np.array([1.0, math.nan]))


def test_unpaired_values_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one shape \(N,\), got \(2,\) and \(3,\)"):
        measure_agreement(np.ones(2), np.ones(3))


def test_the_intraclass_correlation_refuses_a_single_rater() -> None:
    with pytest.raises(ValueError, match="two or more raters"):
        intraclass_correlation(np.ones((5, 1)))


def test_the_intraclass_correlation_refuses_missing_ratings() -> None:
    with pytest.raises(ValueError, match="ratings must be finite"):
        intraclass_correlation(np.array([[1.0, 2.0], [math.nan, 1.0]]))
