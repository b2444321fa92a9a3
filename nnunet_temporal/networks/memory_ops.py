"""The mathematics of the key-value memory, as functions on tensors.

Shape legend: B batch, T frame, H head, N pixel of a frame (Y * X), D_k and D_v key and value channels per head.
A memory state S is a (B, H, D_v, D_k) matrix per head that maps a key to a value. Every update below is linear in
the state, S_t = S_{t-1} M_t + W_t, so a clip is one batched computation of all transitions M_t and writes W_t
followed by a short recurrence over time. Everything runs in float32: the sums over pixels overflow in float16.

Source: the memory of GDKVM (Wang et al., ICCV 2025, sections 3.2 and 3.3) and its gated delta rule; the implicit
form of the update is ours, because the published sum over pixels diverges at higher resolutions.
"""

import torch
from torch import Tensor

LARGEST_WRITE_GATE = 0.99
"""b stays below 1: the implicit update weighs a frame by b / (1 - b)."""


def unit_norm(keys: Tensor) -> Tensor:
    """Scale each pixel's key (..., D_k, N) to length 1; a zero key stays zero."""
    # Not torch's normalize: along an inner axis its norm is several times slower on a CPU.
    return keys * torch.rsqrt(keys.square().sum(-2, keepdim=True) + 1e-12)


def frame_statistics(keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Sum a frame's key-key and value-key outer products, scaled so that they do not depend on the resolution.

    Args:
        keys: (B, T, H, D_k, N).
        values: (B, T, H, D_v, N).

    Returns:
        ``A`` = (D_k / N) K K^T, (B, T, H, D_k, D_k), and ``C`` = (D_k / N) V K^T, (B, T, H, D_v, D_k).
    """
    key_size, pixels = keys.shape[-2:]
    scaled = keys.transpose(-1, -2) * (key_size / pixels)
    return keys @ scaled, values @ scaled


def implicit_transition(keys: Tensor, values: Tensor, decay: Tensor, write: Tensor) -> tuple[Tensor, Tensor]:
    """Gated delta rule for a whole frame at once, solved implicitly.

    S_t = (a S_{t-1} + c C)(I + c A)^{-1} with c = b / (1 - b) is the exact minimiser of
    c (D_k / N) |S K - V|^2 + |S - a S_{t-1}|^2, so the norm of the transition is at most a <= 1 for every key, every
    number of pixels and every gate. For a single unit-norm token (with D_k / N taken as 1) it equals the canonical
    gated delta rule with that b (Sherman-Morrison).

    Args:
        keys: (B, T, H, D_k, N).
        values: (B, T, H, D_v, N).
        decay: a in [0, 1], (B, T, H).
        write: b in [0, 1), (B, T, H).

    Returns:
        Transition M (B, T, H, D_k, D_k) and write W (B, T, H, D_v, D_k).
    """
    key_moment, value_moment = frame_statistics(keys, values)
    weight = (write / (1 - write))[..., None, None]
    key_size = keys.shape[-2]
    identity = torch.eye(key_size, dtype=keys.dtype, device=keys.device)
    # Rounding of the moment, times a weight of up to 99, could push the transition's norm above a; this outweighs it.
    trace = key_moment.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    rounding = 8 * torch.finfo(keys.dtype).eps * trace
    regular = identity + weight * (key_moment + rounding * identity)
    # The variant without error check: a batch that is not finite must reach the gradient scaler, which skips it.
    inverse = torch.cholesky_inverse(torch.linalg.cholesky_ex(regular)[0])
    return decay[..., None, None] * inverse, weight * (value_moment @ inverse)


def raw_transition(keys: Tensor, values: Tensor, decay: Tensor, write: Tensor) -> tuple[Tensor, Tensor]:
    """The published explicit rule, S_t = a S_{t-1} (I - b K K^T) + b V K^T, with plain sums over the pixels.

    Kept for comparison (GDKVM, equation of the gated delta rule). It is unstable once b N / D_k exceeds 2.

    Args and returns as ``implicit_transition``.
    """
    identity = torch.eye(keys.shape[-2], dtype=keys.dtype, device=keys.device)
    scaled = write[..., None, None] * keys.transpose(-1, -2)
    return decay[..., None, None] * (identity - keys @ scaled), values @ scaled


TRANSITIONS = {"implicit": implicit_transition, "raw": raw_transition}


def linear_recurrence(transition: Tensor, write: Tensor, state: Tensor) -> Tensor:
    """Run S_t = S_{t-1} M_t + W_t over a clip.

    Args:
        transition: M, (B, T, H, D_k, D_k).
        write: W, (B, T, H, D_v, D_k).
        state: S before the first frame, (B, H, D_v, D_k).

    Returns:
        The states after each frame, (B, T, H, D_v, D_k).
    """
    states = []
    for transition_t, write_t in zip(transition.unbind(1), write.unbind(1), strict=True):
        state = state @ transition_t + write_t
        states.append(state)
    return torch.stack(states, 1)


def read(states: Tensor, queries: Tensor) -> Tensor:
    """Look the queries up in the memory.

    Args:
        states: (B, T, H, D_v, D_k).
        queries: (B, T, H, D_k, N).

    Returns:
        Values, (B, T, H, D_v, N).
    """
    return states @ queries


def hold_invalid_frames(decay: Tensor, write: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Set the gates of padding frames to a = 1, b = 0, so that such frames leave the memory as it is.

    Args:
        decay: (B, T, H).
        write: (B, T, H).
        valid: (B, T) bool.
    """
    frame = valid[..., None]
    return torch.where(frame, decay, torch.ones_like(decay)), torch.where(frame, write, torch.zeros_like(write))
