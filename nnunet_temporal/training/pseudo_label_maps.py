"""Pseudo-labels as maps: how two deviate, how one takes another in, how they are kept, and what is trained on."""

from typing import NamedTuple

import blosc2
import numpy as np

INTEGRATED_SHARE = 0.5
"""Share of an accepted prediction in the new pseudo-label."""
LEVELS = 255
"""A confidence of 1 as it is stored."""


def confident_labels(labels: np.ndarray, confidence: np.ndarray, threshold: float, *, ignore_label: int) -> np.ndarray:
    """Return pseudo-labels to train on: int16 of the same shape, ignored where they are not sure enough.

    Args:
        labels: uint8, any shape.
        confidence: uint8 of the same shape, 255 for certainty.
        threshold: Smallest confidence that counts, 0..1.
        ignore_label: Label of all other pixels.
    """
    # Widened first: numpy keeps to uint8 otherwise, in which a large ignore label is another label.
    return np.where(confidence >= round(threshold * LEVELS), labels.astype(np.int16), np.int16(ignore_label))


def deviation(labels: np.ndarray, others: np.ndarray) -> float:
    """Return 1 - (Dice + IoU) / 2 of two uint8 label maps, averaged over the foreground labels present in either.

    Two empty maps do not deviate. Source: the deviation of MSSNet's sketch, there of one class.
    """
    sizes = np.bincount(labels.ravel(), minlength=256) + np.bincount(others.ravel(), minlength=256)
    shared = np.bincount(labels[labels == others], minlength=256)
    present = np.flatnonzero(sizes[1:]) + 1
    if not present.size:
        return 0.0
    sizes, shared = sizes[present], shared[present]
    return float(1 - (2 * shared / sizes + shared / (sizes - shared)).mean() / 2)


def integrate(
    labels: np.ndarray, confidence: np.ndarray, new_labels: np.ndarray, new_confidence: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mix an accepted prediction into a pseudo-label, both known by their likeliest label and its probability only.

    Where both agree, the confidence is mixed. Where not, the label with the greater share of the mixture wins, the
    stored one in a tie, and its share is the new confidence: at most one half, so a dispute is not trained on.

    Args:
        labels: (T, Y, X) uint8.
        confidence: (T, Y, X) uint8.
        new_labels: (T, Y, X) uint8.
        new_confidence: (T, Y, X) uint8.

    Returns:
        Labels and confidence, (T, Y, X) uint8.
    """
    mass, new_mass = (1 - INTEGRATED_SHARE) * confidence, INTEGRATED_SHARE * new_confidence
    mixed = np.where(labels == new_labels, mass + new_mass, np.maximum(mass, new_mass))
    return np.where(mass >= new_mass, labels, new_labels), np.rint(mixed).astype(np.uint8)


class PackedMaps(NamedTuple):
    """Labels and confidence of a case, (T, Y, X) uint8 each, compressed."""

    labels: bytes
    confidence: bytes
    shape: tuple[int, ...]

    @classmethod
    def pack(cls, labels: np.ndarray, confidence: np.ndarray) -> "PackedMaps":
        """Compress."""
        return cls(_compress(labels), _compress(confidence), labels.shape)

    def unpack(self) -> tuple[np.ndarray, np.ndarray]:
        """Decompress."""
        return _decompress(self.labels, self.shape), _decompress(self.confidence, self.shape)


def _compress(array: np.ndarray) -> bytes:
    # One thread: the maps are read in worker processes, where a pool of threads does not survive the fork.
    return blosc2.compress2(np.ascontiguousarray(array), codec=blosc2.Codec.ZSTD, clevel=1, nthreads=1)


def _decompress(packed: bytes, shape: tuple[int, ...]) -> np.ndarray:
    array = np.empty(shape, np.uint8)
    blosc2.decompress2(packed, dst=array, nthreads=1)
    return array
