"""What the loader of unlabelled clips hands over: the truth where there is one, elsewhere what is sure."""

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform

from nnunet_temporal.errors import InputError
from nnunet_temporal.sequences import Sequence
from nnunet_temporal.training.clip_sampling import WindowSampler
from nnunet_temporal.training.clip_transforms import clip_training_transforms, clip_validation_transforms
from nnunet_temporal.training.pseudo_labels import PseudoLabels
from nnunet_temporal.training.sequence_loader import LoaderOptions
from nnunet_temporal.training.unlabelled_loader import UnlabelledLoader

IGNORE = 3
SIZE, PATCH, CROP = (30, 26), (20, 18), (28, 26)
VALIDATION = clip_validation_transforms(None, ignore_label=IGNORE)
TRUE, PSEUDO = 1, 2
THRESHOLD, WEIGHT = 0.8, 0.25


class Cases:
    """Preprocessed cases in memory, with nnU-Net's interface, and pseudo-labels of some of them.

    Frame t has the grey value t + 1; a labelled frame is TRUE throughout, an unlabelled one is stored as background,
    and a pseudo-label is PSEUDO throughout, in even columns certain and in odd ones not certain enough.
    """

    def __init__(self):
        self.sequences, self.stored, self.pseudo = {}, {}, {}

    @property
    def identifiers(self):
        return list(self.sequences)

    def load_case(self, case):
        return self.stored[case]

    def read(self, case):
        return self.pseudo.get(case)

    def add(self, case="a", labelled=(1, 5), n_frames=10, size=SIZE, cut=0, cyclic=False, pseudo=True, view=None):
        """Add a case; ``cut`` frames were cropped away at the start."""
        labels = np.zeros((1, n_frames, *size), np.int8)
        labels[:, list(labelled)] = TRUE
        labels = labels[:, cut:]
        data = np.broadcast_to(np.arange(cut + 1, n_frames + 1)[:, None, None], labels.shape).astype(np.float32)
        properties = {
            "class_locations": {1: np.argwhere(labels == TRUE), (-1, 0, 1, 2): np.argwhere(labels >= 0)},
            "bbox_used_for_cropping": [[cut, n_frames], [0, size[0]], [0, size[1]]],
        }
        self.stored[case] = data, labels, None, properties
        self.sequences[case] = Sequence(case, case, n_frames, tuple(labelled), cyclic=cyclic, view=view)
        if pseudo:
            confidence = np.full(labels.shape[1:], 255, np.uint8)
            confidence[..., 1::2] = 190  # 0.75
            self.pseudo[case] = np.full(labels.shape[1:], PSEUDO, np.uint8), confidence, WEIGHT
        return self


def loader_of(
    cases, transforms=VALIDATION, crop=PATCH, window=4, context=3, foreground=0.5, seed=0, batch=2, **options
):
    return UnlabelledLoader(
        cases,
        cases.sequences,
        LoaderOptions(batch, crop, PATCH, transforms, IGNORE, foreground, seed),
        WindowSampler(window, context, 2),
        pseudo_labels=options.get("pseudo_labels", cases),
        confidence_threshold=THRESHOLD,
    )


def training_transforms():
    """The real augmentation, rotating and scaling every clip."""
    transforms = clip_training_transforms(PATCH, 180.0, (1, 2), None, ignore_label=IGNORE)
    spatial = next(part for part in transforms.transforms if isinstance(part, SpatialTransform))
    spatial.p_rotation = spatial.p_scaling = 1
    return transforms


def take(loader, number=10):
    return [next(loader) for _ in range(number)]


def frames_of(batch):
    """Frame of the stored case shown at each position of each clip, -1 for padding."""
    return batch["data"][:, 0].amax((-2, -1)).int() - 1


def values_of(labels):
    return set(labels.unique().tolist())


def test_a_batch_has_the_promised_shapes_and_types():
    (batch,) = take(loader_of(Cases().add("a").add("b"), training_transforms(), CROP), 1)
    expected = {
        "data": ((2, 1, 7, *PATCH), torch.float32),
        "valid": ((2, 7), torch.bool),
        "decoded": ((2, 4), torch.int64),
        "labels": ((2, 1, 7, *PATCH), torch.int16),
        "weight": ((2, 7), torch.float32),
        "labelled": ((2, 7), torch.bool),
        "view": ((2,), torch.int64),
    }
    assert {name: (tuple(batch[name].shape), batch[name].dtype) for name in expected} == expected
    assert set(batch) == {*expected, "keys"}
    assert sorted(batch["keys"]) == ["a", "b"]


def test_sequences_of_one_view_have_one_number():
    cases = Cases()
    views = {"a_2CH": "2CH", "b_4CH": "4CH", "c_4CH": "4CH", "d": None}
    for case, view in views.items():
        cases.add(case, view=view)
    (batch,) = take(loader_of(cases, batch=4), 1)
    numbers = dict(zip(batch["keys"], batch["view"].tolist(), strict=True))
    assert numbers["b_4CH"] == numbers["c_4CH"]
    assert len({numbers[case] for case in ("a_2CH", "b_4CH", "d")}) == 3


def test_a_labelled_frame_has_its_labels_and_weight_one_and_others_the_confident_pseudo_labels():
    for batch in take(loader_of(Cases().add())):
        frames = frames_of(batch)
        is_labelled = torch.isin(frames, torch.tensor([1, 5]))
        assert torch.equal(batch["labelled"], is_labelled)
        assert torch.equal(batch["weight"], torch.where(is_labelled, 1.0, WEIGHT))
        labels = batch["labels"].movedim(2, 1)
        assert values_of(labels[is_labelled]) <= {TRUE}
        assert values_of(labels[~is_labelled]) == {PSEUDO, IGNORE}


def test_pixels_the_teacher_is_not_sure_of_are_ignored():
    cases = Cases().add(labelled=(), size=PATCH)
    (batch,) = take(loader_of(cases), 1)
    assert (batch["labels"][..., 0::2] == PSEUDO).all()
    assert (batch["labels"][..., 1::2] == IGNORE).all()


def test_frames_nobody_knows_anything_of_are_ignored_and_weigh_nothing():
    for batch in take(loader_of(Cases().add(pseudo=False))):
        labels = batch["labels"].movedim(2, 1)
        assert (labels[~batch["labelled"]] == IGNORE).all()
        assert (batch["weight"][~batch["labelled"]] == 0).all()
        assert (batch["weight"][batch["labelled"]] == 1).all()


@pytest.mark.parametrize("crop", [CROP, PATCH])
@pytest.mark.parametrize("size", [SIZE, (15, 13), (15, 60)])
def test_what_a_rotation_brings_in_from_outside_is_ignored_in_labels_and_pseudo_labels(size, crop):
    # Every pixel of every frame is foreground, so background in a batch is always padding taken for it.
    cases = Cases().add(size=size)
    cases.pseudo["a"][1][:] = 255
    batches = take(loader_of(cases, training_transforms(), crop), 20)
    assert all(values_of(batch["labels"]) <= {TRUE, PSEUDO, IGNORE} for batch in batches)
    assert any((batch["labels"] == IGNORE).any() for batch in batches)


def test_labels_move_with_their_pixels():
    def moved_together(batch):
        """Tell whether each frame's labels lie where its grey values, set to tell the labels, are."""
        inside = batch["labels"] != IGNORE
        return torch.equal((batch["data"] == PSEUDO)[inside], (batch["labels"] == PSEUDO)[inside])

    cases = Cases().add(labelled=(), size=PATCH)
    pseudo, confidence, _ = cases.pseudo["a"]
    pseudo[:] = np.random.default_rng(0).integers(1, 3, pseudo.shape)
    confidence[:] = 255
    cases.stored["a"][0][:] = pseudo
    mirrored = clip_training_transforms(PATCH, 0.0, (1, 2), None, ignore_label=IGNORE)
    mirrored.transforms = mirrored.transforms[-1:]
    assert all(moved_together(batch) for batch in take(loader_of(cases, mirrored)))


def test_padding_frames_are_zero_ignored_and_weigh_nothing():
    loader = loader_of(Cases().add(n_frames=3, labelled=(0,)), training_transforms(), CROP)
    for batch in take(loader):
        assert batch["valid"].tolist() == [[True] * 3 + [False] * 4] * 2
        assert batch["decoded"].tolist() == [[0, 1, 2, 3]] * 2
        padding = ~batch["valid"]
        assert (batch["data"].movedim(2, 1)[padding] == 0).all()
        assert (batch["labels"].movedim(2, 1)[padding] == IGNORE).all()
        assert (batch["weight"][padding] == 0).all() and not batch["labelled"][padding].any()


@pytest.mark.parametrize(("cut", "wraps"), [(0, True), (2, False)])
def test_windows_are_consecutive_and_wrap_around_whole_cycles_only(cut, wraps):
    steps = []
    for batch in take(loader_of(Cases().add(cyclic=True, cut=cut)), 20):
        steps.append(frames_of(batch).gather(1, batch["decoded"]).diff(dim=1))
    assert {int(step) for found in steps for step in found.unique()} == ({1, -9} if wraps else {1})


def test_labelled_frames_shift_with_the_frames_that_preprocessing_cropped():
    for batch in take(loader_of(Cases().add(labelled=(0, 6), cut=2))):
        assert torch.equal(batch["labelled"], frames_of(batch) == 6)


def test_background_outside_the_nonzero_mask_is_background_where_it_is_labelled():
    cases = Cases().add(n_frames=2, labelled=(0,), size=PATCH, pseudo=False)
    cases.stored["a"][1][:, :, :5] = -1  # as nnU-Net marks it, in every frame
    (batch,) = take(loader_of(cases), 1)
    assert (batch["labels"][:, :, 0, :5] == 0).all() and (batch["labels"][:, :, 0, 5:] == TRUE).all()
    assert (batch["labels"][:, :, 1] == IGNORE).all()


def test_labelled_and_unlabelled_sequences_are_drawn_but_none_without_an_unlabelled_frame():
    cases = Cases().add("a").add("b", labelled=()).add("c", labelled=tuple(range(10)))
    assert {key for batch in take(loader_of(cases), 20) for key in batch["keys"]} == {"a", "b"}


def test_a_batch_shows_distinct_sequences_while_there_are_enough():
    cases = Cases().add("a").add("b", labelled=()).add("c")
    assert all(len(set(batch["keys"])) == 3 for batch in take(loader_of(cases, batch=3)))


def test_a_densely_labelled_dataset_is_refused():
    with pytest.raises(InputError, match="Every frame of the 1 training sequences"):
        loader_of(Cases().add(labelled=tuple(range(10))))


def test_a_pseudo_label_of_another_size_is_named_with_its_case():
    cases = Cases().add("p7_z02")
    cases.pseudo["p7_z02"] = (*(part[1:] for part in cases.pseudo["p7_z02"][:2]), 1.0)
    with pytest.raises(ValueError, match=r"p7_z02: found .*\(9, 30, 26\), expected .*\(10, 30, 26\)"):
        next(loader_of(cases))


@pytest.mark.parametrize("source", ["pseudo-label", "label in the clip", "label elsewhere"])
def test_the_foreground_share_of_the_batch_shows_a_foreground_pixel(source):
    cases = Cases().add(labelled=() if source == "pseudo-label" else (7,), size=(90, 80), pseudo=False)
    data, labels, _, properties = cases.stored["a"]
    data[..., 80, 70] = 99
    pseudo, confidence = np.zeros(labels.shape[1:], np.uint8), np.full(labels.shape[1:], 255, np.uint8)
    if source == "pseudo-label":
        pseudo[:, 80, 70] = PSEUDO
        pseudo[:, 3, 3], confidence[:, 3, 3] = TRUE, 100  # not sure enough to aim at
    else:
        labels[:, 7] = 0
        labels[:, 7, 80, 70] = TRUE
        properties["class_locations"] = {1: np.argwhere(labels == TRUE), 2: []}
    cases.pseudo["a"] = (pseudo, confidence, 1.0) if source != "label elsewhere" else None
    shown = [(batch["data"] == 99).any(-1).any(-1).any(-1).any(-1) for batch in take(loader_of(cases), 20)]
    assert all(clips[1] for clips in shown)
    assert not all(clips[0] for clips in shown)


def test_a_case_without_any_known_foreground_is_cropped_anywhere():
    assert take(loader_of(Cases().add(labelled=(), pseudo=False), foreground=1.0), 1)[0]["data"].shape[0] == 2


def test_every_known_label_is_aimed_at_however_few_its_pixels():
    cases = Cases().add(labelled=(), size=(90, 80))
    pseudo, confidence, _ = cases.pseudo["a"]
    confidence[:], pseudo[:] = 255, 0
    pseudo[:, :30, :30], pseudo[:, 85, 75] = TRUE, PSEUDO
    batches = take(loader_of(cases, foreground=1.0), 20)
    seen = torch.stack([(batch["labels"] == PSEUDO).flatten(1).any(1) for batch in batches])
    assert 0.25 < seen.float().mean() < 0.75


def test_the_store_of_pseudo_labels_can_be_read():
    store, cases = PseudoLabels(), Cases().add(labelled=(), size=PATCH)
    round_of_predictions = store.start_round()
    shape = cases.stored["a"][1].shape[1:]
    round_of_predictions.add("a", np.full(shape, PSEUDO, np.uint8), np.ones(shape, np.float32), ())
    round_of_predictions.close()
    (batch,) = take(loader_of(cases, pseudo_labels=store), 1)
    assert (batch["labels"] == PSEUDO).all() and (batch["weight"] > 0).all()


@pytest.mark.parametrize(("seed", "worker", "equal"), [(0, 0, True), (1, 0, False), (0, 1, False)])
def test_batches_depend_on_seed_and_worker_and_on_nothing_else(seed, worker, equal):
    cases = Cases().add("a").add("b", labelled=(), cyclic=True).add("c")
    expected = take(loader_of(cases, training_transforms(), CROP), 3)
    other = loader_of(cases, training_transforms(), CROP, seed=seed)
    other.set_thread_id(worker)
    np.random.seed(7)
    torch.manual_seed(7)
    names = ("data", "labels", "weight", "valid", "decoded", "labelled")
    for one, two in zip(expected, take(other, 3), strict=True):
        assert all(torch.equal(one[name], two[name]) for name in names) == equal
