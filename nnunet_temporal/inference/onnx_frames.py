"""Frames prepared as the sidecar of an exported model says: ``Preparation`` with numpy and scipy only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import binary_fill_holes, zoom

from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.intensities import Intensities, measure
from nnunet_temporal.inference.nonzero_part import NonzeroPart

_DEFAULT_RESAMPLING = "resample_data_or_seg_to_shape"
_ANISOTROPIC = 3  # times the finest spacing; nnU-Net's


@dataclass(frozen=True)
class FramePreparation:
    """How the frames of one video become what the exported step takes, and its logits what the video needs.

    Attributes:
        sidecar: Content of ``model.json``.
        pixel_mm: In-plane spacing (y, x) of the frames in mm.
        rows: The crop along Y.
        columns: The crop along X.
        intensities: Normalisation per channel.
        ranges: Least and largest normalised value per channel; infinity and its negative if unknown.
    """

    sidecar: dict[str, Any]
    pixel_mm: tuple[float, float]
    rows: slice
    columns: slice
    intensities: Sequence[Intensities]
    ranges: Sequence[tuple[float, float]]

    def __post_init__(self) -> None:
        frames, logits = self.sidecar["resampling"]["frames"], self.sidecar["resampling"]["logits"]
        if {frames["function"], logits["function"]} != {_DEFAULT_RESAMPLING} or logits["order"] != 1:
            raise InputError(
                f"the model resamples frames by {frames} and logits by {logits}; without nnU-Net only its default can "
                f"be had, {_DEFAULT_RESAMPLING} with order 1 for logits. Predict with nnunet_temporal predict"
            )

    @classmethod
    def unmeasured(
        cls,
        sidecar: dict[str, Any],
        pixel_mm: tuple[float, float],
        frame_size: tuple[int, int],
        intensities: Sequence[Intensities],
    ) -> "FramePreparation":
        """Prepare frames (Y, X) of which none is known yet: nothing is cropped, and values have no known range."""
        rows, columns = (slice(0, side) for side in frame_size)
        return cls(sidecar, pixel_mm, rows, columns, intensities, [(np.inf, -np.inf)] * len(intensities))

    @property
    def cropped_size(self) -> tuple[int, int]:
        """Size (Y, X) of the crop in pixels of the frames."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start

    @property
    def network_size(self) -> tuple[int, int]:
        """Size (Y, X) of the crop in pixels of the network."""
        sides = zip(self.cropped_size, self.pixel_mm, self.sidecar["frame"]["spacing_mm"], strict=True)
        height, width = (round(here / there * side) for side, here, there in sides)
        return height, width

    @property
    def keeps_zero(self) -> bool:
        """Whether a frame that is zero everywhere is so when prepared."""
        return all(scale.keeps_zero for scale in self.intensities)

    def apply(self, frame: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """Prepare a frame.

        Args:
            frame: (C, Y, X), not cropped.
            mask: (Y, X) bool, cropped: the pixels that are normalised, where the model normalises within a mask; None
                finds the nonzero pixels of the frame.

        Returns:
            (C, Y, X) float32 of ``network_size``.
        """
        frame = frame[:, self.rows, self.columns]
        inside = frame.any(0) if mask is None else mask
        prepared = np.empty((len(frame), *self.network_size), np.float32)
        for channel, scale, known, out in zip(frame, self.intensities, self.ranges, prepared, strict=True):
            normalised = scale.apply(channel) * inside if scale.masked else scale.apply(channel)
            out[:] = self._resampled(normalised, known)
        return prepared

    def to_native(self, logits: np.ndarray) -> np.ndarray:
        """Resample logits (K, *network_size) to (K, *cropped_size)."""
        return np.stack([_zoom(channel, self.cropped_size, order=1) for channel in logits])

    def _resampled(self, channel: np.ndarray, known: tuple[float, float]) -> np.ndarray:
        entries = self.sidecar["resampling"]["frames"]
        if channel.shape == self.network_size:
            return channel
        fitted = _zoom(channel, self.network_size, entries["order"])
        low, high = channel.min(), channel.max()
        if not self._is_clipped_by_frame(entries["force_separate_z"]):
            # Splines overshoot; nnU-Net clips them to the range of the sequence, beyond which a live frame may go.
            low, high = min(known[0], low), max(known[1], high)
        return np.clip(fitted, low, high)

    def _is_clipped_by_frame(self, force_separate_z: bool | None) -> bool:
        """Tell whether nnU-Net resamples frames apart, the axis with the coarsest spacing being that of time."""
        if force_separate_z is not None:
            return force_separate_z
        time = self.sidecar["resampling"]["time_spacing"]
        pairs = ((time, *self.pixel_mm), (time, *self.sidecar["frame"]["spacing_mm"]))
        return any(max(spacing) > _ANISOTROPIC * min(spacing) for spacing in pairs)


@dataclass(frozen=True)
class MeasuredClip:
    """What was measured on a clip (C, T, Y, X), and the clip.

    Attributes:
        image: The clip.
        preparation: How its frames are prepared.
        mask: (T, Y, X) bool, cropped; None where the model does not normalise within a mask.
        blank: (T,) bool, frames that are zero everywhere when prepared, and those at either end that are black.
    """

    image: np.ndarray
    preparation: FramePreparation
    mask: np.ndarray | None
    blank: np.ndarray

    @classmethod
    def measure(cls, image: np.ndarray, pixel_mm: tuple[float, float], sidecar: dict[str, Any]) -> "MeasuredClip":
        """Measure crop and intensities, as nnU-Net does of a sequence.

        Raises:
            InputError: Pixels are not finite.
        """
        part, channels = NonzeroPart.of(image), sidecar["channels"]
        cropped = part.crop(image)
        mask = binary_fill_holes(cropped.any(0)) if any(channel["within_mask"] for channel in channels) else None
        masks = [mask if channel["within_mask"] else None for channel in channels]
        intensities = [
            measure(channel["normalisation"], pixels, inside, channel["foreground"])
            for channel, pixels, inside in zip(channels, cropped, masks, strict=True)
        ]
        # Only z-scores are taken within the mask.
        ranges = [
            scale.range_of(pixels, mask if scale.masked else None)
            for scale, pixels in zip(intensities, cropped, strict=True)
        ]
        preparation = FramePreparation(sidecar, pixel_mm, part.rows, part.columns, intensities, ranges)
        blank = part.blank_frames(keeps_zero=preparation.keeps_zero)
        return cls(image, preparation, part.with_all_frames(mask), blank)


def _zoom(pixels: np.ndarray, size: tuple[int, int], order: int) -> np.ndarray:
    """Fit a spline of ``order`` to pixels (Y, X); the outermost centres lie half a pixel within the borders."""
    factors = [there / here for there, here in zip(size, pixels.shape, strict=True)]
    return zoom(pixels.astype(np.float64), factors, order=order, mode="nearest", grid_mode=True)
