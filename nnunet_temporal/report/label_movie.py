"""A looping movie (GIF) of a sequence with all its labels, tinted and outlined, at the sequence's own size."""

from pathlib import Path

import numpy as np
from PIL import Image

from nnunet_temporal.atomic import atomic_path
from nnunet_temporal.report.colours import EXPERT_COLOUR, LABEL_COLOURS, Colour

# The first two are those of other pictures; all are of the Okabe-Ito palette, or near it.
_COLOURS: tuple[Colour, ...] = (LABEL_COLOURS[0], EXPERT_COLOUR, (0, 158, 115), (204, 121, 167), (240, 228, 66))
_TINT = 0.3
_LEVELS = (256 - len(_COLOURS)) // (len(_COLOURS) + 1)
"""Shades of grey, and of each tint; what is left of the 256 entries of a palette are the outlines' colours."""
_UNKNOWN_FRAME_MS = 40
# Players slow down what is faster.
_SHORTEST_FRAME_MS = 20


def write_label_movie(image: np.ndarray, masks: np.ndarray, frame_s: float | None, path: Path) -> None:
    """Write the overlay movie of a sequence. Beyond five labels colours come again; frames that are alike become one.

    Args:
        image: (T, Y, X) grey values, uint8.
        masks: (T, Y, X) label values, 0 for background.
        frame_s: Time between frames in seconds; None shows 25 frames per second.
        path: The GIF to write; its folder must exist.
    """
    palette = _palette()
    frames = [Image.fromarray(_indices(*frame)) for frame in zip(image, masks, strict=True)]
    for frame in frames:
        frame.putpalette(palette)
    frame_ms = _UNKNOWN_FRAME_MS if frame_s is None else max(_SHORTEST_FRAME_MS, round(1000 * frame_s))
    with atomic_path(path) as temporary:
        frames[0].save(
            temporary, format="GIF", save_all=True, append_images=frames[1:], duration=frame_ms, loop=0, disposal=1
        )


def _indices(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the entries (Y, X) of the palette; none is looked for by colour, so that nothing flickers."""
    # 0 for background, else 1 to the number of colours.
    colours = np.where(mask > 0, (mask.astype(int) - 1) % len(_COLOURS) + 1, 0)
    shades = image.astype(int) * (_LEVELS - 1) // 255
    outlines = _LEVELS * (len(_COLOURS) + 1) + colours - 1
    return np.where(_is_outline(mask), outlines, _LEVELS * colours + shades).astype(np.uint8)


def _is_outline(mask: np.ndarray) -> np.ndarray:
    """Return the labelled pixels (Y, X) that have a neighbour with another label."""
    around = np.pad(mask, 1, mode="edge")
    neighbours = (around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:])
    return (mask > 0) & np.any([neighbour != mask for neighbour in neighbours], axis=0)


def _palette() -> bytes:
    """Return the colours, three bytes each: shades of grey, then those tinted by each colour, then the colours."""
    grey = np.repeat(np.linspace(0, 255, _LEVELS)[:, None], 3, axis=1)
    tinted = [grey + _TINT * (np.asarray(colour) - grey) for colour in _COLOURS]
    return np.concatenate([grey, *tinted, np.array(_COLOURS)]).round().astype(np.uint8).tobytes()
