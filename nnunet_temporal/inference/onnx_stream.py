"""Live video through an exported model, with numpy, scipy and onnxruntime; neither torch nor nnU-Net is imported."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.intensities import Intensities
from nnunet_temporal.inference.onnx_files import STEP_FILE, read_sidecar, require
from nnunet_temporal.inference.onnx_frames import FramePreparation, MeasuredClip
from nnunet_temporal.inference.onnx_windows import FrameWindows

_States = list[list[np.ndarray]]
"""State tensors of each window."""


class OnnxStream:
    """One frame in, its mask out: ``LiveStream`` for a folder that ``nnunet_temporal export`` has written.

    One thread at a time may use it. Every frame_stride-th frame shares a memory, as in ``LiveStream``.
    """

    def __init__(
        self,
        folder: Path | str,
        pixel_mm: tuple[float, float],
        *,
        warm_up: np.ndarray | None = None,
        frame_size: tuple[int, int] | None = None,
        intensities: Sequence[Intensities] | None = None,
        providers: Sequence[str] = ("CPUExecutionProvider",),
    ) -> None:
        """Begin a video.

        Args:
            folder: Holds ``step.onnx`` and ``model.json``.
            pixel_mm: In-plane spacing (y, x) of the frames in mm.
            warm_up: A clip (T, Y, X) or (C, T, Y, X) of what will come. Crop and intensities are measured on it, and
                models that watch sequences first watch it.
            frame_size: Without a warm-up clip: size (Y, X) of the frames, which are not cropped then.
            intensities: Without a warm-up clip: normalisation per channel, such as ``[Intensities(mean, sd)]``.
            providers: Where onnxruntime computes, such as "CUDAExecutionProvider".

        Raises:
            ValueError: Neither a clip nor size and intensities are given.
            InputError: The folder holds no exported model, onnxruntime is not installed, the clip does not fit the
                model, or its resampling needs nnU-Net.
        """
        self._sidecar = sidecar = read_sidecar(Path(folder))
        self._channels = len(sidecar["channels"])
        clip = None if warm_up is None else self._measure(warm_up, pixel_mm)
        if clip is not None:
            self._preparation, frame_size = clip.preparation, clip.image.shape[2:]
        elif frame_size is not None and intensities is not None and len(intensities) == self._channels:
            self._preparation = FramePreparation.unmeasured(sidecar, pixel_mm, frame_size, intensities)
        else:
            raise ValueError("a stream needs a warm-up clip, or the size of frames and intensities of each channel")
        self._frame_size = frame_size
        patch = tuple(sidecar["frame"]["shape"][2:])
        self._windows = FrameWindows(self._preparation.network_size, patch, sidecar["window_overlap"])
        self._session = require("onnxruntime").InferenceSession(Path(folder) / STEP_FILE, providers=list(providers))
        nothing = [np.zeros(state["shape"], state["dtype"]) for state in sidecar["states"]]
        self._start: list[_States] = [[nothing] * len(self._windows.corners)] * sidecar["frame_stride"]
        self.reset()
        if clip is not None and sidecar["watch_first"]:
            self._watch(clip)

    def reset(self) -> None:
        """Begin another video of the same kind: remember only the warm-up clip, if that was watched."""
        self._memories, self._number = list(self._start), 0

    def step(self, frame: np.ndarray) -> np.ndarray:
        """Take the next frame.

        Args:
            frame: Grey values (Y, X) or (C, Y, X).

        Returns:
            Its mask (Y, X), label values.

        Raises:
            InputError: The frame has another size or other channels than the stream.
        """
        image = frame[None] if frame.ndim == 2 else frame
        expected = (self._channels, *self._frame_size)
        if image.shape != expected:
            raise InputError(f"found a frame of shape {image.shape} (channels, y, x), expected {expected}")
        labels = self._sidecar["labels"]
        mask = np.zeros(self._frame_size, labels["dtype"])
        if not image.any() and self._sidecar["skips_blank"] and self._preparation.keeps_zero:
            return mask
        logits = self._preparation.to_native(self._network(self._preparation.apply(image)))
        cropped = mask[self._preparation.rows, self._preparation.columns]
        if labels["regions"]:
            for value, logit in zip(labels["values"], logits, strict=True):
                cropped[logit > 0] = value
        else:
            cropped[:] = np.asarray(labels["values"], mask.dtype)[logits.argmax(0)]
        return mask

    def _measure(self, clip: np.ndarray, pixel_mm: tuple[float, float]) -> MeasuredClip:
        image = clip[None] if clip.ndim == 3 else clip
        if image.ndim != 4 or len(image) != self._channels or 0 in image.shape:
            raise InputError(f"found a clip of shape {clip.shape}, expected ({self._channels} channels, T, Y, X)")
        return MeasuredClip.measure(image, pixel_mm, self._sidecar)

    def _watch(self, clip: MeasuredClip) -> None:
        for t in np.flatnonzero(~clip.blank):
            mask = None if clip.mask is None else clip.mask[t]
            self._network(clip.preparation.apply(clip.image[:, t], mask))
        self._start = self._memories
        self.reset()

    def _network(self, frame: np.ndarray) -> np.ndarray:
        """Return the logits (K, Y, X) of a prepared frame (C, Y, X), and remember it."""
        memory = self._number % len(self._memories)
        logits, after = [], []
        for window, states in zip(self._windows.cut(frame), self._memories[memory], strict=True):
            inputs = {entry["input"]: state for entry, state in zip(self._sidecar["states"], states, strict=True)}
            out, *states = self._session.run(None, {self._sidecar["frame"]["name"]: window[None], **inputs})
            logits.append(out[0])
            after.append(states)
        self._memories[memory], self._number = after, self._number + 1
        return self._windows.join(logits)
