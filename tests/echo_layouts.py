"""Small echo datasets on disk exactly as the real ones are laid out, shared by tests. Not a test."""

import csv
from pathlib import Path

import numpy as np

CHORDS = 20


def heart(n_frames: int, size: tuple[int, int] = (112, 112), ed: int = 0, es: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return frames (T, Y, X) and labels, both uint8: cavity 1 in a wall 2, largest at ED and smallest at ES."""
    height, width = size
    y, x = np.mgrid[:height, :width]
    labels = np.zeros((n_frames, height, width), np.uint8)
    for t in range(n_frames):
        scale = 0.85 + 0.15 * np.cos(np.pi * min(1.0, abs(t - ed) / abs(es - ed)))
        distance = ((y - 0.45 * height) / (0.3 * height * scale)) ** 2 + (
            (x - 0.5 * width) / (0.2 * width * scale)
        ) ** 2
        labels[t][distance < 1.9] = 2
        labels[t][distance < 1] = 1
    noise = np.random.default_rng(0).normal(0, 8, labels.shape)
    return np.clip(np.array([60.0, 30.0, 150.0])[labels] + noise, 0, 255).astype(np.uint8), labels


def save_video(path: Path, frames: np.ndarray, rate: int = 50, codec: str = "mjpeg", pixels: str = "yuvj420p") -> Path:
    """Write frames (T, Y, X) grey or (T, Y, X, 3) RGB, uint8, with PyAV; by default Motion JPEG."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.options, stream.thread_count = {"qmin": "1", "qmax": "1"}, 1
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixels
        for frame in frames:
            image = av.VideoFrame.from_ndarray(frame, "gray" if frames.ndim == 3 else "rgb24")
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))
    return path


def save_table(path: Path, columns: str, rows: list[list[object]]) -> Path:
    """Write a table with a header line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        file.write(columns + "\n")
        csv.writer(file, lineterminator="\n").writerows(rows)
    return path


def chords_of(mask: np.ndarray) -> list[list[float]]:
    """Return EchoNet-Dynamic's rows X1, Y1, X2, Y2 for a mask: the long axis, then chords from left to right."""
    rows = np.flatnonzero(mask.any(axis=1))
    top, bottom = (float(np.flatnonzero(mask[row]).mean()) for row in (rows[0], rows[-1]))
    chords = [[top, float(rows[0]), bottom, float(rows[-1])]]
    for y in np.linspace(rows[0], rows[-1], CHORDS):
        columns = np.flatnonzero(mask[round(y)])
        chords.append([float(columns[0]), round(float(y), 4), float(columns[-1]), round(float(y), 4)])
    return chords


def outline_of(mask: np.ndarray) -> list[tuple[float, float]]:
    """Return EchoNet-Pediatric's points x, y around a mask: down its left side and up its right one."""
    ends = [(y, np.flatnonzero(mask[y])) for y in np.flatnonzero(mask.any(axis=1))]
    left = [(float(columns[0]), float(y)) for y, columns in ends]
    return left + [(float(columns[-1]), float(y)) for y, columns in reversed(ends)]


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """Return the overlap of two masks, bool."""
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))
