"""A looping movie (GIF) of a study: every slice with its masks, and a running volume curve below."""

from functools import cache
from pathlib import Path

import numpy as np
from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont

from nnunet_temporal.atomic import atomic_path
from nnunet_temporal.metrics.clinical import volume_curve_ml
from nnunet_temporal.report.slice_mosaic import (
    EXPERT_COLOUR,
    PREDICTION_COLOUR,
    Colour,
    CropBox,
    crop_box,
    draw_outline,
    enlarge,
    grey_window,
    mosaic_columns,
    still_background,
)
from nnunet_temporal.report.study_result import StudyResult

_MOSAIC_PX = 840
_LARGEST_PANEL_PX = 420
_SMALLEST_WIDTH_PX = 620
_GAP_PX = 3
_HEADER_PX = 46
_CURVE_PX = 84
_MARGIN_PX = 14
_BACKGROUND: Colour = (14, 17, 22)
_TEXT: Colour = (232, 236, 241)
_FAINT: Colour = (128, 138, 150)
_LINE: Colour = (58, 66, 76)

_FRAME_MS = 90
# The expert drew two frames only: the movie rests there long enough to compare the outlines.
_EXPERT_FRAME_MS = 900
_PALETTE_COLOURS = 96


def write_overlay_movie(result: StudyResult, path: Path) -> None:
    """Write the overlay movie of a study.

    Args:
        result: The study. Its prediction is drawn in every frame, the expert's outline where it was drawn.
        path: The GIF to write; its folder must exist.
    """
    box = crop_box(result.prediction | (result.reference & result.labelled[:, :, None, None]))
    grey = still_background(grey_window(box.cut(result.image)))
    frames = [_compose(result, grey[frame], box, frame) for frame in range(result.n_frames)]
    durations = [_EXPERT_FRAME_MS if result.labelled[frame].any() else _FRAME_MS for frame in range(result.n_frames)]
    # One palette for all frames: no colour flickers, and unchanged pixels stay unchanged in the file.
    palette = _common_palette(frames)
    indexed = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    with atomic_path(path) as temporary:
        indexed[0].save(
            temporary, format="GIF", save_all=True, append_images=indexed[1:], duration=durations, loop=0, disposal=1
        )


def _common_palette(frames: list[Image.Image]) -> Image.Image:
    """Choose the colours of all frames from a strip of four frames spread over the movie."""
    chosen = [frames[index] for index in np.linspace(0, len(frames) - 1, min(4, len(frames))).astype(int)]
    strip = Image.new("RGB", (chosen[0].width, sum(frame.height for frame in chosen)))
    for row, frame in enumerate(chosen):
        strip.paste(frame, (0, row * frame.height))
    return strip.quantize(colors=_PALETTE_COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)


def _compose(result: StudyResult, grey: np.ndarray, box: CropBox, frame: int) -> Image.Image:
    """Draw one frame of the movie from its (Z, Y, X) grey values."""
    n_slices = grey.shape[0]
    columns = mosaic_columns(n_slices)
    rows = -(-n_slices // columns)
    panel_px = min(_LARGEST_PANEL_PX, _MOSAIC_PX // columns)
    pitch = panel_px + _GAP_PX
    width, mosaic_height = max(_SMALLEST_WIDTH_PX, columns * pitch + _GAP_PX), rows * pitch + _GAP_PX
    left = (width - columns * pitch + _GAP_PX) // 2
    picture = Image.new("RGB", (width, _HEADER_PX + mosaic_height + _CURVE_PX), _BACKGROUND)
    for index in range(n_slices):
        panel = _panel(result, enlarge(grey[index], panel_px), box, (frame, index))
        picture.paste(panel, (left + index % columns * pitch, _HEADER_PX + _GAP_PX + index // columns * pitch))
    drawing = ImageDraw.Draw(picture)
    _draw_header(drawing, result, frame, width)
    _draw_curve(drawing, result, frame, (width, _HEADER_PX + mosaic_height))
    return picture


def _panel(result: StudyResult, grey: np.ndarray, box: CropBox, place: tuple[int, int]) -> Image.Image:
    """Draw one slice on its enlarged grey values (S, S); ``place`` is (frame, slice)."""
    canvas = np.repeat(grey[..., None], 3, axis=-1)  # (S, S, 3)
    labelled = bool(result.labelled[place])
    if labelled:
        # Wider and below: where both agree, the expert's outline is still seen as a rim.
        draw_outline(canvas, box.cut(result.reference[place]), EXPERT_COLOUR, width_px=5.0)
    draw_outline(canvas, box.cut(result.prediction[place]), PREDICTION_COLOUR, width_px=2.0, filled=True)
    panel = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
    ImageDraw.Draw(panel).text((6, 4), f"z{place[1]}", font=_font(12), fill=EXPERT_COLOUR if labelled else _FAINT)
    return panel


def _draw_header(drawing: ImageDraw.ImageDraw, result: StudyResult, frame: int, width: int) -> None:
    """Draw the study's name, the phase, the frame number and the legend above the mosaic."""
    middle = _HEADER_PX // 2 + 1
    drawing.text((_MARGIN_PX, middle), result.name, font=_font(17, bold=True), fill=_TEXT, anchor="lm")
    x = _MARGIN_PX + drawing.textlength(result.name, font=_font(17, bold=True)) + 18
    for colour, label in ((PREDICTION_COLOUR, "prediction"), (EXPERT_COLOUR, "expert")):
        drawing.line((x, middle, x + 18, middle), fill=colour, width=3)
        drawing.text((x + 24, middle), label, font=_font(13), fill=_FAINT, anchor="lm")
        x += 24 + drawing.textlength(label, font=_font(13)) + 16
    # Counted from 0, as in the manifest.
    text = f"frame {frame:2d} of 0-{result.n_frames - 1}"
    if result.frame_interval_s is not None:
        text += f"   {frame * result.frame_interval_s * 1000:4.0f} ms"
    drawing.text((width - _MARGIN_PX, middle), text, font=_font(13), fill=_TEXT, anchor="rm")
    phase = {result.ed: "ED", result.es: "ES"}.get(frame)
    if phase is not None:
        right = width - _MARGIN_PX - drawing.textlength(text, font=_font(13)) - 14
        drawing.rounded_rectangle((right - 34, middle - 11, right, middle + 11), radius=5, fill=EXPERT_COLOUR)
        drawing.text((right - 17, middle), phase, font=_font(13, bold=True), fill=_BACKGROUND, anchor="mm")


def _draw_curve(drawing: ImageDraw.ImageDraw, result: StudyResult, frame: int, corner: tuple[int, int]) -> None:
    """Draw the predicted volume over time below the mosaic; ``corner`` is (width, top)."""
    width, top = corner
    volumes_ml = volume_curve_ml(result.prediction, result.spacing_mm)
    left, right = _MARGIN_PX + 74, width - _MARGIN_PX - 8
    low, high = top + _CURVE_PX - 20, top + 16
    floor_ml, span_ml = float(volumes_ml.min()), max(float(np.ptp(volumes_ml)), 1e-6)

    def point(index: int) -> tuple[float, float]:
        x = left + (right - left) * index / max(1, result.n_frames - 1)
        return x, low - 8 - (low - 8 - high) * (float(volumes_ml[index]) - floor_ml) / span_ml

    drawing.text((_MARGIN_PX, high - 8), "all slices", font=_font(11), fill=_FAINT)
    drawing.text((_MARGIN_PX, high + 6), f"{volumes_ml[frame]:.0f} ml", font=_font(17, bold=True), fill=_TEXT)
    drawing.line((left, low, right, low), fill=_LINE)
    for phase, index in (("ED", result.ed), ("ES", result.es)):
        drawing.line((point(index)[0], low, point(index)[0], high - 6), fill=_LINE)
        drawing.text((point(index)[0], low + 3), phase, font=_font(11), fill=EXPERT_COLOUR, anchor="ma")
    drawing.line([point(index) for index in range(result.n_frames)], fill=PREDICTION_COLOUR, width=2, joint="curve")
    x, y = point(frame)
    drawing.ellipse((x - 4, y - 4, x + 4, y + 4), fill=_TEXT)


@cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Load the font that matplotlib ships, so that pictures look alike on every system."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / name), size)
