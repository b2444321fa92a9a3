import numpy as np
import pytest

from nnunet_temporal.datasets.image_io import Spacing
from nnunet_temporal.datasets.study_source import StudySource, by_slice, inspect_source
from nnunet_temporal.errors import InputError

LABELS = {"background": 0, "LV": 1, "ignore": 2}


def source_of(image, masks=None, **facts):
    return StudySource("p1", lambda: image, None if masks is None else lambda: masks, **facts)


def test_a_stack_is_cut_into_slices_and_a_sequence_stays_whole():
    stack = np.arange(24).reshape(2, 3, 2, 2)
    assert list(by_slice(stack)) == [0, 1, 2] and np.array_equal(by_slice(stack)[1], stack[:, 1])
    assert by_slice(stack[:, 0]).keys() == {None}


def test_labelled_frames_are_those_of_each_slice():
    masks = np.full((4, 2, 3, 3), 2, np.uint8)
    masks[1, 0] = 0
    masks[3, 1, 0, 0] = 1
    sequences = inspect_source(source_of(np.zeros(masks.shape), masks), LABELS)
    assert [s.labelled_frames for s in sequences] == [(1,), (3,)]
    assert [s.case for s in sequences] == ["p1_z00", "p1_z01"]


def test_a_study_without_labels_has_no_labelled_frame():
    (sequence,) = inspect_source(source_of(np.zeros((4, 3, 3))), LABELS)
    assert sequence.labelled_frames == () and sequence.slice is None and sequence.case == "p1"


def test_facts_reach_the_manifest():
    spacing = Spacing((1.0, 1.0), pixel_known=False, slice_mm=8.0, frame_s=0.03)
    source = source_of(np.zeros((4, 3, 3)), spacing=spacing, ed=3, es=1, cyclic=True, view="4CH", source="a.nii")
    (s,) = inspect_source(source, LABELS)
    assert (s.case, s.ed, s.es, s.cyclic, s.source) == ("p1_4CH", 3, 1, True, "a.nii")
    assert (s.frame_interval_s, s.slice_spacing_mm, s.pixel_spacing_known) == (0.03, 8.0, False)


def test_a_phase_beyond_the_frames_is_refused():
    with pytest.raises(InputError, match="'ed'"):
        inspect_source(source_of(np.zeros((4, 3, 3)), ed=4), LABELS)


@pytest.mark.parametrize("shape", [(0, 3, 3), (3, 3), (4, 0, 3, 3)])
def test_wrong_or_empty_axes_are_refused(shape):
    with pytest.raises(InputError, match="expected non-empty"):
        inspect_source(source_of(np.zeros(shape)), LABELS)


def test_nan_pixels_are_refused():
    with pytest.raises(InputError, match="NaN"):
        inspect_source(source_of(np.full((4, 3, 3), np.nan)), LABELS)


def test_labels_of_another_shape_are_refused():
    with pytest.raises(InputError, match=r"labels of shape \(3, 3, 3\), expected \(4, 3, 3\)"):
        inspect_source(source_of(np.zeros((4, 3, 3)), np.zeros((3, 3, 3), np.uint8)), LABELS)


def test_label_values_outside_the_dataset_are_refused():
    with pytest.raises(InputError, match=r"found label values \[7\], expected only those of dataset\.json"):
        inspect_source(source_of(np.zeros((4, 3, 3)), np.full((4, 3, 3), 7, np.uint8)), LABELS)
