"""Contrastive loss between pixels: features of one class attract each other, those of different classes repel.

Shape legend: B clip, T frame, L label, S sample, N pixel of a clip (T * y * x), D feature channel.

Source: MSSNet contrasts pixels by their pseudo-labels. The positive term of its public sketch compares each pixel with
itself, a constant that attracts nothing; ours is the supervised contrastive loss of Khosla et al. (NeurIPS 2020,
equation 2). The sampling and the memory of prototypes are ours, too.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

TEMPERATURE = 0.1
SAMPLES = 128
"""Pixels of a class that a clip contributes at most."""
PROTOTYPES = 256
"""Prototypes of a class that are remembered."""
TRUSTED_WEIGHT = 0.36
"""Smallest weight of what is remembered: just below exp(-1), the least that an accepted pseudo-label has."""

_NEVER = -1e4
"""Stands for minus infinity among similarities of at most 1 / ``TEMPERATURE``, without its NaN in empty sums."""


def contrast(
    anchors: Tensor, anchor_labels: Tensor, weights: Tensor, keys: Tensor, key_labels: Tensor, temperature: float
) -> Tensor:
    """Compute the supervised contrastive loss of anchors among themselves and against further keys, in float32.

    An anchor's loss is the mean over its positives, all others of its label, of -log(e^(z.p/t) / sum_a e^(z.a/t)), in
    which a runs over all others. Anchors without a positive have no part.

    Args:
        anchors: (M, D) of length 1.
        anchor_labels: (M,) integers, negative for places that hold no anchor.
        weights: (M,), at least 0; how much an anchor counts in the mean.
        keys: (P, D) of length 1.
        key_labels: (P,) integers, negative for places that hold no key.
        temperature: t.

    Returns:
        The weighted mean over anchors; zero without any.
    """
    similarities = anchors @ torch.cat((anchors, keys)).T / temperature
    labels = torch.cat((anchor_labels, key_labels))
    others = (labels >= 0) & ~torch.eye(*similarities.shape, dtype=torch.bool, device=labels.device)
    positives = others & (anchor_labels[:, None] == labels)
    log_sum = similarities.masked_fill(~others, _NEVER).logsumexp(1)
    numbers = positives.sum(1)
    losses = log_sum - (similarities * positives).sum(1) / numbers.clamp(min=1)
    counted = (numbers > 0) & (anchor_labels >= 0)
    weights = weights.where(counted, torch.zeros_like(weights))
    total = weights.sum()
    return (losses.where(counted, torch.zeros_like(losses)) * weights).sum() / total.where(total > 0, 1)


def boundary_band(labels: Tensor, ignore_label: int) -> Tensor:
    """Mark known pixels that have another known label in their 3 x 3 neighbourhood.

    Args:
        labels: (B, T, Y, X) float.
        ignore_label: Label of pixels that are not known.

    Returns:
        (B, T, Y, X) bool.
    """
    known = labels != ignore_label
    largest = functional.max_pool2d(labels.masked_fill(~known, _NEVER), 3, 1, 1)
    smallest = -functional.max_pool2d(-labels.masked_fill(~known, -_NEVER), 3, 1, 1)
    return known & (largest != smallest)


def sample_pixels(members: Tensor, band: Tensor, number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw pixels of each label without replacement, half of them from the boundary band.

    Where either half has too few, the other fills up.

    Args:
        members: (B, L, N) bool, the pixels of each label.
        band: (B, N) bool, the pixels near a boundary.
        number: Largest number of pixels per clip and label.
        generator: Source of the draw.

    Returns:
        Pixel indices (B, L, S), S at most ``number``, and (B, L, S) bool, False for places left empty.
    """
    pixels = members.shape[-1]
    draw = torch.rand(members.shape, generator=generator, device=generator.device).to(members.device)
    in_band = members & band[:, None]
    best = draw.masked_fill(~in_band, -1).topk(min(number // 2, pixels)).indices
    first = torch.zeros_like(members).scatter(-1, best, True) & in_band
    # First half of the band, then the inside, then what the band has left.
    order = (draw + 2.0 * first + 1.0 * (members & ~in_band)).masked_fill(~members, -1)
    drawn = order.topk(min(number, pixels))
    return drawn.indices, drawn.values >= 0


class ContrastiveLoss(nn.Module):
    """Contrasts sampled pixels of a batch with each other and with remembered prototypes of their classes.

    The prototypes are buffers, so that a checkpoint of this module holds them. Each process has its own.
    """

    prototypes: Tensor
    written: Tensor
    next_slot: Tensor
    _labels: Tensor

    def __init__(self, labels: Sequence[int], channels: int, *, ignore_label: int) -> None:
        """Begin without prototypes.

        Args:
            labels: The values of the label map, the background among them; not the ignore label.
            channels: Channels D of the features.
            ignore_label: Label of pixels that have no part.
        """
        super().__init__()
        self.ignore_label = ignore_label
        self.register_buffer("_labels", torch.tensor(labels), persistent=False)
        self.register_buffer("prototypes", torch.zeros(len(labels), PROTOTYPES, channels))
        self.register_buffer("written", torch.zeros(len(labels), PROTOTYPES, dtype=torch.bool))
        self.register_buffer("next_slot", torch.zeros(len(labels), dtype=torch.long))

    def forward(self, features: Tensor, labels: Tensor, weight: Tensor, generator: torch.Generator) -> Tensor:
        """Compute the loss in float32, then remember the batch's trusted prototypes.

        Args:
            features: (B, T, D, y, x), of any length.
            labels: (B, 1, T, Y, X) label map; the pixel nearest to each feature's centre counts.
            weight: (B, T), 0..1; how much a frame's pixels count.
            generator: Draws the pixels.

        Returns:
            The loss; a zero with a graph if the batch shows fewer than two labels.
        """
        with torch.autocast(features.device.type, enabled=False):
            coarse = functional.interpolate(labels[:, 0].float(), features.shape[-2:], mode="nearest-exact")
            members = coarse.flatten(1)[:, None] == self._labels[:, None]
            members = members & (weight > 0).repeat_interleave(coarse[0, 0].numel(), 1)[:, None]
            index, taken = sample_pixels(
                members, boundary_band(coarse, self.ignore_label).flatten(1), SAMPLES, generator
            )
            pixels = functional.normalize(features.float(), dim=2).movedim(2, -1).flatten(1, 3)  # (B, N, D)
            clips = torch.arange(len(index), device=index.device)[:, None, None]
            samples = pixels[clips, index]  # (B, L, S, D)
            weights = weight.float()[clips, index // coarse[0, 0].numel()] * taken
            loss = self._contrast(samples, taken, weights)
            self._remember(samples.detach(), taken & (weights >= TRUSTED_WEIGHT))
            return loss

    def _contrast(self, samples: Tensor, taken: Tensor, weights: Tensor) -> Tensor:
        classes = torch.arange(len(self._labels), device=samples.device)
        anchor_labels = classes[:, None].where(taken, -1).flatten()
        key_labels = classes[:, None].where(self.written, -1).flatten()
        keys = self.prototypes.flatten(0, 1)
        loss = contrast(samples.flatten(0, 2), anchor_labels, weights.flatten(), keys, key_labels, TEMPERATURE)
        shown = taken.any(-1).any(0).sum()
        return loss * (shown >= 2)

    @torch.no_grad()
    def _remember(self, samples: Tensor, trusted: Tensor) -> None:
        """Write each clip's mean feature of every class it shows over the oldest one."""
        slots = torch.arange(PROTOTYPES, device=samples.device)
        for clip, counted in zip(samples, trusted, strict=True):
            prototypes = functional.normalize((clip * counted[..., None]).sum(1), dim=-1)
            shown = counted.any(1)
            here = shown[:, None] & (slots == self.next_slot[:, None])
            # New tensors, not in place: the loss's graph still holds the old ones.
            self.prototypes = torch.where(here[..., None], prototypes[:, None], self.prototypes)
            self.written = self.written | here
            self.next_slot = (self.next_slot + shown) % PROTOTYPES
