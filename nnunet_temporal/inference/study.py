"""New 4D studies through nnU-Net's own prediction: split into sequences on the way in, merged on the way out."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nnunet_temporal.datasets.image_io import (
    SEQUENCE_ENDING,
    find_niftis,
    nifti_name,
    read_header,
    read_image,
    read_labels,
    write_sequence,
)
from nnunet_temporal.datasets.mask_files import write_like_nifti
from nnunet_temporal.datasets.problems import apply_to_all
from nnunet_temporal.datasets.study_source import StudySource, by_slice, describe_sequences
from nnunet_temporal.errors import InputError
from nnunet_temporal.sequences import MANIFEST_NAME, Manifest, Sequence, case_name

_IMAGE_ENDING = f"_0000{SEQUENCE_ENDING}"
# Written by nnU-Net's predict commands into the folder of masks.
PREDICTION_ARGUMENTS = "predict_from_raw_data_args.json"


@dataclass(frozen=True)
class _Stack:
    """The masks that become one file: its name, the original it goes back onto, and {slice: mask file}."""

    name: str
    original: Path
    masks: dict[int | None, Path]


def split_studies(originals: Iterable[Path], folder: Path, drop_suffix: str = "") -> Manifest:
    """Split movies into sequences that nnU-Net can predict, with a manifest beside them.

    Args:
        originals: NIfTI files (x, y, z, t) or (x, y, t); each becomes a study named like the file.
        folder: Folder for ``<case>_0000.nii.gz`` and ``sequences.json``; made when missing.
        drop_suffix: End of all file names, before ``.nii.gz``, that is no part of the studies' names.

    Returns:
        The manifest that was written.

    Raises:
        InputError: There is no file, a file is unreadable, has no frames or NaN pixels, its name has no such suffix,
            two files lead to one case, or the folder holds other sequences already. Nothing is written then; all bad
            files are listed.
    """
    originals = list(originals)
    if not originals:
        raise InputError("no NIfTI file (.nii, .nii.gz) to split")
    progress = tqdm(originals, desc="Checking studies", unit="study")
    groups = apply_to_all(progress, lambda original: _inspect_original(original, _study_name(original, drop_suffix)))
    sequences: dict[str, Sequence] = {}
    for sequence in (sequence for group in groups for sequence in group):
        other = sequences.setdefault(sequence.case, sequence)
        if other is not sequence:
            raise InputError(f"{other.source} and {sequence.source} both lead to case {sequence.case!r}; rename one")
    manifest = Manifest(sequences)
    strangers = {path.name for path in _niftis_or_none(folder)} - {f"{case}{_IMAGE_ENDING}" for case in manifest}
    if strangers:
        raise InputError(f"{folder}: holds other sequences already ({min(strangers)}, ...); choose an empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    for original in tqdm(originals, desc="Splitting", unit="study"):
        split_study(original, folder, _study_name(original, drop_suffix))
    manifest.write(folder / MANIFEST_NAME)
    return manifest


def split_study(original: Path, folder: Path, study: str | None = None) -> list[Path]:
    """Write each slice of one movie as a sequence ``<study>_zNN_0000.nii.gz``, or the movie itself when it has none.

    Args:
        original: NIfTI file (x, y, z, t) or (x, y, t).
        folder: Existing folder to write to.
        study: Name of the study, that of the file when None.

    Returns:
        The written files, by slice.

    Raises:
        InputError: The file is unreadable, has no frames, or holds NaN or infinite pixels.
    """
    spacing = read_header(original).spacing
    study = nifti_name(original) if study is None else study
    paths = []
    for z, pixels in by_slice(read_image(original)).items():
        paths.append(folder / f"{case_name(study, z)}{_IMAGE_ENDING}")
        write_sequence(pixels, spacing.pixel_mm, paths[-1])
    return paths


def merge_slices(slices: Mapping[int, np.ndarray]) -> np.ndarray:
    """Stack the masks (T, Y, X) of all slices 0..Z-1 of a study into (T, Z, Y, X).

    Raises:
        InputError: A slice is missing or the shapes differ.
    """
    missing = sorted(set(range(max(slices, default=0) + 1)) - set(slices))
    if missing:
        raise InputError(f"slices {missing} are missing, expected all of 0..{max(slices, default=0)}")
    shapes = {z: mask.shape for z, mask in slices.items()}
    if len(set(shapes.values())) > 1:
        raise InputError(f"found slices of different shapes (T, Y, X): {shapes}")
    return np.stack([slices[z] for z in range(len(slices))], axis=1)


def merge_study(masks: Mapping[int | None, Path], original: Path, output: Path) -> None:
    """Gather the masks of one study in one file on the grid and with the header of the original.

    Affine, sform and qform codes, zooms and units are the original's; the type is the smallest unsigned integer type
    that holds the labels.

    Args:
        masks: {slice: mask file}, {None: mask file} for an original without slices.
        original: The 4D or 3D file the sequences were cut from.
        output: File to write; its folder must exist.

    Raises:
        InputError: The original or a mask is unreadable, a slice is missing, or a mask has another shape or spacing.
    """
    _check_masks(masks, original)
    arrays = {z: read_labels(path) for z, path in masks.items()}
    labels = arrays[None] if None in arrays else merge_slices({z: mask for z, mask in arrays.items() if z is not None})
    write_like_nifti(labels, original, output)


def merge_studies(mask_folder: Path, output_folder: Path, sequence_folder: Path | None = None) -> list[Path]:
    """Merge a folder of predicted masks into one file per study.

    Args:
        mask_folder: Masks ``<case>.nii.gz``, as nnU-Net's predict writes them; other files are ignored.
        output_folder: Folder for ``<study>.nii.gz``; made when missing.
        sequence_folder: The folder that was predicted; read from nnU-Net's own record in ``mask_folder`` when None.

    Returns:
        The written files, sorted by study.

    Raises:
        InputError: The sequences cannot be found, a mask is missing, unknown or does not fit, an original is
            unreadable or would be overwritten. Nothing is written then; all bad studies are listed.
    """
    sequence_folder = predicted_folder(mask_folder) if sequence_folder is None else sequence_folder
    stacks = _stacks(mask_folder, sequence_folder)
    outputs = {stack.name: output_folder / f"{stack.name}{SEQUENCE_ENDING}" for stack in stacks}

    def check(stack: _Stack) -> None:
        _check_masks(stack.masks, stack.original)
        if outputs[stack.name].resolve() == stack.original.resolve():
            raise InputError(f"{stack.original}: merging here would overwrite the original; choose another -o")

    apply_to_all(tqdm(stacks, desc="Checking masks", unit="study"), check)
    output_folder.mkdir(parents=True, exist_ok=True)
    for stack in tqdm(stacks, desc="Merging", unit="study"):
        merge_study(stack.masks, stack.original, outputs[stack.name])
    return list(outputs.values())


def _study_name(original: Path, drop_suffix: str) -> str:
    name = nifti_name(original)
    if not name.endswith(drop_suffix) or name == drop_suffix:
        raise InputError(f"{original}: found name {name!r}, expected STUDY{drop_suffix}; split other files separately")
    return name.removesuffix(drop_suffix)


def _inspect_original(path: Path, study: str) -> list[Sequence]:
    header = read_header(path)
    source = StudySource(study, lambda: read_image(path), spacing=header.spacing, source=str(path.resolve()))
    return describe_sequences(source, np.zeros(source.load_image().shape, bool))


def _niftis_or_none(folder: Path) -> list[Path]:
    return find_niftis(folder) if folder.is_dir() else []


def predicted_folder(mask_folder: Path) -> Path:
    """Return the folder of sequences that masks were predicted from, by the record that predict commands write.

    Raises:
        InputError: There is no such record, or no such folder any more.
    """
    record = mask_folder / PREDICTION_ARGUMENTS
    how_to_go_on = "name the folder of the sequences with -s"
    try:
        source = json.loads(record.read_text(encoding="utf-8"))["list_of_lists_or_source_folder"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{record}: cannot tell which sequences were predicted ({error!r}); {how_to_go_on}") from error
    if isinstance(source, list) and source and source[0]:
        source = str(Path(source[0][0]).parent)
    if not isinstance(source, str) or not Path(source).is_dir():
        raise InputError(f"{record}: found {source!r}, which is no existing folder of sequences; {how_to_go_on}")
    return Path(source)


def manifest_folder(sequence_folder: Path) -> Path:
    """Return the folder that holds the manifest of a folder of sequences: itself, or the one above."""
    # imagesTs and imagesTr of a raw dataset have theirs one level up.
    above = sequence_folder.resolve().parent
    only_above = (above / MANIFEST_NAME).is_file() and not (sequence_folder / MANIFEST_NAME).is_file()
    return above if only_above else sequence_folder


def _stacks(mask_folder: Path, sequence_folder: Path) -> list[_Stack]:
    root = manifest_folder(sequence_folder)
    manifest = Manifest.load(root)
    masks = {nifti_name(path): path for path in _niftis_or_none(mask_folder)}
    if not masks:
        raise InputError(f"{mask_folder}: found no masks *{SEQUENCE_ENDING}; expected the output of nnUNetv2_predict")
    unknown = sorted(set(masks) - set(manifest))
    if unknown:
        raise InputError(f"{mask_folder}: found masks of unknown cases {unknown}; {sequence_folder} has no such case")
    predicted = {path.name.removesuffix(_IMAGE_ENDING) for path in _niftis_or_none(sequence_folder)}
    stacks: dict[str, _Stack] = {}
    for study in manifest.studies():
        if not any(sequence.case in masks or sequence.case in predicted for sequence in study.sequences):
            continue
        for sequence in study.sequences:
            name = case_name(study.name, view=sequence.view)
            original = root / sequence.source
            stack = stacks.setdefault(name, _Stack(name, original, {}))
            expected = mask_folder / f"{sequence.case}{SEQUENCE_ENDING}"
            stack.masks[sequence.slice] = masks.get(sequence.case, expected)
    return list(stacks.values())


def _check_masks(masks: Mapping[int | None, Path], original: Path) -> None:
    header = read_header(original)
    n_frames, *n_slices, height, width = header.shape
    expected = set(range(n_slices[0])) if n_slices else {None}
    missing = [str(path) for path in masks.values() if not path.is_file()]
    if set(masks) != expected or missing:
        absent = missing or [f"slice {z}" for z in sorted(expected ^ set(masks), key=str)]
        raise InputError(f"{original}: cannot be merged, these masks are missing or do not belong: {', '.join(absent)}")
    for path in masks.values():
        mask = read_header(path)
        if mask.shape != (n_frames, height, width):
            raise InputError(
                f"{path}: found {mask.shape[0]} frames of {mask.shape[1:]} pixels (y, x), expected {n_frames} frames "
                f"of {(height, width)} as in {original}"
            )
        if not np.allclose(mask.spacing.pixel_mm, header.spacing.pixel_mm, rtol=1e-3):
            raise InputError(
                f"{path}: found pixel spacing {mask.spacing.pixel_mm} mm (y, x), expected {header.spacing.pixel_mm} as "
                f"in {original}"
            )
        read_labels(path)
