"""A manifest for a raw nnU-Net dataset that has none: what can be told from its label files alone."""

import json
from pathlib import Path

import numpy as np
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from tqdm import tqdm

from nnunet_temporal.datasets.problems import apply_to_all
from nnunet_temporal.datasets.study_source import IGNORE
from nnunet_temporal.errors import InputError
from nnunet_temporal.sequences import Manifest, Sequence, parse_case_name


def derive_manifest(raw_dataset_folder: Path) -> Manifest:
    """Describe the training sequences of a raw dataset from its files.

    A frame is labelled when any of its pixels differs from the ignore label; without an ignore label every frame is.
    Studies and slices come from case names (``<study>_zNN``). Frame intervals, ED and ES stay unknown.

    Args:
        raw_dataset_folder: A ``DatasetXXX_Name`` folder with ``dataset.json`` and ``labelsTr``.

    Returns:
        The manifest of the cases in ``labelsTr``, sorted by case.

    Raises:
        InputError: ``dataset.json`` or label files are missing or unreadable. All bad files are listed.
    """
    path = raw_dataset_folder / "dataset.json"
    try:
        dataset_json = json.loads(path.read_text(encoding="utf-8"))
        ending, ignore = dataset_json["file_ending"], dataset_json["labels"].get(IGNORE)
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{path}: expected nnU-Net's dataset.json, but it cannot be read: {error!r}") from error
    files = sorted((raw_dataset_folder / "labelsTr").glob(f"*{ending}"))
    if not files:
        raise InputError(f"{raw_dataset_folder / 'labelsTr'}: found no label files *{ending}")
    reader = determine_reader_writer_from_dataset_json(dataset_json, str(files[0]), verbose=False)()
    progress = tqdm(files, desc="Reading labelled frames", unit="sequence")

    def describe(file: Path) -> Sequence:
        try:
            labels = reader.read_seg(str(file))[0][0]
        # The readers of nnU-Net raise whatever their libraries raise, RuntimeError and AssertionError among them.
        except Exception as error:
            raise InputError(f"{file}: expected a readable label file: {error}") from error
        return _describe(file.name.removesuffix(ending), labels, ignore)

    return Manifest({sequence.case: sequence for sequence in apply_to_all(progress, describe)})


def _describe(case: str, labels: np.ndarray, ignore: int | None) -> Sequence:
    study, z, view = parse_case_name(case)
    is_labelled = np.ones(len(labels), bool) if ignore is None else (labels != ignore).any(axis=(1, 2))
    frames = tuple(np.flatnonzero(is_labelled).tolist())
    return Sequence(case=case, study=study, n_frames=len(labels), labelled_frames=frames, slice=z, view=view)
