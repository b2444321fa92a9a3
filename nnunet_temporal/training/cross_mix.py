"""Region-wise adaptive cross-mix: the heart of one clip, pasted into another clip of the batch.

MSSNet (Chen et al., IEEE TMI 2026) names the idea. Its text was not available to us; the authors' public sketch pastes
the predicted cavity of the first frame into the last frame of the same clip and the reverse, and returns no labels.
What is kept and what is ours:

* Region: the sketch takes its one class where a prediction exceeds 0.5. Here it is a random set of labels, true or
  pseudo; image, labels and weights are mixed alike.
* Partner: the sketch mixes two frames of a clip, which tears that clip apart. Here it is another clip of the same view,
  frame by frame: windows of consecutive frames meet windows, context meets context, so that what is pasted beats as it
  did.
* Adaptive: the sketch adapts nothing. Here the region is moved onto the target's, once per clip, and accepted if both
  are of like size and move alike; else the box around it is pasted where it lies, as in CutMix.
* Seam: the sketch cuts hard along the contour, which a network learns to see. Here the paste fades out over a ring
  around the region, and the ring is labelled ignore.
* Grey values: the sketch leaves them. Here brightness and contrast around the region become those of its new place. We
  compare surroundings with surroundings: a dark cavity fitted to the bright wall around it would cease to be a cavity.

Shape legend: B batch, C channel, T frame, Y X in-plane. Nothing here waits for the device.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from nnunet_temporal.networks.temporal_unet import Clip

AREA_RATIOS = (0.5, 2.0)
"""Areas of the source's region over the target's between which a region is pasted by itself."""

LARGEST_OFFSET = 0.15
"""How far apart the centres of aligned regions may lie in any frame, as a share of the shorter side of the image."""

SEAM_RADII = (2, 6)
"""Smallest and largest radius of a seam, in pixels of an image with a side of ``SEAM_SIDE`` pixels."""

SEAM_SIDE = 256

FADE = (0.1, 0.9)
"""Values of the Gaussian at which the paste begins to show and hides the target; in between lies the seam."""

CONTRAST_CHANGES = (0.5, 2.0)
"""Bounds of the change of contrast: a ring in a uniform place tells nothing about it."""


class MixedClips(NamedTuple):
    """Clips after mixing.

    Attributes:
        data: (B, C, T, Y, X), in the type it came in.
        labels: (B, 1, T, Y, X), in the type they came in; ignore in the seam.
        weight: (B, 1, T, Y, X) float32, of each pixel the weight of the frame that it comes from.
        seam: (B, 1, T, Y, X) bool, where a pixel is of both clips.
    """

    data: Tensor
    labels: Tensor
    weight: Tensor
    seam: Tensor


@dataclass(frozen=True)
class CrossMix:
    """Pastes regions between the clips of a batch.

    Attributes:
        probability: Share of clips into which something is pasted.
        ignore_label: Highest label; background is 0, and all labels in between are foreground.
    """

    probability: float
    ignore_label: int

    @torch.no_grad()
    def __call__(
        self, clip: Clip, labels: Tensor, weight: Tensor, views: Tensor, generator: torch.Generator
    ) -> MixedClips:
        """Mix a batch of augmented clips. A frame that is padding in either clip, or whose source has no region, stays.

        Args:
            clip: Frames (B, C, T, Y, X) of any floating type; the decoded ones are a window of consecutive frames.
            labels: (B, 1, T, Y, X) label map; ignored pixels are never part of the region.
            weight: (B, T) float32.
            views: (B,) int64 on the CPU; nothing is pasted from one view into another.
            generator: Source of randomness, on the CPU: the same draws on every device.
        """
        data, valid, decoded = clip
        weights = weight.float()[:, None, :, None, None].expand(labels.shape)
        if self.probability == 0:
            return MixedClips(data, labels, weights, torch.zeros_like(labels, dtype=torch.bool))
        source, wanted, radius = self._draw(views, min(data.shape[3:]), generator)
        source, wanted = (draw.to(data.device, non_blocking=True) for draw in (source, wanted))
        places = source[:, None], counterparts(decoded, source, data.shape[2])
        frames = (valid & valid[places])[:, :, None, None]
        others, other_labels, other_weights = (
            part.transpose(1, 2)[places].transpose(1, 2) for part in (data, labels, weights)
        )
        with torch.autocast(data.device.type, enabled=False):
            shift, accepted = align(_region(other_labels, wanted) & frames, _region(labels, wanted))
            pasted = moved(others, shift)
            pasted_labels = moved(other_labels, shift).masked_fill(_outside(labels, shift), self.ignore_label)
            region = _region(pasted_labels, wanted) & frames
            patch = torch.where(accepted[:, None, None, None], region, enclosing_box(region))
            alpha = opacity(patch & (pasted_labels[:, 0] != self.ignore_label), radius)[:, None]
            seam = (alpha > 0) & (alpha < 1)
            pasted = match_surroundings(pasted.float(), data.float(), seam)
            blended = torch.lerp(data.float(), pasted, alpha.expand_as(data)).to(data.dtype)
        return MixedClips(
            blended,
            torch.where(alpha == 1, pasted_labels, labels).masked_fill(seam, self.ignore_label),
            torch.where(alpha == 1, other_weights, weights),
            seam,
        )

    def _draw(self, views: Tensor, side: int, generator: torch.Generator) -> tuple[Tensor, Tensor, int]:
        """Draw the source (B,) of each clip, its labels (B, ``ignore_label`` + 1) to be pasted, and the seam's radius.

        The sources are one random cycle through the clips of each view; a clip alone in its view gets no labels.
        """
        batch = len(views)
        order = torch.randperm(batch, generator=generator)
        source = torch.empty_like(order)
        for view in views.unique():
            alike = order[views[order] == view]
            source[alike] = alike.roll(1)
        is_alone = source == torch.arange(batch)
        mixes = (torch.rand(batch, 1, generator=generator) < self.probability) & ~is_alone[:, None]
        chosen = torch.rand(batch, self.ignore_label - 1, generator=generator) < 0.5
        chosen |= ~chosen.any(1, keepdim=True)
        radius = int(torch.randint(SEAM_RADII[0], SEAM_RADII[1] + 1, (), generator=generator))
        return source, functional.pad(chosen & mixes, (1, 1)), max(1, round(radius * side / SEAM_SIDE))


def align(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Find the one translation per clip that moves a region onto another, and whether they then fit.

    The translation is the median over frames, so a few bad frames do not turn it. Areas are compared by their sums over
    frames: two clips need not be in the same phase of the beat.

    Args:
        source: (B, T, Y, X) bool, region to be moved.
        target: (B, T, Y, X) bool, region it is to cover. Only frames that hold both are compared.

    Returns:
        (B, 2) int64 pixels along Y and X, zero where the regions do not fit; (B,) bool, whether they fit.
    """
    shared = (source.flatten(2).any(2) & target.flatten(2).any(2))[:, :, None]
    moves = (_centres(target) - _centres(source)).masked_fill(~shared, torch.nan)
    shift = moves.nanquantile(0.5, dim=1).round()
    offset = (moves - shift[:, None]).norm(dim=2).nan_to_num(0).amax(1)
    # Without a shared frame this is 0 / 0, which passes neither comparison.
    ratio = (source & shared[..., None]).sum((1, 2, 3)) / (target & shared[..., None]).sum((1, 2, 3))
    fits = (ratio >= AREA_RATIOS[0]) & (ratio <= AREA_RATIOS[1]) & (offset < LARGEST_OFFSET * min(source.shape[2:]))
    return torch.where(fits[:, None], shift, 0).long(), fits


def counterparts(decoded: Tensor, source: Tensor, n_frames: int) -> Tensor:
    """Return which frame of its source takes the place of each frame of a clip, (B, T) int64.

    The n-th decoded frame meets the n-th decoded one and the n-th context frame the n-th context one, since the windows
    of two clips need not lie in the same place.

    Args:
        decoded: (B, W) int64, ascending positions of the decoded frames.
        source: (B,) int64, the source of each clip.
        n_frames: Frames of a clip, T.
    """
    is_context = torch.ones(len(decoded), n_frames, dtype=torch.int64, device=decoded.device).scatter(1, decoded, 0)
    order = is_context.argsort(dim=1, stable=True)
    return torch.empty_like(order).scatter(1, order, order[source])


def moved(clips: Tensor, shift: Tensor) -> Tensor:
    """Move clips (B, C, T, Y, X) by ``shift`` (B, 2) pixels; their border is repeated."""
    rows, columns = _origins(clips, shift)
    height, width = clips.shape[3:]
    rows, columns = rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None]
    clip = torch.arange(len(clips), device=clips.device)[:, None, None]
    return clips[clip, :, :, rows, columns].movedim((1, 2), (3, 4))


def enclosing_box(region: Tensor) -> Tensor:
    """Return the box around a region of all frames, in the frames that hold it.

    One box per clip: edges that moved with the heart would give it away.

    Args:
        region: (B, T, Y, X) bool.
    """
    ever = region.any(1)
    box = _between(ever.any(2))[:, :, None] & _between(ever.any(1))[:, None]
    return box[:, None] & region.flatten(2).any(2)[:, :, None, None]


def opacity(mask: Tensor, radius: int) -> Tensor:
    """Return how far a paste hides what lies beneath: a dilated mask behind a Gaussian of half the dilation's radius.

    It is 1 in the mask and, from a radius of about 2, in a collar of a pixel or two around it. The collar shows the
    pasted clip alone and keeps its labels, so the contour is still learned. Three radii away from the mask it is 0.

    Args:
        mask: (B, T, Y, X) bool.
        radius: Radius of the dilation, in pixels, at least 1.

    Returns:
        (B, T, Y, X) float32 in [0, 1].
    """
    planes = mask.flatten(0, 1)[:, None].float()
    reach = torch.arange(-2 * radius, 2 * radius + 1, device=mask.device)
    within = reach[radius:-radius] ** 2
    disc = (within[:, None] + within <= radius**2).float()
    dilated = (functional.conv2d(planes, disc[None, None], padding=radius) > 0.5).float()
    profile = torch.exp(-2.0 * (reach / radius) ** 2)
    profile = (profile / profile.sum())[None, None, None]
    # Beyond the border the mask goes on: a paste that touches it must not fade there.
    blurred = functional.pad(dilated, (2 * radius,) * 4, mode="replicate")
    blurred = functional.conv2d(functional.conv2d(blurred, profile), profile.mT)
    alpha = ((blurred - FADE[0]) / (FADE[1] - FADE[0])).clamp(0, 1)
    return alpha[:, 0].view(mask.shape).masked_fill(mask, 1)


def match_surroundings(source: Tensor, target: Tensor, ring: Tensor) -> Tensor:
    """Give the source the mean and the contrast that the target has in a ring; one change per clip and channel.

    A change per frame would make the pasted region flicker.

    Args:
        source: (B, C, T, Y, X) float32.
        target: (B, C, T, Y, X) float32.
        ring: (B, 1, T, Y, X) bool.

    Returns:
        The changed source; unchanged where a clip has no ring.
    """
    source_mean, source_deviation = _moments(source, ring)
    target_mean, target_deviation = _moments(target, ring)
    contrast = (target_deviation / source_deviation).clamp(*CONTRAST_CHANGES)
    return (source - source_mean) * contrast + target_mean


def _moments(clips: Tensor, ring: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and standard deviation (B, C, 1, 1, 1) in a ring; without one 0 and the smallest deviation."""
    axes, smallest = (2, 3, 4), 1e-6
    pixels = ring.sum(axes, keepdim=True).clamp(min=1)
    mean = (clips * ring).sum(axes, keepdim=True) / pixels
    variance = ((clips - mean) ** 2 * ring).sum(axes, keepdim=True) / pixels
    return mean, variance.sqrt().clamp(min=smallest)


def _region(labels: Tensor, wanted: Tensor) -> Tensor:
    """Return where labels (B, 1, T, Y, X) are among those wanted (B, L): (B, T, Y, X) bool."""
    return wanted.gather(1, labels.flatten(1).long()).view_as(labels[:, 0])


def _centres(region: Tensor) -> Tensor:
    """Return the centroids (B, T, 2) of a region (B, T, Y, X), NaN where a frame has none."""
    area = region.sum((2, 3))
    axes = [torch.arange(size, device=region.device) for size in region.shape[2:]]
    sums = [(region.sum(3 - axis) * axes[axis]).sum(2) for axis in (0, 1)]
    return torch.stack(sums, 2) / area[:, :, None]


def _origins(clips: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows (B, Y) and columns (B, X) from which a moved clip takes its pixels."""
    rows, columns = (torch.arange(size, device=clips.device) for size in clips.shape[3:])
    return rows - shift[:, :1], columns - shift[:, 1:]


def _outside(clips: Tensor, shift: Tensor) -> Tensor:
    """Return where a moved clip shows what was outside its image: (B, 1, 1, Y, X) bool."""
    (rows, columns), (height, width) = _origins(clips, shift), clips.shape[3:]
    rows_outside, columns_outside = (rows < 0) | (rows >= height), (columns < 0) | (columns >= width)
    return (rows_outside[:, :, None] | columns_outside[:, None])[:, None, None]


def _between(marked: Tensor) -> Tensor:
    """Return the positions (B, N) bool from the first to the last marked one."""
    return (marked.cumsum(1) > 0) & (marked.flip(1).cumsum(1).flip(1) > 0)
