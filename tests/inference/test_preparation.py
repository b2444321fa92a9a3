"""Frames are prepared as nnU-Net's preprocessor prepares the whole sequence, whichever are asked for."""

import numpy as np
import pytest
import torch
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from phantom_dataset import movie
from trained_models import DATASET, make_plans

from nnunet_temporal.inference.preparation import PreparedSequence

STOCK_RESAMPLING = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
SPACINGS_MM = [(1.25, 1.25), (1.5, 1.25), (0.8, 0.9), (2.0, 1.1)]


def sequence(channels=1, margins=True):
    image = np.stack([movie(7, seed)[:, 0] for seed in range(channels)])
    if margins:
        image[:, [0, 3, 6]] = 0
        image[..., :4] = image[..., -3:, :] = 0
    return image


def both(image, pixel_mm, configuration="2dt", **entries):
    """Return nnU-Net's preprocessing of a sequence, its crop, and ours."""
    plans = PlansManager(make_plans(len(image), **entries))
    manager = plans.get_configuration(configuration)
    properties = {"spacing": [10.0, *pixel_mm]}
    expected, _, properties = DefaultPreprocessor(verbose=False).run_case_npy(
        image, None, properties, plans, manager, DATASET
    )
    return expected, properties["bbox_used_for_cropping"], PreparedSequence.measure(image, pixel_mm, plans, manager)


@pytest.mark.parametrize("pixel_mm", SPACINGS_MM)
@pytest.mark.parametrize("margins", [False, True])
def test_all_frames_are_those_of_nnunet(pixel_mm, margins):
    expected, crop, ours = both(sequence(margins=margins), pixel_mm)
    rows, columns = ours.preparation.rows, ours.preparation.columns
    assert [[ours.first, ours.stop], [rows.start, rows.stop], [columns.start, columns.stop]] == crop
    np.testing.assert_allclose(ours.frames(np.arange(ours.first, ours.stop)), expected, atol=5e-6)


@pytest.mark.parametrize("masks", [[True, True], [True, False]])
def test_channels_normalised_within_a_mask_are_those_of_nnunet(masks):
    expected, _, ours = both(sequence(2), (1.5, 1.25), use_mask_for_norm=masks)
    np.testing.assert_allclose(ours.frames(np.arange(1, 6)), expected, atol=5e-6)


def test_stock_plans_that_treat_time_apart_are_followed():
    expected, _, ours = both(sequence(), (2.0, 1.1), "2d", resampling_fn_data_kwargs=STOCK_RESAMPLING)
    np.testing.assert_allclose(ours.frames(np.arange(1, 6)), expected, atol=5e-6)


def test_other_resampling_functions_of_the_plans_are_followed():
    entries = {"resampling_fn_data": "resample_torch_fornnunet"}
    arguments = {"resampling_fn_data_kwargs": {"is_seg": False, "force_separate_z": False}}
    expected, _, ours = both(sequence(), (2.0, 1.1), **entries, **arguments)
    np.testing.assert_allclose(ours.frames(np.arange(1, 6)), expected, atol=1e-4)


@pytest.mark.parametrize("masked", [False, True])
def test_any_frames_can_be_asked_for(masked):
    _, _, ours = both(sequence(), (1.5, 1.25), use_mask_for_norm=[masked])
    whole = ours.frames(np.arange(1, 6))
    np.testing.assert_array_equal(ours.frames(np.array([4, 2])), whole[:, [3, 1]])


def test_frames_that_are_zero_when_prepared_are_known():
    for masked in (False, True):
        _, _, ours = both(sequence(), (1.5, 1.25), use_mask_for_norm=[masked])
        assert np.flatnonzero(ours.blank).tolist() == ([0, 3, 6] if masked else [0, 6])
        for t in range(ours.first, ours.stop):
            assert ours.blank[t] == (not ours.frames(np.array([t])).any())


@pytest.mark.parametrize("pixel_mm", SPACINGS_MM)
@pytest.mark.parametrize("function", ["resample_data_or_seg_to_shape", "resample_torch_fornnunet"])
def test_logits_are_resampled_as_by_nnunet(pixel_mm, function):
    entries = {"resampling_fn_probabilities": function}
    if function != "resample_data_or_seg_to_shape":
        entries["resampling_fn_probabilities_kwargs"] = {"is_seg": False, "force_separate_z": False}
    _, _, ours = both(sequence(), pixel_mm, **entries)
    preparation = ours.preparation
    logits = torch.randn(3, 4, *preparation.network_size, generator=torch.Generator().manual_seed(0))
    expected = preparation.configuration.resampling_fn_probabilities(
        logits, (4, *preparation.cropped_size), (10.0, 1.25, 1.25), (10.0, *pixel_mm)
    )
    np.testing.assert_allclose(preparation.to_native(logits), np.asarray(expected), atol=1e-4)
