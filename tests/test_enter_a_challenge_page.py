"""The page on how to enter a challenge, walked from raw patients to a submission and to the models elsewhere."""

import itertools
import json
import pickle
import zipfile

import nibabel
import numpy as np
import pytest
from challenge_road import FOLDS, HELD_OUT, MODELS, UNLABELLED, check_grids, mask_paths, pixels
from nnunetv2.evaluation.find_best_configuration import (
    dumb_trainer_config_plans_to_trained_models_dict,
    filter_available_models,
)
from nnunetv2.postprocessing.remove_connected_components import apply_postprocessing

from nnunet_temporal.cli import main
from nnunet_temporal.inference.ensemble import mean_probabilities
from nnunet_temporal.sequences import Manifest

pytestmark = pytest.mark.slow


def test_every_fold_of_every_model_is_trained_and_validated_on_its_own_patients(road):
    splits = json.loads((road.preprocessed / "splits_final.json").read_text())
    assert len(splits) == len(FOLDS)
    for model in MODELS:
        for fold, split in zip(FOLDS, splits, strict=True):
            folder = road.results / model / f"fold_{fold}"
            assert (folder / "checkpoint_final.pth").is_file()
            validated = {path.name.removesuffix(".nii.gz") for path in mask_paths(folder / "validation")}
            assert validated == {path.stem for path in (folder / "validation").glob("*.npz")} == set(split["val"])
            assert not {UNLABELLED, HELD_OUT} & {case.rpartition("_z")[0] for case in validated}
            assert 0 <= json.loads((folder / "validation" / "summary.json").read_text())["foreground_mean"]["Dice"] <= 1


def test_the_best_of_all_models_and_pairs_across_trainers_and_configurations_is_chosen(road):
    scores = road.search["all_results"]
    pairs = [f"ensemble___{a}___{b}___0_1" for a, b in itertools.combinations(sorted(MODELS), 2)]
    assert set(scores) == {*MODELS, *pairs}
    best = max(scores, key=scores.get)
    assert road.choice["models"] == (best.split("___")[1:3] if best in pairs else [best])
    assert (road.choice["dice"], road.choice["folds"]) == (scores[best], list(FOLDS))
    assert road.choice["dice_postprocessed"] >= road.choice["dice"]


def test_the_stock_search_pairs_all_trainers_and_configurations_and_stops_where_one_is_missing(road, monkeypatch):
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, road.environment[name])
    trainers, (plans, *_), configurations = zip(*(model.split("__") for model in MODELS), strict=True)
    models = dumb_trainer_config_plans_to_trained_models_dict(trainers, dict.fromkeys(configurations), [plans])
    assert len(models) == 6
    with pytest.raises(RuntimeError, match="does not have an output folder"):
        filter_available_models(models, road.results.name)


def test_our_ensemble_of_cross_validations_is_the_stock_one(road, tmp_path):
    for one, two in itertools.combinations(sorted(MODELS), 2):
        output = tmp_path / one / two
        assert main(["ensemble", "-i", str(road.results / one), str(road.results / two), "-o", str(output)]) == 0
        stock = mask_paths(road.results / "ensembles" / f"ensemble___{one}___{two}___0_1")
        assert len(stock) == 4
        for path in stock:
            np.testing.assert_array_equal(pixels(output / path.name), pixels(path))


def test_every_frame_of_a_test_sequence_gets_the_postprocessed_mask_of_the_chosen_models(road):
    masks, before = road.root / "masks", road.root / "masks" / "before_postprocessing"
    check_grids(road.new, masks)
    functions, options = pickle.loads((road.root / "best" / "postprocessing.pkl").read_bytes())
    for path in mask_paths(masks):
        members = [before / model for model in road.choice["models"]]
        expected = pixels(members[0] / path.name)
        if len(members) == 2:
            expected = mean_probabilities([member / path.name.replace(".nii.gz", ".npz") for member in members]).argmax(
                0
            )
        np.testing.assert_array_equal(pixels(path), apply_postprocessing(expected, functions, options))
        assert len(np.unique(pixels(path))) > 1


def test_the_test_patient_is_scored_and_shown(road):
    summary = json.loads((road.root / "scores" / "summary.json").read_text())
    assert (summary["studies"], summary["cases"]) == (1, 2)
    page = (road.root / "report.html").read_text(encoding="utf-8")
    assert HELD_OUT in page and all(model in page for model in road.choice["models"])


def test_the_submission_holds_the_phases_of_the_test_patient(road):
    names = [f"{HELD_OUT}_{phase}.nii.gz" for phase in ("ED", "ES")]
    assert zipfile.ZipFile(road.root / "acdc_masks.zip").namelist() == names
    sequences = [sequence for sequence in Manifest.load(road.raw).values() if sequence.study == HELD_OUT]
    for name, frame in zip(names, (sequences[0].ed, sequences[0].es), strict=True):
        submitted = np.asanyarray(nibabel.load(road.root / "acdc_masks" / name).dataobj)
        slices = [pixels(road.root / "masks" / f"{sequence.case}.nii.gz")[frame].T for sequence in sequences]
        np.testing.assert_array_equal(submitted, np.stack(slices, axis=-1))


def test_the_models_predict_the_same_in_another_installation(road):
    masks = mask_paths(road.root / "masks")
    elsewhere = mask_paths(road.root / "masks_elsewhere")
    assert [path.name for path in elsewhere] == [path.name for path in masks]
    for here, there in zip(masks, elsewhere, strict=True):
        np.testing.assert_array_equal(pixels(there), pixels(here))
