"""Predicted masks as a challenge wants them: ED and ES of each patient, on the grid of the challenge's own images."""

import zipfile
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nnunet_temporal.atomic import atomic_path, new_folder, read_json_object
from nnunet_temporal.datasets.challenges import PHASES, Challenge
from nnunet_temporal.datasets.image_io import (
    NIFTI_ENDINGS,
    SEQUENCE_ENDING,
    ImageHeader,
    find_niftis,
    nifti_name,
    read_header,
    read_labels,
)
from nnunet_temporal.datasets.movie_io import movie_header
from nnunet_temporal.datasets.problems import apply_to_all, listed
from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.study import manifest_folder, merge_slices, predicted_folder
from nnunet_temporal.sequences import MANIFEST_NAME, Manifest, Sequence, case_name

_NAMED_AT_MOST = 5
# The first moment that a zip file can state: packing the same masks again gives the same bytes.
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class _View:
    """The sequences of a study that make one image, by slice, and where masks of them are looked for."""

    sequences: tuple[Sequence, ...]
    masks: Path

    @property
    def study(self) -> str:
        return self.sequences[0].study

    @property
    def view(self) -> str | None:
        return self.sequences[0].view

    @property
    def merged(self) -> Path:
        """The one file of masks, which ``merge`` writes."""
        return self.masks / f"{case_name(self.study, view=self.view)}{SEQUENCE_ENDING}"

    @property
    def parts(self) -> dict[int | None, Path]:
        """The files of masks, one per sequence."""
        return {s.slice: self.masks / f"{s.case}{SEQUENCE_ENDING}" for s in self.sequences}

    @property
    def files(self) -> set[Path]:
        """All files that may hold its masks."""
        return {self.merged, *self.parts.values()}


def write_submission(
    masks: Path,
    output: Path,
    challenge: Challenge,
    *,
    manifest: Path | None = None,
    images: Path | None = None,
    pack: bool = False,
) -> list[str]:
    """Write the masks of ED and ES of all patients in a folder of masks, named as a challenge wants them.

    Patients are expected who have a mask, and all others whose images lie in the same folder of the dataset, such as
    ``imagesTs``.

    Args:
        masks: Masks of sequences, or merged by ``merge``.
        output: Folder to make.
        challenge: What to write.
        manifest: ``sequences.json`` as ``convert`` writes it, which knows ED and ES; None looks beside the masks, and
            beside the images that they were predicted from.
        images: Folder with the challenge's images, also in sub-folders; None looks beside the movies that the manifest
            names.
        pack: Whether to write ``OUTPUT.zip``, too.

    Returns:
        The paths of the masks in ``output``, sorted.

    Raises:
        InputError: Output exists; manifest, label names, masks, ED or ES, or an image are missing or unreadable; masks
            hold other labels or have another grid. Nothing is written then, and all bad patients are listed.
    """
    manifest = find_manifest(masks) if manifest is None else manifest
    views = _expected_views(masks, Manifest.read(manifest), manifest.parent)
    _check_names(views, challenge)
    values = _new_values(masks, manifest.parent, challenge)
    own_images = _Images(challenge, manifest.parent, images)
    archive = output.parent / f"{output.name}.zip"
    if pack and archive.exists():
        raise InputError(f"{archive}: exists already; remove it or choose another -o")

    def write(view: _View, folder: Path) -> list[str]:
        names = []
        for phase, (frame, mask) in _phases(view, values).items():
            image = own_images.find(view, phase, frame)
            _check_grid(mask, view, image)
            names.append(challenge.mask_path(view.study, view.view, phase))
            (folder / names[-1]).parent.mkdir(exist_ok=True)
            challenge.write(mask, image, folder / names[-1])
        return names

    with new_folder(output) as folder, atomic_path(archive) if pack else nullcontext() as packed:
        written = apply_to_all(tqdm(views, desc="Writing", unit="image"), lambda view: write(view, folder))
        if packed is not None:
            _pack(folder, packed)
    return sorted(name for names in written for name in names)


def find_manifest(masks: Path) -> Path:
    """Return the manifest beside masks, or of the sequences that they were predicted from.

    Raises:
        InputError: There is neither.
    """
    if (masks / MANIFEST_NAME).is_file():
        return masks / MANIFEST_NAME
    try:
        return manifest_folder(predicted_folder(masks)) / MANIFEST_NAME
    except InputError as error:
        raise InputError(
            f"{masks}: found no {MANIFEST_NAME} there, and no record of existing sequences that its masks were "
            "predicted from; name the manifest that 'nnunet_temporal convert' wrote with --manifest"
        ) from error


def _expected_views(masks: Path, manifest: Manifest, root: Path) -> list[_View]:
    groups: dict[tuple[str, str | None], list[Sequence]] = {}
    for study in manifest.studies():
        for sequence in study.sequences:
            groups.setdefault((study.name, sequence.view), []).append(sequence)
    views = [_View(tuple(sequences), masks) for sequences in groups.values()]
    found = set(find_niftis(masks))
    if not found:
        raise InputError(f"{masks}: found no masks *{SEQUENCE_ENDING}; expected the output of a predict command")
    unknown = sorted(path.name for path in found.difference(*(view.files for view in views)))
    if unknown:
        raise InputError(f"{masks}: found masks that the manifest does not know: {listed(unknown, _NAMED_AT_MOST)}")
    expected = {view.study for view in views if view.files & found}
    for folder in (root, root / "imagesTr", root / "imagesTs"):
        cases = {nifti_name(path)[: -len("_0000")] for path in folder.glob(f"*_0000{SEQUENCE_ENDING}")}
        studies = {sequence.study for case, sequence in manifest.items() if case in cases}
        if studies & {view.study for view in views if view.files & found}:
            expected |= studies
    return [view for view in views if view.study in expected]


def _check_names(views: list[_View], challenge: Challenge) -> None:
    names: dict[str, _View] = {}
    for view in views:
        name = challenge.mask_path(view.study, view.view, PHASES[0])
        other = names.setdefault(name, view)
        if other is not view:
            raise InputError(f"studies {other.study!r} and {view.study!r} both lead to {name}; submit one of them")


def _new_values(masks: Path, root: Path, challenge: Challenge) -> dict[int, int]:
    """Return {value in the masks: value of the challenge}, by the names of the classes."""
    file = next((folder / "dataset.json" for folder in (masks, root) if (folder / "dataset.json").is_file()), None)
    if file is None:
        raise InputError(
            f"{masks}: found no dataset.json there or in {root}, which names the labels; copy that of the model beside "
            "the masks"
        )
    labels = read_json_object(file, "nnU-Net writes it beside the masks.").get("labels")
    if not isinstance(labels, Mapping) or not all(isinstance(value, int) for value in labels.values()):
        raise InputError(f"{file}: found labels {labels}, expected one value per name; regions are not supported")
    if missing := sorted(set(challenge.labels) - set(labels)):
        raise InputError(f"{file}: found labels {labels}, expected also {', '.join(missing)}, as the challenge has")
    return {labels[name]: value for name, value in challenge.labels.items()}


def _phases(view: _View, values: dict[int, int]) -> dict[str, tuple[int, np.ndarray]]:
    """Return {phase: (frame, mask (Z, Y, X) in the challenge's values)}."""
    frames = {phase: getattr(view.sequences[0], phase.lower()) for phase in PHASES}
    name = nifti_name(view.merged)
    if unknown := [phase for phase, frame in frames.items() if frame is None]:
        raise InputError(
            f"{name}: the manifest does not say which frame is {' and '.join(unknown)}; name the one that "
            "'nnunet_temporal convert' wrote with --manifest"
        )
    masks = _read_masks(view)
    if len(masks) != view.sequences[0].n_frames:
        raise InputError(f"{name}: found masks of {len(masks)} frames, expected {view.sequences[0].n_frames}")
    phases = {}
    for phase, frame in frames.items():
        mask = masks[frame] if masks.ndim == 4 else masks[frame][None]
        changed = np.zeros(mask.shape, np.uint8)
        for value in np.unique(mask).tolist():
            if value not in values:
                raise InputError(f"{name}, {phase}: found label value {value}, expected only {sorted(values)}")
            changed[mask == value] = values[value]
        phases[phase] = (frame, changed)
    return phases


def _read_masks(view: _View) -> np.ndarray:
    """Return masks (T, Z, Y, X) or (T, Y, X)."""
    parts = view.parts
    if None in parts:
        parts = {}
    missing = [path.name for path in parts.values() if not path.is_file()]
    if not view.merged.is_file():
        if not parts or missing:
            absent = listed(missing, _NAMED_AT_MOST) or view.merged.name
            raise InputError(f"{nifti_name(view.merged)}: found no masks {absent} in {view.masks}; predict them, too")
        return merge_slices({z: read_labels(path) for z, path in parts.items() if z is not None})
    if len(missing) < len(parts):
        raise InputError(f"{view.merged}: found masks of its slices beside it; expected one or the other, remove one")
    return read_labels(view.merged)


class _Images:
    """The challenge's own images: all files below a folder, or what lies beside the movies that a manifest names."""

    def __init__(self, challenge: Challenge, root: Path, folder: Path | None) -> None:
        self.challenge = challenge
        self.root = root
        self.folder = folder
        self.files: dict[str, list[Path]] = {}
        for path in folder.rglob("*") if folder else ():
            self.files.setdefault(path.name, []).append(path)

    def find(self, view: _View, phase: str, frame: int) -> Path:
        """Return the image of a phase; raises InputError unless there is exactly one."""
        stem = self.challenge.image_name(view.study, view.view, phase, frame)
        names = [f"{stem}{ending}" for ending in self.challenge.endings]
        beside = (self.root / view.sequences[0].source).parent
        places = [self.files.get(name, []) if self.folder else [beside / name] for name in names]
        found = [path for paths in places for path in paths if path.is_file()]
        if len(found) != 1:
            raise InputError(
                f"{self.folder or beside}: found {len(found)} files {' or '.join(names)}, expected one, on whose grid "
                "the mask is written; name the folder of the challenge's images for testing with --images"
            )
        return found[0]


def _check_grid(mask: np.ndarray, view: _View, image: Path) -> None:
    grid = _image_header(image)
    files = [view.merged] if view.merged.is_file() else list(view.parts.values())
    if mask.shape != grid.shape:
        found, expected = mask.shape[::-1], grid.shape[::-1]
        raise InputError(f"{files[0]}: found masks of {found} voxels (x, y, z), expected {expected} as in {image}")
    for file in files:
        found_mm, expected_mm = read_header(file).spacing.pixel_mm, grid.spacing.pixel_mm
        if not np.allclose(found_mm, expected_mm, rtol=1e-3):
            raise InputError(f"{file}: found pixels of {found_mm} mm (y, x), expected {expected_mm} as in {image}")


def _image_header(image: Path) -> ImageHeader:
    # Three axes are (x, y, z) here, of which both readers take the last one for time: the same order of axes.
    return read_header(image, still=True) if image.name.endswith(NIFTI_ENDINGS) else movie_header(image)


def _pack(folder: Path, path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(file.relative_to(folder).as_posix(), _ZIP_DATE)
            entry.external_attr = 0o644 << 16
            entry.create_system = 3  # or the bytes would tell the operating system that packed them
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, file.read_bytes())
