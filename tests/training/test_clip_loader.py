"""What the loader hands to the training step: the right frames, and nothing unlabelled as background."""

from threading import Timer

import numpy as np
import pytest
import torch
from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform

from nnunet_temporal.errors import InputError
from nnunet_temporal.sequences import Sequence
from nnunet_temporal.training.clip_loader import ClipLoader
from nnunet_temporal.training.clip_sampling import ClipSampler
from nnunet_temporal.training.clip_transforms import clip_training_transforms, clip_validation_transforms
from nnunet_temporal.training.sequence_loader import LoaderOptions

IGNORE = 3
SIZE, PATCH = (30, 26), (20, 18)
SCALES = [[1, 1, 1], [1, 0.5, 0.5]]
VALIDATION = clip_validation_transforms(None, ignore_label=IGNORE)


class Cases:
    """Preprocessed cases in memory, with nnU-Net's interface."""

    def __init__(self):
        self.sequences, self.stored = {}, {}

    @property
    def identifiers(self):
        return list(self.sequences)

    def load_case(self, case):
        data, segmentation, properties = self.stored[case]
        return data, segmentation, None, properties

    def add(self, case="a", labelled=(1, 5), n_frames=8, size=SIZE, cut=(0, 0), cyclic=False):
        """Add a case; frame t has the value t + 1 plus a tenth of the label, and ``cut`` frames were cropped away.

        Every labelled pixel is foreground and every pixel of an unlabelled frame is stored as background, so a
        background pixel in a target is always one that nobody labelled.
        """
        rng = np.random.default_rng(len(self.sequences))
        labels = rng.integers(1, 3, (1, n_frames, *size)).astype(np.int8)
        labels[:, [t not in labelled for t in range(n_frames)]] = 0
        data = (np.arange(1, n_frames + 1)[:, None, None] + labels / 10).astype(np.float32)
        kept = slice(cut[0], n_frames - cut[1])
        locations = {label: np.argwhere(labels[:, kept] == label) for label in (1, 2)}
        locations[(-1, 0, 1, 2)] = np.argwhere(labels[:, kept] >= 0)
        box = [[kept.start, kept.stop], [0, size[0]], [0, size[1]]]
        properties = {"class_locations": locations, "bbox_used_for_cropping": box}
        self.stored[case] = (data[:, kept], labels[:, kept], properties)
        self.sequences[case] = Sequence(case, case, n_frames, tuple(labelled), cyclic=cyclic)
        return self


def loader_of(cases, transforms=VALIDATION, crop=PATCH, sampler=(6, 2, 2), foreground=0.5, seed=0, batch_size=2):
    options = LoaderOptions(batch_size, crop, PATCH, transforms, IGNORE, foreground, seed)
    return ClipLoader(cases, cases.sequences, options, ClipSampler(*sampler))


def training_transforms(regions=None):
    """The real augmentation, rotating and scaling every clip."""
    transforms = clip_training_transforms(PATCH, 180.0, (1, 2), SCALES, ignore_label=IGNORE, regions=regions)
    spatial = next(part for part in transforms.transforms if isinstance(part, SpatialTransform))
    spatial.p_rotation = spatial.p_scaling = 1
    return transforms


def take(loader, number=10):
    return [next(loader) for _ in range(number)]


def frames_of(batch):
    """Frame of the stored case shown at each position of each clip, -1 for padding."""
    return batch["data"][:, 0].amax((-2, -1)).floor().int() - 1


def test_a_batch_has_the_promised_shapes_and_types():
    (batch,) = take(loader_of(Cases().add()), 1)
    assert {name: tuple(batch[name].shape) for name in ("data", "target", "valid", "decoded")} == {
        "data": (2, 1, 6, *PATCH),
        "target": (2, 1, 2, *PATCH),
        "valid": (2, 6),
        "decoded": (2, 2),
    }
    types = [batch[name].dtype for name in ("data", "target", "valid", "decoded")]
    assert types == [torch.float32, torch.int16, torch.bool, torch.int64]
    assert batch["keys"] == ["a", "a"]


# name: case, and crop before augmentation
TRAPS = {
    "plain": ({}, (28, 28)),
    "smaller than the patch": ({"size": (15, 13)}, (28, 28)),
    "smaller along one axis": ({"size": (15, 60)}, (28, 28)),
    "shorter than the clip": ({"n_frames": 3, "labelled": (0, 2)}, (28, 28)),
    "fewer labelled than decoded": ({"n_frames": 3, "labelled": (1,)}, (28, 28)),
    "one small frame": ({"n_frames": 1, "labelled": (0,), "size": (9, 9)}, (28, 28)),
    "one labelled frame of many": ({"labelled": (3,)}, (28, 28)),
    "cyclic": ({"cyclic": True}, (28, 28)),
    "no margin for the rotation": ({"size": (64, 64)}, PATCH),
}


@pytest.mark.parametrize("name", TRAPS)
@pytest.mark.parametrize("regions", [None, [(1, 2), (2,)]])
@pytest.mark.parametrize("foreground", [0.0, 1.0])
def test_no_unlabelled_or_padded_pixel_reaches_the_loss_as_background(name, regions, foreground):
    case, crop = TRAPS[name]
    loader = loader_of(Cases().add(**case), training_transforms(regions), crop, foreground=foreground)
    for batch in take(loader):
        for target in batch["target"]:
            ignored = target[:, :1] == IGNORE if regions is None else target[:, -1:]
            foreground_pixels = (target == 1) | (target == 2) if regions is None else target[:, :1]
            assert torch.equal(foreground_pixels, ~ignored)
        assert foreground_pixels.any((-2, -1)).sum() == 2 * min(2, len(case.get("labelled", (1, 5))))


@pytest.mark.parametrize("name", TRAPS)
def test_targets_lie_on_their_frames_and_padding_in_plane_is_ignored(name):
    for batch in take(loader_of(Cases().add(**TRAPS[name][0]), crop=PATCH)):
        index = batch["decoded"][:, None, :, None, None].expand_as(batch["target"])
        shown = batch["data"].gather(2, index)
        outside = shown == 0
        assert (batch["target"][outside] == IGNORE).all()
        label = ((shown - shown.floor()) * 10).round()
        assert torch.equal(batch["target"][~outside].float(), label[~outside])


def test_background_outside_the_nonzero_mask_is_background_where_it_is_labelled():
    cases = Cases().add(n_frames=2, labelled=(1,), size=PATCH)
    _, labels, _ = cases.stored["a"]
    labels[:, :, :5] = -1  # as nnU-Net marks it, in every frame
    labels[:, 1, 6] = IGNORE
    target = take(loader_of(cases), 1)[0]["target"]
    assert (target[:, :, 0, :5] == 0).all()
    assert (target[:, :, 0, 6] == IGNORE).all()
    assert (target[:, :, 1] == IGNORE).all()


def test_frames_of_a_short_sequence_are_followed_by_exactly_zero_and_invalid_frames():
    loader = loader_of(Cases().add(n_frames=3, labelled=(0, 2)), training_transforms(), (28, 28))
    for batch in take(loader, 20):
        assert batch["valid"].tolist() == [[True] * 3 + [False] * 3] * 2
        assert (batch["data"][~batch["valid"][:, None]] == 0).all()
        assert (batch["data"][:, :, :3].abs().amax((1, 3, 4)) > 0).all()


def test_decoded_frames_are_the_labelled_ones_and_valid_tells_padding():
    for batch in take(loader_of(Cases().add(labelled=(1, 3, 6)))):
        frames = frames_of(batch)
        assert set(frames.gather(1, batch["decoded"]).flatten().tolist()) <= {1, 3, 6}
        assert torch.equal(frames >= 0, batch["valid"])


def test_labelled_frames_shift_with_the_frames_that_preprocessing_cropped():
    for batch in take(loader_of(Cases().add(labelled=(2, 6), cut=(2, 1)), foreground=0.5)):
        assert frames_of(batch).gather(1, batch["decoded"]).tolist() == [[2, 6]] * 2
        assert batch["data"][:, 0].amax((-2, -1))[batch["valid"]].min() >= 3


def test_labelled_frames_that_preprocessing_cropped_are_left_out():
    for batch in take(loader_of(Cases().add(labelled=(0, 4), cut=(1, 0)), foreground=1.0)):
        assert frames_of(batch).gather(1, batch["decoded"])[:, 0].tolist() == [4, 4]
        assert (batch["target"][:, :, 1] == IGNORE).all()


def test_a_case_whose_labelled_frames_were_all_cropped_raises_and_is_named():
    loader = loader_of(Cases().add("p7_z02", labelled=(0,), cut=(1, 0)))
    with pytest.raises(InputError, match=r"p7_z02.*\(0,\).*7 frames"):
        next(loader)


@pytest.mark.parametrize(("cut", "wraps"), [((0, 0), True), ((1, 0), False)])
def test_a_cropped_sequence_is_not_taken_for_a_whole_cycle(cut, wraps):
    batches = take(loader_of(Cases().add(cyclic=True, labelled=(3,), cut=cut)), 20)
    steps = [frames_of(batch)[:, :5].diff(dim=1) for batch in batches]
    assert any((step < 0).any() for step in steps) == wraps


def test_only_sequences_with_labelled_frames_are_drawn():
    cases = Cases().add("a").add("b", labelled=()).add("c")
    assert {key for batch in take(loader_of(cases), 20) for key in batch["keys"]} == {"a", "c"}


def test_a_batch_shows_distinct_sequences_while_there_are_enough():
    cases = Cases().add("a").add("b").add("c")
    assert all(len(set(batch["keys"])) == 3 for batch in take(loader_of(cases, batch_size=3), 20))
    assert {key for batch in take(loader_of(cases, batch_size=4), 20) for key in batch["keys"]} == {"a", "b", "c"}


def test_a_dataset_without_labelled_frames_raises():
    with pytest.raises(InputError, match=r"None of the 2 sequences .* labelled frame"):
        loader_of(Cases().add("a", labelled=()).add("b", labelled=()))


@pytest.mark.parametrize("pixel", [(0, 0), (40, 33), (59, 49)])
def test_the_foreground_share_of_the_batch_shows_a_foreground_pixel_and_decodes_its_frame(pixel):
    cases = Cases().add(labelled=(1, 5, 7), size=(60, 50))
    data, labels, properties = cases.stored["a"]
    data[0, 5, pixel[0], pixel[1]] = 99
    properties["class_locations"] = {1: np.array([[0, 5, *pixel]]), 2: [], (-1, 0, 1, 2): np.argwhere(labels >= 0)}
    shown = [(batch["data"] == 99).any((1, 3, 4)) for batch in take(loader_of(cases, crop=PATCH, foreground=0.5), 20)]
    assert all(clip[1].any() for clip in shown)
    assert not all(clip[0].any() for clip in shown)


def test_a_case_without_foreground_pixels_is_cropped_anywhere():
    cases = Cases().add()
    cases.stored["a"][2]["class_locations"] = {1: [], 2: [], (-1, 0, 1, 2): np.array([[0, 1, 3, 3]])}
    assert take(loader_of(cases, foreground=1.0), 1)[0]["data"].shape == (2, 1, 6, *PATCH)


def test_crops_reach_every_border_of_the_image():
    cases = Cases().add(size=(PATCH[0] + 3, PATCH[1] + 2))
    cases.stored["a"][0][0, :, [0, 0, -1, -1], [0, -1, 0, -1]] = np.array([[91], [92], [93], [94]])
    shown = {int(value) for batch in take(loader_of(cases, foreground=0.0), 60) for value in batch["data"].unique()}
    assert {91, 92, 93, 94} <= shown


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in ("data", "valid", "decoded")) and all(
        torch.equal(a, b) for a, b in zip(one["target"], other["target"], strict=True)
    )


@pytest.mark.parametrize(("seed", "worker", "equal"), [(0, 0, True), (1, 0, False), (0, 1, False)])
def test_batches_depend_on_seed_and_worker_and_on_nothing_else(seed, worker, equal):
    cases = Cases().add("a").add("b").add("c")
    expected = take(loader_of(cases, training_transforms(), (28, 28)), 3)
    other = loader_of(cases, training_transforms(), (28, 28), seed=seed)
    other.set_thread_id(worker)
    np.random.seed(7)
    torch.manual_seed(7)
    assert [same(*pair) for pair in zip(expected, take(other, 3), strict=True)] == [equal] * 3
    assert not same(expected[0], expected[1])


# Stopping the worker may cut off a batch on its way.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_forked_worker_draws_after_its_parent_has_computed_in_parallel():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.ones(400_000).exp().sum()  # starts OpenMP threads that the fork does not inherit
    loader = loader_of(Cases().add(size=(200, 200)), training_transforms(), (190, 190))
    augmenter = MultiThreadedAugmenter(loader, None, 1, num_cached_per_queue=1, seeds=[0])
    watchdog = Timer(20, augmenter.abort_event.set)  # makes next() raise
    watchdog.start()
    try:
        assert next(augmenter)["keys"] == ["a", "a"]
    finally:
        watchdog.cancel()
        augmenter._finish(timeout=2)
        torch.set_num_threads(threads)
