"""Which predicted file belongs to which reference file."""

import numpy as np
import pytest
from mask_folders import square, write_masks

from nnunet_temporal.errors import InputError
from nnunet_temporal.evaluation.pairs import pair_studies
from nnunet_temporal.sequences import Manifest, Sequence

MOVIE = np.stack([square(1, 1)] * 3)
STACK = np.stack([MOVIE, MOVIE], axis=1)


def folders(tmp_path, reference, prediction):
    return write_masks(tmp_path / "ref", reference), write_masks(tmp_path / "pred", prediction)


def manifest_of(*entries):
    return Manifest({case: Sequence(case, study, 3, (), slice=z, view=view) for case, study, z, view in entries})


def test_slices_of_a_study_are_one_stack_without_a_manifest(tmp_path):
    masks = {"a_z00": MOVIE, "a_z01": MOVIE, "b_z00": MOVIE}
    studies = pair_studies(*folders(tmp_path, masks, masks), None).studies
    assert [(study.name, [s.case for s in study.stacks[0].sequences]) for study in studies] == [
        ("a", ["a_z00", "a_z01"]),
        ("b", ["b_z00"]),
    ]


def test_views_of_a_study_are_stacks_of_their_own(tmp_path):
    masks = {"a_2CH": MOVIE, "a_4CH": MOVIE}
    manifest = manifest_of(("a_2CH", "a", None, "2CH"), ("a_4CH", "a", None, "4CH"))
    (study,) = pair_studies(*folders(tmp_path, masks, masks), manifest).studies
    assert [stack.sequences[0].view for stack in study.stacks] == ["2CH", "4CH"]


def test_a_merged_prediction_is_found_for_the_slices_of_the_reference(tmp_path):
    pairing = pair_studies(*folders(tmp_path, {"a_z00": MOVIE, "a_z01": MOVIE}, {"a": STACK}), None)
    assert [path.name for path in pairing.studies[0].stacks[0].prediction] == ["a.nii.gz"]
    assert not pairing.extra


def test_a_merged_reference_knows_its_slices_without_a_manifest(tmp_path):
    pairing = pair_studies(*folders(tmp_path, {"a": STACK}, {"a_z00": MOVIE, "a_z01": MOVIE}), None)
    assert [path.name for path in pairing.studies[0].stacks[0].prediction] == ["a_z00.nii.gz", "a_z01.nii.gz"]
    assert pairing.studies[0].stacks[0].sequences[0].slice_spacing_mm == 8.0


def test_studies_with_a_missing_prediction_are_left_out_and_named(tmp_path):
    reference = {"a_z00": MOVIE, "a_z01": MOVIE, "b_z00": MOVIE}
    pairing = pair_studies(*folders(tmp_path, reference, {"a_z00": MOVIE, "b_z00": MOVIE}), None)
    assert [study.name for study in pairing.studies] == ["b"]
    assert pairing.left_out == ["a"]
    assert [path.name for path in pairing.missing] == ["a_z01.nii.gz"]


def test_predictions_without_a_reference_are_named(tmp_path):
    assert pair_studies(*folders(tmp_path, {"a": MOVIE}, {"a": MOVIE, "b": MOVIE}), None).extra == ["b"]


def test_cases_of_the_manifest_without_a_reference_are_not_expected(tmp_path):
    manifest = manifest_of(("a", "a", None, None), ("b", "b", None, None))
    pairing = pair_studies(*folders(tmp_path, {"a": MOVIE}, {"a": MOVIE}), manifest)
    assert [study.name for study in pairing.studies] == ["a"]
    assert not pairing.missing


def views_of(pairing):
    return {study.name: [stack.sequences[0].view for stack in study.stacks] for study in pairing.studies}


def test_a_named_view_is_given_to_single_slices_of_which_it_is_not_known(tmp_path):
    masks = {"a": MOVIE, "b_2CH": MOVIE, "c_z00": MOVIE, "c_z01": MOVIE, "d": STACK[:, :1]}
    manifest = manifest_of(
        ("a", "a", None, None), ("b_2CH", "b", None, "2CH"), ("c_z00", "c", 0, None), ("c_z01", "c", 1, None),
        ("d_z00", "d", 0, None),
    )  # fmt: skip
    pairing = pair_studies(*folders(tmp_path, masks, masks), manifest, "4CH")
    assert views_of(pairing) == {"a": ["4CH"], "b": ["2CH"], "c": [None], "d": ["4CH"]}
    assert not pairing.missing and not pairing.extra


def test_a_named_view_is_given_to_movies_of_one_slice_without_a_manifest(tmp_path):
    masks = {"a": MOVIE, "d": STACK[:, :1]}
    assert views_of(pair_studies(*folders(tmp_path, masks, masks), None, "4CH")) == {"a": ["4CH"], "d": ["4CH"]}


@pytest.mark.parametrize("stored", ["a_4CH", "x"])
def test_a_named_view_that_a_study_has_already_is_refused(tmp_path, stored):
    manifest = manifest_of(("a", "a", None, None), (stored, "a", None, "4CH"))
    masks = dict.fromkeys(manifest, MOVIE)
    with pytest.raises(InputError, match=rf"--view 4CH: found {stored} of that view beside a; say in sequences\.json"):
        pair_studies(*folders(tmp_path, masks, masks), manifest, "4CH")


@pytest.mark.parametrize(
    ("masks", "view", "found"), [({"a_2CH": MOVIE}, "2CH", "2CH"), ({"a": STACK}, None, "stacks of slices")]
)
def test_a_named_view_that_nothing_can_be_of_is_refused(tmp_path, masks, view, found):
    manifest = None if view is None else manifest_of(("a_2CH", "a", None, view))
    with pytest.raises(InputError, match=f"--view 4CH: found {found} and no single slice of unknown view; remove"):
        pair_studies(*folders(tmp_path, masks, masks), manifest, "4CH")


def test_a_named_view_that_is_known_already_is_right(tmp_path):
    masks, manifest = {"a_4CH": MOVIE}, manifest_of(("a_4CH", "a", None, "4CH"))
    assert views_of(pair_studies(*folders(tmp_path, masks, masks), manifest, "4CH")) == {"a": ["4CH"]}


def test_references_that_the_manifest_does_not_know_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"does not know: b.*-manifest"):
        pair_studies(*folders(tmp_path, {"a": MOVIE, "b": MOVIE}, {"a": MOVIE}), manifest_of(("a", "a", None, None)))


def test_a_folder_without_masks_is_refused_by_name(tmp_path):
    (tmp_path / "pred").mkdir()
    with pytest.raises(InputError, match=r"-pred .*found no masks"):
        pair_studies(write_masks(tmp_path / "ref", {"a": MOVIE}), tmp_path / "pred", None)
