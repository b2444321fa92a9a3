"""Movies in other formats than NIfTI, answered in kind: by masks as NIfTI, and beside them as the movie's own kind.

NRRD and MetaImage get a file with the movie's own header, videos a video of masks and an overlay. DICOM has a file of
its own.
"""

from abc import abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nnunet_temporal.datasets.image_io import SEQUENCE_ENDING, Spacing
from nnunet_temporal.datasets.mask_files import (
    write_like_meta_image,
    write_like_nrrd,
    write_mask_video,
    write_nifti_masks,
)
from nnunet_temporal.datasets.movie_io import movie_header, read_movie
from nnunet_temporal.datasets.study_source import by_slice
from nnunet_temporal.datasets.video_io import COLOUR_DOPPLER, coloured_share, import_av, read_frames, read_header
from nnunet_temporal.inference.job import Job, Reading, spacing_remarks
from nnunet_temporal.inference.model_folder import TrainedModel
from nnunet_temporal.inference.sequence_predictor import Prediction
from nnunet_temporal.inference.study import merge_slices
from nnunet_temporal.report.label_movie import write_label_movie

DOPPLER_REMARK = "seems to be colour Doppler, which was predicted in grey, by brightness"


@dataclass(frozen=True)
class InKindReading(Reading):
    """What a job read, with all distances that the file states."""

    spacing: Spacing = field(default_factory=Spacing)


class InKindJob(Job):
    """A movie whose masks are written as NIfTI and, before that, as the kind of file that the movie is."""

    @property
    @abstractmethod
    def companions(self) -> tuple[Path, ...]:
        """The files beside the NIfTI file."""

    @property
    def outputs(self) -> tuple[Path, ...]:
        """See ``Job``."""
        return (*self.companions, self.output)

    @abstractmethod
    def load(self) -> tuple[np.ndarray, Spacing]:
        """Read grey values (T, Z, Y, X) or (T, Y, X); raises InputError for a broken file."""

    @abstractmethod
    def write_companions(self, model: TrainedModel, reading: InKindReading, masks: np.ndarray) -> None:
        """Write the files beside the NIfTI file, of masks (T, Z, Y, X) or (T, Y, X)."""

    @property
    def affine(self) -> np.ndarray | None:
        """From pixels to mm for the NIfTI file, (4, 4); None knows only the spacing."""
        return None

    def read(self, model: TrainedModel) -> InKindReading:
        """See ``Job``."""
        pixels, spacing = self.load()
        slices = {z: sequence[None] for z, sequence in by_slice(pixels).items()}
        return InKindReading(slices, spacing.pixel_mm, {}, spacing)

    def write(  # type: ignore[override]  # it is given what it has read
        self, model: TrainedModel, reading: InKindReading, predictions: dict[int | None, Prediction]
    ) -> None:
        """See ``Job``; there is no file for the probabilities of a movie."""
        by_place = {z: prediction.masks for z, prediction in predictions.items()}
        stack = {z: masks for z, masks in by_place.items() if z is not None}
        masks = merge_slices(stack) if stack else by_place[None]
        self.write_companions(model, reading, masks)
        write_nifti_masks(masks, reading.spacing, self.output, self.affine)


class TextHeaderJob(InKindJob):
    """A movie in NRRD or MetaImage, answered under its own header."""

    @classmethod
    def from_file(cls, movie: Path, output: Path) -> "TextHeaderJob":
        """Predict a file; the masks are named like it."""
        return cls((movie,), output, movie.stem, SEQUENCE_ENDING)

    @property
    def companions(self) -> tuple[Path, ...]:
        """See ``InKindJob``."""
        return (self.folder / f"{self.name}{'.nrrd' if self._is_nrrd else '.mha'}",)

    def remarks(self) -> list[str]:
        """See ``Job``."""
        return spacing_remarks(movie_header(self.files[0]).spacing)

    def load(self) -> tuple[np.ndarray, Spacing]:
        """See ``InKindJob``."""
        return read_movie(self.files[0])

    def write_companions(self, model: TrainedModel, reading: InKindReading, masks: np.ndarray) -> None:
        """See ``InKindJob``."""
        write = write_like_nrrd if self._is_nrrd else write_like_meta_image
        write(masks, self.files[0], self.companions[0])

    @property
    def _is_nrrd(self) -> bool:
        return self.files[0].suffix.lower() == ".nrrd"


class VideoJob(InKindJob):
    """A video, in grey, answered by a video whose pixels are label values, and by an overlay to look at."""

    @classmethod
    def from_file(cls, movie: Path, output: Path) -> "VideoJob":
        """Predict a file; the masks are named like it.

        Raises:
            InputError: PyAV is missing.
        """
        import_av()
        return cls((movie,), output, movie.stem, SEQUENCE_ENDING)

    @property
    def companions(self) -> tuple[Path, ...]:
        """See ``InKindJob``."""
        return self.folder / f"{self.name}_overlay.gif", self.folder / f"{self.name}_masks.avi"

    def remarks(self) -> list[str]:
        """See ``Job``; the video is decoded, to see its colours."""
        is_doppler = coloured_share(self.files[0]) > COLOUR_DOPPLER
        return [*spacing_remarks(Spacing(pixel_known=False)), *[DOPPLER_REMARK] * is_doppler]

    def load(self) -> tuple[np.ndarray, Spacing]:
        """See ``InKindJob``."""
        return read_frames(self.files[0]), read_header(self.files[0]).spacing

    def write_companions(self, model: TrainedModel, reading: InKindReading, masks: np.ndarray) -> None:
        """See ``InKindJob``."""
        overlay, video = self.companions
        write_label_movie(reading.images[None][0], masks, reading.spacing.frame_s, overlay)
        write_mask_video(masks, reading.spacing.frame_s, video)
