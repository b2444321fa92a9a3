"""How sure networks are of the mask of a frame, and the file that says so beside the masks of a movie."""

import csv
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nnunet_temporal.atomic import atomic_path
from nnunet_temporal.errors import InputError

CONFIDENCE_ENDING = "_confidence.csv"
FRAMES_ENDING = "_frames.csv"
"""Of the file that a propagation writes instead, which says more."""
_COLUMNS = ("slice", "frame", "confidence")


def confidence_of(probabilities: Tensor, *, overlapping: bool) -> list[float]:
    """Return how sure the masks of frames are: the mean probability of what the foreground pixels were called.

    Args:
        probabilities: (K, N, Y, X) of classes, or of regions that may overlap.
        overlapping: Whether they are regions.

    Returns:
        Of N frames, each in 0..1; without foreground the least probability of background.
    """
    if overlapping:
        found, certainty = (probabilities > 0.5).any(0), torch.maximum(probabilities, 1 - probabilities).amin(0)
    else:
        certainty, classes = probabilities.max(0)
        found = classes > 0
    means = (certainty * found).sum((1, 2)) / found.sum((1, 2)).clamp(min=1)
    return torch.where(found.any(-1).any(-1), means, certainty.amin((1, 2))).tolist()


def write_confidence(confidence: Mapping[int | None, np.ndarray], file: Path) -> None:
    """Write one line of CSV per frame, atomically.

    Args:
        confidence: {slice: (T,)}, {None: (T,)} without slices; NaN, which becomes empty, where nothing was segmented.
        file: The file to write.
    """
    with atomic_path(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as content:
        writer = csv.writer(content)
        writer.writerow(_COLUMNS)
        for z, frames in confidence.items():
            for frame, value in enumerate(frames.tolist()):
                writer.writerow(("" if z is None else z, frame, "" if math.isnan(value) else f"{value:.4f}"))


def remove_confidence(folder: Path, name: str) -> None:
    """Remove what is known of earlier masks of this name, which others are about to replace, whatever made these."""
    for ending in (CONFIDENCE_ENDING, FRAMES_ENDING):
        (folder / f"{name}{ending}").unlink(missing_ok=True)


def read_confidence(file: Path) -> dict[int | None, np.ndarray]:
    """Read what :func:`write_confidence` wrote.

    Raises:
        InputError: The file cannot be read.
    """
    found: dict[int | None, list[float]] = {}
    try:
        with file.open(newline="", encoding="utf-8") as content:
            for line in csv.DictReader(content):
                z = int(line["slice"]) if line["slice"] else None
                found.setdefault(z, []).append(float(line["confidence"] or math.nan))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file}: cannot be read ({error!r}); predict again, or remove it") from error
    return {z: np.array(values) for z, values in found.items()}
