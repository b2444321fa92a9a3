"""nnU-Net's preprocessing of sequences, a few frames at a time: crop, normalise, resample in plane."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from nnunetv2.preprocessing.cropping.cropping import create_nonzero_mask
from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import Tensor

from nnunet_temporal.datasets.image_io import T_SPACING
from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.frame_resampling import resample_frames, resample_logits
from nnunet_temporal.inference.intensities import Intensities, measure
from nnunet_temporal.inference.nonzero_part import NonzeroPart


@dataclass(frozen=True)
class Preparation:
    """How the frames of one sequence become what networks take.

    Attributes:
        configuration: nnU-Net's configuration, which says how finely and by which function to resample.
        intensities: Normalisation per channel.
        rows: The crop along Y.
        columns: The crop along X.
        pixel_mm: In-plane spacing (y, x) of the frames in mm.
        ranges: Least and largest normalised value of the sequence per channel; infinity and its negative if unknown.
    """

    configuration: ConfigurationManager
    intensities: tuple[Intensities, ...]
    rows: slice
    columns: slice
    pixel_mm: tuple[float, float]
    ranges: tuple[tuple[float, float], ...]

    @classmethod
    def unmeasured(
        cls,
        configuration: ConfigurationManager,
        pixel_mm: tuple[float, float],
        frame_size: tuple[int, int],
        intensities: Sequence[Intensities],
    ) -> "Preparation":
        """Prepare frames (Y, X) of which none is known yet: nothing is cropped, and values have no known range."""
        rows, columns = (slice(0, side) for side in frame_size)
        unknown = ((np.inf, -np.inf),) * len(intensities)
        return cls(configuration, tuple(intensities), rows, columns, pixel_mm, unknown)

    @property
    def cropped_size(self) -> tuple[int, int]:
        """Size (Y, X) of the crop in pixels of the frames."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start

    @property
    def network_size(self) -> tuple[int, int]:
        """Size (Y, X) of the crop in pixels of the networks."""
        height, width = compute_new_shape(self.cropped_size, self.pixel_mm, self.configuration.spacing)
        return int(height), int(width)

    @property
    def keeps_zero(self) -> bool:
        """Whether a frame that is zero everywhere is so when prepared."""
        return all(scale.keeps_zero for scale in self.intensities)

    def apply(self, frames: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """Prepare frames.

        Args:
            frames: (C, T, Y, X), not cropped.
            mask: (T, Y, X) bool, cropped: the pixels that are normalised, where the plans normalise within a mask; None
                finds the nonzero pixels of the frames.

        Returns:
            (C, T, Y, X) float32 of ``network_size``.
        """
        frames = frames[:, :, self.rows, self.columns]
        normalised = np.stack([scale.apply(channel) for scale, channel in zip(self.intensities, frames, strict=True)])
        masked = [scale.masked for scale in self.intensities]
        if any(masked):
            normalised[masked] *= frames.any(0) if mask is None else mask
        return resample_frames(normalised, self.network_size, self.pixel_mm, self.configuration, self.ranges)

    def mask_to_network(self, mask: np.ndarray) -> np.ndarray:
        """Resample label values (*cropped_size) to (*network_size), as nnU-Net's preprocessing does."""
        here, there = (T_SPACING, *self.pixel_mm), (T_SPACING, *self.configuration.spacing)
        resampled = self.configuration.resampling_fn_seg(mask[None, None], (1, *self.network_size), here, there)
        return np.asarray(resampled)[0, 0].astype(mask.dtype)

    def to_native(self, logits: Tensor) -> Tensor:
        """Resample logits (K, T, *network_size) to (K, T, *cropped_size), on their device."""
        return resample_logits(logits, self.cropped_size, self.pixel_mm, self.configuration)


@dataclass(frozen=True)
class PreparedSequence:
    """A sequence whose frames are prepared when they are asked for, so that memory holds the input only once.

    Attributes:
        image: The input, (C, T, Y, X).
        preparation: What was measured on it.
        first: First frame that is not blank.
        stop: One past the last.
        mask: (T, Y, X) bool, cropped; None where the plans do not normalise within a mask.
        blank: (T,) bool, frames that are zero everywhere when prepared. All before ``first`` and from ``stop`` on are.
    """

    image: np.ndarray
    preparation: Preparation
    first: int
    stop: int
    mask: np.ndarray | None
    blank: np.ndarray

    @classmethod
    def measure(
        cls, image: np.ndarray, pixel_mm: tuple[float, float], plans: PlansManager, configuration: ConfigurationManager
    ) -> "PreparedSequence":
        """Measure crop and intensities of a sequence (C, T, Y, X) of any number type.

        Raises:
            InputError: Pixels are not finite.
        """
        part = NonzeroPart.of(image)
        cropped = part.crop(image)
        use_mask = configuration.use_mask_for_norm
        mask = create_nonzero_mask(cropped) if any(use_mask) else None
        intensities = tuple(
            measure(scheme, cropped[c], mask if use_mask[c] else None, _foreground(plans, c))
            for c, scheme in enumerate(configuration.normalization_schemes)
        )
        ranges = tuple(
            scale.range_of(channel, mask if scale.masked else None)
            for scale, channel in zip(intensities, cropped, strict=True)
        )
        preparation = Preparation(configuration, intensities, part.rows, part.columns, pixel_mm, ranges)
        blank = part.blank_frames(keeps_zero=preparation.keeps_zero)
        return cls(image, preparation, part.frames.start, part.frames.stop, part.with_all_frames(mask), blank)

    def reversed(self) -> "PreparedSequence":
        """Return the same frames from the last to the first, prepared in the same way; no pixel is copied."""
        frames = self.image.shape[1]
        mask = None if self.mask is None else self.mask[::-1]
        return replace(
            self,
            image=self.image[:, ::-1],
            first=frames - self.stop,
            stop=frames - self.first,
            mask=mask,
            blank=self.blank[::-1],
        )

    def only(self, index: np.ndarray) -> "PreparedSequence":
        """Return a sequence of the frames ``index``, prepared as they are in this one."""
        mask = None if self.mask is None else self.mask[index]
        return replace(self, image=self.image[:, index], first=0, stop=len(index), mask=mask, blank=self.blank[index])

    def frames(self, index: np.ndarray) -> np.ndarray:
        """Prepare the frames ``index``: (C, T, Y, X) float32."""
        mask = None if self.mask is None else self.mask[index]
        return self.preparation.apply(self.image[:, index], mask)


def check_image(image: np.ndarray, channels: int) -> np.ndarray:
    """Return an image (T, Y, X) or (C, T, Y, X) as (C, T, Y, X).

    Raises:
        InputError: It has other axes, no pixels, or another number of channels than the model takes.
    """
    with_channels = image[None] if image.ndim == 3 else image
    if with_channels.ndim != 4 or 0 in image.shape or len(with_channels) != channels:
        raise InputError(
            f"found an image of shape {image.shape}, expected (T, Y, X) or (C, T, Y, X) with the model's {channels} "
            "channels and no empty axis"
        )
    return with_channels


def _foreground(plans: PlansManager, channel: int) -> dict[str, float]:
    return plans.foreground_intensity_properties_per_channel[str(channel)]
