"""Video in: AVI, MP4 and GIF as grey frames (T, Y, X), with the time between them.

Frames are counted by decoding: what a container says about their number is a guess in AVI. AVI and MP4 need PyAV, the
extra ``video``; GIF needs pillow only.
"""

from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image, ImageSequence

from nnunet_temporal.datasets.image_io import ImageHeader, Spacing
from nnunet_temporal.errors import InputError

VIDEO_ENDINGS = (".avi", ".mp4", ".gif")
COLOUR_DOPPLER = 0.02
"""Share of coloured pixels from which on a video is taken to show flow."""

# A container rounds times to its clock; what differs by more than that and 5 % is no constant frame rate.
_CLOCK_STEP_S = 0.001
_GIF_CLOCK_STEP_S = 0.01
_TOLERATED_JITTER = 0.05
# Lossy compression leaves grey within a few values of grey; the colours of Doppler and of a machine's screen are far.
_LEAST_COLOUR = 40
_HEAD = 16
_GIF_ERRORS = (OSError, EOFError, LookupError, SyntaxError, ValueError)


class _Frame(NamedTuple):
    """One frame: its time in seconds, None when not stored, and its pixels, uint8."""

    time_s: float | None
    pixels: np.ndarray


# How pixels are wanted: (Y, X) grey, (Y, X, 3) colours, or for the size only, (Y, X) of any value, at no cost.
_Wanted = Literal["grey", "colours", "size"]


def read_header(path: Path) -> ImageHeader:
    """Decode a video to count its frames and to measure the time between them; one frame at a time is held.

    Returns:
        Shape (T, Y, X) after the rotation that the file asks for, and the mean frame interval; it is None for one
        frame, without timestamps, and when one differs from the mean by more than the container's rounding and 5 %. The
        size of a pixel is not known.

    Raises:
        InputError: The file is missing, empty, cut off, damaged or no video, its frames differ in size, or PyAV is
            missing.
    """
    times: list[float | None] = []
    size: tuple[int, ...] = ()
    for frame in _frames(path, "size"):
        size = frame.pixels.shape
        times.append(frame.time_s)
    step_s = _GIF_CLOCK_STEP_S if _is_gif(path) else _CLOCK_STEP_S
    spacing = Spacing(pixel_known=False, frame_s=_constant_interval(times, step_s))
    return ImageHeader(path, (len(times), *size), spacing)


def read_frames(path: Path) -> np.ndarray:
    """Read all frames as grey values (T, Y, X), uint8; colours become their luma (ITU-R BT.601), 0..255.

    Raises:
        InputError: As :func:`read_header`.
    """
    return np.stack([frame.pixels for frame in _frames(path, "grey")])


def coloured_share(path: Path) -> float:
    """Return the share of pixels, over all frames, that are coloured: red, green and blue differ by 40 of 255 or more.

    A grey apical view with a coloured ECG trace came to 0.001; a box of colour Doppler covers several hundredths.

    Raises:
        InputError: As :func:`read_header`.
    """
    shares = [float((np.ptp(frame.pixels, axis=-1) >= _LEAST_COLOUR).mean()) for frame in _frames(path, "colours")]
    return float(np.mean(shares))


def _frames(path: Path, wanted: _Wanted) -> Generator[_Frame, None, None]:
    _check_whole(path)
    first: _Frame | None = None
    with closing((_gif_frames if _is_gif(path) else _film_frames)(path, wanted)) as frames:
        for frame in frames:
            first = first or frame
            if frame.pixels.shape != first.pixels.shape:
                sizes = " and ".join(str(each.pixels.shape[1::-1]) for each in (first, frame))
                raise InputError(
                    f"{path}: found frames of sizes {sizes} (x, y), expected one size; cut the video there"
                )
            yield frame
    if first is None:
        raise InputError(f"{path}: found no frame in it, expected at least one; export the video again")


def _film_frames(path: Path, wanted: _Wanted) -> Generator[_Frame, None, None]:
    av = import_av()
    try:
        # Titles are often written in another encoding than PyAV expects; nobody reads them here.
        with av.open(str(path), metadata_errors="ignore") as container:
            if not container.streams.video:
                raise InputError(f"{path}: found no video stream in it, expected one; export the video again")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise InputError(f"{path}: found frames in an unknown encoding; export the video again")
            # Without this a frame that is damaged in part is handed out as if nothing were wrong.
            stream.codec_context.options = {"err_detect": "explode"}
            for frame in container.decode(stream):
                if frame.is_corrupt:
                    raise InputError(f"{path}: a frame after {frame.time} s is damaged; copy or export the file again")
                if wanted == "size":
                    pixels = np.broadcast_to(np.uint8(0), (frame.height, frame.width))
                else:
                    pixels = frame.to_ndarray(format="gray" if wanted == "grey" else "rgb24")
                yield _Frame(frame.time, _turned(pixels, frame.rotation, path))
    except av.error.FFmpegError as error:
        raise InputError(f"{path}: expected a readable video, the file is damaged or no video: {error}") from error


def import_av() -> Any:  # noqa: ANN401 - a module that may be missing
    """Return the package PyAV.

    Raises:
        InputError: It is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise InputError("videos need PyAV; run: pip install 'nnunet_temporal[video]'") from error
    return av


def _turned(pixels: np.ndarray, degrees: int, path: Path) -> np.ndarray:
    """Turn a frame counterclockwise, as its file asks a player to do."""
    if degrees % 90:
        raise InputError(
            f"{path}: asks to be turned by {degrees} degrees, expected a multiple of 90; export it upright"
        )
    return np.rot90(pixels, degrees // 90)


def _gif_frames(path: Path, wanted: _Wanted) -> Generator[_Frame, None, None]:
    time_s = 0.0
    try:
        with Image.open(path) as movie:
            for frame in ImageSequence.Iterator(movie):
                colours = frame.convert("RGB")
                yield _Frame(time_s, np.asarray(colours if wanted == "colours" else colours.convert("L")))
                time_s += frame.info.get("duration", 0) / 1000
    except (*_GIF_ERRORS, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: expected a readable GIF, the file may be damaged: {error}") from error


def _is_gif(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"GIF8"


def _check_whole(path: Path) -> None:
    """Compare the length that a container states with the file's; decoders pass over a missing end in silence."""
    try:
        stated, found = _stated_length(path), path.stat().st_size
    except (OSError, ValueError) as error:  # the latter for names and lengths that no file can have
        raise InputError(f"{path}: expected a readable video file: {error}") from error
    if found == 0:
        raise InputError(f"{path}: the file is empty; copy it again")
    if stated > found:
        raise InputError(f"{path}: found {found} bytes, the file states {stated}: it is cut off; copy it again")


def _stated_length(path: Path) -> int:
    """Return the bytes a file needs by its own statement; 0 for a container that does not say."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
        if head.startswith(b"GIF8"):
            # A GIF ends in a semicolon, which some writers fill up with zeros.
            whole = head + file.read()
            return len(whole) + (not whole.rstrip(b"\0").endswith(b";"))
        if head.startswith(b"RIFF") and len(head) == _HEAD:
            length = int.from_bytes(head[4:8], "little")
            # A recorder that was stopped hard leaves the length at its greatest value. Writers disagree on whether the
            # first eight bytes count; so few at the end belong to no frame.
            return 0 if length == 0xFFFFFFFF else length
        end = 0
        # An MP4 is a row of boxes, each of which starts with its length and its type.
        while len(head) >= 8 and (end or head[4:8] == b"ftyp"):
            length = int.from_bytes(head[:4], "big")
            length = int.from_bytes(head[8:16], "big") if length == 1 else length
            if length < 8 or not head[4:8].isalnum():
                break
            end += length
            file.seek(end)
            head = file.read(_HEAD)
        return end


def _constant_interval(times: list[float | None], clock_step_s: float) -> float | None:
    known = [time for time in times if time is not None]
    if len(known) < 2 or len(known) < len(times):
        return None
    interval = (known[-1] - known[0]) / (len(known) - 1)
    jitter = float(np.abs(np.diff(known) - interval).max())
    is_constant = interval > 0 and jitter <= _TOLERATED_JITTER * interval + clock_step_s
    return interval if is_constant else None
