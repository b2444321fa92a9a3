"""Three forms of the recurrence S_t = S_{t-1} M_t + W_t over a clip; they agree in values and gradients.

Shape legend: B batch, T frame, H head, D_k and D_v key and value channels per head. Each form takes

- transition: M, (B, T, H, D_k, D_k),
- write: W, (B, T, H, D_v, D_k),
- state: S before the first frame, (B, H, D_v, D_k),

and returns the states after each frame, (B, T, H, D_v, D_k).
"""

import torch
from torch import Tensor

CHUNK = 8
"""Frames that the chunked form scans at once."""


def loop_recurrence(transition: Tensor, write: Tensor, state: Tensor) -> Tensor:
    """Go frame by frame: T small steps and the least arithmetic."""
    states = []
    for transition_t, write_t in zip(transition.unbind(1), write.unbind(1), strict=True):
        state = state @ transition_t + write_t
        states.append(state)
    return torch.stack(states, 1)


def scan_recurrence(transition: Tensor, write: Tensor, state: Tensor) -> Tensor:
    """Scan in log2 T steps: (M_1, W_1) followed by (M_2, W_2) is the single step (M_1 M_2, W_1 M_2 + W_2).

    After the step of reach r, the states of the first 2 r frames are final, and every later frame holds the combined
    step of the 2 r frames that end with it (Hillis and Steele, 1986). Work grows with T log T, and with D_k^3.
    """
    states = torch.cat((state[:, None] @ transition[:, :1] + write[:, :1], write[:, 1:]), 1)
    later, reach = transition[:, 1:], 1
    while reach < write.shape[1]:
        states = torch.cat((states[:, :reach], states[:, :-reach] @ later + states[:, reach:]), 1)
        later = later[:, :-reach] @ later[:, reach:]
        reach *= 2
    return states


def chunk_recurrence(transition: Tensor, write: Tensor, state: Tensor) -> Tensor:
    """Scan ``CHUNK`` frames at a time and carry the state from chunk to chunk: work grows with T."""
    chunks = []
    for transition_c, write_c in zip(transition.split(CHUNK, 1), write.split(CHUNK, 1), strict=True):
        chunks.append(scan_recurrence(transition_c, write_c, state))
        state = chunks[-1][:, -1]
    return torch.cat(chunks, 1)


RECURRENCES = {"loop": loop_recurrence, "chunk": chunk_recurrence, "scan": scan_recurrence}
