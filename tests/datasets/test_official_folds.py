import pytest

from nnunet_temporal.datasets.official_folds import official_splits
from nnunet_temporal.errors import InputError
from nnunet_temporal.sequences import Manifest, Sequence


def manifest_of(labelled="abc", unlabelled=""):
    sequences = [Sequence(f"{study}_z00", study, 3, (0,) if study in labelled else (), 0) for study in labelled]
    sequences += [Sequence(f"{study}_z01", study, 3, (), 1) for study in labelled + unlabelled]
    return Manifest({sequence.case: sequence for sequence in sequences})


def test_folds_of_studies_become_lists_of_cases():
    assert official_splits([({"a"}, {"b", "c"}), ({"b", "c"}, {"a"})], manifest_of(), []) == [
        {"train": ["a_z00", "a_z01"], "val": ["b_z00", "c_z00"]},
        {"train": ["b_z00", "b_z01", "c_z00", "c_z01"], "val": ["a_z00"]},
    ]


def test_unlabelled_studies_are_trained_on_and_never_validated():
    (fold,) = official_splits([({"a", "d"}, {"b", "c", "e"})], manifest_of(unlabelled="de"), [])
    assert "d_z01" in fold["train"] and not any("e_z01" in cases for cases in fold.values())


def test_held_out_studies_are_in_no_fold_whether_a_fold_names_them_or_not():
    expected = [{"train": ["a_z00", "a_z01"], "val": ["b_z00"]}]
    assert official_splits([({"a"}, {"b"})], manifest_of(), ["c"]) == expected
    assert official_splits([({"a", "c"}, {"b"})], manifest_of(), ["c"]) == expected


def test_a_study_that_is_neither_for_training_nor_validation_nor_held_out_is_refused():
    with pytest.raises(InputError, match=r"official fold 1: 1 studies are neither .*: c; .*--folds study"):
        official_splits([({"a", "c"}, {"b"}), ({"a"}, {"b"})], manifest_of(), [])


def test_a_study_that_is_not_there_is_refused():
    with pytest.raises(InputError, match=r"official fold 0: names 1 studies that are not there: x; .*--folds study"):
        official_splits([({"a", "x"}, {"b", "c"})], manifest_of(), [])


def test_a_study_on_both_sides_is_refused():
    with pytest.raises(InputError, match=r"fold 0: studies \['b'\] are in both train and val"):
        official_splits([({"a", "b"}, {"b", "c"})], manifest_of(), [])


@pytest.mark.parametrize(("fold", "held_out"), [(({"a", "b"}, {"c"}), ["c"]), (({"a"}, {"b", "c"}), ["a"])])
def test_a_fold_with_an_empty_side_is_refused(fold, held_out):
    with pytest.raises(InputError, match=r"official fold 0: found \d sequences for training and \d labelled ones"):
        official_splits([fold], manifest_of(), held_out)
