"""Clips around any frames: their labels, if a person gave any, and which pixels show the image."""

import numpy as np
import pytest
import torch
from test_clip_loader import IGNORE, PATCH, SCALES, TRAPS, Cases, frames_of, take

from nnunet_temporal.errors import InputError
from nnunet_temporal.training.any_frame_loader import AnyFrameLoader
from nnunet_temporal.training.clip_sampling import ClipSampler
from nnunet_temporal.training.clip_transforms import clip_training_transforms, clip_validation_transforms
from nnunet_temporal.training.sequence_loader import LoaderOptions

UNTOUCHED = clip_validation_transforms(None, ignore_label=IGNORE)
CROP = (28, 28)


def loader_of(cases, transforms=UNTOUCHED, crop=PATCH, share=1.0, foreground=0.5, regions=None, scales=None):
    options = LoaderOptions(2, crop, PATCH, transforms, IGNORE, foreground, 0)
    targets = clip_validation_transforms(scales, ignore_label=IGNORE, regions=regions)
    return AnyFrameLoader(
        cases, cases.sequences, options, ClipSampler(6, 2, 2), target_transforms=targets, any_frame_share=share
    )


def augmentation():
    """The real one, rotating and scaling every clip."""
    transforms = clip_training_transforms(PATCH, 180.0, (1, 2), None, ignore_label=IGNORE, occluded_share=1.0)
    spatial = transforms.transforms[1]
    spatial.p_rotation = spatial.p_scaling = 1
    return transforms


def decoded_of(batch):
    """Frame of the stored case that each decoded position shows."""
    return frames_of(batch).gather(1, batch["decoded"])


def test_a_batch_has_the_promised_shapes_and_types():
    (batch,) = take(loader_of(Cases().add(), scales=SCALES), 1)
    assert {name: tuple(batch[name].shape) for name in ("data", "valid", "decoded", "counted")} == {
        "data": (2, 1, 6, *PATCH),
        "valid": (2, 6),
        "decoded": (2, 2),
        "counted": (2, 1, 2, *PATCH),
    }
    assert [tuple(scale.shape) for scale in batch["target"]] == [(2, 1, 2, *PATCH), (2, 1, 2, PATCH[0] // 2, 9)]
    assert batch["counted"].dtype == torch.bool and batch["data"].dtype == torch.float32


def test_any_frame_is_drawn_as_often_as_another():
    found = torch.cat([decoded_of(batch).flatten() for batch in take(loader_of(Cases().add(size=PATCH)), 100)])
    assert set(found.tolist()) == set(range(8))
    assert np.bincount(found).min() > 25  # 50 expected


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0.0), (0.5, 0.375), (1.0, 0.75)])
def test_the_share_says_how_many_clips_are_drawn_around_any_frames(share, expected):
    batches = take(loader_of(Cases().add(size=PATCH), share=share), 100)
    found = torch.cat([decoded_of(batch).flatten() for batch in batches])
    unlabelled = float((~torch.isin(found, torch.tensor((1, 5)))).float().mean())
    assert unlabelled == pytest.approx(expected, abs=0.1)


def test_frames_that_a_person_labelled_keep_their_labels_and_all_others_have_none():
    for batch in take(loader_of(Cases().add(size=PATCH)), 20):
        shown, target = decoded_of(batch), batch["target"]
        labelled = torch.isin(shown, torch.tensor((1, 5)))
        assert (target[~labelled[:, None]] == IGNORE).all()
        index = batch["decoded"][:, None, :, None, None].expand_as(target)
        grey = batch["data"].gather(2, index)
        assert torch.equal(target[labelled[:, None]].float(), ((grey - grey.floor()) * 10).round()[labelled[:, None]])


@pytest.mark.parametrize("name", TRAPS)
@pytest.mark.parametrize("foreground", [0.0, 1.0])
def test_what_counts_shows_the_image(name, foreground):
    for batch in take(loader_of(Cases().add(**TRAPS[name][0]), foreground=foreground)):
        shown = batch["data"].gather(2, batch["decoded"][:, None, :, None, None].expand_as(batch["counted"]))
        assert torch.equal(batch["counted"], shown != 0)


@pytest.mark.parametrize("name", TRAPS)
@pytest.mark.parametrize("regions", [None, [(1, 2), (2,)]])
def test_what_an_augmentation_moves_in_from_outside_does_not_count(name, regions):
    cases = Cases().add(**TRAPS[name][0])
    _, labels, _ = cases.stored["a"]
    # Of one label each, labelled frames have no edges but those of the image.
    labels[labels > 0] = 1
    loader = loader_of(cases, augmentation(), CROP, share=0.5, regions=regions)
    for batch in take(loader):
        counted, target = batch["counted"], batch["target"]
        known = target != IGNORE if regions is None else target[:, :1].bool()
        assert torch.equal(known, counted & known.any((-2, -1), keepdim=True))
        is_frame = batch["valid"].gather(1, batch["decoded"])
        assert torch.equal(counted.any((-2, -1))[:, 0], is_frame)


def test_a_crop_around_foreground_may_show_any_frame():
    cases = Cases().add(size=(60, 60))
    labels, locations = cases.stored["a"][1], np.array([[0, t, 30, 30] for t in (1, 5)])
    labels[:, :, 30, 30] = 2
    cases.stored["a"][2]["class_locations"] = {2: locations}
    batches = take(loader_of(cases, foreground=1.0), 20)
    assert set(torch.cat([decoded_of(batch).flatten() for batch in batches]).tolist()) == set(range(8))
    for batch in batches:
        for target, shown in zip(batch["target"][:, 0], decoded_of(batch), strict=True):
            assert all(target[n, PATCH[0] // 2, PATCH[1] // 2] == 2 for n in range(2) if shown[n] in (1, 5))


def test_sequences_without_labels_are_drawn_too():
    cases = Cases().add("a", size=PATCH).add("b", labelled=(), size=PATCH)
    for batch in take(loader_of(cases, share=0.0), 5):
        assert sorted(batch["keys"]) == ["a", "b"]
        assert (batch["target"][batch["keys"].index("b")] == IGNORE).all()
        assert batch["counted"].all()


def test_labels_that_were_cropped_away_are_as_if_there_were_none():
    (batch,) = take(loader_of(Cases().add(labelled=(0,), cut=(2, 0), size=PATCH), share=0.0), 1)
    assert (batch["target"] == IGNORE).all() and batch["counted"].all()


def test_a_fold_without_any_label_is_refused():
    with pytest.raises(InputError, match="has a labelled frame"):
        loader_of(Cases().add(labelled=()))
