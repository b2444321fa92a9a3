"""A looping movie of a stack, GIF or MP4: every slice with its masks, and a running curve below."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, cached_property
from pathlib import Path

import numpy as np
from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont

from nnunet_temporal.atomic import atomic_path
from nnunet_temporal.datasets.video_io import import_av
from nnunet_temporal.errors import InputError
from nnunet_temporal.evaluation.label_scheme import LabelScheme
from nnunet_temporal.report.colours import EXPERT_COLOUR, LABEL_COLOURS, Colour, colour_places, painting_order
from nnunet_temporal.report.curves import Curve
from nnunet_temporal.report.segmented_study import SegmentedStack
from nnunet_temporal.report.slice_mosaic import (
    CropBox,
    crop_box,
    draw_outline,
    enlarge,
    grey_window,
    mosaic_columns,
    still_background,
)

MOVIE_FORMATS = ("gif", "mp4")

_MOSAIC_PX = 840
_LARGEST_PANEL_PX = 420
_SMALLEST_WIDTH_PX = 620
_GAP_PX = 3
_HEADER_PX = 46
_CURVE_PX = 84
_MARGIN_PX = 14
_BACKGROUND: Colour = (14, 17, 22)
TEXT: Colour = (232, 236, 241)
_FAINT: Colour = (128, 138, 150)
LINE: Colour = (58, 66, 76)

_FRAME_MS = 90
# An expert drew a few frames only: the movie rests there long enough to compare the outlines.
_EXPERT_FRAME_MS = 900
_PALETTE_COLOURS = 96


def write_overlay_movie(stack: SegmentedStack, curve: Curve, labels: LabelScheme, path: Path) -> None:
    """Write the overlay movie of a stack.

    Args:
        stack: The stack. Its masks are drawn in every frame, the expert's outlines where they were drawn.
        curve: What runs along below: the size of one of its structures.
        labels: The labels of the dataset.
        path: The movie to write, ``.gif`` or ``.mp4`` (VP9, which needs PyAV); its folder must exist.

    Raises:
        InputError: The ending is another one, or PyAV is missing.
    """
    write = {".gif": _write_gif, ".mp4": _write_mp4}.get(path.suffix)
    if write is None:
        raise InputError(f"{path}: found the ending {path.suffix!r}, expected {' or '.join(MOVIE_FORMATS)}")
    painter = Painter(stack, curve, labels)
    # An expert's few frames; where all are drawn, the movie has no reason to rest.
    drawn = [bool(slices.any()) for slices in stack.drawn]
    rests = [one and not all(drawn) for one in drawn]
    write(painter, [_EXPERT_FRAME_MS if rest else _FRAME_MS for rest in rests], path)


def _write_gif(painter: "Painter", durations_ms: list[int], path: Path) -> None:
    frames = list(painter.frames())
    # One palette for all frames: no colour flickers, and unchanged pixels stay unchanged in the file.
    palette = _common_palette(frames)
    indexed = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    options = {"save_all": True, "append_images": indexed[1:], "duration": durations_ms, "loop": 0, "disposal": 1}
    with atomic_path(path) as temporary:
        indexed[0].save(temporary, format="GIF", **options)


def _common_palette(frames: list[Image.Image]) -> Image.Image:
    """Choose the colours of all frames from a strip of four frames spread over the movie."""
    chosen = [frames[index] for index in np.linspace(0, len(frames) - 1, min(4, len(frames))).astype(int)]
    strip = Image.new("RGB", (chosen[0].width, sum(frame.height for frame in chosen)))
    for row, frame in enumerate(chosen):
        strip.paste(frame, (0, row * frame.height))
    return strip.quantize(colors=_PALETTE_COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)


def _write_mp4(painter: "Painter", durations_ms: list[int], path: Path) -> None:
    av = import_av()
    # Colours are stored for every second pixel, so that sizes must be even.
    frames = [np.asarray(frame)[: frame.height // 2 * 2, : frame.width // 2 * 2] for frame in painter.frames()]
    with atomic_path(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream = container.add_stream("libvpx-vp9", rate=Fraction(1000, _FRAME_MS), options={"crf": "32", "b:v": "0"})
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
        for pixels, duration_ms in zip(frames, durations_ms, strict=True):
            for _ in range(round(duration_ms / _FRAME_MS)):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24")))
        container.mux(stream.encode(None))


@dataclass(frozen=True, eq=False)
class Painter:
    """Paints the frames of a stack; see :func:`write_overlay_movie` for what it is made of."""

    stack: SegmentedStack
    curve: Curve
    labels: LabelScheme

    def frames(self) -> Iterator[Image.Image]:
        """Yield all frames, all of one size."""
        for frame in range(self.stack.n_frames):
            yield self.paint(frame)

    def paint(self, frame: int) -> Image.Image:
        """Paint one frame: a header, all slices, and the curve."""
        n_slices = self._grey.shape[1]
        columns = mosaic_columns(n_slices)
        panel_px = min(_LARGEST_PANEL_PX, _MOSAIC_PX // columns)
        pitch = panel_px + _GAP_PX
        width = max(_SMALLEST_WIDTH_PX, columns * pitch + _GAP_PX)
        bottom = _HEADER_PX + -(-n_slices // columns) * pitch + _GAP_PX
        left = (width - columns * pitch + _GAP_PX) // 2
        picture = Image.new("RGB", (width, bottom + _CURVE_PX), _BACKGROUND)
        for z in range(n_slices):
            row, column = divmod(z, columns)
            picture.paste(self.panel(frame, z, panel_px), (left + column * pitch, _HEADER_PX + _GAP_PX + row * pitch))
        drawing = ImageDraw.Draw(picture)
        self._draw_header(drawing, frame, width)
        self._draw_curve(drawing, frame, (width, bottom))
        return picture

    def panel(self, frame: int, z: int, panel_px: int) -> Image.Image:
        """Paint one slice with its outlines as a square."""
        canvas = np.repeat(enlarge(self._grey[frame, z], panel_px)[..., None], 3, axis=-1)  # (S, S, 3)
        drawn = bool(self.stack.drawn[frame, z])
        prediction, truth = (
            self._box.cut(masks[frame, z]) for masks in (self.stack.stack.prediction, self.stack.truth)
        )
        if drawn:
            # Wider and below: where both agree, the expert's outline is still seen as a rim.
            for value in self.labels.values.values():
                draw_outline(canvas, truth == value, EXPERT_COLOUR, width_px=5.0)
        for name in painting_order(self.labels):
            mask = prediction == self.labels.values[name]
            draw_outline(canvas, mask, self._colours[name], width_px=2.0, filled=True)
        panel = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
        entry = self.stack.stack.sequences[z]
        text = entry.view or "" if entry.slice is None else f"z{entry.slice}"
        ImageDraw.Draw(panel).text((6, 4), text, font=_font(12), fill=EXPERT_COLOUR if drawn else _FAINT)
        return panel

    @cached_property
    def _box(self) -> CropBox:
        return crop_box((self.stack.stack.prediction > 0) | (self.stack.truth > 0))

    @cached_property
    def _grey(self) -> np.ndarray:
        """Grey values (T, Z, S, S) of what is shown."""
        return still_background(grey_window(self._box.cut(self.stack.image)))

    @cached_property
    def _colours(self) -> dict[str, Colour]:
        return {name: LABEL_COLOURS[place] for name, place in colour_places(self.labels).items()}

    def _draw_header(self, drawing: ImageDraw.ImageDraw, frame: int, width: int) -> None:
        """Draw the study's name, the phase, the frame number and the legend above the mosaic."""
        stack, middle = self.stack, _HEADER_PX // 2 + 1
        drawing.text((_MARGIN_PX, middle), stack.name, font=_font(17, bold=True), fill=TEXT, anchor="lm")
        x = _MARGIN_PX + drawing.textlength(stack.name, font=_font(17, bold=True)) + 18
        legend = [(colour, name) for name, colour in self._colours.items()]
        for colour, label in [*legend, *([(EXPERT_COLOUR, "expert")] if stack.drawn.any() else [])]:
            drawing.line((x, middle, x + 18, middle), fill=colour, width=3)
            drawing.text((x + 24, middle), label, font=_font(13), fill=_FAINT, anchor="lm")
            x += 24 + drawing.textlength(label, font=_font(13)) + 16
        # Counted from 0, as in the manifest.
        text = f"frame {frame:2d} of 0-{stack.n_frames - 1}"
        if stack.frame_interval_s is not None:
            text += f"   {frame * stack.frame_interval_s * 1000:4.0f} ms"
        drawing.text((width - _MARGIN_PX, middle), text, font=_font(13), fill=TEXT, anchor="rm")
        if phase := stack.phases.name(frame):
            right = width - _MARGIN_PX - drawing.textlength(text, font=_font(13)) - 14
            drawing.rounded_rectangle((right - 34, middle - 11, right, middle + 11), radius=5, fill=EXPERT_COLOUR)
            drawing.text((right - 17, middle), phase, font=_font(13, bold=True), fill=_BACKGROUND, anchor="mm")

    def _draw_curve(self, drawing: ImageDraw.ImageDraw, frame: int, corner: tuple[int, int]) -> None:
        """Draw the curve below the mosaic; ``corner`` is (width, top)."""
        width, top = corner
        # A frame that could not be measured has no place of its own: it is drawn at the bottom.
        values = np.nan_to_num(self.curve.values)
        digits = 0 if values.max() >= 100 else 1
        widest = drawing.textlength(f"{values.max():.{digits}f} {self.curve.unit}", font=_font(17, bold=True))
        left, right = _MARGIN_PX + max(84, round(widest) + 8), width - _MARGIN_PX - 8
        low, high = top + _CURVE_PX - 20, top + 16
        floor, span = float(values.min()), max(float(np.ptp(values)), 1e-6)

        def point(index: int) -> tuple[float, float]:
            x = left + (right - left) * index / max(1, len(values) - 1)
            return x, low - 8 - (low - 8 - high) * (float(values[index]) - floor) / span

        drawing.text((_MARGIN_PX, high - 8), self.curve.structure, font=_font(11), fill=_FAINT)
        text = f"{values[frame]:.{digits}f} {self.curve.unit}"
        drawing.text((_MARGIN_PX, high + 6), text, font=_font(17, bold=True), fill=TEXT)
        drawing.line((left, low, right, low), fill=LINE)
        for index in self.stack.phases.pair or ():
            drawing.line((point(index)[0], low, point(index)[0], high - 6), fill=LINE)
            name = self.stack.phases.name(index)
            drawing.text((point(index)[0], low + 3), name, font=_font(11), fill=EXPERT_COLOUR, anchor="ma")
        colour = self._colours[self.curve.structure]
        if len(values) > 1:
            drawing.line([point(index) for index in range(len(values))], fill=colour, width=2, joint="curve")
        x, y = point(frame)
        drawing.ellipse((x - 4, y - 4, x + 4, y + 4), fill=TEXT)


@cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Load the font that matplotlib ships, so that pictures look alike on every system."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / name), size)
