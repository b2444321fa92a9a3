"""Hiding a place in some frames: never in all, around what is labelled, and nothing else changes."""

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.utils.random import RandomTransform

from nnunet_temporal.training.clip_transforms import clip_training_transforms
from nnunet_temporal.training.occlusion import BRIGHTNESS, RADII, OccludeFrames

IGNORE, SIZE, FRAMES = 3, (48, 40), 5


def draw_clip(seed=0, frames=FRAMES, labelled=True):
    """A noisy clip with a small labelled square in its first frame; the second is ignored."""
    image = torch.from_numpy(np.random.default_rng(seed).normal(size=(2, frames, *SIZE)).astype(np.float32))
    segmentation = torch.full((1, 2, *SIZE), IGNORE, dtype=torch.int16)
    segmentation[0, 0] = 0
    if labelled:
        segmentation[0, 0, 10:14, 30:34] = 2
    return {"image": image, "segmentation": segmentation}


def occlude(seed=0, **clip):
    """Return image before, image after and labels after."""
    np.random.seed(seed)
    sample = draw_clip(**clip)
    after = OccludeFrames(IGNORE)(**{name: part.clone() for name, part in sample.items()})
    return sample["image"], after["image"], after["segmentation"]


@pytest.mark.parametrize("seed", range(30))
def test_some_frames_are_hidden_and_some_are_not(seed):
    before, after, _ = occlude(seed)
    changed = (before != after).flatten(2).any(2)
    assert torch.equal(changed[0], changed[1])
    assert 1 <= changed[0].sum() < FRAMES


def test_hidden_frames_are_consecutive_around_the_end_of_the_clip():
    runs = set()
    for seed in range(60):
        before, after, _ = occlude(seed)
        changed = (before != after)[0].flatten(1).any(1).int()
        assert (changed.diff(append=changed[:1]) == 1).sum() == 1
        runs.add(tuple(changed.tolist()))
    assert {sum(run) for run in runs} == set(range(1, FRAMES))
    assert any(run[0] and run[-1] for run in runs)


def test_the_same_place_is_hidden_in_every_hidden_frame_and_covers_a_labelled_pixel():
    for seed in range(30):
        before, after, segmentation = occlude(seed)
        changed = (before != after)[0]
        shown = changed[changed.flatten(1).any(1)]
        assert (shown == shown[:1]).all()
        assert shown[0][segmentation[0, 0] == 2].any()
        rows, columns = shown[0].nonzero().unbind(1)
        diameters = [int(x.max() - x.min() + 1) for x in (rows, columns)]
        assert max(diameters) <= 2 * 1.25 * max(RADII) * max(SIZE) + 1


def test_without_a_label_any_place_may_be_hidden():
    centres = []
    for seed in range(60):
        before, after, _ = occlude(seed, labelled=False)
        centres.append((before != after)[0].any(0).nonzero().float().mean(0))
    spread = torch.stack(centres).std(0)
    assert (spread > torch.tensor(SIZE) / 8).all()


def test_the_hidden_place_is_dim_and_nearly_uniform():
    for seed in range(10):
        before, after, _ = occlude(seed)
        hidden = (before != after).flatten(2).any(2)[0]
        for channel in range(2):
            place = (before != after)[channel, hidden][0]
            # Pixels that changed most lie inside the rim, where the ellipse is opaque.
            inner = torch.from_numpy(np.quantile(before[channel].numpy(), BRIGHTNESS)).float()
            values = after[channel, hidden][0][place]
            assert values.std() < before[channel].std()
            assert inner[0] - 1 < values.mean() < inner[1] + 1


def test_labels_stay_and_a_single_frame_stays():
    _, _, segmentation = occlude()
    assert torch.equal(segmentation, draw_clip()["segmentation"])
    before, after, _ = occlude(frames=1)
    assert torch.equal(before, after)


def test_the_share_of_occluded_clips_is_the_one_asked_for():
    def hidden_clips(share):
        transforms = clip_training_transforms(SIZE, 0, None, None, ignore_label=IGNORE, occluded_share=share)
        # No other change of grey values, which would hide whether this one took place.
        (occlusion,) = [
            part
            for part in transforms.transforms[3].transforms
            if isinstance(part, RandomTransform) and isinstance(part.transform, OccludeFrames)
        ]
        np.random.seed(0)
        torch.manual_seed(0)
        count = 0
        for seed in range(100):
            clip = draw_clip(seed)
            before = clip["image"].clone()
            count += not torch.equal(before, occlusion(**clip)["image"])
        return count

    assert hidden_clips(0) == 0
    assert hidden_clips(1) == 100
    assert 35 < hidden_clips(0.5) < 65


def test_masked_background_stays_zero_under_an_occlusion():
    np.random.seed(1)
    torch.manual_seed(1)
    transforms = clip_training_transforms(
        SIZE, 0, None, None, ignore_label=IGNORE, masked_channels=[0], occluded_share=1.0
    )
    for seed in range(5):
        clip = draw_clip(seed)
        clip["image"][:, :, :, :20] = 0
        image = transforms(**clip)["image"]
        assert ((image[0] == 0).sum(0) == FRAMES).float().mean() > 0.2
