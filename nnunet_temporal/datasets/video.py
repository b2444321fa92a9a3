"""Any folder of echo videos, AVI, MP4 or GIF, with or without masks, as studies to convert.

Masks are NIfTI (x, y, t) on the grid of the video and with its frames.
"""

import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

from nnunet_temporal.datasets.image_io import check_same_grid
from nnunet_temporal.datasets.image_io import read_header as read_nifti_header
from nnunet_temporal.datasets.nifti import DEFAULT_LABELS, EmptyFrames, load_labels
from nnunet_temporal.datasets.problems import apply_to_all
from nnunet_temporal.datasets.study_source import StudySource
from nnunet_temporal.datasets.video_io import COLOUR_DOPPLER, VIDEO_ENDINGS, coloured_share, read_frames, read_header
from nnunet_temporal.errors import InputError

NAME = "Video"
CHANNEL = "US"


@dataclass(frozen=True)
class VideoLayout:
    """Where the files of a folder are and what they mean.

    Attributes:
        images: Folders of the videos, relative to the folder.
        labels: Templates of the label file, relative to the folder, tried in turn; ``{name}`` stands for the video's
            file name without ending.
        cyclic: Whether each video covers exactly one heart beat.
        empty_frames: What a frame means whose labels are zero everywhere; None to refuse such a frame.
        view: Name of the view that all videos show; None where that is not known.
    """

    images: tuple[str, ...] = (".", "images", "videos")
    labels: tuple[str, ...] = DEFAULT_LABELS
    cyclic: bool = False
    empty_frames: EmptyFrames | None = None
    view: str | None = None


def find_studies(folder: Path, layout: VideoLayout, ignore: int) -> list[StudySource]:
    """Find the videos of a folder and pair them with their masks; each is decoded, to count frames and see colours.

    A video without a mask file is unlabelled. One that seems to be colour Doppler is reported by a warning; its colours
    become grey as all others do.

    Args:
        folder: The folder that the paths of ``layout`` are relative to.
        layout: Where files are and what they mean.
        ignore: Value that means "not labelled" in the mask files.

    Returns:
        One study per video, named like the file.

    Raises:
        InputError: There is no video, a file is unreadable, or masks are not on their video's grid; all bad files are
            listed.
    """
    videos = _find_videos(folder, layout)
    if not videos:
        places = ", ".join(str(folder / place) for place in layout.images)
        raise InputError(f"found no video ({', '.join(VIDEO_ENDINGS)}) in {places}; name the folder they are in")
    progress = tqdm(videos, desc="Counting frames", unit="video")
    return apply_to_all(progress, lambda video: _source_of(video, folder, layout, ignore))


def _find_videos(folder: Path, layout: VideoLayout) -> list[Path]:
    places = [folder / place for place in layout.images if (folder / place).is_dir()]
    files = {path for place in places for path in place.iterdir() if path.is_file() and path.name[0] != "."}
    return sorted(path for path in files if path.suffix.lower() in VIDEO_ENDINGS)


def _source_of(video: Path, folder: Path, layout: VideoLayout, ignore: int) -> StudySource:
    header = read_header(video)
    labels = next((path for path in _label_paths(video, folder, layout) if path.is_file()), None)
    if labels is not None:
        check_same_grid(read_nifti_header(labels), header)
    share = coloured_share(video)
    if share > COLOUR_DOPPLER:
        warnings.warn(
            f"{video}: {share:.0%} of the pixels are coloured; is it colour Doppler? It is kept in grey, by brightness",
            stacklevel=2,
        )
    return StudySource(
        study=video.stem,
        load_image=partial(read_frames, video),
        load_labels=None if labels is None else partial(load_labels, labels, layout.empty_frames, ignore),
        spacing=header.spacing,
        view=layout.view,
        cyclic=layout.cyclic,
        source=str(video.resolve()),
    )


def _label_paths(video: Path, folder: Path, layout: VideoLayout) -> list[Path]:
    return [folder / template.replace("{name}", video.stem) for template in layout.labels]
