"""Studies read from files: grids and labels are checked, and what nobody drew stays unknown."""

import dataclasses

import numpy as np
import pytest
from mask_folders import IGNORE, LABELS, write_masks
from nifti_movies import save_nifti
from segmented_hearts import beating, drawn_at, segmented, write_folders

from nnunet_temporal.errors import InputError
from nnunet_temporal.evaluation.label_scheme import label_scheme_of
from nnunet_temporal.report.cohort import find_cohort
from nnunet_temporal.report.segmented_study import read_study
from nnunet_temporal.sequences import Manifest, Sequence

HEART = beating()
LABEL_SCHEME = label_scheme_of(LABELS, "dataset.json")


def read(root, labels=LABEL_SCHEME, truth=None):
    (study,) = find_cohort(root / "images", root / "masks", truth, None).studies
    (stack,) = read_study(study, labels).stacks
    return stack


def test_a_whole_study_without_an_expert(tmp_path):
    write_folders(tmp_path, {"p": HEART})
    stack = read(tmp_path)
    assert stack.name == "p"
    assert (stack.n_frames, stack.stack.slice_mm, stack.stack.pixel_mm) == (4, 8.0, (2.0, 1.0))
    assert not stack.drawn.any() and not stack.truth.any() and not stack.is_compared
    # The largest and the smallest predicted ventricle.
    assert (stack.phases.ed, stack.phases.es) == (0, 2)


def test_truth_for_some_slices_only(tmp_path):
    write_folders(tmp_path, {"p": HEART})
    drawn = write_masks(tmp_path / "drawn", {"p_z01": drawn_at(HEART[:, 1], 0, 2)})
    stack = read(tmp_path, truth=drawn)
    assert stack.drawn.tolist() == [[False, True], [False, False], [False, True], [False, False]]
    assert (stack.truth[0, 1] == HEART[0, 1]).all() and not stack.truth[:, 0].any()
    assert not stack.truth[[1, 3]].any()
    assert stack.is_compared and stack.phases.source == "labelled_frames"
    assert stack.phases.slices.tolist() == [False, True]


def test_truth_without_an_ignore_label_is_drawn_everywhere(tmp_path):
    write_folders(tmp_path, {"p": HEART})
    labels = dataclasses.replace(LABEL_SCHEME, ignore=None)
    assert read(tmp_path, labels, truth=write_masks(tmp_path / "drawn", {"p": HEART})).drawn.all()


def test_a_single_drawn_frame_is_shown_and_compares_no_volumes():
    stack = segmented(HEART, drawn_at(HEART, 1))
    assert stack.drawn.any() and not stack.is_compared
    assert (stack.phases.ed, stack.phases.es) == (0, 2)


def test_phases_of_the_manifest_that_nobody_drew_are_kept():
    stack = segmented(HEART, drawn_at(HEART, 0), ed=1, es=3)
    assert (stack.phases.ed, stack.phases.es, stack.phases.source) == (1, 3, "manifest")
    assert not stack.is_compared


def test_label_values_above_255_survive(tmp_path):
    large = {"background": 0, "LV": 300, "ignore": 301}
    maps = np.where(HEART == 1, 300, 0).astype(np.uint16)
    truth = drawn_at(maps, 0, 2).copy()
    truth[[1, 3]] = 301
    write_folders(tmp_path, {"p": HEART})
    write_masks(tmp_path / "masks", {"p": maps})
    stack = read(tmp_path, label_scheme_of(large, "x"), truth=write_masks(tmp_path / "drawn", {"p": truth}))
    assert set(np.unique(stack.truth[0])) == {0, 300}


@pytest.mark.parametrize("shape", [(24, 24, 1, 4), (24, 24, 2, 1), (24, 24, 1)])
def test_single_slices_and_single_frames_are_read(tmp_path, shape):
    labels = np.zeros(shape, np.uint8)
    labels[8:14, 8:14] = 1
    save_nifti(tmp_path / "images" / ("p.nii.gz" if len(shape) == 4 else "p_0000.nii.gz"), labels * 9)
    save_nifti(tmp_path / "masks" / "p.nii.gz", labels)
    stack = read(tmp_path)
    assert stack.image.shape == (shape[-1], shape[2] if len(shape) == 4 else 1, 24, 24)


def test_masks_of_another_shape_are_refused(tmp_path):
    write_folders(tmp_path, {"p": HEART})
    write_masks(tmp_path / "masks", {"p": HEART[:, :, :-2]})
    with pytest.raises(InputError, match=r"masks.*p\.nii\.gz: found the shape .* expected \(4, 2, 24, 24\) as in"):
        read(tmp_path)


def test_an_unknown_label_is_refused(tmp_path):
    odd = HEART.copy()
    odd[0, 0, 0, 0] = 5
    write_folders(tmp_path, {"p": odd.clip(0, 2)})
    write_masks(tmp_path / "masks", {"p": odd})
    with pytest.raises(InputError, match=r"found label values \[5\]"):
        read(tmp_path)


def test_the_ignore_label_is_for_experts_only(tmp_path):
    write_folders(tmp_path, {"p": HEART})
    write_masks(tmp_path / "masks", {"p": drawn_at(HEART, 0)})
    with pytest.raises(InputError, match=rf"found label values \[{IGNORE}\]"):
        read(tmp_path)


@pytest.mark.parametrize("truth", [{"p": HEART[:3]}, {"p": HEART[..., :-1]}, {"p_z01": HEART[:, 1, :, 1:]}])
def test_truth_of_another_shape_is_refused(tmp_path, truth):
    write_folders(tmp_path, {"p": HEART})
    with pytest.raises(InputError, match="expected"):
        read(tmp_path, truth=write_masks(tmp_path / "drawn", truth))


def test_truth_of_another_pixel_size_is_refused(tmp_path):
    write_folders(tmp_path, {"p": HEART})
    with pytest.raises(InputError, match="found pixel spacing"):
        read(tmp_path, truth=write_masks(tmp_path / "drawn", {"p": HEART}, pixel_mm=(3.0, 1.0)))


def test_slices_of_different_shapes_are_refused(tmp_path):
    write_folders(tmp_path, {"p_z00": HEART[:, 0], "p_z01": HEART[:, 1]})
    write_masks(tmp_path / "images", {"p_z01_0000": HEART[:, 1, :-2]})
    with pytest.raises(InputError, match="slices of different shapes"):
        read(tmp_path)


def test_a_view_is_named_where_there_are_several(tmp_path):
    entries = {f"e_{view}": Sequence(f"e_{view}", "e", 4, (), view=view) for view in ("2CH", "4CH")}
    write_folders(tmp_path, {name: HEART[:, 0] for name in entries})
    (sources,) = find_cohort(tmp_path / "images", tmp_path / "masks", None, Manifest(entries)).studies
    assert [stack.name for stack in read_study(sources, LABEL_SCHEME).stacks] == ["e 2CH", "e 4CH"]
