"""Studies come out as CSTM's rules say in plain loops, given masks untouched, a few slices in memory at a time."""

import numpy as np
import pytest
import torch
from phantom_dataset import movie
from trained_models import PATCH, REGIONS, TWO_CHANNELS, write_model

from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.model_folder import TrainedModel
from nnunet_temporal.inference.pipeline import StageClock
from nnunet_temporal.inference.propagation import row_pass, study_start
from nnunet_temporal.inference.propagation.mask_memory import MaskMemory
from nnunet_temporal.inference.propagation.regions import Regions
from nnunet_temporal.inference.propagation.route import Place, Route
from nnunet_temporal.inference.propagation.study_canvas import StudyCanvas
from nnunet_temporal.inference.propagation.study_pass import StudyPass
from nnunet_temporal.inference.propagation.study_predictor import PropagationOptions, StudyPredictor
from nnunet_temporal.inference.propagation.study_start import StartOptions
from nnunet_temporal.inference.sequence_predictor import SequencePredictor
from nnunet_temporal.networks.memory_bank import MemoryBank
from nnunet_temporal.trainers.cstm import nnUNetTrainerCSTM
from nnunet_temporal.trainers.gdkvm import nnUNetTrainerGDKVM

PIXEL_MM = (1.25, 1.25)  # the networks' own: nothing is resampled
FRAMES, SLICES = 5, 6
SEED = Place(2, 1)
THIRDS = StartOptions(apex_at="last", regions=(2, 2, 2))
PAPER = PropagationOptions(THIRDS, direction="forward", cyclic=False)

pytestmark = pytest.mark.usefixtures("findable_trainers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Write a model."""
    return write_model(tmp_path_factory.mktemp("model") / "cstm", nnUNetTrainerCSTM)


def study(frames=FRAMES, slices=SLICES, seed=4):
    """Return images (T, Z, Y, X), of which a slice is as large as a window."""
    images = np.concatenate([movie(frames, seed + n) for n in range(-(-slices // 2))], 1)[:, :slices]
    margins = [(0, 0), (0, 0), *((0, window - side) for window, side in zip(PATCH, images.shape[2:], strict=True))]
    return np.pad(images, margins, mode="reflect")


def drawn(seed=0):
    """Return a mask (Y, X) that no network would draw."""
    return np.random.default_rng(seed).integers(0, 3, PATCH).astype(np.uint8)


def predictor(folder, options=PAPER, **other):
    return StudyPredictor.from_model_folder(folder, options=options, **other)


class PlainLoops:
    """One network along the rules of CSTM, frame by frame, without resampling, windows or batches."""

    def __init__(self, folder, images):
        self.network = TrainedModel.read(folder).networks[0]
        sequences = SequencePredictor.from_model_folder(folder)
        prepared = {z: sequences.prepare(images[None, :, z], PIXEL_MM) for z in range(images.shape[1])}
        self.frames = {
            Place(z, t): torch.from_numpy(prepared[z].frames(np.array([t]))[:, 0])[None]
            for z in prepared
            for t in range(len(images))
        }
        self.masks: dict[Place, torch.Tensor] = {}
        self.memory: dict[Place, tuple] = {}

    def know(self, place, mask):
        one_hot = torch.nn.functional.one_hot(torch.from_numpy(mask).long(), 3).movedim(-1, 0).float()
        self._remember(place, one_hot[None])

    def segment(self, place, *recalled):
        recalled = list(dict.fromkeys(recalled))
        skips, keys = self.network.encode_key(self.frames[place])
        slots = [self.memory[other] for other in recalled]
        bank = MemoryBank(
            *(
                tuple(torch.stack(maps, 1) for maps in zip(*(slot[part] for slot in slots), strict=True))
                for part in (0, 1)
            ),
            torch.ones(1, len(slots), dtype=torch.bool),
        )
        self._remember(place, self.network.decode(skips, self.network.read(keys, bank)).softmax(1))

    def _remember(self, place, mask):
        _, keys = self.network.encode_key(self.frames[place])
        self.masks[place] = mask[0]
        self.memory[place] = keys, self.network.encode_value(self.frames[place], mask)

    def probabilities(self):
        return np.stack(
            [np.stack([self.masks[Place(z, t)].numpy() for z in range(SLICES)], 1) for t in range(FRAMES)], 1
        )


@torch.no_grad()
def test_a_study_is_segmented_as_by_the_rules_of_cstm(folder):
    images, mask = study(), drawn()
    plain = PlainLoops(folder, images)
    plain.know(SEED, mask)
    z0, t0 = SEED
    for t in (2, 3, 4):
        plain.segment(Place(z0, t), SEED, Place(z0, t - 1))
    plain.segment(Place(z0, 0), SEED, Place(z0, 1))
    for z, nearer in ((1, 2), (0, 1), (3, 2)):
        for t in range(FRAMES):
            plain.segment(Place(z, t), SEED, Place(nearer, t))
    for z in (4, 5):
        plain.segment(Place(z, t0), SEED, Place(z - 1, t0))
        for t in (2, 3, 4):
            plain.segment(Place(z, t), SEED, Place(z - 1, t), Place(z, t - 1))
        plain.segment(Place(z, 0), SEED, Place(z - 1, 0), Place(z, 1))
    found = predictor(folder).predict(images, PIXEL_MM, {SEED: mask}, with_probabilities=True)
    np.testing.assert_allclose(found.probabilities, plain.probabilities(), atol=2e-5)
    np.testing.assert_array_equal(found.masks[SEED.frame, SEED.slice], mask)
    assert len(np.unique(found.masks)) > 1


@torch.no_grad()
def test_a_single_slice_is_propagated_as_by_the_network_itself(folder):
    images, mask = study(slices=1), drawn()
    options = PropagationOptions(cyclic=False)
    found = predictor(folder, options).predict(images, PIXEL_MM, {Place(0, 2): mask}, with_probabilities=True)
    model = TrainedModel.read(folder)
    prepared = SequencePredictor(model).prepare(images[None, :, 0], PIXEL_MM)
    seed = torch.nn.functional.one_hot(torch.from_numpy(mask).long(), 3).movedim(-1, 0).float()[None]
    expected = model.networks[0].propagate(torch.from_numpy(prepared.frames(np.arange(FRAMES)))[None], seed, 2)
    np.testing.assert_allclose(found.probabilities[:, :, 0], expected[0].numpy(), atol=2e-5)


@pytest.mark.parametrize(
    ("seeds", "options"),
    [
        ([SEED], {"cyclic": True}),
        ([SEED], {"continuity": "time"}),
        ([Place(0, 4)], {"continuity": "slices"}),
        ([Place(5, 0), Place(5, 3)], {"cyclic": False}),
        ([Place(z, 1) for z in range(SLICES)], {"capacity": 6}),
    ],
)
def test_given_masks_come_back_as_they_were(seeds, options, folder):
    given = {place: drawn(n) for n, place in enumerate(seeds)}
    found = predictor(folder, PropagationOptions(THIRDS, **options)).predict(
        study(), (1.7, 1.5), given, with_probabilities=True
    )
    for place, mask in given.items():
        np.testing.assert_array_equal(found.masks[place.frame, place.slice], mask)
        np.testing.assert_array_equal(found.probabilities[:, place.frame, place.slice].argmax(0), mask)
    np.testing.assert_allclose(found.probabilities.sum(0), 1, atol=1e-4)
    assert [(r.slice, r.frame) for r in found.records] == [(z, t) for z in range(SLICES) for t in range(FRAMES)]
    assert {(r.slice, r.frame) for r in found.records if r.origin == "seed"} == set(seeds)


def test_passes_of_one_frame_give_what_larger_ones_do(folder, monkeypatch):
    options = PropagationOptions(THIRDS, cyclic=True)
    together = predictor(folder, options).predict(study(), PIXEL_MM, with_probabilities=True)
    for module in (row_pass, study_start):
        monkeypatch.setattr(module, "FRAMES_PER_PASS", 1)
    alone = predictor(folder, options).predict(study(), PIXEL_MM, with_probabilities=True)
    np.testing.assert_allclose(together.probabilities, alone.probabilities, atol=2e-5)


def test_folds_see_each_others_opinion(tmp_path, folder):
    images, given = study(), {SEED: drawn()}
    write_model(tmp_path, nnUNetTrainerCSTM, folds=(0, 1))
    one, twice, both = (
        StudyPredictor.from_model_folder(tmp_path, folds, options=PAPER).predict(
            images, PIXEL_MM, given, with_probabilities=True
        )
        for folds in ((0,), (0, 0), (0, 1))
    )
    np.testing.assert_allclose(one.probabilities, twice.probabilities, atol=2e-5)
    assert np.abs(one.probabilities - both.probabilities).max() > 0.01


@pytest.mark.parametrize("mirror", [False, True])
def test_images_larger_than_a_window_keep_a_memory_in_each(mirror, tmp_path):
    write_model(tmp_path, nnUNetTrainerCSTM, mirror_axes=(1, 2))
    images = np.tile(study(frames=3, slices=3), (1, 1, 1, 2))
    mask = np.tile(drawn(), (1, 2))
    found = predictor(tmp_path, PropagationOptions(), mirror=mirror).predict(
        images, PIXEL_MM, {SEED: mask}, with_probabilities=True
    )
    np.testing.assert_array_equal(found.masks[SEED.frame, SEED.slice], mask)
    np.testing.assert_allclose(found.probabilities.sum(0), 1, atol=1e-4)


@pytest.mark.parametrize("dataset", [REGIONS, TWO_CHANNELS])
def test_regions_and_several_channels_are_propagated(dataset, tmp_path):
    write_model(tmp_path, nnUNetTrainerCSTM, dataset=dataset)
    images = study()
    if dataset is TWO_CHANNELS:
        images = np.stack((images, images[:, :, ::-1]))
    mask = drawn()
    found = predictor(tmp_path).predict(images, PIXEL_MM, {SEED: mask}, with_probabilities=True)
    np.testing.assert_array_equal(found.masks[SEED.frame, SEED.slice], mask)
    assert found.probabilities.shape == (2 if dataset is REGIONS else 3, FRAMES, SLICES, *PATCH)
    assert len(np.unique(found.masks)) > 1


def test_frames_of_padding_are_background_and_nobody_recalls_them(folder):
    images, given = study(), {SEED: drawn()}
    images[4, 3] = 0
    found = predictor(folder).predict(images, PIXEL_MM, given)
    assert not found.masks[4, 3].any()
    assert {(r.slice, r.frame) for r in found.records if r.origin == "blank"} == {(3, 4)}
    images[:, 3] = 0  # and a slice without any image
    found = predictor(folder).predict(images, PIXEL_MM, given)
    assert not found.masks[:, 3].any() and found.masks[:, 4].any()


def test_frames_of_little_confidence_are_not_remembered(folder):
    images, mask = study(), drawn()
    found = predictor(folder, PropagationOptions(THIRDS, "forward", False, least_confidence=1.1)).predict(
        images, PIXEL_MM, {SEED: mask}, with_probabilities=True
    )
    with torch.no_grad():
        plain = PlainLoops(folder, images)
        plain.know(SEED, mask)
        for place in plain.frames:
            if place != SEED:
                plain.segment(place, SEED)
    np.testing.assert_allclose(found.probabilities, plain.probabilities(), atol=2e-5)


def through(folder, images, **options):
    """Return the way through a study with one seed, as the predictor goes it."""
    model = TrainedModel.read(folder)
    sequences = SequencePredictor(model)
    canvas = StudyCanvas.of({z: sequences.prepare(images[None, :, z], PIXEL_MM) for z in range(images.shape[1])})
    route = Route(images.shape[1], len(images), frozenset({SEED}), apical=frozenset({4, 5}))
    seeds = {SEED: torch.nn.functional.one_hot(torch.from_numpy(drawn()).long(), 3).movedim(-1, 0).float()}
    regions = Regions(("middle",) * 4 + ("apex",) * (images.shape[1] - 4), "last")
    return StudyPass(MaskMemory(model, torch.device("cpu")), canvas, route, regions, seeds, 0.0, StageClock())


@pytest.mark.parametrize("slices", [6, 10])
def test_no_more_than_three_slices_are_remembered_at_a_time(slices, folder):
    study_pass = through(folder, study(slices=slices))
    for done in study_pass.run():
        remembered = {recall.place.slice for recall in study_pass._entries if recall.place != SEED}
        assert len(remembered | {done.slice}) <= 3
    assert {recall.place for recall in study_pass._entries} == {SEED}


def test_two_empty_slices_at_the_apex_end_the_heart(folder):
    class Nothing(MaskMemory):
        """Finds background only."""

        def segment(self, frames, recalled, windows):
            masks, keys = super().segment(frames, recalled, windows)
            return torch.zeros_like(masks).index_fill_(0, torch.tensor([0]), 1.0), keys

    study_pass = through(folder, study(slices=9))
    study_pass.memory = Nothing(study_pass.memory.model, torch.device("cpu"))
    origins = {done.slice: {record.origin for record in done.records} for done in study_pass.run()}
    assert [z for z, found in origins.items() if found == {"beyond the heart"}] == [5, 6, 7, 8]
    assert origins[0] == {"slices"}  # the base goes on: its valve plane moves


def test_without_a_seed_the_networks_begin_themselves(folder):
    images = study()
    one, every = (
        predictor(folder, PropagationOptions(StartOptions(frame=3, all_slices=every))).predict(images, PIXEL_MM)
        for every in (False, True)
    )
    seeds = [{(r.slice, r.frame) for r in found.records if r.origin == "seed"} for found in (one, every)]
    assert len(seeds[0]) == 1 and seeds[1] == {(z, 3) for z in range(SLICES)}


def test_agreement_tells_how_well_two_passes_and_a_full_turn_fit(folder):
    found = predictor(folder, PropagationOptions(THIRDS, cyclic=True)).predict(study(), PIXEL_MM, {SEED: drawn()})
    by_place = {Place(r.slice, r.frame): r for r in found.records}
    assert all(0 <= by_place[Place(2, t)].agreement <= 1 for t in range(FRAMES))
    assert by_place[Place(0, 2)].agreement is None
    assert all(0 < r.confidence <= 1 for r in found.records)


def test_a_network_that_remembers_no_masks_is_refused(tmp_path):
    write_model(tmp_path, nnUNetTrainerGDKVM)
    with pytest.raises(InputError, match="CSTM"):
        predictor(tmp_path)


def test_a_moment_that_does_not_exist_is_refused(folder):
    with pytest.raises(InputError, match=r"0\.\.4"):
        predictor(folder, PropagationOptions(StartOptions(frame=9))).predict(study(), PIXEL_MM)


def test_images_of_other_axes_are_refused(folder):
    with pytest.raises(InputError, match=r"\(T, Z, Y, X\)"):
        predictor(folder).predict(study()[:, 0], PIXEL_MM)
