"""What every causal temporal module must do, shared by tests. Not a test."""

import torch
from torch import Tensor, nn


@torch.no_grad()
def assert_chunks_agree_with_the_clip(
    module: nn.Module, x: Tensor, chunk: int, valid: Tensor | None = None, **tolerance: float
) -> None:
    """Check that features (B, T, C, Y, X) fed by chunks give the outputs and the last state of the whole clip."""
    state, parts = None, []
    validity = [None] * x.shape[1] if valid is None else valid.split(chunk, 1)
    for part, valid_part in zip(x.split(chunk, 1), validity, strict=False):
        out, state = module(part, state, valid_part)
        parts.append(out)
    whole, last = module(x, None, valid)
    assert (whole - x).abs().max() > 0.1
    torch.testing.assert_close(torch.cat(parts, 1), whole, **tolerance)
    torch.testing.assert_close(_plain(state), _plain(last), **tolerance)


def _plain(state: object) -> object:
    """Return a named tuple as a tuple, as ``assert_close`` wants it."""
    return tuple(state) if isinstance(state, tuple) else state
