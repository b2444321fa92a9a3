"""Live video: one frame in, its mask out."""

from typing import NamedTuple

import numpy as np
import torch

from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.chunk_engine import ChunkEngine
from nnunet_temporal.inference.label_values import mask_type, to_labels
from nnunet_temporal.inference.preparation import Preparation, PreparedSequence, check_image


class Answer(NamedTuple):
    """Masks of frames that have one now.

    Attributes:
        frames: (A,) numbers of the frames, counted from 0 at the start of the stream.
        masks: (A, Y, X) label values.
    """

    frames: np.ndarray
    masks: np.ndarray


class LiveStream:
    """The memory of one video. One thread at a time may use it; several streams may share a predictor.

    Every frame_stride-th frame shares a memory, as in whole sequences. Networks that watch sequences first begin with a
    memory of the warm-up clip, or with none.

    Attributes:
        delay: Frames that must follow a frame before ``step`` answers for it; 0 for networks that look back only.
    """

    def __init__(
        self,
        engine: ChunkEngine,
        preparation: Preparation,
        frame_size: tuple[int, int],
        warm_up: PreparedSequence | None = None,
    ) -> None:
        """Begin a video; ``SequencePredictor.stream`` does it.

        Args:
            engine: The model.
            preparation: How frames are prepared.
            frame_size: Size (Y, X) of the frames in pixels.
            warm_up: Frames to watch.
        """
        self._engine, self._preparation, self._frame_size = engine, preparation, frame_size
        self._windows = engine.windows(preparation.network_size)
        stride = engine.leading.frame_stride
        self.delay = engine.leading.delay * stride
        self._states: list[list | None] = [None] * stride
        self._waiting: list[list[int]] = [[] for _ in range(stride)]
        self._number = self._real = 0
        if warm_up is not None and engine.leading.watch_first:
            self._watch(warm_up)

    def step(self, frame: np.ndarray) -> Answer:
        """Take the next frame.

        Args:
            frame: Grey values (Y, X) or (C, Y, X).

        Returns:
            Its mask; with a delay, masks of earlier frames, of none at the beginning.

        Raises:
            InputError: The frame has another size or other channels than the stream.
        """
        image = frame[None, None] if frame.ndim == 2 else frame[:, None]
        image = check_image(image, self._engine.model.channels)
        if image.shape[2:] != self._frame_size:
            raise InputError(f"found a frame of {image.shape[2:]} pixels (y, x), expected {self._frame_size}")
        number, self._number = self._number, self._number + 1
        if self._engine.skips_blank and not image.any() and self._preparation.keeps_zero:
            return self._answer([number], None)
        memory, self._real = self._real % len(self._states), self._real + 1
        self._waiting[memory].append(number)
        return self._segment(self._preparation.apply(image), memory, last=False)

    def finish(self) -> Answer:
        """End the video: answer for the frames that still wait, in ascending order. Without a delay there are none."""
        nothing = np.zeros((self._engine.model.channels, 0, *self._windows.size), np.float32)
        memories = [memory for memory, waiting in enumerate(self._waiting) if waiting]
        answers = [self._segment(nothing, memory, last=True) for memory in memories] or [self._answer([], None)]
        frames = np.concatenate([answer.frames for answer in answers])
        order = np.argsort(frames)
        return Answer(frames[order], np.concatenate([answer.masks for answer in answers])[order])

    def _watch(self, clip: PreparedSequence) -> None:
        for number in np.arange(clip.first, clip.stop)[~clip.blank[clip.first : clip.stop]]:
            memory = int(number) % len(self._states)
            features = self._engine.encode(clip.frames(np.array([number])), self._windows)
            self._states[memory] = self._engine.watch(features, self._states[memory])

    def _segment(self, frames: np.ndarray, memory: int, *, last: bool) -> Answer:
        features = self._engine.encode(frames, self._windows)
        logits, self._states[memory] = self._engine.segment(features, self._windows, self._states[memory], last=last)
        waiting, answered = self._waiting[memory], logits.shape[1]
        self._waiting[memory] = waiting[answered:]
        if not answered:
            return self._answer([], None)
        with torch.inference_mode():
            labels = to_labels(self._preparation.to_native(logits), self._engine.model.labels)
        return self._answer(waiting[:answered], labels.cpu().numpy())

    def _answer(self, numbers: list[int], labels: np.ndarray | None) -> Answer:
        """Put the labels of the crop, None for background, on the grid of the frames."""
        masks = np.zeros((len(numbers), *self._frame_size), mask_type(self._engine.model.labels))
        if labels is not None:
            masks[:, self._preparation.rows, self._preparation.columns] = labels
        return Answer(np.array(numbers, dtype=np.int64), masks)
