"""nnU-Net's resampling in plane, a few frames at a time; time is never resampled."""

from collections.abc import Sequence

import numpy as np
import torch
from nnunetv2.preprocessing.resampling.default_resampling import determine_do_sep_z_and_axis
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from skimage.transform import resize
from torch import Tensor
from torch.nn import functional

from nnunet_temporal.datasets.image_io import T_SPACING

_DEFAULT = "resample_data_or_seg_to_shape"


def resample_frames(
    frames: np.ndarray,
    size: tuple[int, int],
    pixel_mm: tuple[float, float],
    configuration: ConfigurationManager,
    ranges: Sequence[tuple[float, float]],
) -> np.ndarray:
    """Resample normalised frames to the grid of the networks.

    nnU-Net's default fits splines to all three axes, which are those of the frames where no frame comes in between, and
    clips what overshoots to the range of the sequence. Frame by frame this is five times as fast.

    Args:
        frames: (C, T, Y, X) float32.
        size: Wanted size (Y, X).
        pixel_mm: In-plane spacing (y, x) of the frames in mm.
        configuration: Which function to use.
        ranges: Least and largest value of the whole sequence per channel, as far as it is known.

    Returns:
        (C, T, *size) float32.
    """
    if frames.shape[2:] == size:
        return frames
    here, there = (T_SPACING, *pixel_mm), (T_SPACING, *configuration.spacing)
    if configuration.configuration["resampling_fn_data"] != _DEFAULT:
        return configuration.resampling_fn_data(frames, (frames.shape[1], *size), here, there)
    arguments = configuration.configuration["resampling_fn_data_kwargs"]
    # Where time is treated apart, as by stock plans, nnU-Net clips each frame to its own range.
    apart, _ = determine_do_sep_z_and_axis(arguments["force_separate_z"], here, there)
    resampled = np.empty((*frames.shape[:2], *size), np.float32)
    for channel, (low, high), out in zip(frames, ranges, resampled, strict=True):
        for t, frame in enumerate(channel.astype(np.float64)):
            fitted = resize(frame, size, arguments["order"], mode="edge", anti_aliasing=False, clip=apart)
            # A live frame may go beyond what was known before it.
            out[t] = fitted if apart else np.clip(fitted, min(low, frame.min()), max(high, frame.max()))
    return resampled


def resample_logits(
    logits: Tensor, size: tuple[int, int], pixel_mm: tuple[float, float], configuration: ConfigurationManager
) -> Tensor:
    """Resample logits to the grid of the input, on their device.

    nnU-Net's default for logits, order 1, is bilinear interpolation. Any other function of the plans is called itself,
    on the CPU.

    Args:
        logits: (K, T, Y, X) float32.
        size: Wanted size (Y, X).
        pixel_mm: In-plane spacing (y, x) of the input in mm.
        configuration: Which function to use.

    Returns:
        (K, T, *size) float32.
    """
    if tuple(logits.shape[2:]) == size:
        return logits
    entries = configuration.configuration
    is_default = entries["resampling_fn_probabilities"] == _DEFAULT
    if is_default and entries["resampling_fn_probabilities_kwargs"]["order"] == 1:
        return functional.interpolate(logits.transpose(0, 1), size, mode="bilinear").transpose(0, 1)
    here, there = (T_SPACING, *configuration.spacing), (T_SPACING, *pixel_mm)
    resampled = configuration.resampling_fn_probabilities(logits.cpu(), (logits.shape[1], *size), here, there)
    return torch.as_tensor(resampled).to(logits.device)
