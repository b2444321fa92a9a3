"""The labels of a dataset: roles and scored structures."""

import json

import numpy as np
import pytest

from nnunet_temporal.errors import InputError
from nnunet_temporal.evaluation.label_scheme import read_label_scheme, structure_mask


def scheme_of(tmp_path, labels, roles=None):
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({"labels": labels}))
    return read_label_scheme(path, roles)


def test_background_and_the_ignore_label_are_not_scored(tmp_path):
    scheme = scheme_of(tmp_path, {"background": 0, "RV": 1, "ignore": 4})
    assert scheme.structures() == {"RV": (1,)}
    assert scheme.ignore == 4


@pytest.mark.parametrize(
    ("name", "role"),
    [("lv", "LV"), ("LV cavity", "LV"), ("LVC", "LV"), ("LV_endo", "LV"), ("Left Ventricle", "LV"),
     ("Myocardium", "MYO"), ("LVM", "MYO"), ("right-ventricle", "RV"), ("Left atrium", "LA"), ("LA", "LA")],
)  # fmt: skip
def test_roles_are_found_in_the_usual_names(tmp_path, name, role):
    assert scheme_of(tmp_path, {"background": 0, name: 1}).roles == {role: name}


def test_other_names_play_no_role(tmp_path):
    assert scheme_of(tmp_path, {"background": 0, "scar": 1}).roles == {}


def test_the_ventricle_with_its_wall_is_scored_beside_the_wall(tmp_path):
    scheme = scheme_of(tmp_path, {"background": 0, "RV": 1, "MYO": 2, "LV": 3})
    assert scheme.structures() == {"RV": (1,), "MYO": (2,), "LV": (3,), "EPI": (3, 2)}


def test_roles_that_are_given_come_before_names(tmp_path):
    scheme = scheme_of(tmp_path, {"background": 0, "LV": 1, "inside": 2}, {"LV": 2})
    assert scheme.roles == {"LV": "inside"}


def test_a_label_with_a_given_role_plays_no_other(tmp_path):
    assert scheme_of(tmp_path, {"background": 0, "LV": 1}, {"RV": 1}).roles == {"RV": "LV"}


def test_the_background_is_not_scored_whatever_its_name(tmp_path):
    assert scheme_of(tmp_path, {"nothing": 0, "RV": 1}).structures() == {"RV": (1,)}


def test_two_labels_of_one_role_are_refused_by_name(tmp_path):
    with pytest.raises(InputError, match="'LV' and 'LV cavity'"):
        scheme_of(tmp_path, {"background": 0, "LV": 1, "LV cavity": 2})


def test_roles_can_be_given_where_two_labels_claim_one(tmp_path):
    scheme = scheme_of(tmp_path, {"background": 0, "LV": 1, "LV cavity": 2}, {"LV": 2})
    assert scheme.roles == {"LV": "LV cavity"}


def test_a_role_with_an_unknown_value_is_refused(tmp_path):
    with pytest.raises(InputError, match="LV=7"):
        scheme_of(tmp_path, {"background": 0, "LV": 1}, {"LV": 7})


def test_regions_are_refused(tmp_path):
    with pytest.raises(InputError, match="no regions"):
        scheme_of(tmp_path, {"background": 0, "heart": [1, 2]})


def test_the_mask_of_a_structure_joins_its_labels():
    labels = np.array([0, 1, 2, 3])
    assert structure_mask(labels, (1, 3)).tolist() == [False, True, False, True]
