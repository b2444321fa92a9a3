"""nnU-Net's normalisations as maps of single grey values, for frames whose followers are not known yet."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nnunet_temporal.errors import InputError

_EPSILON = 1e-8  # nnU-Net's smallest divisor
_ADVICE = "replace NaN and infinite pixels"


@dataclass(frozen=True)
class Intensities:
    """How the grey values of one channel are normalised: clipped to low .. high, shifted, scaled.

    Attributes:
        shift: Subtracted after clipping, such as the mean of a sequence.
        scale: Divisor after shifting, such as its standard deviation; above 0.
        low: Lower bound.
        high: Upper bound.
        masked: Whether pixels that are zero in every channel stay zero.
    """

    shift: float = 0.0
    scale: float = 1.0
    low: float = -math.inf
    high: float = math.inf
    masked: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.shift) and math.isfinite(self.scale) and self.scale > 0):
            raise InputError(
                f"found mean {self.shift} and standard deviation {self.scale} of grey values, expected finite ones; "
                f"{_ADVICE}"
            )

    @property
    def keeps_zero(self) -> bool:
        """Whether what is black stays zero."""
        return self.masked or min(max(0.0, self.low), self.high) == self.shift

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Normalise grey values of any shape and type, without regard to a mask: float32."""
        clipped = np.clip(pixels.astype(np.float32), self.low, self.high)
        return (clipped - np.float32(self.shift)) / np.float32(self.scale)

    def range_of(self, channel: np.ndarray, mask: np.ndarray | None) -> tuple[float, float]:
        """Return the least and the largest value of a channel (T, Y, X) when normalised, zero outside the mask.

        Raises:
            InputError: Pixels are not finite.
        """
        values = channel if mask is None or not mask.any() else channel[mask]
        extremes = np.array([values.min(), values.max()])
        if not np.isfinite(extremes).all():
            raise InputError(f"found grey values from {extremes[0]} to {extremes[1]}, expected finite ones; {_ADVICE}")
        low, high = self.apply(extremes).tolist()
        return (low, high) if mask is None or mask.all() else (min(low, 0.0), max(high, 0.0))


def measure(scheme: str, channel: np.ndarray, mask: np.ndarray | None, foreground: Mapping[str, float]) -> Intensities:
    """Measure what a normalisation of nnU-Net needs to know of a sequence.

    Args:
        scheme: Name of the class in nnU-Net, from ``normalization_schemes`` of the plans.
        channel: (T, Y, X), cropped to what is not zero.
        mask: (T, Y, X) bool, the pixels that count; None for all.
        foreground: ``foreground_intensity_properties_per_channel`` of the plans, for this channel.

    Raises:
        InputError: nnU-Net has no such normalisation, or pixels are not finite.
    """
    if scheme == "ZScoreNormalization":
        mean, deviation = _mean_and_deviation(channel, mask)
        return Intensities(mean, max(deviation, _EPSILON), masked=mask is not None)
    if scheme == "CTNormalization":
        bounds = (foreground["percentile_00_5"], foreground["percentile_99_5"])
        return Intensities(foreground["mean"], max(foreground["std"], _EPSILON), *bounds)
    if scheme == "RescaleTo01Normalization":
        low, high = float(channel.min()), float(channel.max())
        return Intensities(low, max(high - low, _EPSILON))
    if scheme == "RGBTo01Normalization":
        return Intensities(scale=255.0)
    if scheme == "NoNormalization":
        return Intensities()
    raise InputError(f"plans: normalization_schemes holds {scheme!r}, which is none of nnU-Net's normalisations")


def _mean_and_deviation(channel: np.ndarray, mask: np.ndarray | None) -> tuple[float, float]:
    """Measure frame by frame: numpy's own functions would copy the whole sequence."""
    frames = [(frame, ... if mask is None else mask[t]) for t, frame in enumerate(channel)]
    count = channel.size if mask is None else int(mask.sum())
    mean = sum(float(frame[inside].sum(dtype=np.float64)) for frame, inside in frames) / max(count, 1)
    squares = sum(float(((frame[inside].astype(np.float64) - mean) ** 2).sum()) for frame, inside in frames)
    return mean, math.sqrt(squares / max(count, 1))
