"""The precision in which nnU-Net runs networks."""

from contextlib import AbstractContextManager, nullcontext

import torch


def mixed_precision(device: torch.device) -> AbstractContextManager:
    """Compute as nnU-Net does: in half precision on CUDA devices only."""
    return torch.autocast("cuda") if device.type == "cuda" else nullcontext()
