"""Which movie, masks and expert's masks belong together, split or whole."""

import pytest
from mask_folders import LABELS, square, write_masks
from segmented_hearts import beating, write_folders

from nnunet_temporal.errors import InputError
from nnunet_temporal.evaluation.label_scheme import label_scheme_of
from nnunet_temporal.report.cohort import find_cohort
from nnunet_temporal.report.segmented_study import read_study
from nnunet_temporal.sequences import Manifest, Sequence

HEART = beating()
SPLIT = {"p_z00": HEART[:, 0], "p_z01": HEART[:, 1]}
WHOLE = {"p": HEART}
SCHEME = label_scheme_of(LABELS, "dataset.json")


def manifest_of(*studies, n_frames=4):
    entries = [
        Sequence(f"{study}_z{z:02d}", study, n_frames, (), slice=z, slice_spacing_mm=8.0)
        for study in studies
        for z in (0, 1)
    ]
    return Manifest({entry.case: entry for entry in entries})


def find(root, manifest=None, truth=None):
    return find_cohort(root / "images", root / "masks", truth, manifest)


@pytest.mark.parametrize("truth", [SPLIT, WHOLE], ids=["truth split", "truth whole"])
@pytest.mark.parametrize("masks", [SPLIT, WHOLE], ids=["masks split", "masks whole"])
@pytest.mark.parametrize("images", [SPLIT, WHOLE], ids=["images split", "images whole"])
def test_split_and_whole_files_belong_together_in_every_combination(tmp_path, images, masks, truth):
    write_folders(tmp_path, images)
    write_masks(tmp_path / "other", masks)
    drawn = write_masks(tmp_path / "drawn", truth)
    cohort = find_cohort(tmp_path / "images", tmp_path / "other", drawn, manifest_of("p"))
    ((stack,),) = [study.stacks for study in cohort.studies]
    assert (len(stack.images), len(stack.masks), len(stack.truth)) == (len(images), len(masks), len(truth))
    assert cohort.not_predicted == []
    (read,) = read_study(cohort.studies[0], SCHEME).stacks
    assert read.image.shape == (4, 2, 24, 24)
    assert (read.stack.prediction == HEART).all() and (read.truth == HEART).all()
    assert read.drawn.all()


@pytest.mark.parametrize("masks", [SPLIT, WHOLE], ids=["masks split", "masks whole"])
def test_without_a_manifest_names_say_what_belongs_together(tmp_path, masks):
    write_folders(tmp_path, masks)
    (study,) = find(tmp_path).studies
    assert study.name == "p"
    assert [entry.slice for entry in study.stacks[0].sequences] == [0, 1]


def test_masks_of_slices_beside_those_of_the_whole_are_refused(tmp_path):
    write_folders(tmp_path, WHOLE)
    write_masks(tmp_path / "masks", {"p_z01": HEART[:, 1]})
    with pytest.raises(InputError, match="found masks p that lie beside masks of their slices"):
        find(tmp_path, manifest_of("p"))


def test_movies_without_masks_are_named_and_partial_truth_is_no_fault(tmp_path):
    write_folders(tmp_path, {"a": HEART, "b": HEART, "c": HEART})
    (tmp_path / "masks" / "b.nii.gz").unlink()
    drawn = write_masks(tmp_path / "drawn", {"c_z01": HEART[:, 1]})
    cohort = find(tmp_path, truth=drawn)
    assert [study.name for study in cohort.studies] == ["a", "c"]
    assert cohort.not_predicted == ["b"]
    assert [study.stacks[0].truth for study in cohort.studies] == [(), (None, drawn / "c_z01.nii.gz")]


def test_a_part_of_the_slices_is_shown_when_both_are_split(tmp_path):
    write_folders(tmp_path, SPLIT)
    (tmp_path / "masks" / "p_z00.nii.gz").unlink()
    cohort = find(tmp_path, manifest_of("p", "q"))
    (stack,) = cohort.studies[0].stacks
    assert [entry.slice for entry in stack.sequences] == [1]
    assert cohort.not_predicted == ["p_z00"]


def test_views_are_stacks_of_one_study(tmp_path):
    entries = {f"e_{view}": Sequence(f"e_{view}", "e", 4, (), view=view) for view in ("2CH", "4CH")}
    write_folders(tmp_path, {name: HEART[:, 0] for name in entries})
    (study,) = find(tmp_path, Manifest(entries)).studies
    assert [stack.sequences[0].view for stack in study.stacks] == ["2CH", "4CH"]


def test_a_movie_may_be_named_instead_of_its_folder(tmp_path):
    write_folders(tmp_path, WHOLE)
    cohort = find_cohort(tmp_path / "images" / "p.nii.gz", tmp_path / "masks", None, None)
    assert [study.name for study in cohort.studies] == ["p"]


def test_masks_without_a_movie_are_refused(tmp_path):
    write_folders(tmp_path, WHOLE)
    write_masks(tmp_path / "masks", {"stranger": HEART})
    with pytest.raises(InputError, match=r"masks .*stranger.* that have no movie in .*images"):
        find(tmp_path)


def test_masks_that_the_manifest_does_not_know_are_refused(tmp_path):
    write_folders(tmp_path, WHOLE)
    with pytest.raises(InputError, match=r"masks .*p.* that sequences\.json does not know; name the right one"):
        find(tmp_path, manifest_of("q"))


@pytest.mark.parametrize("name", ["masks", "drawn"])
def test_an_empty_folder_is_refused(tmp_path, name):
    write_folders(tmp_path, WHOLE)
    (tmp_path / "empty").mkdir()
    folders = {"masks": tmp_path / "masks", "drawn": tmp_path / "masks", name: tmp_path / "empty"}
    with pytest.raises(InputError, match="found no masks"):
        find_cohort(tmp_path / "images", folders["masks"], folders["drawn"], None)


def test_names_of_many_masks_without_a_movie_are_cut_short(tmp_path):
    write_folders(tmp_path, WHOLE)
    write_masks(tmp_path / "masks", {f"n{number}": square(2, 2)[None] for number in range(9)})
    with pytest.raises(InputError) as caught:
        find(tmp_path)
    assert "n0" in str(caught.value) and "n8" not in str(caught.value)
