"""The frames of a stack as small pictures inside a page, as many and as sharp as their share of the page allows."""

import base64
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from nnunet_temporal.evaluation.label_scheme import LabelScheme
from nnunet_temporal.report.outlines import outlines
from nnunet_temporal.report.segmented_study import SegmentedStack
from nnunet_temporal.report.slice_mosaic import CropBox, crop_box, enlarge, grey_window, mosaic_columns

_QUALITY = 70
_LARGEST_PANEL_PX, _SMALLEST_PANEL_PX = 256, 56
_STEPS = ((1.0, 1), (0.8, 1), (0.64, 1), (0.64, 2), (0.5, 2), (0.5, 3), (0.4, 4))
"""(scale, every how many frames), from the best to the least that is still a movie."""
_STILL_SCALE = 0.64


@dataclass(frozen=True)
class Film:
    """Pictures of all slices, frame by frame, and the outlines to draw on them.

    Attributes:
        box: The part of the slices that is shown.
        columns: Slices per row of a picture.
        panel_px: Width and height of a slice in the pictures.
        frames: The frames there are pictures of, increasing: all of them, a part, or ED and ES only.
        pictures: Of each of these, a ``data:`` address of a WebP picture.
        outlines: Of each of these, the outlines of the masks as JSON; see ``outlines``.
        truth: The expert's, for the frames among these in which something was drawn.
    """

    box: CropBox
    columns: int
    panel_px: int
    frames: tuple[int, ...]
    pictures: tuple[str, ...]
    outlines: tuple[str, ...]
    truth: dict[int, str]

    @property
    def n_bytes(self) -> int:
        """What all of it takes in a page."""
        return sum(map(len, (*self.pictures, *self.outlines, *self.truth.values())))


def make_film(stack: SegmentedStack, labels: LabelScheme, budget_bytes: int) -> Film:
    """Make the pictures of a stack.

    Args:
        stack: The stack.
        labels: The labels of the dataset.
        budget_bytes: What it may take in a page. Large stacks get smaller pictures, then fewer frames, then ED and ES
            only (the first and the middle frame where these are not known), however large those are.

    Returns:
        The film.
    """
    camera = _Camera(stack, labels)
    kept = {frame for frame in (stack.phases.ed, stack.phases.es) if frame is not None}
    ends = sorted(kept) or sorted({0, stack.n_frames // 2})
    for scale, stride in _STEPS:
        frames = sorted({*range(0, stack.n_frames, stride), *kept})
        # One frame is a fair guess at the others' size, so that not all ways have to be tried in full.
        if camera.film(ends[:1], scale).n_bytes * len(frames) > budget_bytes:
            continue
        film = camera.film(frames, scale)
        if film.n_bytes <= budget_bytes:
            return film
    return camera.film(ends, _STILL_SCALE)


class _Camera:
    """Films one stack."""

    def __init__(self, stack: SegmentedStack, labels: LabelScheme) -> None:
        self.stack, self.values = stack, labels.values
        self.box = crop_box((stack.stack.prediction > 0) | (stack.truth > 0))
        self.grey = grey_window(self.box.cut(stack.image))  # (T, Z, S, S)

    def film(self, frames: Sequence[int], scale: float) -> Film:
        """Take pictures of some frames; ``scale`` is their pixels per pixel of the image."""
        panel_px = max(_SMALLEST_PANEL_PX, min(_LARGEST_PANEL_PX, round(self.box.size * scale)))
        drawn = [frame for frame in frames if self.stack.drawn[frame].any()]
        return Film(
            self.box,
            mosaic_columns(self.grey.shape[1]),
            panel_px,
            tuple(frames),
            tuple(webp_address(_picture(self.grey[frame], panel_px), _QUALITY) for frame in frames),
            tuple(self._traced(self.stack.stack.prediction[frame]) for frame in frames),
            {frame: self._traced(self.stack.truth[frame]) for frame in drawn},
        )

    def _traced(self, masks: np.ndarray) -> str:
        return json.dumps(outlines(masks, self.values, self.box), separators=(",", ":"))


def _picture(grey: np.ndarray, panel_px: int) -> Image.Image:
    """Return one frame (Z, S, S) of grey values as a picture of all slices."""
    columns = mosaic_columns(len(grey))
    mosaic = np.zeros((math.ceil(len(grey) / columns) * panel_px, columns * panel_px), np.uint8)
    for place, plane in enumerate(grey):
        row, column = divmod(place, columns)
        panel = np.s_[row * panel_px : (row + 1) * panel_px, column * panel_px : (column + 1) * panel_px]
        mosaic[panel] = np.clip(np.rint(enlarge(plane, panel_px)), 0, 255).astype(np.uint8)
    return Image.fromarray(mosaic)


def webp_address(picture: Image.Image, quality: int) -> str:
    """Return a picture as an address that holds it, as WebP of a quality in 0..100."""
    content = io.BytesIO()
    picture.save(content, format="WEBP", quality=quality, method=4)
    return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode('ascii')}"
