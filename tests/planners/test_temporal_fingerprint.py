"""The fingerprint of the phantom: what it says about time, when it is extracted anew, what it refuses."""

import json
from dataclasses import replace

import nibabel
import numpy as np
import pytest

from nnunet_temporal.errors import InputError
from nnunet_temporal.planners.sequence_measures import SequenceMeasures
from nnunet_temporal.planners.temporal_fingerprint import TemporalFingerprintExtractor, summarise
from nnunet_temporal.sequences import Manifest, Sequence


@pytest.fixture(autouse=True)
def threads_for_processes(monkeypatch):
    """Run nnU-Net's pool in threads: spawned processes would import torch for seconds each."""
    monkeypatch.setattr("multiprocessing.get_context", lambda method: __import__("multiprocessing.dummy").dummy)


def extract(*, overwrite=False) -> dict:
    """Extract the phantom's fingerprint, or read it."""
    extractor = TemporalFingerprintExtractor(777, 1)
    extractor.show_progress_bar = False
    return extractor.run(overwrite)


def stored(phantom) -> dict:
    """Read the stored fingerprint."""
    return json.loads((phantom.preprocessed / "dataset_fingerprint.json").read_text())


def test_the_fingerprint_says_what_the_phantom_is(planned_phantom):
    temporal = stored(planned_phantom)["temporal"]
    assert (temporal["n_sequences"], temporal["n_studies"]) == (8, 4)
    assert temporal["sequences_per_study"] == {"min": 2, "median": 2, "max": 2}
    assert temporal["n_frames"] == {"min": 3, "median": 7, "max": 8}
    assert temporal["slice_spacing_mm"] == {"min": 8, "median": 8, "max": 8, "share": 1}
    assert temporal["frame_interval_s"] == {"min": None, "median": None, "max": None, "share": 0}
    assert temporal["cyclic_share"] == 1
    assert temporal["frames_per_cycle"] == {"min": 3, "median": 7, "max": 8, "confidence": 1, "share": 1}
    assert temporal["labelled_share"] == 0.875
    assert temporal["labelled_frames"] == {"min": 2, "median": 2, "max": 2}
    assert temporal["labelled_gap_frames"] == {"min": 1, "median": 3, "max": 4, "share": 1}
    assert temporal["labelled_position"]["min"] == 0 and temporal["labelled_position"]["max"] == 0.5
    # The radius shrinks by 3 pixels of 1.25 mm (1.5 mm in one study) at most.
    assert 1.25 < temporal["displacement_mm"]["min"] <= temporal["displacement_mm"]["max"] < 6


def test_every_sequence_has_its_measurements(planned_phantom):
    temporal = stored(planned_phantom)["temporal"]
    assert set(temporal["sequences"]) == set(Manifest.load(planned_phantom.preprocessed))
    assert temporal["sequences"]["study_a_z00"]["labelled_frames"] == [0, 4]
    assert temporal["sequences"]["study_d_z01"]["displacement_mm"] is None


def test_nnunets_own_fingerprint_is_kept(planned_phantom):
    fingerprint = stored(planned_phantom)
    assert len(fingerprint["spacings"]) == len(fingerprint["shapes_after_crop"]) == 8
    assert "0" in fingerprint["foreground_intensity_properties_per_channel"]


def test_extracting_twice_gives_the_same_file(phantom):
    extract(overwrite=True)
    first = (phantom.preprocessed / "dataset_fingerprint.json").read_bytes()
    extract(overwrite=True)
    assert (phantom.preprocessed / "dataset_fingerprint.json").read_bytes() == first


def test_a_fingerprint_that_fits_is_read_not_measured_again(phantom):
    changed = stored(phantom)
    changed["temporal"]["interframe_change"]["median"] = 99
    (phantom.preprocessed / "dataset_fingerprint.json").write_text(json.dumps(changed))
    assert extract()["temporal"]["interframe_change"]["median"] == 99


def test_a_stock_fingerprint_gets_the_entry(phantom):
    plain = stored(phantom)
    temporal = plain.pop("temporal")
    (phantom.preprocessed / "dataset_fingerprint.json").write_text(json.dumps(plain))
    assert extract()["temporal"] == temporal
    assert stored(phantom) == {**plain, "temporal": temporal}


def test_a_dataset_that_changed_is_measured_anew(phantom, capsys):
    for folder, suffix in (("imagesTr", "_0000"), ("labelsTr", "")):
        (phantom.raw / folder / f"study_d_z01{suffix}.nii.gz").unlink()
    fingerprint = extract()
    assert fingerprint["temporal"]["n_sequences"] == len(fingerprint["spacings"]) == 7
    assert "of an earlier state of the dataset; extracting it anew" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("field", "value"), [("cyclic", False), ("frame_interval_s", 0.03), ("slice_spacing_mm", 5.0), ("study", "other")]
)
def test_a_manifest_that_was_edited_is_read_anew(phantom, field, value):
    manifest = Manifest.load(phantom.raw)
    edited = {case: replace(s, **{field: value}) if case == "study_d_z00" else s for case, s in manifest.items()}
    Manifest(edited).write(phantom.raw / "sequences.json")
    before, after = stored(phantom), extract()
    assert before["temporal"] != after["temporal"]
    assert stored(phantom) == after


def test_a_stock_fingerprint_of_fewer_cases_is_extracted_anew(phantom):
    plain = {name: entry for name, entry in stored(phantom).items() if name != "temporal"}
    plain["spacings"], plain["shapes_after_crop"] = plain["spacings"][:3], plain["shapes_after_crop"][:3]
    (phantom.preprocessed / "dataset_fingerprint.json").write_text(json.dumps(plain))
    assert len(extract()["spacings"]) == 8


def test_a_broken_fingerprint_can_be_extracted_anew(phantom):
    before = stored(phantom)
    (phantom.preprocessed / "dataset_fingerprint.json").write_text('{"spacings": [')
    assert json.loads(json.dumps(extract(overwrite=True))) == before


def test_a_broken_image_is_named_before_anything_is_extracted(phantom):
    before = stored(phantom)
    path = phantom.raw / "imagesTr" / "study_a_z00_0000.nii.gz"
    image = nibabel.load(path)
    pixels = np.asarray(image.dataobj).copy()
    pixels[0, 0, 3] = np.nan
    nibabel.save(nibabel.Nifti1Image(pixels, image.affine), path)
    with pytest.raises(InputError, match=r"study_a_z00_0000.nii.gz: pixels must be finite"):
        extract(overwrite=True)
    assert stored(phantom) == before


def test_a_half_written_fingerprint_is_named(phantom):
    (phantom.preprocessed / "dataset_fingerprint.json").write_text('{"spacings": [')
    with pytest.raises(InputError, match=r"dataset_fingerprint.json: expected JSON, .* Extract it anew with --clean"):
        extract()


def measures(cycle: float | None, confidence: float) -> SequenceMeasures:
    """Return the measurements of a sequence of 60 frames with this cycle."""
    return SequenceMeasures(60, (0,), None, False, cycle, confidence, 0.1, None)


def summary(*cycles: tuple[float | None, float]) -> dict:
    """Summarise sequences with these cycles and confidences."""
    sequences = {f"case_{n}": Sequence(f"case_{n}", f"case_{n}", 60, (0,)) for n in range(len(cycles))}
    return summarise(dict(zip(sequences, (measures(*cycle) for cycle in cycles), strict=True)), Manifest(sequences))


def test_sequences_that_show_no_beat_do_not_move_the_median():
    cycle = summary((20.0, 0.9), (22.0, 0.7), (None, 0.0), (50.0, 0.2))["frames_per_cycle"]
    assert cycle == {"min": 20, "median": 21, "max": 22, "confidence": 0.8, "share": 0.5}


def test_few_sequences_that_seem_to_repeat_decide_nothing():
    cycle = summary((20.0, 0.9), *[(None, 0.0)] * 4)["frames_per_cycle"]
    assert (cycle["median"], cycle["share"]) == (None, 0.2)
    assert cycle["confidence"] < 0.5


def test_clips_are_planned_from_labelled_movies_not_from_stills_or_unlabelled_sequences():
    frames = {"a": (30, (0, 12)), "b": (20, (0, 8)), "still": (1, (0,)), "other": (1, (0,)), "unlabelled": (90, ())}
    sequences = {case: Sequence(case, case, n, labelled) for case, (n, labelled) in frames.items()}
    measured = {
        case: SequenceMeasures(
            s.n_frames, s.labelled_frames, None, False, None, 0.0, None, 4.0 if case == "a" else None
        )
        for case, s in sequences.items()
    }
    temporal = summarise(measured, Manifest(sequences))
    movies = temporal["labelled_movies"]
    assert (movies["n_frames"], movies["labelled_frames"], movies["labelled_frame_share"]) == (25, 2, 0.08)
    assert (movies["frames_per_cycle"], movies["gap_frames"], movies["displacement_mm"]) == (None, 10, 4)
    assert (temporal["n_frames"]["median"], temporal["labelled_share"]) == (20, 0.8)


def test_the_beat_of_clips_is_that_of_labelled_movies():
    sequences = {case: Sequence(case, case, 60, () if case == "c" else (0,)) for case in "abc"}
    cycles = {"a": 20.0, "b": 30.0, "c": 60.0}
    measured = {
        case: SequenceMeasures(60, s.labelled_frames, None, False, cycles[case], 0.9, None, None)
        for case, s in sequences.items()
    }
    temporal = summarise(measured, Manifest(sequences))
    assert (temporal["frames_per_cycle"]["median"], temporal["labelled_movies"]["frames_per_cycle"]) == (30, 25)


def test_a_dataset_of_stills_is_planned_from_its_stills():
    sequences = {case: Sequence(case, case, 1, (0,)) for case in "ab"}
    measured = {case: SequenceMeasures(1, (0,), None, False, None, 0.0, None, None) for case in sequences}
    movies = summarise(measured, Manifest(sequences))["labelled_movies"]
    assert (movies["n_frames"], movies["labelled_frames"], movies["labelled_frame_share"]) == (1, 1, 1)
    assert movies["gap_frames"] is None
