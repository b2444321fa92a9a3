"""Each normalisation of nnU-Net, as a map of single grey values."""

import numpy as np
import pytest
from nnunetv2.preprocessing.normalization import default_normalization_schemes as schemes

from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.intensities import Intensities, measure

FOREGROUND = {"mean": 100.0, "std": 40.0, "percentile_00_5": 20.0, "percentile_99_5": 180.0}
IMAGE = np.random.default_rng(0).uniform(0, 255, (5, 7, 6)).astype(np.float32)
MASK = np.random.default_rng(1).random(IMAGE.shape) < 0.6
NAMES = (
    "ZScoreNormalization", "CTNormalization", "NoNormalization", "RescaleTo01Normalization", "RGBTo01Normalization",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("number_type", [np.float32, np.uint8])
def test_it_maps_as_nnunet_does(name, number_type):
    image = IMAGE.astype(number_type)
    expected = getattr(schemes, name)(False, FOREGROUND).run(image.astype(np.float32), None)
    intensities = measure(name, image, None, FOREGROUND)
    np.testing.assert_allclose(intensities.apply(image), expected, atol=2e-6)
    assert intensities.apply(image).dtype == np.float32
    np.testing.assert_allclose(intensities.range_of(image, None), (expected.min(), expected.max()), atol=2e-6)


def test_within_a_mask_it_maps_as_nnunet_does():
    image = np.where(MASK, IMAGE, 0)
    expected = schemes.ZScoreNormalization(True, FOREGROUND).run(image.copy(), np.where(MASK, 0, -1))
    intensities = measure("ZScoreNormalization", image, MASK, FOREGROUND)
    assert intensities.masked
    np.testing.assert_allclose(intensities.apply(image) * MASK, expected, atol=2e-6)
    np.testing.assert_allclose(intensities.range_of(image, MASK), (expected.min(), expected.max()), atol=2e-6)


def test_black_stays_zero_only_where_it_is_mapped_to_zero():
    assert (
        Intensities().keeps_zero and Intensities(5.0, masked=True).keeps_zero and Intensities(5.0, low=5.0).keeps_zero
    )
    assert not Intensities(5.0).keeps_zero
    for name in NAMES:
        measured = measure(name, IMAGE, None, FOREGROUND)
        assert measured.keeps_zero == (measured.apply(np.zeros(1)).item() == 0)


def test_a_movie_of_one_grey_value_becomes_zeros():
    flat = np.full((2, 3, 3), 7.0, np.float32)
    assert not measure("ZScoreNormalization", flat, None, FOREGROUND).apply(flat).any()


def test_an_unknown_normalisation_is_named():
    with pytest.raises(InputError, match="MyNormalization"):
        measure("MyNormalization", IMAGE, None, FOREGROUND)


@pytest.mark.parametrize(("mean", "deviation"), [(np.nan, 1.0), (0.0, np.inf), (0.0, 0.0)])
def test_statistics_that_map_nothing_are_refused(mean, deviation):
    with pytest.raises(InputError, match="expected finite"):
        Intensities(mean, deviation)
