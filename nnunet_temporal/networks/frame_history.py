"""The last few valid frames before each frame, for modules that look back over a fixed window."""

import torch
from torch import Tensor


def with_history(frames: Tensor, past: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Give each frame the W valid frames before it; invalid frames are skipped, as if they had never been there.

    Args:
        frames: (B, T, ...).
        past: The W frames before them, oldest first, (B, W, ...).
        valid: (B, T) bool.

    Returns:
        Windows (B, T, W + 1, ...), oldest first, each ending in its own frame, and ``past`` for the frames to come.
    """
    width, number = past.shape[1], frames.shape[1]
    known = torch.cat((past, frames), 1)
    position = torch.arange(width + number, device=frames.device)
    usable = torch.cat((valid.new_ones(len(valid), width), valid), 1)
    # Row t knows what lies before frame t; the last row, what lies before the first frame of the next call.
    earlier = position < position[width:, None]
    earlier = torch.cat((earlier, earlier.new_ones(1, width + number)))
    latest = torch.where(usable[:, None] & earlier, position, -1).topk(width, dim=-1).values.flip(-1)
    itself = position[width:].expand(len(valid), number)[..., None]
    rows = torch.arange(len(valid), device=frames.device)
    windows = known[rows[:, None, None], torch.cat((latest[:, :-1], itself), -1)]
    return windows, known[rows[:, None], latest[:, -1]]
