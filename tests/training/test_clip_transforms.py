"""Augmentation of clips: one geometry for all frames, time untouched, nothing unlabelled becomes background."""

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform

from nnunet_temporal.training.clip_transforms import (
    KeepMaskedBackground,
    clip_training_transforms,
    clip_validation_transforms,
)
from nnunet_temporal.training.occlusion import OccludeFrames

IGNORE = 3
CROP, PATCH = (28, 26), (20, 18)


def pipeline(mirror_axes=(1, 2), rotation=45.0, scales=None, always=False, **options):
    """The training transforms; ``always`` applies each in every draw but occlusion, which is meant to change frames."""
    transforms = clip_training_transforms(PATCH, rotation, mirror_axes, scales, ignore_label=IGNORE, **options)
    for transform in transforms.transforms if always else []:
        if isinstance(transform, SpatialTransform):
            transform.p_rotation = transform.p_scaling = 1
        for part in getattr(transform, "transforms", []):
            if isinstance(part, RandomTransform) and not isinstance(part.transform, OccludeFrames):
                part.apply_probability = 1
    return transforms


def clip(channels=2, frames=4, decoded=2, size=CROP, seed=0):
    """A clip of identical frames whose segmentation is the same labelled pattern in each decoded frame."""
    rng = np.random.default_rng(seed)
    image = torch.from_numpy(rng.normal(size=(channels, 1, *size)).astype(np.float32)).repeat(1, frames, 1, 1)
    segmentation = torch.from_numpy(rng.integers(1, 3, (1, 1, *size)).astype(np.int16)).repeat(1, decoded, 1, 1)
    return {"image": image, "segmentation": segmentation}


def draws(transforms, number, make=clip):
    np.random.seed(0)
    torch.manual_seed(0)
    return [transforms(**make()) for _ in range(number)]


def spread_over_frames(frames):
    return (frames - frames[:, :1]).abs().max()


@pytest.mark.parametrize("always", [False, True])
def test_every_frame_gets_the_same_augmentation_but_for_noise(always, monkeypatch):
    monkeypatch.setattr(GaussianNoiseTransform, "_apply_to_image", lambda self, image, **_: image)
    samples = draws(pipeline(always=always), 20)
    assert len({float(sample["image"].sum()) for sample in samples}) > (19 if always else 5)
    for sample in samples:
        assert spread_over_frames(sample["image"]) < 1e-4
        assert spread_over_frames(sample["segmentation"]) == 0


def test_noise_differs_from_frame_to_frame():
    assert all(spread_over_frames(sample["image"]) > 1e-3 for sample in draws(pipeline(always=True), 3))


def test_channels_are_augmented_apart_from_each_other():
    def alike():
        sample = clip()
        return {**sample, "image": sample["image"][:1].repeat(2, 1, 1, 1)}

    assert any((sample["image"][0] != sample["image"][1]).any() for sample in draws(pipeline(), 20, alike))


def test_the_image_and_its_labels_move_together():
    def labelled_by_brightness():
        blocks = torch.zeros(1, 2, *CROP, dtype=torch.int16) + 1
        blocks[..., 10:, 13:] = 2
        return {"image": 100 * blocks.float(), "segmentation": blocks}

    transforms = pipeline(always=True)
    transforms.transforms[3] = clip_validation_transforms(None, ignore_label=IGNORE)  # no intensities
    for sample in draws(transforms, 20, labelled_by_brightness):
        image, labels = sample["image"], sample["segmentation"]
        assert (labels[image > 155] == 2).all()
        # Bright and dark enough, but away from the border, where the image fades into zero.
        assert (labels[(image > 95) & (image < 105)] == 1).float().mean() > 0.9


def test_time_is_never_mirrored():
    def brightening():
        sample = clip()
        return {**sample, "image": sample["image"] + 1000 * torch.arange(4.0)[:, None, None]}

    for sample in draws(pipeline(), 60, brightening):
        assert (sample["image"][:, :, 10, 9].diff(dim=1) > 0).all()


@pytest.mark.parametrize("mirror_axes", [(1, 2), (1,), (2,), None])
def test_only_the_given_axes_are_mirrored(mirror_axes):
    y, x = torch.meshgrid(torch.arange(28.0), torch.arange(26.0), indexing="ij")

    def ramps():
        return {"image": torch.stack((y, x))[:, None].repeat(1, 3, 1, 1), "segmentation": clip()["segmentation"]}

    flipped = {1: set(), 2: set()}
    for sample in draws(pipeline(mirror_axes, rotation=0.0), 30, ramps):
        centre = sample["image"][:, 0, 6:14, 5:13]
        flipped[1].add(bool(centre[0, 0].mean() > centre[0, -1].mean()))
        flipped[2].add(bool(centre[1, :, 0].mean() > centre[1, :, -1].mean()))
    assert flipped == {axis: {False, True} if axis in (mirror_axes or ()) else {False} for axis in (1, 2)}


@pytest.mark.parametrize("size", [CROP, (9, 40)])
@pytest.mark.parametrize("regions", [None, [(1, 2), (2,)]])
def test_nothing_from_outside_the_image_is_labelled(size, regions):
    scales = [[1, 1, 1], [1, 0.5, 0.5]]
    transforms = pipeline(rotation=180.0, always=True, scales=scales, regions=regions)
    outside = 0
    for sample in draws(transforms, 20, lambda: clip(size=size)):
        assert [tuple(target.shape[1:]) for target in sample["segmentation"]] == [(2, 20, 18), (2, 10, 9)]
        for target in sample["segmentation"]:
            # Every pixel of the image is foreground, so a background pixel could only be an invented one.
            ignored = target[0] == IGNORE if regions is None else target[-1]
            foreground = (target[0] == 1) | (target[0] == 2) if regions is None else target[0]
            assert torch.equal(foreground, ~ignored)
            outside += int(ignored.sum())
    assert outside > 0


def test_regions_come_with_an_ignore_channel_that_excludes_them():
    labels = torch.tensor([0, 1, 2, IGNORE], dtype=torch.int16).view(1, 1, 2, 2)
    transforms = clip_validation_transforms(None, ignore_label=IGNORE, regions=[(1, 2), (2,)])
    target = transforms(image=torch.zeros(1, 1, 2, 2), segmentation=labels)["segmentation"]
    assert target.flatten(1).int().tolist() == [[0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


class AddOne(BasicTransform):
    def _apply_to_image(self, img, **params):
        return img + 1

    def _apply_to_segmentation(self, segmentation, **params):
        return segmentation


def test_masked_background_stays_zero_in_its_channels_only():
    image = torch.tensor([0.0, 2.0]).view(1, 1, 1, 2).repeat(2, 1, 1, 1)
    out = KeepMaskedBackground(AddOne(), [1])(image=image, segmentation=torch.zeros(1, 1, 1, 2))["image"]
    assert out.flatten(1).tolist() == [[1.0, 3.0], [0.0, 3.0]]


def test_the_training_transforms_keep_masked_background_at_zero():
    def half_masked():
        sample = clip()
        sample["image"][:, :, :, :13] = 0
        return sample

    transforms = pipeline(None, rotation=0.0, masked_channels=[1])
    transforms.transforms[1].p_scaling = 0
    for part in transforms.transforms[3].transforms.transforms:
        part.apply_probability = 1
    for sample in draws(transforms, 3, half_masked):
        assert (sample["image"][1, ..., :8] == 0).all()
        assert (sample["image"][0, ..., :8] != 0).any()
