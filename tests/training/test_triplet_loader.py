"""What a batch of triplets holds: the right frames at the right place, each moved on its own, nothing unlabelled."""

import numpy as np
import pytest
import torch

from nnunet_temporal.sequences import Sequence
from nnunet_temporal.training.clip_transforms import clip_training_transforms, clip_validation_transforms
from nnunet_temporal.training.frame_transforms import frame_training_transforms
from nnunet_temporal.training.sequence_loader import LoaderOptions
from nnunet_temporal.training.study_grid import origin_of_case
from nnunet_temporal.training.triplet_loader import TripletLoader

IGNORE = 3
SIZE, PATCH, CROP = (30, 26), (20, 18), (28, 26)
SCALES = [[1, 1, 1], [1, 0.5, 0.5]]
VALIDATION = clip_validation_transforms(None, ignore_label=IGNORE)
PER_FRAME = frame_training_transforms(CROP, 180.0, ignore_label=IGNORE)


class Stack:
    """The slices of one study as preprocessed cases in memory, with nnU-Net's interface.

    A pixel's value is 1 + its position on the study's grid, so that it tells where it was cut out; a labelled frame is
    foreground throughout, an unlabelled one is stored as background.
    """

    def __init__(self):
        self.sequences, self.stored = {}, {}

    @property
    def identifiers(self):
        return list(self.sequences)

    def load_case(self, case):
        return self.stored[case]

    def add(self, z, labelled=(1, 5), n_frames=8, cut=0, corner=(0, 0), size=SIZE, foreground=True):
        """Add slice z; ``cut`` frames and ``corner`` rows and columns were cropped away at the start."""
        y, x = (np.arange(length) + start for length, start in zip(size, corner, strict=True))
        position = (1000 * y[:, None] + x + 1).astype(np.float32)
        data = np.broadcast_to(position, (1, n_frames - cut, *size)).copy()
        labels = np.zeros(data.shape, np.int8)
        for t in labelled:
            if t >= cut and foreground:
                labels[0, t - cut] = 1 + z % 2
        box = [[cut, n_frames], *([start, start + length] for start, length in zip(corner, size, strict=True))]
        locations = {label: np.argwhere(labels == label) for label in (1, 2)}
        properties = {"class_locations": locations, "bbox_used_for_cropping": box}
        self.stored[f"s{z}"] = data, labels, None, properties
        self.sequences[f"s{z}"] = Sequence(f"s{z}", "s", n_frames, tuple(labelled), slice=z)
        return self


def loader_of(cases, transforms=VALIDATION, crop=PATCH, frames=None, prompted=0.5, foreground=0.5, seed=0, batch=2):
    options = LoaderOptions(batch, crop, PATCH, transforms, IGNORE, foreground, seed)
    return TripletLoader(cases, cases.sequences, options, frame_transforms=frames, prompted_share=prompted)


def training_loader(cases, regions=None, **options):
    transforms = clip_training_transforms(PATCH, 180.0, (1, 2), SCALES, ignore_label=IGNORE, regions=regions)
    return loader_of(cases, transforms, CROP, PER_FRAME, **options)


def take(loader, number=10):
    return [next(loader) for _ in range(number)]


def test_a_batch_has_the_promised_shapes_and_types():
    (batch,) = take(training_loader(Stack().add(0).add(1)), 1)
    assert [tuple(scale.shape) for scale in batch["target"]] == [(2, 1, 3, 20, 18), (2, 1, 3, 10, 9)]
    assert batch["data"].shape == (2, 1, 3, *PATCH)
    assert batch["data"].dtype == torch.float32 and batch["prompted"].dtype == torch.bool
    assert batch["decoded"].tolist() == [[0, 1, 2]] * 2
    assert batch["valid"].tolist() == [[True] * 3] * 2
    assert sorted(batch["keys"]) == ["s0", "s1"]


def test_slices_are_cropped_at_the_same_place_of_the_study():
    cases = Stack().add(0).add(1, corner=(3, 2), size=(25, 23)).add(2, corner=(1, 4))
    for batch in take(loader_of(cases), 20):
        for triplet in batch["data"][:, 0]:
            inside = (triplet != 0).all(0)
            assert inside.sum() > 50
            assert torch.equal(triplet[1][inside], triplet[0][inside])
            assert torch.equal(triplet[2][inside], triplet[0][inside])


def test_the_origin_on_the_study_counts_in_preprocessed_pixels():
    properties = {"bbox_used_for_cropping": [[0, 9], [10, 30], [6, 46]]}
    assert origin_of_case(properties, (40, 20)).tolist() == [20, 3]


def test_frames_of_a_triplet_carry_the_masks_of_their_own_slice_and_moment():
    slices = {float(label): z for z, label in ((0, 1), (1, 2))}
    seen = set()
    for batch in take(loader_of(Stack().add(0).add(1)), 30):
        for key, target in zip(batch["keys"], batch["target"][:, 0], strict=True):
            labels = [set(frame[frame != IGNORE].tolist()) for frame in target]
            assert all(len(found) == 1 for found in labels)  # labelled frames are foreground throughout
            path = tuple(slices[found.pop()] for found in labels)
            assert f"s{path[0]}" == key
            seen.add(path)
    assert seen == {(0, 0, 0), (1, 1, 1), (0, 0, 1), (1, 1, 0)}


@pytest.mark.parametrize("regions", [None, [(1, 2), (2,)]])
@pytest.mark.parametrize("options", [{}, {"size": (12, 40)}, {"cut": 1}])
def test_nothing_from_outside_the_image_reaches_the_loss_as_background(regions, options):
    cases = Stack().add(0, **options).add(1, corner=(8, 9), size=(20, 15)).add(2, **options)
    for batch in take(training_loader(cases, regions)):
        for target in batch["target"]:
            ignored = target[:, :1] == IGNORE if regions is None else target[:, -1:]
            foreground = (target == 1) | (target == 2) if regions is None else target[:, :1]
            assert torch.equal(foreground.bool(), ~ignored.bool())


def test_a_frame_that_preprocessing_cropped_away_is_padding_and_ignored():
    # Slice 1 has lost the frame that its sibling asks for.
    cases = Stack().add(0, labelled=(0, 5)).add(1, labelled=(0, 5), cut=1)
    missing = 0
    for batch in take(training_loader(cases), 30):
        gone = ~batch["valid"]
        missing += int(gone.sum())
        assert (batch["data"][:, 0][gone] == 0).all()
        assert (batch["target"][0][:, 0][gone] == IGNORE).all()
        assert batch["data"].isfinite().all()
    assert missing > 0


def test_a_frame_that_comes_twice_looks_different_each_time_in_training_only():
    cases = Stack().add(0, labelled=(2,))
    for batch in take(training_loader(cases)):
        first, second, third = batch["data"][:, 0].unbind(1)
        assert all((a - b).abs().max() > 1 for a, b in ((first, second), (second, third), (first, third)))
    for batch in take(loader_of(cases)):
        assert (batch["data"] == batch["data"][:, :, :1]).all()


def test_the_independent_motion_is_small():
    blob = Stack().add(0, labelled=(2,), size=(60, 60))
    blob.stored["s0"][0][:] = 0
    blob.stored["s0"][0][:, :, 27:33, 27:33] = 100
    shown = []
    for batch in take(loader_of(blob, crop=CROP, frames=PER_FRAME, foreground=1.0), 20):
        for frame in batch["data"][0, 0]:
            if frame.max() > 50:
                shown.append(
                    (frame > 50).nonzero().float().mean(0) - (batch["data"][0, 0, 0] > 50).nonzero().float().mean(0)
                )
    distances = torch.stack(shown).norm(dim=1)
    assert 0 < distances[distances.isfinite()].max() < 8


def test_a_slice_that_is_empty_is_drawn_as_any_other():
    cases = Stack().add(0).add(1, foreground=False)
    shown = [(set(batch["keys"]), batch["target"]) for batch in take(loader_of(cases, foreground=1.0, batch=1), 30)]
    assert {key for keys, _ in shown for key in keys} == {"s0", "s1"}
    contents = {tuple(bool((frame == 1).any()) for frame in target[0, 0]) for _, target in shown}
    # from heart to heart, from heart to nothing, from nothing to nothing, from nothing to heart
    assert {(True, True, True), (True, True, False), (False, False, False), (False, False, True)} <= contents


@pytest.mark.parametrize(("share", "expected"), [(0.0, {False}), (1.0, {True}), (0.5, {False, True})])
def test_a_share_of_the_triplets_is_prompted(share, expected):
    batches = take(loader_of(Stack().add(0), prompted=share), 20)
    assert {prompted for batch in batches for prompted in batch["prompted"].tolist()} == expected


@pytest.mark.parametrize(("seed", "equal"), [(0, True), (1, False)])
def test_batches_depend_on_the_seed(seed, equal):
    cases = Stack().add(0).add(1)
    expected = take(training_loader(cases), 2)
    np.random.seed(7)
    torch.manual_seed(7)
    again = take(training_loader(cases, seed=seed), 2)
    assert all(torch.equal(a["data"], b["data"]) for a, b in zip(expected, again, strict=True)) == equal


def test_masked_background_stays_zero_in_a_moved_frame():
    transforms = frame_training_transforms((20, 20), 0.0, ignore_label=IGNORE, masked_channels=[1])
    torch.manual_seed(0)
    for _ in range(10):
        image = torch.rand(2, 20, 20) + 1
        image[:, :, :8] = 0
        sample = transforms(image=image, segmentation=torch.ones(1, 20, 20, dtype=torch.int16))
        assert (sample["image"][1, :, :5] == 0).all()
