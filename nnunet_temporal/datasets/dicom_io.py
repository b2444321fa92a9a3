"""All movies in a folder of DICOM files: ultrasound clips and cine MRI, whatever the files are called."""

from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from nnunet_temporal.datasets import dicom_planes, dicom_ultrasound
from nnunet_temporal.datasets.dicom_cine import read_cine
from nnunet_temporal.datasets.dicom_files import DicomDataset, DicomMovie, import_pydicom, read_header
from nnunet_temporal.datasets.dicom_ultrasound import read_ultrasound
from nnunet_temporal.datasets.problems import raise_problems, try_all
from nnunet_temporal.errors import InputError

_DIRECTORY = "1.2.840.10008.1.3.10"


@dataclass(frozen=True)
class FoundMovies:
    """What a folder of DICOM files holds.

    Attributes:
        movies: Sorted by patient, time of study and view; views differ within a study.
        left_out: For each file that is no movie, and each stack that may lack a slice, a line that says so.
        faults: Files and folders that are at fault, each with what is wrong with it.
    """

    movies: tuple[DicomMovie, ...]
    left_out: tuple[str, ...]
    faults: tuple[tuple[Path, str], ...] = ()


def find_movies(folder: Path) -> FoundMovies:
    """Find multi-frame ultrasound and cine MRI in a folder and its sub-folders; only headers are read.

    Files that are no DICOM, hidden files and DICOMDIR are passed over. Other kinds of DICOM, single ultrasound images
    and MR without a second phase are no movies.

    Args:
        folder: Folder of DICOM files or of folders.

    Returns:
        What there is, without faults.

    Raises:
        InputError: pydicom is missing, there is no movie, or a file or series is at fault; all bad ones are listed.
    """
    found = find_sound_movies(folder)
    raise_problems([problem for _, problem in found.faults])
    if not found.movies:
        raise InputError(
            f"{folder}: found no movie among {len(found.left_out)} DICOM files, expected multi-frame ultrasound or "
            "cine MRI with several phases per slice"
            f"{''.join(f'; {line}' for line in found.left_out[:3])}"
        )
    return found


def find_sound_movies(folder: Path) -> FoundMovies:
    """Find the movies of a folder as ``find_movies`` does, past those that are at fault.

    A stack of slices beside a file that cannot be read is left out, because that file may be one of its slices.

    Raises:
        InputError: pydicom is missing, or there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: the input folder does not exist")
    import_pydicom()
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    progress = tqdm(paths, desc="Reading headers", unit="file")
    headers, faults = try_all(progress, lambda path: (path, read_header(path)))
    files = [(path, header) for path, header in headers if header is not None and not _is_directory(header)]
    clips = [file for file in files if file[1].get("SOPClassUID") in dicom_ultrasound.SOP_CLASSES]
    stacks: dict[str, list[tuple[Path, DicomDataset]]] = {}
    for path, header in files:
        if header.get("SOPClassUID") in dicom_planes.SOP_CLASSES:
            stacks.setdefault(str(header.get("StudyInstanceUID")), []).append((path, header))
    spoilt = {path.parent for path, _ in faults}
    is_doubtful = {uid: any(path.parent in spoilt for path, _ in stack) for uid, stack in stacks.items()}
    doubtful = [stack for uid, stack in stacks.items() if is_doubtful[uid]]
    whole = [stack for uid, stack in stacks.items() if not is_doubtful[uid]]
    ultrasound, bad_clips = try_all(clips, lambda file: read_ultrasound(*file))
    cine, bad_stacks = try_all(whole, read_cine)
    faulty_clips = [(path, problem) for (path, _), problem in bad_clips]
    faulty_stacks = [(stack[0][0].parent, problem) for stack, problem in bad_stacks]
    found = [*ultrasound, *(movie for movies in cine for movie in movies)]
    movies = _with_different_views([movie for movie in found if len(movie.frames) > 1])
    used = {source.path for movie in movies for slices in movie.frames for source in slices}
    used |= {path for path, _ in faulty_clips} | {path for stack in doubtful for path, _ in stack}
    at_fault = {at for at, _ in faulty_stacks}
    left_out = [
        f"{path}: {_kind(header)}, no movie"
        for path, header in files
        if path not in used and not (header.get("SOPClassUID") in dicom_planes.SOP_CLASSES and path.parent in at_fault)
    ]
    left_out += [f"{stack[0][0].parent}: a stack beside a file that cannot be read" for stack in doubtful]
    return FoundMovies(tuple(movies), tuple(left_out), (*faults, *faulty_clips, *faulty_stacks))


def _is_directory(header: DicomDataset) -> bool:
    return header.file_meta.get("MediaStorageSOPClassUID") == _DIRECTORY


def _kind(header: DicomDataset) -> str:
    uid = header.get("SOPClassUID")
    return getattr(uid, "name", "") or "DICOM without SOPClassUID"


def _with_different_views(movies: list[DicomMovie]) -> list[DicomMovie]:
    """Number the movies of a study whose series and instance numbers are missing or the same."""
    ordered = sorted(movies, key=lambda m: (m.patient_id, m.study_time, m.study_uid, m.view, _first_uid(m)))
    groups: dict[tuple[str, str], list[DicomMovie]] = {}
    for movie in ordered:
        groups.setdefault((movie.study_uid, movie.view), []).append(movie)
    return [
        movie if len(group) == 1 else replace(movie, view=f"{movie.view}n{number}")
        for group in groups.values()
        for number, movie in enumerate(group, start=1)
    ]


def _first_uid(movie: DicomMovie) -> str:
    return movie.frames[0][0].sop_instance_uid
