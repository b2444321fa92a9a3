"""The mathematics of state-space guidance, as functions on tensors.

Shape legend: B batch, T frame, H head, L token of a sequence, D_k and D_v key and value channels per head; ``...``
stands for any leading axes. A selective state space is linear attention with a decay: key and query are the B and C
of the Mamba papers, and the state h is a (D_v, D_k) matrix per head. Call these in float32: the exponents would not
survive half precision.
"""

import torch
from torch import Tensor
from torch.nn import functional

TOKENS_PER_CHUNK = 64
"""Tokens that see each other through one matrix product; between chunks only the state is handed on."""
STRONGEST_LOG_DECAY = -30.0
"""Nothing survives it in float32. Sums of stronger decays would cost the weaker ones beside them their digits."""


def scan(
    query: Tensor, key: Tensor, value: Tensor, log_decay: Tensor, state: Tensor, chunk: int = TOKENS_PER_CHUNK
) -> tuple[Tensor, Tensor]:
    """Run h_i = exp(l_i) h_{i-1} + v_i k_i^T and read y_i = h_i q_i along a sequence of any length.

    Within a chunk, y_i = sum over j <= i of exp(l_{j+1} + ... + l_i) (q_i . k_j) v_j is a masked matrix product. With
    l <= 0 every exponent taken is at most 0, so nothing overflows, however long the sequence is.

    Source: Mamba-2 (Dao and Gu, ICML 2024), the chunked form of a state space whose decay is a scalar per head.

    Args:
        query: (..., L, D_k).
        key: (..., L, D_k).
        value: (..., L, D_v).
        log_decay: l <= 0, (..., L).
        state: h before the first token, (..., D_v, D_k).
        chunk: Tokens per chunk; the result does not depend on it.

    Returns:
        y (..., L, D_v) and h after the last token.
    """
    tokens = query.shape[-2]
    chunk = min(chunk, tokens)
    # Tokens that decay nothing and write nothing fill the last chunk up.
    query, key, value = (
        functional.pad(x, (0, 0, 0, -tokens % chunk)).unflatten(-2, (-1, chunk)) for x in (query, key, value)
    )
    log_decay = log_decay.clamp(min=STRONGEST_LOG_DECAY)
    decayed = functional.pad(log_decay, (0, -tokens % chunk)).unflatten(-1, (-1, chunk)).cumsum(-1)
    future = torch.ones(chunk, chunk, dtype=torch.bool, device=query.device).triu(1)
    since = (decayed[..., :, None] - decayed[..., None, :]).masked_fill(future, -torch.inf)
    result = (query @ key.mT * since.exp()) @ value

    last = decayed[..., -1:]
    written = value.mT @ (key * (last - decayed).exp()[..., None])
    before, state = _carry(last.exp()[..., None], written, state)
    result = result + (query * decayed.exp()[..., None]) @ before.mT
    return result.flatten(-3, -2)[..., :tokens, :], state


def _carry(kept: Tensor, written: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Return the states before each of N chunks, (..., N, D_v, D_k), and the one after the last."""
    before = []
    for index in range(written.shape[-3]):
        before.append(state)
        state = kept[..., index, :, :] * state + written[..., index, :, :]
    return torch.stack(before, -3), state


def hold_invalid_tokens(key: Tensor, log_decay: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Let invalid tokens neither write into the state nor decay it.

    Args:
        key: (..., L, D_k).
        log_decay: (..., L).
        valid: Bool, broadcasts to (..., L).
    """
    return key.where(valid[..., None], 0), log_decay.where(valid, 0)


def propagate(query: Tensor, share: Tensor, carried: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Let each frame inherit a share of what its predecessors attended to: q~_t = q_t + a q~_{t-1}.

    Attention logits are linear in the query, so with keys K this is L~_t = L_t + a L~_{t-1}, the weight propagation
    between frames, without ever storing a logit; a state space is read linearly as well.

    Source: MSSNet (Chen et al., IEEE TMI 2026), the recurrence in the authors' public sketch of its guidance module.

    Args:
        query: (B, T, H, N, D_k), N tokens per frame.
        share: a in [0, 1], (H).
        carried: q~ before the first frame, (B, H, N, D_k).
        valid: (B, T) bool; an invalid frame leaves no trace in later ones.

    Returns:
        q~ (B, T, H, N, D_k) and q~ after the last valid frame.
    """
    propagated = []
    for query_t, valid_t in zip(query.unbind(1), valid.unbind(1), strict=True):
        propagated.append(query_t + share[:, None, None] * carried)
        carried = torch.where(valid_t[:, None, None, None], propagated[-1], carried)
    return torch.stack(propagated, 1), carried
