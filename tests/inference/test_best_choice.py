import json
import shutil

import pytest

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


@pytest.fixture
def best(tmp_path):
    (tmp_path / "postprocessing.pkl").write_bytes(b"learnt")
    Choice.of_nnunet(information("A__p__2d", "B__p__2dt")).write(tmp_path / "best", tmp_path / "postprocessing.pkl")
    return tmp_path / "best"


def test_a_choice_is_read_as_it_was_made(best):
    choice, postprocessing = read_choice(best)
    assert choice == Choice(["A__p__2d", "B__p__2dt"], [0, 2], 0.5, 0.6)
    assert postprocessing.read_bytes() == b"learnt"


def test_a_choice_can_be_carried_elsewhere(best, tmp_path):
    shutil.copytree(best, tmp_path / "elsewhere" / "best")
    assert str(tmp_path) not in (best / "choice.json").read_text()
    assert read_choice(tmp_path / "elsewhere" / "best")[0] == read_choice(best)[0]


def test_a_new_choice_replaces_the_old_one(best, tmp_path):
    (tmp_path / "postprocessing.pkl").write_bytes(b"learnt again")
    Choice.of_nnunet(information("C__p__2d")).write(best, tmp_path / "postprocessing.pkl")
    choice, postprocessing = read_choice(best)
    assert choice.models == ["C__p__2d"] and postprocessing.read_bytes() == b"learnt again"


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
