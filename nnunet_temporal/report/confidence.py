"""How sure a model was of its masks, frame by frame, where prediction left it behind."""

import zipfile
import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.confidence import CONFIDENCE_ENDING, FRAMES_ENDING
from nnunet_temporal.inference.confidence import read_confidence as read_file
from nnunet_temporal.inference.propagation.study_records import read_records
from nnunet_temporal.sequences import Sequence as SequenceEntry

_PROBABILITIES_ENDING = ".npz"


def read_confidence(whole: Path, sequences: Sequence[SequenceEntry], masks: np.ndarray) -> np.ndarray | None:
    """Read the confidence of every frame: the mean probability of what its foreground pixels were called.

    Args:
        whole: Where masks of the whole stack lie or would, without ending. ``predict`` leaves ``NAME_confidence.csv``
            there, with ``--seed`` ``NAME_frames.csv``; ``nnUNetv2_predict --save_probabilities`` leaves ``CASE.npz``.
        sequences: The entries of the stack's sequences in the manifest.
        masks: (T, Z, Y, X) label values.

    Returns:
        (T, Z) float64 in 0..1, NaN where it is not known; None without such files.

    Raises:
        InputError: A file does not fit the masks or cannot be read.
    """
    confidence = np.full(masks.shape[:2], np.nan)
    for ending, read in ((FRAMES_ENDING, _of_records), (CONFIDENCE_ENDING, read_file)):
        file = whole.with_name(f"{whole.name}{ending}")
        if file.is_file():
            for z, frames in read(file).items():
                _fill(confidence, z or 0, frames, file)
            return confidence
    is_known = False
    for z, sequence in enumerate(sequences):
        of_probabilities = partial(_of_probabilities, masks[:, z])
        for ending, read in ((CONFIDENCE_ENDING, read_file), (_PROBABILITIES_ENDING, of_probabilities)):
            file = whole.with_name(f"{sequence.case}{ending}")
            if file.is_file():
                _fill(confidence, z, read(file)[None], file)
                is_known = True
                break
    return confidence if is_known else None


def _fill(confidence: np.ndarray, z: int, frames: np.ndarray, file: Path) -> None:
    """Put the frames (T,) of a slice where they belong in (T, Z)."""
    n_frames, n_slices = confidence.shape
    if z >= n_slices or len(frames) != n_frames:
        raise InputError(
            f"{file}: found slice {z} with {len(frames)} frames, expected {n_slices} slices of {n_frames} frames as in "
            "the masks; predict again, or remove the file"
        )
    confidence[:, z] = frames


def _of_records(file: Path) -> dict[int | None, np.ndarray]:
    """Return the confidence (T,) of each slice from the records of a propagation."""
    try:
        records = read_records(file)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file}: cannot be read as records of frames: {error!r}; remove it") from error
    n_frames = max((record.frame for record in records), default=-1) + 1
    slices: dict[int | None, np.ndarray] = {record.slice: np.full(n_frames, np.nan) for record in records}
    for record in records:
        slices[record.slice][record.frame] = np.nan if record.confidence is None else record.confidence
    return slices


def _of_probabilities(masks: np.ndarray, file: Path) -> dict[int | None, np.ndarray]:
    """Return the confidence (T,) of masks (T, Y, X) from the probabilities (K, T, Y, X) that they were decided by."""
    try:
        with np.load(file) as content:
            probabilities = content["probabilities"]
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{file}: cannot be read as nnU-Net's probabilities: {error!r}") from error
    if probabilities.shape[1:] != masks.shape:
        raise InputError(
            f"{file}: found probabilities of shape (K, T, Y, X) {probabilities.shape}, expected {masks.shape} behind K "
            "as in the masks; predict again, or remove the file"
        )
    foreground = masks > 0
    largest = np.where(foreground, probabilities.max(axis=0), 0.0).sum(axis=(1, 2), dtype=np.float64)
    pixels = foreground.sum(axis=(1, 2))
    return {None: np.divide(largest, pixels, out=np.full(len(masks), np.nan), where=pixels > 0)}
