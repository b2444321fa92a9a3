"""All movies in a folder of DICOM files: ultrasound clips and cine MRI, whatever the files are called."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nnunet_temporal.datasets import dicom_planes, dicom_ultrasound
from nnunet_temporal.datasets.dicom_cine import read_cine
from nnunet_temporal.datasets.dicom_files import DicomMovie, import_pydicom, read_header
from nnunet_temporal.datasets.dicom_ultrasound import read_ultrasound
from nnunet_temporal.datasets.problems import apply_to_all
from nnunet_temporal.errors import InputError

_DIRECTORY = "1.2.840.10008.1.3.10"


@dataclass(frozen=True)
class FoundMovies:
    """The movies of a folder, and for each DICOM file or study that gave none a line that says why."""

    movies: tuple[DicomMovie, ...]
    left_out: tuple[str, ...]


def find_movies(folder: Path) -> FoundMovies:
    """Find multi-frame ultrasound and cine MRI in a folder and its sub-folders; only headers are read.

    Files that are no DICOM, hidden files and DICOMDIR are passed over. Other kinds of DICOM, single ultrasound images
    and MR without a second phase are no movies.

    Args:
        folder: Folder of DICOM files or of folders.

    Returns:
        Movies sorted by patient, time of study and view; views differ within a study.

    Raises:
        InputError: pydicom is missing, there is no movie, or a file or series is at fault; all bad ones are listed.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: the input folder does not exist")
    import_pydicom()
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    headers = apply_to_all(tqdm(paths, desc="Reading headers", unit="file"), lambda path: (path, read_header(path)))
    files = [(path, header) for path, header in headers if header is not None and not _is_directory(header)]
    clips = [file for file in files if file[1].get("SOPClassUID") in dicom_ultrasound.SOP_CLASSES]
    studies: dict[str, list[tuple[Path, Any]]] = {}
    for path, header in files:
        if header.get("SOPClassUID") in dicom_planes.SOP_CLASSES:
            studies.setdefault(str(header.get("StudyInstanceUID")), []).append((path, header))
    ultrasound = apply_to_all(clips, lambda file: read_ultrasound(*file))
    cine = [movie for movies in apply_to_all(studies.values(), read_cine) for movie in movies]
    movies = _with_different_views([movie for movie in (*ultrasound, *cine) if len(movie.frames) > 1])
    used = {source.path for movie in movies for slices in movie.frames for source in slices}
    left_out = tuple(f"{path}: {_kind(header)}, no movie" for path, header in files if path not in used)
    if not movies:
        raise InputError(
            f"{folder}: found no movie among {len(files)} DICOM files, expected multi-frame ultrasound or cine MRI "
            f"with several phases per slice{''.join(f'; {line}' for line in left_out[:3])}"
        )
    return FoundMovies(tuple(movies), left_out)


def _is_directory(header: Any) -> bool:  # noqa: ANN401 - a pydicom.Dataset
    return header.file_meta.get("MediaStorageSOPClassUID") == _DIRECTORY


def _kind(header: Any) -> str:  # noqa: ANN401
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
