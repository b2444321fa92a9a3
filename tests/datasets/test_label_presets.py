import acdc_layout
import mnms_layout
import numpy as np
import pytest

from nnunet_temporal.datasets import acdc, mnms, sunnybrook
from nnunet_temporal.datasets.label_presets import PRESETS, with_preset
from nnunet_temporal.datasets.raw_writer import DatasetInfo, write_raw_dataset
from nnunet_temporal.datasets.study_source import StudySource
from nnunet_temporal.errors import InputError


def study_with(masks):
    return StudySource("a", load_image=lambda: np.zeros(masks.shape), load_labels=lambda: masks, source="a.nii.gz")


def relabelled(masks, labels, preset):
    (study,), names = with_preset([study_with(np.asarray(masks, np.uint8).reshape(1, 1, -1))], labels, preset)
    return study.load_labels().ravel().tolist(), names


def test_classes_keep_their_names_and_change_their_values():
    assert relabelled([0, 1, 2, 3, 4], mnms.LABELS, "acdc") == ([0, 3, 2, 1, 4], acdc.LABELS)
    assert relabelled([0, 1, 2, 3, 4], acdc.LABELS, "mnms") == ([0, 3, 2, 1, 4], mnms.LABELS)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_dataset_of_the_preset_stays_as_it_is(preset):
    values = list(PRESETS[preset].values())
    assert relabelled(values, PRESETS[preset], preset) == (values, PRESETS[preset])


def test_classes_that_the_preset_lacks_become_background_and_ignore_stays_ignore():
    assert relabelled([0, 1, 2, 3, 4], acdc.LABELS, "sunnybrook") == ([0, 0, 0, 1, 2], sunnybrook.LABELS)


@pytest.mark.parametrize("preset", ["acdc", "mnms"])
def test_a_dataset_that_has_not_drawn_a_class_of_the_preset_is_refused(preset):
    with pytest.raises(InputError, match=rf"--labels {preset}: needs (RV|MYO), (RV|MYO), which this dataset has not"):
        with_preset([], sunnybrook.LABELS, preset)


def test_an_unknown_preset_is_refused():
    with pytest.raises(InputError, match="--labels: found 'ACDC', expected one of acdc, mnms, sunnybrook"):
        with_preset([], acdc.LABELS, "ACDC")


def test_a_value_without_a_name_is_refused_and_not_made_background():
    with pytest.raises(InputError, match=r"a\.nii\.gz: found label values \[7\]"):
        relabelled([0, 7], acdc.LABELS, "mnms")


def test_masks_are_loaded_only_when_asked_for_and_not_changed_themselves():
    masks, calls = np.full((1, 1, 2), 1, np.uint8), []
    source = StudySource("a", load_image=lambda: masks, load_labels=lambda: calls.append(1) or masks)
    (study,), _ = with_preset([source], mnms.LABELS, "acdc")
    assert calls == []
    assert study.load_labels().tolist() == [[[3, 3]]] and masks.max() == 1
    assert study.study == source.study and study.load_image is source.load_image


def test_a_study_without_masks_stays_without():
    (study,), _ = with_preset([StudySource("a", load_image=lambda: np.zeros((1, 1, 1)))], mnms.LABELS, "acdc")
    assert study.load_labels is None


@pytest.mark.parametrize("preset", ["acdc", "mnms"])
def test_acdc_and_mnms_are_pooled_into_the_same_values(tmp_path, preset):
    acdc_layout.save_patient(tmp_path / "acdc" / "patient001")
    mnms_layout.save_mnms_patient(tmp_path / "Validation", "C8J7L5", mnms_layout.masks_of(0, 3))
    mnms_layout.save_table(tmp_path, {"C8J7L5": (0, 3)})
    ours, labels = with_preset(acdc.find_studies(tmp_path / "acdc"), acdc.LABELS, preset)
    theirs, same = with_preset(mnms.find_studies(tmp_path), mnms.LABELS, preset)
    assert labels == same == PRESETS[preset]
    info = DatasetInfo(9, "Pooled", labels, "cineMRI")
    assert len(write_raw_dataset([*ours, *theirs], info, tmp_path).splits) == 2
    # In both layouts the LV, MYO and RV lie in rows of their own along x, at ED, the first frame.
    for study, rows in ((ours[0], {"RV": 1, "MYO": 2, "LV": 3}), (theirs[0], {"LV": 1, "MYO": 2, "RV": 3})):
        ed = study.load_labels()[0, 0]
        assert {name: ed[0, x] for name, x in rows.items()} == {name: labels[name] for name in rows}
