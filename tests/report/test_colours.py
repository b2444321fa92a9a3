"""Colours of structures: the ventricle is blue everywhere."""

import pytest

from nnunet_temporal.evaluation.label_scheme import LabelScheme, label_scheme_of
from nnunet_temporal.report.colours import EXPERT_COLOUR, LABEL_COLOURS, colour_places, painting_order


def test_roles_have_their_colours_whatever_their_values():
    acdc = label_scheme_of({"background": 0, "RV": 1, "MYO": 2, "LV": 3}, "dataset.json")
    assert colour_places(acdc) == {"RV": 2, "MYO": 1, "LV": 0}
    assert list(colour_places(acdc)) == ["RV", "MYO", "LV"]


def test_other_labels_take_what_is_free():
    labels = LabelScheme({"tumour": 1, "cavity": 2}, None, {"LV": "cavity"})
    assert colour_places(labels) == {"tumour": 1, "cavity": 0}


@pytest.mark.parametrize("n_labels", [1, 5, 6, 23])
def test_more_labels_than_colours_share_them(n_labels):
    labels = LabelScheme({f"l{value}": value for value in range(1, n_labels + 1)}, None, {"LV": "l1"})
    places = list(colour_places(labels).values())
    assert len(places) == n_labels
    assert set(places) <= set(range(len(LABEL_COLOURS)))
    assert len(set(places)) == min(n_labels, len(LABEL_COLOURS))
    assert places[0] == 0


def test_with_every_role_taken_more_labels_still_get_a_colour():
    values = {name: value for value, name in enumerate(["LV", "MYO", "RV", "LA", "a", "b", "c"], start=1)}
    labels = LabelScheme(values, None, {role: role for role in ("LV", "MYO", "RV", "LA")})
    assert [colour_places(labels)[name] for name in ("LV", "MYO", "RV", "LA", "a")] == [0, 1, 2, 3, 4]


def test_the_expert_has_a_colour_of_their_own():
    assert EXPERT_COLOUR not in LABEL_COLOURS


def test_the_ventricle_is_painted_last():
    acdc = label_scheme_of({"background": 0, "RV": 1, "MYO": 2, "LV": 3}, "dataset.json")
    assert painting_order(acdc) == ["RV", "MYO", "LV"]
    assert painting_order(label_scheme_of({"LV": 1, "other": 2, "MYO": 3}, "dataset.json")) == ["other", "MYO", "LV"]
