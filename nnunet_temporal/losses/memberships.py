"""Label maps as what a network answers: one membership per output channel, and which pixels are known."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def memberships_of(
    labels: Tensor, outputs: int, *, ignore_label: int | None, regions: Sequence[int | Sequence[int]] | None = None
) -> tuple[Tensor, Tensor]:
    """Turn label maps into memberships of classes or regions.

    Args:
        labels: (B, 1, ...) of any integer type. Exclusive labels are below ``outputs``.
        outputs: Output channels K of the network.
        ignore_label: Label of pixels that nobody labelled, None if every pixel counts.
        regions: Labels of each of the K regions; None for exclusive labels, the background among them.

    Returns:
        Memberships (B, K, ...) float32 of 0 and 1, and (B, 1, ...) bool, False for ignored pixels. An ignored pixel is
        background in the memberships.

    Raises:
        ValueError: There are not as many regions as outputs.
    """
    known = torch.ones_like(labels, dtype=torch.bool) if ignore_label is None else labels != ignore_label
    labels = labels.where(known, torch.zeros_like(labels))
    if regions is None:
        return functional.one_hot(labels[:, 0].long(), outputs).movedim(-1, 1).float(), known
    if len(regions) != outputs:
        raise ValueError(f"a network of {outputs} outputs answers for as many regions, got {len(regions)}")
    return torch.cat([_inside(labels, region) for region in regions], 1).float(), known


def _inside(labels: Tensor, region: int | Sequence[int]) -> Tensor:
    values = (region,) if isinstance(region, int) else tuple(region)
    return torch.stack([labels == value for value in values]).any(0)
