"""The mathematics of the key-value memory, as functions on tensors.

Shape legend: B batch, T frame, H head, N pixel of a frame (Y * X), D_k and D_v key and value channels per head;
G is 1 for a gate per head, D_k for a gate per key channel and head. A memory state S is a (D_v, D_k) matrix per head
that maps a key to a value. For given gates every update below is linear in the state, S_t = S_{t-1} M_t + W_t. All
functions take any leading dimensions, (B, T, H) for a clip and (B, H) for a frame, and are meant for float32: the sums
over pixels overflow in float16.

Source: the memory of GDKVM (Wang et al., ICCV 2025, sections 3.2 and 3.3) and its gated delta rule. Implicit and
explicit transition are ours, because the published sum over pixels diverges at higher resolutions.
"""

from collections.abc import Callable

import torch
from torch import Tensor

LARGEST_WRITE_GATE = 0.99
"""Largest b of a learned gate; the implicit update weighs a frame by b / (1 - b), and takes b = 1 for this value."""


def unit_norm(keys: Tensor) -> Tensor:
    """Scale each pixel's key (..., D_k, N) to length 1; a zero key stays zero."""
    # Not torch's normalize: along an inner axis its norm is several times slower on a CPU.
    return keys * torch.rsqrt(keys.square().sum(-2, keepdim=True) + 1e-12)


def channel_softmax(keys: Tensor) -> Tensor:
    """Softmax of each pixel's key (..., D_k, N) over its channels, the key of GDKVM's linear association."""
    return keys.softmax(-2)


def balanced_softmax(keys: Tensor) -> Tensor:
    """Softmax over the channels, each channel divided by the root of its mean over the frame's pixels.

    The eigenvalues of K K^T / N then lie in [0, 1] for every frame: up to similarity it is D^{-1} P P^T with P the
    softmax and D its sums over the pixels, a matrix of non-negative rows that sum to 1.

    Args:
        keys: (..., D_k, N).
    """
    keys = keys.softmax(-2)
    # A channel that no pixel uses has mean zero; what is added can only make eigenvalues smaller.
    return keys * torch.rsqrt(keys.mean(-1, keepdim=True) + 1e-6)


def moments(keys: Tensor, values: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Sum a frame's key-key and value-key outer products over its pixels.

    Args:
        keys: K, (..., D_k, N).
        values: V, (..., D_v, N).
        scale: Factor on both sums.

    Returns:
        ``scale`` K K^T, (..., D_k, D_k), and ``scale`` V K^T, (..., D_v, D_k).
    """
    scaled = keys.transpose(-1, -2) * scale
    return keys @ scaled, values @ scaled


def inverse_by_solver(matrix: Tensor) -> Tensor:
    """Invert positive definite matrices (..., D, D)."""
    # The variant without error check: a batch that is not finite must reach the gradient scaler, which skips it.
    return torch.cholesky_inverse(torch.linalg.cholesky_ex(matrix)[0])


def implicit_transition(
    key_moment: Tensor,
    value_moment: Tensor,
    decay: Tensor,
    write: Tensor,
    inverse: Callable[[Tensor], Tensor] = inverse_by_solver,
) -> tuple[Tensor, Tensor]:
    """Gated delta rule for a whole frame at once, solved implicitly.

    S_t = (a S_{t-1} + c C)(I + c A)^{-1} with the moments A and C and c = b / (1 - b) is the exact minimiser of
    c s |S K - V|^2 + |S - a S_{t-1}|^2, where s is the scale of the moments, so the norm of the transition is at most
    a <= 1 for every key, every number of pixels and every gate. For a single unit-norm token and s = 1 it equals the
    canonical gated delta rule with that b (Sherman-Morrison). Gates per key channel weigh entry (i, j) of A by
    sqrt(c_i c_j), which keeps the bound.

    Args:
        key_moment: A, (..., D_k, D_k), positive semi-definite.
        value_moment: C, (..., D_v, D_k).
        decay: a in [0, 1], (..., G).
        write: b in [0, 1], (..., G); values above ``LARGEST_WRITE_GATE`` count as that.
        inverse: Inverts I + c A, whose eigenvalues are 1 or more.

    Returns:
        Transition M (..., D_k, D_k) and write W (..., D_v, D_k).
    """
    write = write.clamp_max(LARGEST_WRITE_GATE)
    weight = write / (1 - write)
    erased = _erased(key_moment, weight)
    identity = _identity_like(key_moment)
    # Rounding of the moment could push the transition's norm above a; this outweighs it up to 128 x 128 equal keys.
    trace = erased.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    regular = identity + erased + 16 * torch.finfo(erased.dtype).eps * trace * identity
    inverted = inverse(regular)
    return decay[..., None] * inverted, (value_moment * weight[..., None, :]) @ inverted


def explicit_transition(
    key_moment: Tensor, value_moment: Tensor, decay: Tensor, write: Tensor
) -> tuple[Tensor, Tensor]:
    """Gated delta rule for a whole frame at once, S_t = a S_{t-1} (I - b A) + b C.

    The norm of the transition is at most a where the eigenvalues of A lie in [0, 1]. Gates per key channel weigh entry
    (i, j) of A by sqrt(b_i b_j), which keeps the bound.

    Args and returns as ``implicit_transition``.
    """
    kept = _identity_like(key_moment) - _erased(key_moment, write)
    return decay[..., None] * kept, value_moment * write[..., None, :]


def published_transition(
    key_moment: Tensor, value_moment: Tensor, decay: Tensor, write: Tensor
) -> tuple[Tensor, Tensor]:
    """GDKVM's equation of the gated delta rule with elementwise gates, S_t = a . (S - b . (S A)) + b . C, S = S_{t-1}.

    The paper calls a and b matrices of the state's shape; elementwise is the only reading that type-checks, with one
    value per key channel. With A a plain sum over N pixels of softmax keys it diverges once b N / D_k exceeds 2.

    Args and returns as ``implicit_transition``.
    """
    decay, write = decay[..., None, :], write[..., None, :]
    return (_identity_like(key_moment) - key_moment * write) * decay, value_moment * write


def accumulation(key_moment: Tensor, value_moment: Tensor, decay: Tensor, write: Tensor) -> tuple[Tensor, Tensor]:
    """Add without erasing, S_t = a S_{t-1} + b C: linear attention, of the kind that GDKVM starts from.

    Args and returns as ``implicit_transition``.
    """
    transition = (decay[..., None] * _identity_like(key_moment)).expand_as(key_moment)
    return transition, value_moment * write[..., None, :]


def _identity_like(moment: Tensor) -> Tensor:
    return torch.eye(moment.shape[-1], dtype=moment.dtype, device=moment.device)


def _erased(moment: Tensor, weight: Tensor) -> Tensor:
    """Weigh entry (i, j) of a moment by sqrt(w_i w_j)."""
    # The root has no gradient at zero, the weight of padding frames.
    root = weight.clamp_min(torch.finfo(weight.dtype).tiny).sqrt()
    return root[..., :, None] * moment * root[..., None, :]


def hold_invalid_frames(decay: Tensor, write: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Set the gates of padding frames to a = 1, b = 0, so that such frames leave the memory as it is.

    Args:
        decay: (B, T, H, G), or (B, H, G) of one frame.
        write: As ``decay``.
        valid: (B, T) or (B,) bool.
    """
    frame = valid[..., None, None]
    return torch.where(frame, decay, torch.ones_like(decay)), torch.where(frame, write, torch.zeros_like(write))
