"""How sure a model was of its masks, frame by frame, where prediction left it behind."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.propagation.study_job import FRAMES_ENDING
from nnunet_temporal.inference.propagation.study_records import FrameRecord, read_records
from nnunet_temporal.sequences import Sequence as SequenceEntry
from nnunet_temporal.sequences import case_name


def read_confidence(folder: Path, sequences: Sequence[SequenceEntry], masks: np.ndarray) -> np.ndarray | None:
    """Read the confidence of every frame: the mean probability of what its foreground pixels were called.

    Args:
        folder: Folder of the masks. ``predict --seed`` leaves ``STUDY_frames.csv`` there, ``--save_probabilities``
            leaves ``CASE.npz`` (nnU-Net's own prediction does, too).
        sequences: The entries of the stack's sequences in the manifest.
        masks: (T, Z, Y, X) label values.

    Returns:
        (T, Z) float64 in 0..1, NaN where it is not known (no foreground); None without such files.

    Raises:
        InputError: A file does not fit the masks or cannot be read.
    """
    confidence = np.full(masks.shape[:2], np.nan)
    records = folder / f"{case_name(sequences[0].study, view=sequences[0].view)}{FRAMES_ENDING}"
    if records.is_file():
        for record in _read_records(records):
            if not (record.frame < masks.shape[0] and record.slice < masks.shape[1]):
                raise InputError(
                    f"{records}: found slice {record.slice}, frame {record.frame}, expected {masks.shape[1]} slices of "
                    f"{masks.shape[0]} frames as in the masks; predict again, or remove the file"
                )
            confidence[record.frame, record.slice] = np.nan if record.confidence is None else record.confidence
        return confidence
    files = [folder / f"{sequence.case}.npz" for sequence in sequences]
    if not any(file.is_file() for file in files):
        return None
    for z, file in enumerate(files):
        if file.is_file():
            confidence[:, z] = _of_probabilities(file, masks[:, z])
    return confidence


def _read_records(file: Path) -> list[FrameRecord]:
    try:
        return read_records(file)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file}: cannot be read as records of frames: {error!r}; remove it") from error


def _of_probabilities(file: Path, masks: np.ndarray) -> np.ndarray:
    """Return the confidence (T,) of masks (T, Y, X) from the probabilities (K, T, Y, X) that they were decided by."""
    try:
        with np.load(file) as content:
            probabilities = content["probabilities"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{file}: cannot be read as nnU-Net's probabilities: {error!r}") from error
    if probabilities.shape[1:] != masks.shape:
        raise InputError(
            f"{file}: found probabilities of shape (K, T, Y, X) {probabilities.shape}, expected {masks.shape} behind K "
            "as in the masks; predict again, or remove the file"
        )
    foreground = masks > 0
    largest = np.where(foreground, probabilities.max(axis=0), 0.0).sum(axis=(1, 2), dtype=np.float64)
    pixels = foreground.sum(axis=(1, 2))
    return np.divide(largest, pixels, out=np.full(len(masks), np.nan), where=pixels > 0)
