import json
from dataclasses import replace

import pytest

from nnunet_temporal.errors import InputError
from nnunet_temporal.sequences import (
    MANIFEST_NAME,
    Manifest,
    Sequence,
    case_name,
    check_splits,
    parse_case_name,
    study_splits,
)


def sequence(study="p1", z=None, labelled=(1, 4), view=None, **facts):
    return Sequence(case_name(study, z, view), study, 8, labelled, slice=z, view=view, **facts)


def manifest_of(*sequences):
    return Manifest({s.case: s for s in sequences})


def stack_of_studies(n_studies):
    return manifest_of(*(sequence(f"p{i}", z, (1, 4) if z else ()) for i in range(n_studies) for z in range(3)))


def write_entries(path, **fields):
    entry = {"study": "p1", "n_frames": 8, "labelled_frames": [1, 4], **fields}
    path.write_text(json.dumps({"version": 1, "sequences": {"p1_z00": entry}}))
    return path


@pytest.mark.parametrize(
    ("arguments", "name"),
    [(("p1",), "p1"), (("p1", 3), "p1_z03"), (("p1", 123), "p1_z123"), (("p1", None, "4CH"), "p1_4CH")],
)
def test_case_names_follow_the_convention(arguments, name):
    assert case_name(*arguments) == name


@pytest.mark.parametrize(
    ("case", "place"),
    [("a_z03", ("a", 3, None)), ("a_4CH", ("a_4CH", None, None)), ("_z03", ("_z03", None, None)), ("a_z3",) * 2],
)
def test_a_slice_suffix_is_parsed_and_anything_else_is_the_study(case, place):
    assert parse_case_name(case) == (place if isinstance(place, tuple) else (place, None, None))


def test_a_manifest_comes_back_from_disk_unchanged(tmp_path):
    facts = {"ed": 0, "es": 3, "cyclic": True, "frame_interval_s": 0.04, "slice_spacing_mm": 10.0, "source": "p1.nii"}
    manifest = manifest_of(sequence(z=0, **facts), sequence(z=1, labelled=()), sequence("p2", view="4CH"))
    manifest.write(tmp_path / MANIFEST_NAME)
    assert Manifest.load(tmp_path).sequences == manifest.sequences


def test_fields_with_a_default_may_be_left_out(tmp_path):
    read = Manifest.read(write_entries(tmp_path / "m.json"))
    assert read["p1_z00"] == Sequence("p1_z00", "p1", 8, (1, 4))


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"ed": 8}, "'ed': found [8], expected frames in 0..7"),
        ({"labelled_frames": [3, 9]}, "'labelled_frames': found [9]"),
        ({"labelled_frames": [3, 3]}, "'labelled_frames': found (3, 3), expected strictly increasing"),
        ({"labelled_frames": 3}, "'labelled_frames': found 3"),
        ({"n_frames": 0}, "'n_frames': found 0"),
        ({"n_frames": True}, "'n_frames': found True"),
        ({"slice": "0"}, "'slice': found '0'"),
        ({"cyclic": 1}, "'cyclic': found 1, expected true or false"),
        ({"frame_interval_s": -1.0}, "'frame_interval_s': found -1.0"),
        ({"study": "a/b"}, "'study': found 'a/b'"),
        ({"heart_rate": 60}, "unknown field(s) ['heart_rate']"),
    ],
)
def test_a_wrong_field_is_named_with_file_case_found_and_expected(tmp_path, fields, found):
    path = write_entries(tmp_path / "m.json", **fields)
    with pytest.raises(InputError) as error:
        Manifest.read(path)
    assert all(part in str(error.value) for part in (str(path), "'p1_z00'", found, "expected"))


def test_a_missing_field_is_named(tmp_path):
    path = tmp_path / "m.json"
    path.write_text('{"version": 1, "sequences": {"p1": {"study": "p1", "labelled_frames": []}}}')
    with pytest.raises(InputError, match=r"'n_frames'.*missing"):
        Manifest.read(path)


@pytest.mark.parametrize("text", ["no json", "[]", '{"version": 2, "sequences": {}}', '{"version": 1}'])
def test_a_file_that_is_no_manifest_is_refused(tmp_path, text):
    path = tmp_path / "m.json"
    path.write_text(text)
    with pytest.raises(InputError, match="expected"):
        Manifest.read(path)


def test_a_missing_manifest_is_named(tmp_path):
    with pytest.raises(InputError, match=r"sequences\.json: the manifest is missing"):
        Manifest.load(tmp_path)


def test_two_cases_in_one_place_of_a_study_are_refused():
    twin = replace(sequence(z=0), case="other")
    with pytest.raises(InputError, match="the same as case 'p1_z00'"):
        manifest_of(sequence(z=0), twin)


def test_a_key_that_differs_from_its_case_is_refused():
    with pytest.raises(InputError, match="expected 'x'"):
        Manifest({"x": sequence()})


def test_studies_are_sorted_by_name_and_their_sequences_by_slice_then_view():
    manifest = manifest_of(sequence("b", 10), sequence("b", 2), sequence("a", view="4CH"), sequence("a", view="2CH"))
    assert [[s.case for s in study.sequences] for study in manifest.studies()] == [
        ["a_2CH", "a_4CH"],
        ["b_z02", "b_z10"],
    ]


def test_a_subset_refuses_unknown_cases():
    manifest = stack_of_studies(2)
    assert list(manifest.subset(["p1_z02"])) == ["p1_z02"]
    with pytest.raises(InputError, match="p9"):
        manifest.subset(["p9"])


def test_no_study_is_on_both_sides_of_a_fold_and_each_is_validated_once():
    manifest = stack_of_studies(7)
    splits = study_splits(manifest)
    check_splits(splits, manifest)
    assert sorted(case for split in splits for case in split["val"]) == sorted(c for c in manifest if "_z00" not in c)


@pytest.mark.parametrize(("n_studies", "n_folds"), [(2, 2), (4, 4), (5, 5), (9, 5)])
def test_fewer_than_five_studies_give_as_many_folds(n_studies, n_folds):
    assert len(study_splits(stack_of_studies(n_studies))) == n_folds


def test_splits_depend_on_the_seed_alone():
    forward = stack_of_studies(8)
    backward = forward.subset(reversed(list(forward)))
    assert study_splits(forward) == study_splits(backward)
    assert study_splits(forward) != study_splits(forward, seed=1)


def test_unlabelled_sequences_are_trained_on_but_never_beside_their_own_study_in_validation():
    manifest = Manifest({**stack_of_studies(3), "extra": sequence("extra", labelled=())})
    manifest = Manifest({s.case: s for s in manifest.values()})
    for split in study_splits(manifest):
        validated = {manifest[case].study for case in split["val"]}
        assert "extra" in split["train"]
        assert all(manifest[case].labelled_frames for case in split["val"])
        assert not any(f"{study}_z00" in split["train"] + split["val"] for study in validated)


def test_one_labelled_study_cannot_be_cross_validated():
    with pytest.raises(InputError, match="at least 2 training studies"):
        study_splits(manifest_of(sequence("a"), sequence("b", labelled=())))


def test_one_fold_is_refused():
    with pytest.raises(InputError, match="n_folds must be at least 2, got 1"):
        study_splits(stack_of_studies(3), n_folds=1)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ([{"train": ["p0_z01"], "val": ["p0_z02"]}], "fold 0: studies ['p0'] are in both"),
        ([{"train": ["p0_z01"], "val": ["p9"]}], "no entry for p9"),
        ([{"train": ["p0_z01"]}], "expected a list of cases"),
        ([{"train": ["p0_z01"], "val": ["p1_z01", "p1_z00"]}], "val: ['p1_z00'] have no labelled frame"),
        ([], "one entry per fold"),
    ],
)
def test_bad_splits_are_refused(splits, message):
    with pytest.raises(InputError) as error:
        check_splits(splits, stack_of_studies(2))
    assert message in str(error.value)
