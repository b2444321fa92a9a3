"""Training images that nobody labelled: the all-ignore labels nnU-Net wants for them, and their place in the folds."""

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from tqdm import tqdm

from nnunet_temporal.atomic import write_json
from nnunet_temporal.datasets.integrity import SPLIT_FIRST, find_reader, label_values, read_dataset_json, training_files
from nnunet_temporal.datasets.problems import apply_to_all, listed
from nnunet_temporal.datasets.study_source import IGNORE
from nnunet_temporal.errors import InputError
from nnunet_temporal.sequences import MANIFEST_NAME, Manifest, Splits

_NAMED = 5


def label_unlabelled_images(raw_dataset_folder: Path) -> list[str]:
    """Write an all-ignore label for every training image that has no label file; nothing happens if all have one.

    ``dataset.json`` gets an ignore label where it has none, and counts the images, as nnU-Net's own check does.

    Args:
        raw_dataset_folder: ``nnUNet_raw/DatasetXXX_Name``.

    Returns:
        What was written, a line for each file or kind of file.

    Raises:
        InputError: No image has a label file, the manifest calls frames of an image without one labelled, an image
            cannot be read, or the folder cannot be written to.
    """
    files = training_files(raw_dataset_folder, read_dataset_json(raw_dataset_folder))
    missing = {case: entry for case, entry in files.items() if not Path(entry["label"]).is_file()}
    if not missing:
        return []
    _check_nobody_labelled(raw_dataset_folder, files, missing)
    try:
        return [*_count_and_ignore(raw_dataset_folder, len(files)), _write_labels(raw_dataset_folder, files, missing)]
    except OSError as error:
        raise InputError(
            f"{raw_dataset_folder}: {len(missing)} training images have no label file, and the all-ignore labels "
            f"nnU-Net needs cannot be written: {error}. Make the folder writable, or copy the dataset to one that is."
        ) from error


def extend_splits(splits: Splits, manifest: Manifest) -> Splits:
    """Return folds that also train on those sequences without labels which no fold knows.

    Such a sequence goes with its study: into training where the study is trained on, nowhere where it is validated or
    left out; one of a study that no fold knows is trained on in all. Nothing else changes.

    Args:
        splits: Folds as in nnU-Net's ``splits_final.json``.
        manifest: The training sequences.
    """
    known = cases_of(splits)
    added = [s for s in manifest.values() if not s.labelled_frames and s.case not in known]
    studies = [{manifest[case].study for case in fold["train"] if case in manifest} for fold in splits]
    in_folds = {manifest[case].study for case in known if case in manifest}
    return [
        {**fold, "train": fold["train"] + [s.case for s in added if s.study in trained or s.study not in in_folds]}
        for fold, trained in zip(splits, studies, strict=True)
    ]


def cases_of(splits: Splits) -> set[str]:
    """Return the cases that any fold trains on or validates."""
    return {case for fold in splits for side in fold.values() for case in side}


def _check_nobody_labelled(folder: Path, files: dict[str, Any], missing: dict[str, Any]) -> None:
    if len(missing) == len(files):
        raise InputError(
            f"{folder}: none of its {len(files)} training images has a label file in labelsTr, so there is nothing to "
            "learn from. Add masks for at least one frame of two studies."
        )
    has_manifest = (folder / MANIFEST_NAME).is_file()
    manifest = Manifest.load(folder).subset(files) if has_manifest else {}

    def check(case: str) -> None:
        _check_not_lost(Path(missing[case]["label"]), manifest[case].labelled_frames if has_manifest else ())

    apply_to_all(missing, check)


def _check_not_lost(label: Path, labelled_frames: tuple[int, ...]) -> None:
    if label.is_symlink():
        raise InputError(f"{label} is missing: it links to {os.readlink(label)}, which is no file. Mend or remove it.")
    if labelled_frames:
        raise InputError(
            f"{label} is missing: {MANIFEST_NAME} calls frames {list(labelled_frames)} of it labelled. Put the file "
            "back, or empty labelled_frames there, and the image gets an all-ignore label."
        )


def _count_and_ignore(folder: Path, n_images: int) -> list[str]:
    """Bring ``dataset.json`` up to date; first of all, so that no label file ever holds a value it does not know."""
    content, lines = read_dataset_json(folder), []
    if IGNORE not in content["labels"]:
        highest = max(label_values(content["labels"]))
        content["labels"] = {**content["labels"], IGNORE: highest + 1}
        lines.append(f"{folder / 'dataset.json'}: added the label 'ignore', {highest + 1}")
    if content["numTraining"] != n_images:
        lines.append(f"{folder / 'dataset.json'}: numTraining is {n_images} now, was {content['numTraining']}")
        content["numTraining"] = n_images
    if lines:
        write_json(content, folder / "dataset.json")
    return lines


def _write_labels(folder: Path, files: dict[str, Any], missing: dict[str, Any]) -> str:
    content = read_dataset_json(folder)
    reader = find_reader(content, [image for entry in files.values() for image in entry["images"]])
    n_channels, ignore = len(content["channel_names"]), content["labels"][IGNORE]
    progress = tqdm(missing.values(), desc="Writing all-ignore labels", unit="sequence")
    apply_to_all(progress, lambda entry: _write_label(**entry, reader=reader, n_channels=n_channels, ignore=ignore))
    return f"{folder / 'labelsTr'}: {len(missing)} all-ignore labels for images without: {listed([*missing], _NAMED)}"


def _write_label(images: list[str], label: str, *, reader: BaseReaderWriter, n_channels: int, ignore: int) -> None:
    """Write the label of one image on its grid, by nnU-Net's writer, so that nnU-Net finds the two to agree."""
    target = Path(label)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".partial_") as working:
        # nnU-Net's readers and writers raise whatever their libraries raise, RuntimeError and AssertionError too.
        try:
            image, properties = reader.read_images(images)
            if len(image) != n_channels:
                raise ValueError(f"expected 3D (x, y, t), {n_channels} channel(s) in all, found {len(image)}")
        except Exception as error:
            raise InputError(f"{images[0]}: cannot be given a label: {error}. {SPLIT_FIRST}") from error
        labels = np.full(image.shape[1:], ignore, np.min_scalar_type(ignore))
        try:
            reader.write_seg(labels, str(Path(working) / target.name), properties)
        except Exception as error:
            raise InputError(f"{target}: cannot be written: {error}. Is the disk full?") from error
        # Some writers put a file with the spacing beside the label, whose own name says that both are there.
        for path in sorted(Path(working).iterdir(), key=lambda path: path.name == target.name):
            os.replace(path, target.parent / path.name)
