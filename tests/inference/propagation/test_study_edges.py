"""Studies at the edge: a single recall, frames of padding, long movies, several predictors, seeds that do not fit."""

import numpy as np
import pytest
from phantom_dataset import movie
from trained_models import PATCH, write_model

from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.model_folder import TrainedModel
from nnunet_temporal.inference.propagation import study_start
from nnunet_temporal.inference.propagation.route import Place
from nnunet_temporal.inference.propagation.row_pass import RowPass
from nnunet_temporal.inference.propagation.study_predictor import PropagationOptions, StudyPredictor
from nnunet_temporal.inference.propagation.study_start import StartOptions
from nnunet_temporal.trainers.cstm import nnUNetTrainerCSTM

PIXEL_MM = (1.25, 1.25)  # the networks' own: nothing is resampled

pytestmark = pytest.mark.usefixtures("findable_trainers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Write a model."""
    return write_model(tmp_path_factory.mktemp("model") / "cstm", nnUNetTrainerCSTM)


def study(frames, slices):
    """Return images (T, Z, Y, X), of which a slice is as large as a window."""
    images = np.concatenate([movie(frames, 4 + n) for n in range(-(-slices // 2))], 1)[:, :slices]
    margins = [(0, 0), (0, 0), *((0, window - side) for window, side in zip(PATCH, images.shape[2:], strict=True))]
    return np.pad(images, margins, mode="reflect")


def drawn():
    """Return a mask (Y, X) that no network would draw."""
    return np.random.default_rng(0).integers(0, 3, PATCH).astype(np.uint8)


def predict(folder, images, seeds=None, **options):
    predictor = StudyPredictor.from_model_folder(folder, options=PropagationOptions(**options))
    return predictor.predict(images, PIXEL_MM, seeds)


def origins(found):
    return {Place(record.slice, record.frame): record.origin for record in found.records}


@pytest.mark.parametrize("seeded", [[0], [0, 2, 4]])
def test_frames_that_a_single_step_along_time_reaches_came_along_time(seeded, folder):
    frames = seeded[-1] + 2
    found = predict(folder, study(frames, 2), {Place(0, t): drawn() for t in seeded}, cyclic=False)
    assert all(origins(found)[Place(0, t)] == "time" for t in range(frames) if t not in seeded)
    assert all(origins(found)[Place(1, t)] == "slices" for t in range(frames))


def test_a_turn_of_which_nothing_is_remembered_tells_nothing(folder):
    found = predict(folder, study(3, 1), {Place(0, 1): drawn()}, cyclic=True, least_confidence=1.1)
    assert {record.frame: record.agreement for record in found.records}[1] is None


def test_a_predictor_does_not_change_how_another_one_of_its_model_matches(folder):
    model, images, seeds = TrainedModel.read(folder), study(3, 2), {Place(0, 0): drawn()}
    usual = StudyPredictor(model)
    before = usual.predict(images, PIXEL_MM, seeds, with_probabilities=True).probabilities
    other = StudyPredictor(model, top_k=1, stages=model.networks[0].scales[:1])
    assert np.abs(other.predict(images, PIXEL_MM, seeds, with_probabilities=True).probabilities - before).max() > 1e-4
    for predictor in (usual, StudyPredictor(model)):
        again = predictor.predict(images, PIXEL_MM, seeds, with_probabilities=True).probabilities
        np.testing.assert_array_equal(again, before)


def test_automatic_masks_are_not_made_of_padding(folder):
    images = study(3, 4)
    images[:, 1] = 0
    found = predict(folder, images, start=StartOptions(frame=0, all_slices=True))
    assert {z for (z, _), origin in origins(found).items() if origin == "seed"} == {0, 2, 3}
    assert not found.masks[:, 1].any()


@pytest.mark.parametrize("cyclic", [False, True])
def test_a_long_movie_is_not_remembered_longer_than_it_is_recalled(cyclic, folder, monkeypatch):
    held, together = [], RowPass._together

    def counting(self, wave):
        held.append(len(self.entries))
        return together(self, wave)

    monkeypatch.setattr(RowPass, "_together", counting)
    predict(folder, study(9, 1), {Place(0, 0): drawn()}, cyclic=cyclic)
    assert max(held) <= 4


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        ({}, "no mask"),
        ({Place(0, -1): drawn()}, r"0\.\.2"),
        ({Place(2, 0): drawn()}, r"0\.\.1"),
        ({Place(0, 0): drawn()[1:]}, "expected masks of"),
        ({Place(0, 0): drawn() + 1}, r"\[3\]"),
    ],
)
def test_seeds_that_do_not_fit_are_refused(seeds, message, folder):
    with pytest.raises(InputError, match=message):
        predict(folder, study(3, 2), seeds)


def test_nothing_is_looked_at_where_masks_and_regions_are_given(folder, monkeypatch):
    monkeypatch.setattr(study_start, "look_around", None)
    told = PropagationOptions(StartOptions(apex_at="last", regions=(1, 1, 1)))
    predictor = StudyPredictor.from_model_folder(folder, options=told)
    found = predictor.predict(study(2, 3), PIXEL_MM, {Place(1, 0): drawn()})
    assert found.regions.names == ("base", "middle", "apex")
