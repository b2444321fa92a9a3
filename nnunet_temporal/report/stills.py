"""ED and ES of a stack as pictures with outlines: for paper, and for browsers that run no scripts."""

import math

from PIL import Image

from nnunet_temporal.report.film import webp_address
from nnunet_temporal.report.overlay_movie import Painter
from nnunet_temporal.report.slice_mosaic import mosaic_columns

_WIDTH_PX, _SMALL_WIDTH_PX = 360, 200
_QUALITY = 60


def make_stills(painter: Painter, *, small: bool) -> list[dict[str, str]]:
    """Paint ED and ES, or the first frame where these are not known.

    Args:
        painter: Paints the stack.
        small: Whether the page is large already.

    Returns:
        Of each its ``address``, which holds the picture itself, and its ``text``.
    """
    stack = painter.stack
    frames = stack.phases.pair or (0,)
    return [
        {
            "address": _mosaic(painter, frame, _SMALL_WIDTH_PX if small else _WIDTH_PX),
            "text": f"{stack.name}, {' '.join([*stack.phases.name(frame).split(), f'frame {frame}'])}",
        }
        for frame in dict.fromkeys(frames)
    ]


def _mosaic(painter: Painter, frame: int, width_px: int) -> str:
    """Return all slices of a frame as an address that holds the picture."""
    n_slices = len(painter.stack.stack.sequences)
    columns = mosaic_columns(n_slices)
    panel_px = width_px // columns
    picture = Image.new("RGB", (columns * panel_px, math.ceil(n_slices / columns) * panel_px))
    for z in range(n_slices):
        row, column = divmod(z, columns)
        picture.paste(painter.panel(frame, z, panel_px), (column * panel_px, row * panel_px))
    return webp_address(picture, _QUALITY)
