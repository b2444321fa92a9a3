"""Everything that can be wrong with a raw dataset of sequences, found before any long work starts."""

import contextlib
import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets
from tqdm import tqdm

from nnunet_temporal.datasets.derive import derive_manifest
from nnunet_temporal.datasets.image_io import NIFTI_ENDINGS, open_nifti
from nnunet_temporal.datasets.problems import apply_to_all
from nnunet_temporal.errors import InputError
from nnunet_temporal.sequences import MANIFEST_NAME, Manifest, Sequence

SPLIT_FIRST = "A 4D file must be split into one sequence per slice first: 'nnunet_temporal convert nifti'."


def manifest_of(raw_dataset_folder: Path) -> Manifest:
    """Return the manifest of a raw dataset's training cases: its ``sequences.json``, or derived from its files.

    Raises:
        InputError: The manifest is invalid, or lacks a training case.
    """
    files = training_files(raw_dataset_folder, read_dataset_json(raw_dataset_folder))
    return _manifest_of(raw_dataset_folder, files)


def check_raw_dataset(raw_dataset_folder: Path, processes: int = 2) -> Manifest:
    """Read every training image and label once, and check them against each other, dataset.json and the manifest.

    Args:
        raw_dataset_folder: ``nnUNet_raw/DatasetXXX_Name``.
        processes: Files read at a time.

    Returns:
        The manifest of the training cases.

    Raises:
        InputError: Lists every problem: an image that is not (x, y, t), a label on another grid, no frames, pixels
            that are not finite, label values outside dataset.json, frame counts or labelled frames that differ from
            the manifest, or no labelled frame in the whole dataset.
    """
    dataset_json = read_dataset_json(raw_dataset_folder)
    files = training_files(raw_dataset_folder, dataset_json)
    manifest = _manifest_of(raw_dataset_folder, files)
    reader = _reader_of(dataset_json, [image for entry in files.values() for image in entry["images"]])
    check = partial(
        _check_case,
        reader=reader,
        n_channels=len(dataset_json["channel_names"]),
        labels=dataset_json["labels"],
        manifest=manifest,
    )
    with ThreadPoolExecutor(processes) as pool:
        jobs = [pool.submit(check, case, **files[case]) for case in files]
        progress = tqdm(jobs, desc="Checking sequences", unit="sequence")
        has_foreground = apply_to_all(progress, lambda job: job.result())
    if not any(sequence.labelled_frames for sequence in manifest.values()):
        raise InputError(
            f"{raw_dataset_folder}: none of its {len(manifest)} training sequences has a labelled frame, so there is "
            "nothing to learn from. Add masks for at least one frame of two studies."
        )
    if not any(has_foreground):
        raise InputError(f"{raw_dataset_folder}: no training mask has foreground, so there is nothing to learn.")
    return manifest


class _NanKeepingReader(SimpleITKIO):
    """Reads NIfTI as nnU-Net's default reader does, but keeps NaN and infinity, which ITK silently turns into zero."""

    def read_images(self, image_fnames: list[str] | tuple[str, ...]) -> tuple[np.ndarray, dict]:
        """Return grey values (C, T, Y, X), float32, and no properties; pixels are decoded once, by nibabel.

        ITK reads the headers all the same: it refuses directions that nibabel accepts, and nnU-Net would stop there.
        """
        images, grids = [], set()
        for path in image_fnames:
            header = SimpleITK.ImageFileReader()
            header.SetFileName(path)
            header.ReadImageInformation()
            size = header.GetSize()
            grids.add((size, header.GetSpacing()))
            pixels = np.asarray(open_nifti(Path(path)).dataobj, np.float32)
            # As in nnU-Net, a fourth axis on disk counts as channels, and a file (x, y) as one frame.
            images.append(pixels.T.reshape((1,) * (4 - len(size)) + size[::-1]))
        if len(grids) > 1:
            raise ValueError(f"its channels differ in size or spacing: {sorted(grids)}")
        return np.concatenate(images), {}


def _manifest_of(raw_dataset_folder: Path, files: dict[str, dict[str, Any]]) -> Manifest:
    path = raw_dataset_folder / MANIFEST_NAME
    if path.is_file():
        return Manifest.read(path).subset(files)
    apply_to_all((entry["label"] for entry in files.values()), _check_label_exists)
    return derive_manifest(raw_dataset_folder).subset(files)


def read_dataset_json(raw_dataset_folder: Path) -> dict[str, Any]:
    """Read the ``dataset.json`` of a raw dataset; InputError unless it holds what nnU-Net needs."""
    path = raw_dataset_folder / "dataset.json"
    if not path.is_file():
        raise InputError(f"{path} is missing: every nnU-Net raw dataset needs one. Write it with 'convert'.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: expected nnU-Net's dataset.json, but it is no JSON: {error}") from error
    required = {"labels", "file_ending", "channel_names", "numTraining"}
    if not isinstance(content, dict) or not required <= set(content):
        raise InputError(f"{path}: found {content!r}, expected nnU-Net's entries, {sorted(required)} among them")
    if any(isinstance(entry, list) for entry in content["labels"].values()) and "regions_class_order" not in content:
        raise InputError(f"{path}: 'labels' holds regions, so nnU-Net needs 'regions_class_order', too")
    return content


def find_reader(dataset_json: dict[str, Any], images: list[str]) -> BaseReaderWriter:
    """Choose nnU-Net's reader by the first image any reader accepts; unreadable ones are reported one by one later."""
    for image in images:
        with contextlib.suppress(Exception):
            return determine_reader_writer_from_dataset_json(dataset_json, image, verbose=False)()
    raise InputError(f"{images[0]}: none of nnU-Net's readers can read this or any other training image")


def _reader_of(dataset_json: dict[str, Any], images: list[str]) -> BaseReaderWriter:
    reader = find_reader(dataset_json, images)
    hides_nan = isinstance(reader, SimpleITKIO) and images[0].endswith(NIFTI_ENDINGS)
    return _NanKeepingReader() if hides_nan else reader


def training_files(raw_dataset_folder: Path, dataset_json: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return images and label of every training case as nnU-Net finds them; InputError without any."""
    files = get_filenames_of_train_images_and_targets(str(raw_dataset_folder), dataset_json)
    if not files:
        raise InputError(f"{raw_dataset_folder / 'imagesTr'}: found no training images *{dataset_json['file_ending']}")
    return files


def _check_label_exists(label: str) -> None:
    if not Path(label).is_file():
        raise InputError(
            f"{label} is missing: nnU-Net wants a label file per training case; 'nnunet_temporal plan_and_preprocess' "
            "writes an all-ignore one."
        )


def _check_case(
    case: str,
    images: list[str],
    label: str,
    *,
    reader: BaseReaderWriter,
    n_channels: int,
    labels: dict[str, Any],
    manifest: Manifest,
) -> bool:
    """Check one case; return whether it has foreground."""
    image, _ = _read(reader.read_images, images, images[0])
    if len(image) != n_channels:
        raise InputError(
            f"{images[0]}: is a 4D image, or dataset.json does not name all channels: expected 3D (x, y, t), "
            f"{n_channels} channel(s) in all, found {len(image)} in {len(images)} file(s). {SPLIT_FIRST}"
        )
    # A colour image has all its channels in one file.
    paths = images if len(images) == len(image) else [images[0]] * len(image)
    for path, channel in zip(paths, image, strict=True):
        _check_pixels(path, channel, manifest[case])
    _check_label_exists(label)
    mask = _read(reader.read_seg, label, label)[0]
    if mask.shape[1:] != image.shape[1:]:
        raise InputError(f"{label}: shape (T, Y, X) is {mask.shape[1:]}, but its image has {image.shape[1:]}")
    _check_labels(label, mask[0], labels, manifest[case])
    foreground = [value for value in label_values(labels) if value not in (0, labels.get("ignore"))]
    return bool(np.isin(mask[0], foreground).any())


def _read(function: Any, argument: Any, path: str) -> tuple[np.ndarray, dict]:  # noqa: ANN401 - two readers in one
    try:
        return function(argument)
    # nnU-Net's readers raise whatever their libraries raise, AssertionError and RuntimeError among them.
    except Exception as error:
        raise InputError(f"{path}: cannot be read as a 3D image (x, y, t): {error}") from error


def _check_pixels(path: str, pixels: np.ndarray, sequence: Sequence) -> None:
    if pixels.size == 0:
        raise InputError(f"{path}: has zero frames or no pixels, shape (T, Y, X) is {pixels.shape}")
    if len(pixels) != sequence.n_frames:
        raise InputError(
            f"{path}: has {len(pixels)} frames, but {MANIFEST_NAME} says {sequence.n_frames}. {SPLIT_FIRST}"
        )
    if not np.isfinite(pixels).all():
        frames = np.flatnonzero(~np.isfinite(pixels).all(axis=(1, 2))).tolist()
        raise InputError(f"{path}: pixels must be finite, found NaN or infinity in frames {frames}")


def _check_labels(path: str, mask: np.ndarray, labels: dict[str, Any], sequence: Sequence) -> None:
    allowed = label_values(labels)
    unknown = sorted(set(np.unique(mask).tolist()) - allowed)
    if unknown:
        raise InputError(f"{path}: found label values {unknown}, but dataset.json knows {sorted(allowed)} only")
    labelled = np.ones(len(mask), bool) if "ignore" not in labels else (mask != labels["ignore"]).any(axis=(1, 2))
    missing = [t for t in sequence.labelled_frames if not labelled[t]]
    if missing:
        raise InputError(f"{path}: {MANIFEST_NAME} calls frames {missing} labelled, but all their pixels are 'ignore'")


def label_values(labels: dict[str, Any]) -> set[int]:
    """Return all label values, those of regions among them."""
    return {value for entry in labels.values() for value in (entry if isinstance(entry, list) else [entry])}
