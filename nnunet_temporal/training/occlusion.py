"""Hiding a place in some frames of a clip, so that only the others can tell what is there."""

from dataclasses import dataclass

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from torch import Tensor

RADII = (0.08, 0.25)
"""Smallest and largest radius of what hides a place, as shares of the sides of the image."""

BRIGHTNESS = (0.0, 0.6)
"""Quantiles of a clip's grey values between which the hidden place is painted: shadows and dropouts are dark."""

TRACE = 0.15
"""Share of its contrast that a hidden place keeps."""

_RIM = (0.75, 1.25)
"""Radii, relative to the ellipse, between which it fades out."""


@dataclass(frozen=True)
class Occlusion:
    """What hides a place in a clip.

    Attributes:
        opacity: (Y, X) float32 in [0, 1].
        hidden: (T,) bool, the frames it hides.
        quantiles: (C,) brightness of each channel, as a quantile of the clip's grey values.
    """

    opacity: Tensor
    hidden: np.ndarray
    quantiles: np.ndarray


class OccludeFrames(BasicTransform):
    """Paints a dim ellipse over a labelled structure in a run of frames, but never in all of them.

    Labels stay. A frame by itself then no longer shows what is to be segmented, and a network that remembers has reason
    to: in sequences in which every frame can be segmented alone, a memory has next to nothing to learn from. A clip of
    one frame stays as it is.

    Source: ours. Random erasing (Zhong et al., AAAI 2020) hides parts of single images.
    """

    def __init__(self, ignore_label: int) -> None:
        """Take the label of pixels that nobody labelled, the highest one."""
        super().__init__()
        self.ignore_label = ignore_label

    def get_parameters(self, **clip: Tensor) -> dict[str, Occlusion | None]:
        """Draw where and when; ``clip`` holds ``image`` (C, T, Y, X) and ``segmentation`` (1, D, Y, X)."""
        channels, frames, *size = clip["image"].shape
        if frames < 2:
            return {"occlusion": None}
        opacity = _ellipse(size, self._draw_centre(clip["segmentation"][0], size))
        length, start = np.random.randint(1, frames), np.random.randint(frames)
        hidden = (np.arange(frames) - start) % frames < length
        return {"occlusion": Occlusion(opacity, hidden, np.random.uniform(*BRIGHTNESS, channels))}

    def _draw_centre(self, segmentation: Tensor, size: list[int]) -> np.ndarray:
        """Draw a labelled pixel (Y, X) of (D, Y, X) labels, or any pixel if there is none."""
        pixels = ((segmentation > 0) & (segmentation != self.ignore_label)).nonzero()[:, 1:]
        if len(pixels) == 0:
            return np.random.randint(size)
        return pixels[np.random.randint(len(pixels))].numpy()

    def _apply_to_image(self, image: Tensor, occlusion: Occlusion | None) -> Tensor:
        if occlusion is None:
            return image
        for channel, quantile in zip(image, occlusion.quantiles, strict=True):
            grey = float(np.quantile(channel.numpy(), quantile))
            frames = channel[occlusion.hidden]
            channel[occlusion.hidden] = torch.lerp(
                frames, grey + TRACE * (frames - frames.mean()), occlusion.opacity.expand_as(frames)
            )
        return image

    def _apply_to_segmentation(self, segmentation: Tensor, occlusion: Occlusion | None) -> Tensor:
        return segmentation


def _ellipse(size: list[int], centre: np.ndarray) -> Tensor:
    """Draw a filled ellipse of random radii and direction with a soft rim: (Y, X) float32 in [0, 1]."""
    radii = np.random.uniform(*RADII, 2) * size
    angle = np.random.uniform(0, np.pi)
    y, x = np.mgrid[: size[0], : size[1]] - np.reshape(centre, (2, 1, 1))
    along, across = y * np.cos(angle) + x * np.sin(angle), x * np.cos(angle) - y * np.sin(angle)
    distance = np.hypot(along / radii[0], across / radii[1])
    inner, outer = _RIM
    return torch.from_numpy(np.clip((outer - distance) / (outer - inner), 0, 1).astype(np.float32))
