"""Without torch and nnU-Net, frames are prepared, cut into windows and resampled back as with them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from phantom_dataset import movie
from trained_models import DATASET, REGIONS, TWO_CHANNELS, make_plans

from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.intensities import Intensities
from nnunet_temporal.inference.model_folder import TrainedModel
from nnunet_temporal.inference.onnx_export import describe
from nnunet_temporal.inference.onnx_frames import FramePreparation, MeasuredClip
from nnunet_temporal.inference.onnx_windows import FrameWindows
from nnunet_temporal.inference.preparation import Preparation, PreparedSequence
from nnunet_temporal.inference.windows import OVERLAP, Windows

PATCH = (48, 48)
RESAMPLING = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": False}
SPACINGS_MM = [(1.25, 1.25), (1.5, 1.25), (0.8, 0.9), (2.0, 1.1), (4.0, 3.5)]
SCHEMES = ["ZScoreNormalization", "CTNormalization", "RescaleTo01Normalization", "RGBTo01Normalization"]


def clip(channels=1):
    """Return a clip (C, T, Y, X) with black frames and black margins."""
    image = np.stack([movie(7, seed)[:, 0] for seed in range(channels)])
    image[:, [0, 3, 6]] = 0
    image[..., :4] = image[..., -3:, :] = 0
    return image


def model_of(dataset=DATASET, configuration="2dt", **entries):
    """Return a model without a network, and its sidecar."""
    plans = PlansManager(make_plans(len(dataset["channel_names"]), **entries))
    manager = plans.get_configuration(configuration)
    network = SimpleNamespace(delay=0, frame_stride=1, watch_first=False)
    model = TrainedModel(plans, manager, dataset, plans.get_label_manager(dataset), (network,), ())
    graph = SimpleNamespace(example=np.zeros((1, model.channels, *PATCH)), states=())
    return model, describe(model, graph, {"fold": 0})


def both(image, pixel_mm, configuration="2dt", **entries):
    model, sidecar = model_of(DATASET if len(image) == 1 else TWO_CHANNELS, configuration, **entries)
    stock = PreparedSequence.measure(image, pixel_mm, model.plans, model.configuration)
    return stock, MeasuredClip.measure(image, pixel_mm, sidecar)


def assert_alike(stock, ours):
    """Compare what was measured, every frame, and a frame of a live stream, which goes beyond what was measured."""
    assert (stock.preparation.rows, stock.preparation.columns) == (ours.preparation.rows, ours.preparation.columns)
    assert stock.preparation.network_size == ours.preparation.network_size
    np.testing.assert_array_equal(stock.blank, ours.blank)
    for t in range(stock.image.shape[1]):
        expected = stock.frames(np.array([t]))[:, 0]
        mask = None if ours.mask is None else ours.mask[t]
        np.testing.assert_allclose(ours.preparation.apply(ours.image[:, t], mask), expected, atol=1e-6)
    live = 2 * stock.image[:, :2][:, -1] - 30
    expected = stock.preparation.apply(live[:, None])[:, 0]
    np.testing.assert_allclose(ours.preparation.apply(live), expected, atol=1e-6)


@pytest.mark.parametrize("pixel_mm", SPACINGS_MM)
@pytest.mark.parametrize("force_separate_z", [False, True, None])
def test_frames_are_resampled_and_clipped_as_by_nnunet(pixel_mm, force_separate_z):
    assert_alike(
        *both(clip(), pixel_mm, resampling_fn_data_kwargs={**RESAMPLING, "force_separate_z": force_separate_z})
    )


@pytest.mark.parametrize("order", [0, 1, 2])
def test_other_orders_of_splines_are_followed(order):
    assert_alike(*both(clip(), (1.5, 1.25), resampling_fn_data_kwargs={**RESAMPLING, "order": order}))


@pytest.mark.parametrize("scheme", [*SCHEMES, "NoNormalization"])
def test_every_normalisation_is_followed(scheme):
    assert_alike(*both(clip(), (1.5, 1.25), normalization_schemes=[scheme]))


@pytest.mark.parametrize("within_mask", [[True, True], [True, False]])
def test_channels_normalised_within_a_mask_are_too(within_mask):
    assert_alike(*both(clip(2), (1.5, 1.25), use_mask_for_norm=within_mask))


@pytest.mark.parametrize("image", [np.zeros((1, 3, 9, 8)), clip()[:, 1:2]], ids=["black", "one frame"])
def test_clips_with_nothing_or_little_in_them_are_measured(image):
    assert_alike(*both(image, (1.5, 1.25)))


def test_logits_are_resampled_as_by_torch():
    model, sidecar = model_of()
    arguments = (slice(3, 40), slice(0, 31))
    stock = Preparation(model.configuration, (Intensities(),), *arguments, (1.5, 0.9), ((0, 0),))
    ours = FramePreparation(sidecar, (1.5, 0.9), *arguments, [Intensities()], [(0, 0)])
    logits = torch.randn(3, 1, *stock.network_size, generator=torch.Generator().manual_seed(0))
    native = ours.to_native(logits[:, 0].numpy())
    assert native.shape == (3, 37, 31)
    np.testing.assert_allclose(native, stock.to_native(logits)[:, 0], atol=1e-5)


@pytest.mark.parametrize(
    "entries",
    [
        {"resampling_fn_data": "resample_torch_fornnunet"},
        {"resampling_fn_probabilities_kwargs": {**RESAMPLING, "order": 3}},
    ],
)
def test_resampling_that_needs_nnunet_is_refused(entries):
    with pytest.raises(InputError, match=r"without nnU-Net only its default can be had"):
        MeasuredClip.measure(clip(), (1.5, 1.25), model_of(**entries)[1])


@pytest.mark.parametrize("size", [(40, 36), (48, 48), (64, 48), (100, 71), (30, 90), (47, 121)])
def test_windows_are_those_of_nnunet(size):
    stock, ours = Windows(size, PATCH), FrameWindows(size, PATCH, OVERLAP)
    assert ours.corners == stock.corners
    frame = torch.randn(2, *size, generator=torch.Generator().manual_seed(0))
    cut = stock.cut(frame[:, None])
    for window, expected in zip(ours.cut(frame.numpy()), cut, strict=True):
        np.testing.assert_array_equal(window, expected[:, 0])
    # Logits that disagree where windows overlap, as those of a network do.
    logits = cut * torch.arange(1.0, len(cut) + 1)[:, None, None, None, None]
    expected = stock.join(logits)[:, 0]
    np.testing.assert_allclose(ours.join(list(logits[:, :, 0].numpy())), expected, atol=1e-5)


def test_regions_and_classes_say_which_values_their_channels_paint():
    assert model_of()[1]["labels"] == {
        "names": DATASET["labels"], "regions": False, "values": [0, 1, 2], "dtype": "uint8"
    }  # fmt: skip
    assert model_of(REGIONS)[1]["labels"]["values"] == [2, 1]
    assert model_of(REGIONS)[1]["logits"]["shape"] == [1, 2, 48, 48]
