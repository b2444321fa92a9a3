"""The logits of a sequence's frames in a temporary file, so that whatever needs all of them keeps none in memory."""

import tempfile
from types import TracebackType

import numpy as np
import torch
from torch import Tensor


class LogitsFile:
    """Keeps logits of frames by their number; a context manager, at whose end they are gone.

    They are float32: half precision would save half of the file, but keep three of the seven digits that a CPU
    computes. The file is read and written, not mapped, because mapped pages count as memory of the process. On most
    systems it has no name: nothing is left of it however the process ends.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._shape: tuple[int, ...] = ()
        self._device = torch.device("cpu")

    def __enter__(self) -> "LogitsFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, index: np.ndarray, logits: Tensor) -> None:
        """Keep the logits (K, N, Y, X) of the frames ``index`` (N,); all calls have the same K, Y and X."""
        self._shape, self._device = (logits.shape[0], *logits.shape[2:]), logits.device
        for t, frame in zip(index, logits.float().transpose(0, 1).contiguous().cpu().numpy(), strict=True):
            self._file.seek(int(t) * frame.nbytes)
            self._file.write(frame)

    def read(self, index: np.ndarray) -> Tensor:
        """Return the logits (K, N, Y, X) float32 of frames that were kept, on the device they came from."""
        frames = np.empty((len(index), *self._shape), np.float32)
        for t, frame in zip(index, frames, strict=True):
            self._file.seek(int(t) * frame.nbytes)
            self._file.readinto(frame)  # type: ignore[attr-defined]  # files opened in binary mode have it
        return torch.from_numpy(frames).to(self._device).transpose(0, 1)
