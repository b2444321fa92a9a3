"""Augmentation of single frames, each for itself, before a clip is augmented as one."""

from collections.abc import Sequence

import numpy as np
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform

from nnunet_temporal.training.clip_transforms import KeepMaskedBackground

LARGEST_ROTATION_DEGREES = 15.0
"""As STCN turns each frame of a clip."""


def frame_training_transforms(
    size: tuple[int, int], rotation_degrees: float, *, ignore_label: int, masked_channels: Sequence[int] = ()
) -> BasicTransform:
    """Compose a small motion and a change of grey values, drawn anew for each frame.

    A clip may show one frame twice, or frames so alike that a memory of masks would only have to copy them. Large
    rotations, zoom and mirroring stay with the clip: a heart does not turn over between two frames.

    Args:
        size: (Y, X) of a frame, which it keeps.
        rotation_degrees: Largest rotation planned for clips; a frame is turned by ``LARGEST_ROTATION_DEGREES`` at most.
        ignore_label: Fills the segmentation where the motion reaches outside the image.
        masked_channels: Image channels that the preprocessing normalised inside a nonzero mask.
    """
    radians = np.deg2rad(min(rotation_degrees, LARGEST_ROTATION_DEGREES))
    intensity: BasicTransform = ComposeTransforms(_intensity_transforms())
    if masked_channels:
        intensity = KeepMaskedBackground(intensity, masked_channels)
    motion = SpatialTransform(
        size,
        patch_center_dist_from_border=0,
        random_crop=False,
        p_rotation=1,
        rotation=(-radians, radians),
        p_scaling=1,
        scaling=(0.9, 1.1),
        p_synchronize_scaling_across_axes=1,
        bg_style_seg_sampling=False,
        border_mode_seg="constant",
        padding_value_seg=ignore_label,
    )
    return ComposeTransforms([motion, intensity])


def _intensity_transforms() -> list[BasicTransform]:
    """nnU-Net's ranges, but for every second frame: most neighbours in a clip are to look different."""
    gamma = GammaTransform(
        gamma=BGContrast((0.7, 1.5)), p_invert_image=0, synchronize_channels=False, p_per_channel=1, p_retain_stats=1
    )
    contrast = ContrastTransform(BGContrast((0.75, 1.25)), preserve_range=True, synchronize_channels=False)
    brightness = MultiplicativeBrightnessTransform(BGContrast((0.75, 1.25)), synchronize_channels=False)
    return [RandomTransform(transform, apply_probability=0.5) for transform in (brightness, contrast, gamma)]
