"""From logits of a few frames to label values, on their device."""

import numpy as np
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import Tensor


def to_labels(logits: Tensor, labels: LabelManager) -> Tensor:
    """Turn logits (K, ...) into label values (...) on their device, as nnU-Net does."""
    # nnU-Net takes the largest of classes by numpy, which other devices than the CPU do not have.
    return labels.convert_logits_to_segmentation(logits) if labels.has_regions else logits.argmax(0)


def mask_type(labels: LabelManager) -> type[np.unsignedinteger]:
    """Return the type of masks, nnU-Net's."""
    return np.uint8 if len(labels.foreground_labels) < 255 else np.uint16


def background_probabilities(labels: LabelManager, shape: tuple[int, ...]) -> np.ndarray:
    """Return probabilities (K, *shape) float32 of nothing but background."""
    probabilities = np.zeros((labels.num_segmentation_heads, *shape), np.float32)
    if not labels.has_regions:
        probabilities[0] = 1
    return probabilities
