"""Augmentation of clips: nnU-Net's transforms and ranges, made safe for time and for sparse labels.

What differs from nnU-Net's own pipelines, and why:

* Geometry is drawn once per clip and applied in plane: frames become channels of a 2D image, so that nothing moves
  between frames and time never rotates, scales or mirrors.
* Blur and low resolution act in plane and are drawn once per clip.
* What comes in from outside the image is labelled ignore, not background.
* A place may be hidden in some of the frames, so that a network has to remember it.
"""

from collections.abc import Sequence

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert2DTo3DTransform, Convert3DTo2DTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from batchgeneratorsv2.transforms.utils.seg_to_regions import ConvertSegmentationToRegionsTransform

from nnunet_temporal.training.occlusion import OccludeFrames

Regions = Sequence[int | Sequence[int]]


class KeepMaskedBackground(BasicTransform):
    """Apply intensity transforms, but leave pixels at zero where the preprocessing masked them out.

    Stands in for nnU-Net's masking after augmentation, which reads the mask from the labels: those know nothing
    about frames that carry none. Masked pixels are exactly zero in the preprocessed image.
    """

    def __init__(self, transforms: BasicTransform, channels: Sequence[int]) -> None:
        """Wrap ``transforms``; ``channels`` are the image channels that were normalised inside a mask."""
        super().__init__()
        self.transforms = transforms
        self.channels = list(channels)

    def apply(self, data_dict: dict, **params: object) -> dict:
        """Transform a clip's ``image`` (C, T, Y, X)."""
        outside = data_dict["image"][self.channels] == 0
        data_dict = self.transforms(**data_dict)
        image = data_dict["image"]
        image[self.channels] = torch.where(outside, torch.zeros_like(outside, dtype=image.dtype), image[self.channels])
        return data_dict


def clip_training_transforms(
    patch_size: tuple[int, int],
    rotation_degrees: float,
    mirror_axes: tuple[int, ...] | None,
    deep_supervision_scales: list[list[float]] | None,
    *,
    ignore_label: int,
    regions: Regions | None = None,
    masked_channels: Sequence[int] = (),
    occluded_share: float = 0.0,
) -> BasicTransform:
    """Compose the training augmentation of one clip.

    Args:
        patch_size: (Y, X) of the result.
        rotation_degrees: Largest in-plane rotation.
        mirror_axes: Axes of a (T, Y, X) clip that may be flipped, or None.
        deep_supervision_scales: Scales (T, Y, X) of the target list, or None for a single target.
        ignore_label: Fills the segmentation where a transform reaches outside the image.
        regions: Regions of a region-based dataset.
        masked_channels: Image channels that the preprocessing normalised inside a nonzero mask.
        occluded_share: Share of the clips in which a place is hidden in some of the frames.
    """
    occlusion = RandomTransform(OccludeFrames(ignore_label), apply_probability=occluded_share)
    intensity: BasicTransform = ComposeTransforms([occlusion, *_intensity_transforms()])
    if masked_channels:
        intensity = KeepMaskedBackground(intensity, masked_channels)
    transforms = [*_spatial_transforms(patch_size, rotation_degrees, ignore_label), intensity]
    if mirror_axes is not None:
        transforms.append(MirrorTransform(allowed_axes=mirror_axes))
    return ComposeTransforms(transforms + _target_transforms(deep_supervision_scales, ignore_label, regions))


def clip_validation_transforms(
    deep_supervision_scales: list[list[float]] | None, *, ignore_label: int, regions: Regions | None = None
) -> BasicTransform:
    """Compose what validation clips need: targets in the form the loss expects. Arguments as for training."""
    return ComposeTransforms(_target_transforms(deep_supervision_scales, ignore_label, regions))


def _target_transforms(
    deep_supervision_scales: list[list[float]] | None, ignore_label: int, regions: Regions | None
) -> list[BasicTransform]:
    transforms: list[BasicTransform] = []
    if regions is not None:
        transforms.append(ConvertSegmentationToRegionsTransform([*regions, ignore_label], channel_in_seg=0))
    if deep_supervision_scales is not None:
        transforms.append(DownsampleSegForDSTransform(ds_scales=deep_supervision_scales))
    return transforms


def _spatial_transforms(
    patch_size: tuple[int, int], rotation_degrees: float, ignore_label: int
) -> list[BasicTransform]:
    """nnU-Net's rotation and scaling, in plane and once per clip: its frames are channels of one image."""
    radians = np.deg2rad(rotation_degrees)
    spatial = SpatialTransform(
        patch_size,
        patch_center_dist_from_border=0,
        random_crop=False,
        p_elastic_deform=0,
        p_rotation=0.2,
        rotation=(-radians, radians),
        p_scaling=0.2,
        scaling=(0.7, 1.4),
        p_synchronize_scaling_across_axes=1,
        bg_style_seg_sampling=False,
        border_mode_seg="constant",
        padding_value_seg=ignore_label,
    )
    return [Convert3DTo2DTransform(), spatial, Convert2DTo3DTransform()]


def _intensity_transforms() -> list[BasicTransform]:
    """nnU-Net's intensity augmentation; a channel is all frames of one modality, so each draw covers the clip."""
    per_clip_blur = [
        Convert3DTo2DTransform(),
        GaussianBlurTransform(
            blur_sigma=(0.5, 1.0), synchronize_channels=True, synchronize_axes=True, p_per_channel=1, benchmark=False
        ),
        Convert2DTo3DTransform(),
    ]
    brightness = MultiplicativeBrightnessTransform(BGContrast((0.75, 1.25)), synchronize_channels=False)
    contrast = ContrastTransform(BGContrast((0.75, 1.25)), preserve_range=True, synchronize_channels=False)
    low_resolution = SimulateLowResolutionTransform(
        scale=(0.5, 1), synchronize_channels=False, synchronize_axes=True, ignore_axes=(0,), p_per_channel=0.5
    )
    gamma = {"gamma": BGContrast((0.7, 1.5)), "synchronize_channels": False, "p_per_channel": 1, "p_retain_stats": 1}
    noise = GaussianNoiseTransform(noise_variance=(0, 0.1), p_per_channel=1, synchronize_channels=True)
    return [
        RandomTransform(noise, apply_probability=0.1),
        RandomTransform(ComposeTransforms(per_clip_blur), apply_probability=0.1),
        RandomTransform(brightness, apply_probability=0.15),
        RandomTransform(contrast, apply_probability=0.15),
        RandomTransform(low_resolution, apply_probability=0.25),
        RandomTransform(GammaTransform(p_invert_image=1, **gamma), apply_probability=0.1),
        RandomTransform(GammaTransform(p_invert_image=0, **gamma), apply_probability=0.3),
    ]
