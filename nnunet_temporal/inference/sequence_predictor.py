"""Predicts whole sequences with a carried state, in memory that does not grow with the number of frames."""

from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nnunet_temporal.inference.both_ways import Pass, average_both_ways
from nnunet_temporal.inference.chunk_engine import ChunkEngine, Features, size_mb
from nnunet_temporal.inference.confidence import confidence_of
from nnunet_temporal.inference.intensities import Intensities
from nnunet_temporal.inference.label_values import background_probabilities, mask_type, to_labels
from nnunet_temporal.inference.live_stream import LiveStream
from nnunet_temporal.inference.model_folder import TrainedModel
from nnunet_temporal.inference.pipeline import StageClock, ahead
from nnunet_temporal.inference.preparation import Preparation, PreparedSequence
from nnunet_temporal.inference.smoothing import check_smooth_frames, smooth_over_time
from nnunet_temporal.inference.stream_networks import deals
from nnunet_temporal.inference.windows import Windows
from nnunet_temporal.networks.temporal_unet import FRAMES_PER_CHUNK
from nnunet_temporal.training.stock_model import CHECKPOINT

_KEPT_MB = 64.0
"""Room for the features of a sequence that networks watch first, so that short ones are encoded only once."""


class Prediction(NamedTuple):
    """Masks of a sequence.

    Attributes:
        masks: (T, Y, X) label values, uint8 (uint16 from 255 labels on).
        probabilities: (K, T, Y, X) float32, classes or regions; None unless asked for.
        confidence: (T,) float64, how sure the networks are of each frame; NaN where they saw nothing. None where it is
            recorded elsewhere.
    """

    masks: np.ndarray
    probabilities: np.ndarray | None
    confidence: np.ndarray | None = None


class SequencePredictor:
    """A trained model with all its folds on one device.

    Frames pass the networks in chunks, and each chunk's logits become masks before the next: beyond the input and its
    masks (and, on request, probabilities) memory does not grow with the number of frames. Where the plans normalise
    within a mask of nonzero pixels, that mask adds a byte per pixel.

    Nothing is changed by predicting: threads may share a predictor, and each ``predict`` has states of its own.

    Attributes:
        model: The model.
        both_ways: Whether sequences are also segmented from the last frame to the first.
        smooth_frames: Over how many frames logits are smoothed along time; None leaves them as they are.
        frames_per_chunk: Frames that pass the networks together, over all windows and mirrored copies.
    """

    def __init__(
        self,
        model: TrainedModel,
        device: torch.device | str = "cpu",
        *,
        mirror: bool = False,
        both_ways: bool = False,
        smooth_frames: int | None = None,
        compile: bool = False,
        frames_per_chunk: int = FRAMES_PER_CHUNK,
    ) -> None:
        """Move the networks to the device; see ``from_model_folder``."""
        if smooth_frames is not None:
            check_smooth_frames(smooth_frames)
        self.model = model
        self.both_ways = both_ways
        self.smooth_frames = smooth_frames
        self.frames_per_chunk = frames_per_chunk
        self._engine = ChunkEngine(model, torch.device(device), mirror, frames_per_chunk if compile else None)

    @classmethod
    def from_model_folder(
        cls,
        folder: Path | str,
        folds: Sequence[int | str] | None = None,
        device: torch.device | str = "cpu",
        *,
        checkpoint_name: str = CHECKPOINT,
        mirror: bool = False,
        both_ways: bool = False,
        smooth_frames: int | None = None,
        compile: bool = False,
    ) -> "SequencePredictor":
        """Read a model from nnU-Net's results folder, of a temporal trainer or a 2D one.

        Args:
            folder: ``TRAINER__PLANS__CONFIGURATION``.
            folds: Folds to average; None takes those of the cross-validation that there are.
            device: Where to predict. On a GPU networks run in half precision, as nnU-Net's do.
            checkpoint_name: File in the folders of the folds.
            mirror: Whether to average over mirrored copies, as ``nnUNetv2_predict`` does by default.
            both_ways: Whether sequences are also segmented from the last frame to the first, and logits averaged.
            smooth_frames: Over how many frames logits are smoothed along time, an odd number from 5 on.
            compile: Whether to compile the 2D networks, for a minute or so at the first frames.

        Raises:
            InputError: See ``TrainedModel.read``; or the networks have no parts to compile.
            ValueError: There is no smoothing over so many frames.
        """
        model = TrainedModel.read(Path(folder), folds, checkpoint_name)
        return cls(model, device, mirror=mirror, both_ways=both_ways, smooth_frames=smooth_frames, compile=compile)

    def predict(
        self, image: np.ndarray, pixel_mm: tuple[float, float], *, with_probabilities: bool = False
    ) -> Prediction:
        """Segment a sequence.

        Args:
            image: Grey values (T, Y, X) or (C, T, Y, X) of any number type.
            pixel_mm: In-plane spacing (y, x) in mm.
            with_probabilities: Whether to return probabilities too.

        Raises:
            InputError: The image has other axes or channels than the model takes, or pixels are not finite.
        """
        return self.segment(self.prepare(image, pixel_mm), with_probabilities=with_probabilities)

    def prepare(self, image: np.ndarray, pixel_mm: tuple[float, float]) -> PreparedSequence:
        """Measure what preprocessing needs to know; a thread may do it for the next sequence. See ``predict``."""
        return self.model.prepare(image, pixel_mm)

    @torch.inference_mode()
    def segment(
        self, sequence: PreparedSequence, *, with_probabilities: bool = False, clock: StageClock | None = None
    ) -> Prediction:
        """Segment a prepared sequence; see ``predict``.

        Args:
            sequence: What ``prepare`` returned.
            with_probabilities: Whether to return probabilities too.
            clock: Counts the seconds of each stage.
        """
        clock = clock or StageClock()
        labels, shape = self.model.labels, sequence.image.shape[1:]
        rows, columns = sequence.preparation.rows, sequence.preparation.columns
        masks = np.zeros(shape, mask_type(labels))
        probabilities = background_probabilities(labels, shape) if with_probabilities else None
        confidence = np.full(len(masks), np.nan)
        for index, logits in self._passes(clock)(sequence):
            with clock.stage("post-process"):
                native = sequence.preparation.to_native(logits)
                masks[index, rows, columns] = to_labels(native, labels).cpu().numpy()
                # On the networks' grid, which decides as well how sure they are and often has fewer pixels.
                certain = labels.apply_inference_nonlin(logits)
                confidence[index] = confidence_of(certain, overlapping=labels.has_regions)
                if probabilities is not None:
                    probabilities[:, index, rows, columns] = labels.apply_inference_nonlin(native).cpu().numpy()
        return Prediction(masks, probabilities, confidence)

    def stream(
        self,
        pixel_mm: tuple[float, float],
        *,
        warm_up: np.ndarray | None = None,
        frame_size: tuple[int, int] | None = None,
        intensities: Sequence[Intensities] | None = None,
    ) -> LiveStream:
        """Begin a live video, of which no frame is known yet.

        Args:
            pixel_mm: In-plane spacing (y, x) in mm.
            warm_up: A clip (T, Y, X) or (C, T, Y, X) of what will come. Crop and intensities are measured on it, and
                networks that watch sequences first watch it.
            frame_size: Without a warm-up clip: size (Y, X) of the frames, which are not cropped then.
            intensities: Without a warm-up clip: normalisation per channel, such as ``[Intensities(mean, sd)]``.

        Raises:
            ValueError: Neither a clip nor size and intensities are given, or the predictor needs frames to come.
            InputError: See ``predict``.
        """
        if self.both_ways:
            raise ValueError("a live video has no last frame to begin with; stream by a predictor without both_ways")
        if self.smooth_frames is not None:
            raise ValueError("a live video waits for no frames; stream by a predictor without smooth_frames")
        if warm_up is not None:
            clip = self.prepare(warm_up, pixel_mm)
            return LiveStream(self._engine, clip.preparation, clip.image.shape[2:], clip)
        if frame_size is None or intensities is None or len(intensities) != self.model.channels:
            raise ValueError("a stream needs a warm-up clip, or the size of frames and intensities of each channel")
        preparation = Preparation.unmeasured(self.model.configuration, pixel_mm, frame_size, intensities)
        return LiveStream(self._engine, preparation, frame_size)

    def _passes(self, clock: StageClock) -> Pass:
        """Return what yields the logits that masks are made of."""
        run: Pass = partial(self._logits, clock=clock)
        if self.both_ways:
            run = partial(average_both_ways, run, clock=clock)
        if self.smooth_frames is not None:
            run = partial(smooth_over_time, run, frames=self.smooth_frames, clock=clock)
        return run

    def _logits(self, sequence: PreparedSequence, clock: StageClock) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Yield indices of frames and their logits (K, T, Y, X) on the networks' grid, until all had theirs."""
        windows = self._engine.windows(sequence.preparation.network_size)
        real = np.arange(sequence.first, sequence.stop)
        real = real[~sequence.blank[real]] if self._engine.skips_blank else real
        chunk = max(1, self.frames_per_chunk // windows.copies)
        for chunks in deals(real, self._engine.leading.frame_stride, chunk):
            states, kept = self._watch(chunks, sequence, windows, clock)
            encoded = chain(_drain(kept), self._encode(chunks[len(kept) :], sequence, windows, clock))
            waiting = real[:0]
            for number, (index, features) in enumerate(zip(chunks, encoded, strict=True), start=1):
                with clock.stage("network"):
                    last = number == len(chunks)
                    logits, states = self._engine.segment(features, windows, states, last=last)
                    if self._engine.device.type == "cuda":
                        torch.cuda.synchronize(self._engine.device)  # or the clock of the next stage would count it
                answered, waiting = np.split(np.concatenate((waiting, index)), [logits.shape[1]])
                if len(answered):
                    yield answered, logits

    def _watch(
        self, chunks: list[np.ndarray], sequence: PreparedSequence, windows: Windows, clock: StageClock
    ) -> tuple[list | None, deque[Features]]:
        """Watch frames that share a memory, if the networks do so first.

        Returns:
            The states, and the features of all chunks; of none where there is no room for all.
        """
        states: list | None = None
        kept: deque[Features] = deque()
        has_room = False
        for features in self._encode(chunks, sequence, windows, clock) if self._engine.leading.watch_first else ():
            with clock.stage("network"):
                if states is None:
                    # Some of a long sequence would save little, and take the room all the same.
                    has_room = size_mb(features) * len(chunks) <= _KEPT_MB
                states = self._engine.watch(features, states)
            if has_room:
                kept.append(features)
        return states, kept

    def _encode(
        self, chunks: list[np.ndarray], sequence: PreparedSequence, windows: Windows, clock: StageClock
    ) -> Iterator[Features]:
        for frames in ahead(_prepared(chunks, sequence, clock)):
            with clock.stage("network"):
                features = self._engine.encode(frames, windows)
            yield features


def _prepared(chunks: list[np.ndarray], sequence: PreparedSequence, clock: StageClock) -> Iterator[np.ndarray]:
    for index in chunks:
        with clock.stage("resample"):
            frames = sequence.frames(index)
        yield frames


def _drain(kept: deque[Features]) -> Iterator[Features]:
    """Yield and forget: what has been segmented need not stay in memory."""
    while kept:
        yield kept.popleft()
