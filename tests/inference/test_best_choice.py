import contextlib
import hashlib
import json
import os
import pickle
import shutil

import numpy as np
import pytest
from nnunetv2.postprocessing.remove_connected_components import remove_all_but_largest_component_from_segmentation

from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.best_choice import Choice, read_choice


def information(*models):
    """Return the part of what nnU-Net's search returns that is read."""
    names = ("trainer", "plans_identifier", "configuration")
    return {
        "folds": (0, 2),
        "best_model_or_ensemble": {
            "result_on_crossval_pre_pp": 0.5,
            "result_on_crossval_post_pp": 0.6,
            "selected_model_or_models": [dict(zip(names, model.split("__"), strict=True)) for model in models],
        },
    }


LEARNT = ([remove_all_but_largest_component_from_segmentation], [{"labels_or_regions": [1, (1, 2)]}])


@pytest.fixture
def best(tmp_path):
    (tmp_path / "postprocessing.pkl").write_bytes(pickle.dumps(LEARNT))
    for model in ("A__p__2d", "B__p__2dt", "C__p__2d"):
        for fold in (0, 2):
            (tmp_path / model / f"fold_{fold}").mkdir(parents=True)
            (tmp_path / model / f"fold_{fold}" / "checkpoint_final.pth").write_text(f"{model} {fold}")
    choice = Choice.of_nnunet(information("A__p__2d", "B__p__2dt"), tmp_path)
    choice.write(tmp_path / "best", tmp_path / "postprocessing.pkl")
    return tmp_path / "best"


def test_a_choice_is_read_as_it_was_made(best):
    choice, postprocessing = read_choice(best)
    hashes = {
        f"{model}/fold_{fold}": hashlib.sha256(f"{model} {fold}".encode()).hexdigest()
        for model in ("A__p__2d", "B__p__2dt")
        for fold in (0, 2)
    }
    assert choice == Choice(["A__p__2d", "B__p__2dt"], [0, 2], 0.5, 0.6, hashes)
    assert postprocessing == LEARNT


def test_a_choice_can_be_carried_elsewhere(best, tmp_path):
    shutil.copytree(best, tmp_path / "elsewhere" / "best")
    assert str(tmp_path) not in (best / "choice.json").read_text()
    assert read_choice(tmp_path / "elsewhere" / "best")[0] == read_choice(best)[0]


def test_a_new_choice_replaces_the_old_one(best, tmp_path):
    (tmp_path / "postprocessing.pkl").write_bytes(pickle.dumps(([], [])))
    Choice.of_nnunet(information("C__p__2d"), tmp_path).write(best, tmp_path / "postprocessing.pkl")
    choice, postprocessing = read_choice(best)
    assert choice.models == ["C__p__2d"] and postprocessing == ([], [])


def test_models_that_were_trained_anew_are_not_those_that_were_chosen(best, tmp_path):
    choice, _ = read_choice(best)
    choice.check_checkpoints(tmp_path)
    for name, fits in (("C__p__2d/fold_0", True), ("A__p__2d/fold_1", True), ("B__p__2dt/fold_2", False)):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "checkpoint_final.pth").write_text("trained anew")
        message = rf"{name}/checkpoint_final\.pth: is not the one that was cross-validated"
        with contextlib.nullcontext() if fits else pytest.raises(InputError, match=message):
            choice.check_checkpoints(tmp_path)


@pytest.mark.parametrize("name", ["choice.json", "postprocessing.pkl"])
def test_a_missing_part_of_a_choice_is_named_with_what_to_do(best, name):
    (best / name).unlink()
    with pytest.raises(InputError, match=rf"best/{name}: is missing; 'nnunet_temporal find_best_configuration' writes"):
        read_choice(best)


@pytest.mark.parametrize("content", ["{", "[]", json.dumps({"models": []})])
def test_a_damaged_choice_is_refused(best, content):
    (best / "choice.json").write_text(content)
    with pytest.raises(InputError, match=r"choice\.json: .*Choose again with"):
        read_choice(best)


def test_labels_that_nnunet_stores_as_numbers_of_numpy_are_read(best):
    stored = (LEARNT[0], [{"labels_or_regions": list(np.array([1, 2]))}])
    (best / "postprocessing.pkl").write_bytes(pickle.dumps(stored))
    assert read_choice(best)[1] == stored


class Stranger:
    """Has a command of the shell run where it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_a_postprocessing_from_elsewhere_runs_no_code(best, tmp_path):
    command = f"touch {tmp_path / 'run'}"
    # The second is found within nnU-Net's own module, where protocol 4 allows for dots.
    within = b"\x80\x04cnnunetv2.postprocessing.remove_connected_components\nshutil.os.system\n"
    for content in (pickle.dumps(Stranger(command)), within + pickle.dumps((command,))[2:-1] + b"R."):
        (best / "postprocessing.pkl").write_bytes(content)
        with pytest.raises(InputError, match="which is no postprocessing of nnU-Net"):
            read_choice(best)
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [b"", b"learnt", pickle.dumps(LEARNT)[:-5], pickle.dumps([1, 2, 3])])
def test_a_damaged_postprocessing_is_refused_before_anything_is_predicted(best, content):
    (best / "postprocessing.pkl").write_bytes(content)
    with pytest.raises(InputError, match=r"postprocessing\.pkl: cannot be read .*Choose again with"):
        read_choice(best)
