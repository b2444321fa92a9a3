import gzip
import json
import multiprocessing.dummy
from dataclasses import replace

import nibabel
import numpy as np
import pytest

from nnunet_temporal.datasets.integrity import check_raw_dataset
from nnunet_temporal.datasets.phantom import dataset as phantom_dataset
from nnunet_temporal.datasets.phantom.dataset import (
    MODALITIES,
    STUDIES_NAME,
    TRUTH_FOLDER,
    PhantomPlan,
    draw_study,
    write_phantom_dataset,
)
from nnunet_temporal.datasets.raw_writer import DatasetInfo
from nnunet_temporal.errors import InputError
from nnunet_temporal.sequences import Manifest, case_name, check_splits

IGNORE = 4


def plan_of(modality="cine", **fields):
    usual = {"n_studies": 2, "n_unlabelled": 1, "n_test": 1, "size": 32, "frames_per_cycle": (8, 9), "beats": (1, 1)}
    return PhantomPlan(modality, **{**usual, **fields})


def info_of(modality="cine"):
    return DatasetInfo(9, "Phantom", MODALITIES[modality].labels, MODALITIES[modality].channel)


def write(folder, plan, **options):
    return write_phantom_dataset(plan, info_of(plan.modality), folder, **options).folder


def pixels(path):
    return np.asarray(nibabel.load(path).dataobj).T


def contents(folder):
    """Return every file outside the truth folder; NIfTI files unpacked, because gzip may store the time."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {
        str(path.relative_to(folder)): gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        for path in paths
        if TRUTH_FOLDER not in path.relative_to(folder).parts
    }


@pytest.fixture(scope="module", params=sorted(MODALITIES))
def raw(request, tmp_path_factory):
    return write(tmp_path_factory.mktemp(request.param), plan_of(request.param))


def facts(raw):
    return json.loads((raw / TRUTH_FOLDER / STUDIES_NAME).read_text())["studies"]


def test_studies_go_where_they_belong(raw):
    manifest, studies = Manifest.load(raw), facts(raw)
    assert list(studies) == ["labelled000", "labelled001", "unlabelled000", "test000"]
    for case, sequence in manifest.items():
        side = "Ts" if sequence.study == "test000" else "Tr"
        assert (raw / f"images{side}" / f"{case}_0000.nii.gz").is_file()
        assert (raw / f"labels{side}" / f"{case}.nii.gz").is_file()


def test_held_out_studies_are_in_no_fold_and_unlabelled_ones_are_never_validated(raw):
    splits, manifest = json.loads((raw / "splits_final.json").read_text()), Manifest.load(raw)
    check_splits(splits, manifest)
    train, validated = ({manifest[case].study for split in splits for case in split[side]} for side in ("train", "val"))
    assert train == {"labelled000", "labelled001", "unlabelled000"}
    assert validated == {"labelled000", "labelled001"}


def test_labels_are_the_truth_at_ed_and_es_and_ignored_everywhere_else(raw):
    for case, sequence in Manifest.load(raw).items():
        side = "Ts" if sequence.study == "test000" else "Tr"
        labels, truth = pixels(raw / f"labels{side}" / f"{case}.nii.gz"), pixels(raw / TRUTH_FOLDER / f"{case}.nii.gz")
        frames = [] if sequence.study == "unlabelled000" else sorted({sequence.ed, sequence.es})
        assert list(sequence.labelled_frames) == frames
        expected = np.full_like(truth, IGNORE)
        expected[frames] = truth[frames]
        assert np.array_equal(labels, expected)


def test_the_manifest_names_ed_and_es_of_labelled_studies_only(raw):
    studies = facts(raw)
    for sequence in Manifest.load(raw).values():
        entry = studies[sequence.study]
        known = (None, None) if sequence.study == "unlabelled000" else (entry["ed"], entry["es"])
        assert (sequence.ed, sequence.es) == known


def test_the_truth_says_for_every_frame_whether_a_segment_is_lost(raw, tmp_path):
    assert {entry["lost_segment"] for entry in facts(raw).values()} == {None}
    entries = facts(write(tmp_path, plan_of("echo", lost_segment=True))).values()
    for entry in entries:
        affected = entry["lost_segment"]["affected"]
        assert len(affected) == entry["n_frames"]
        assert sum(affected) == pytest.approx(len(affected) / 3, abs=1)


@pytest.mark.parametrize("modality", sorted(MODALITIES))
def test_nothing_but_ed_and_es_of_labelled_studies_reaches_what_training_reads(modality, tmp_path, monkeypatch):
    # The same studies with all other truth destroyed must give the same files, bit by bit.
    def without_hidden_truth(name, heartbeat, size, rng):
        study = MODALITIES[modality].draw(name, heartbeat, size, rng)
        hidden = np.ones(heartbeat.n_frames, bool)
        hidden[list(heartbeat.ed_es())] = name.startswith("unlabelled")
        sequences = []
        for sequence in study.sequences:
            truth = sequence.truth.copy()
            truth[hidden] = 1
            sequences.append(replace(sequence, truth=truth))
        return replace(study, sequences=tuple(sequences), volumes_ml={"LV": np.zeros(heartbeat.n_frames)})

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    complete = write(tmp_path / "a", plan_of(modality))
    destroyed = {modality: replace(MODALITIES[modality], draw=without_hidden_truth)}
    monkeypatch.setattr(phantom_dataset, "MODALITIES", destroyed)
    blinded = write(tmp_path / "b", plan_of(modality))
    assert contents(complete) == contents(blinded)
    assert facts(complete) != facts(blinded)


def test_the_truth_stays_out_of_every_folder_nnunet_reads(raw):
    folders = {name.split("/")[0] for name in contents(raw) if "/" in name}
    assert folders == {"imagesTr", "labelsTr", "imagesTs", "labelsTs"}
    assert {name for name in contents(raw) if "/" not in name} == {
        "dataset.json",
        "sequences.json",
        "splits_final.json",
    }


def test_the_truth_covers_every_frame_on_the_grid_of_the_image(raw):
    manifest = Manifest.load(raw)
    truths = {path.name.removesuffix(".nii.gz") for path in (raw / TRUTH_FOLDER).glob("*.nii.gz")}
    assert truths == set(manifest)
    for case, sequence in manifest.items():
        side = "Ts" if sequence.study == "test000" else "Tr"
        image = nibabel.load(raw / f"images{side}" / f"{case}_0000.nii.gz")
        truth = nibabel.load(raw / TRUTH_FOLDER / f"{case}.nii.gz")
        assert truth.shape == image.shape == (32, 32, sequence.n_frames)
        assert np.array_equal(truth.affine, image.affine)


def test_the_facts_of_a_study_agree_with_one_another(raw):
    manifest = Manifest.load(raw)
    for name, entry in facts(raw).items():
        assert set(entry["cases"]) == {case for case, sequence in manifest.items() if sequence.study == name}
        assert entry["frame_interval_s"] == pytest.approx(entry["cycle_s"] / entry["frames_per_cycle"])
        assert all(len(volumes) == entry["n_frames"] for volumes in entry["volumes_ml"].values())
        ventricle = entry["volumes_ml"]["LV"]
        # Frames need not fall on ED and ES, so they show at most the whole ejection fraction.
        assert 0 < 100 * (1 - min(ventricle) / max(ventricle)) <= entry["ef_percent"] + 1e-9
        for case in entry["cases"]:
            assert manifest[case].frame_interval_s == pytest.approx(entry["frame_interval_s"])


def test_the_dataset_passes_the_check_before_planning(raw, monkeypatch):
    # nnU-Net lists files with 12 processes; threads do it in a tenth of the time.
    monkeypatch.setattr("nnunetv2.utilities.utils.Pool", multiprocessing.dummy.Pool)
    check_raw_dataset(raw)


def test_one_seed_repeats_bit_by_bit_and_two_seeds_differ(raw, tmp_path):
    modality = json.loads((raw / TRUTH_FOLDER / STUDIES_NAME).read_text())["plan"]["modality"]
    assert contents(write(tmp_path, plan_of(modality))) == contents(raw)
    other = contents(write(tmp_path, plan_of(modality, seed=1), overwrite=True))
    first = case_name("labelled000", *((4, None) if modality == "cine" else (None, "4CH")))
    assert other[f"imagesTr/{first}_0000.nii.gz"] != contents(raw)[f"imagesTr/{first}_0000.nii.gz"]


def test_more_studies_do_not_change_the_first_ones():
    few, many = plan_of(n_studies=2), plan_of(n_studies=9, n_unlabelled=5, n_test=3)
    for group in ("labelled", "unlabelled", "test"):
        one, two = (draw_study(plan, group, 0).sequences[4] for plan in (few, many))
        assert np.array_equal(one.image, two.image) and np.array_equal(one.truth, two.truth)


def test_no_two_studies_of_a_dataset_are_alike():
    plan = plan_of()
    places = [("labelled", 0), ("labelled", 1), ("unlabelled", 0), ("test", 0)]
    beats = [draw_study(plan, group, index).heartbeat.ef_percent for group, index in places]
    assert len(set(beats)) == 4


def test_whole_beats_are_cyclic_and_others_are_not():
    assert draw_study(plan_of(), "labelled", 0).cyclic
    assert not draw_study(plan_of(beats=(0.5, 0.8)), "labelled", 0).cyclic


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("modality", "CT", "--modality: found 'CT', expected one of cine, echo"),
        ("n_studies", 1, "-n: found 1, expected 2 or more"),
        ("n_unlabelled", -1, "--unlabelled: found -1, expected 0 or more"),
        ("n_test", -1, "--test: found -1, expected 0 or more"),
        ("size", 31, "--size: found 31, expected 32 or more"),
        ("lost_segment", True, "--lost-segment: found with --modality cine, possible with echo only"),
        ("seed", -1, "--seed: found -1, expected 0 or more"),
        ("frames_per_cycle", (4, 20), "--frames-per-cycle: found 4, expected 8 or more"),
        ("frames_per_cycle", (float("nan"), 20), "--frames-per-cycle: found nan, expected 8 or more"),
        ("beats", (0.2, 2), "--beats: found 0.2, expected 0.5 or more"),
        ("beats", (2, 1), "--beats: found 2 to 1, expected two rising numbers"),
        ("beats", (1, float("inf")), "--beats: found 1 to inf, expected two rising numbers"),
    ],
)
def test_impossible_plans_are_refused_in_words(field, value, message, tmp_path):
    with pytest.raises(InputError) as caught:
        write_phantom_dataset(replace(plan_of(), **{field: value}), info_of(), tmp_path)
    assert str(caught.value) == message
    assert not any(tmp_path.iterdir())


def test_an_existing_dataset_is_refused_before_anything_is_drawn(tmp_path, monkeypatch):
    (tmp_path / "Dataset009_Phantom").mkdir()
    monkeypatch.setattr(phantom_dataset, "draw_study", lambda *_: pytest.fail("a study was drawn"))
    with pytest.raises(InputError, match="exists already"):
        write(tmp_path, plan_of())


def test_overwriting_replaces_the_truth_as_well(tmp_path):
    write(tmp_path, plan_of(n_unlabelled=1))
    folder = write(tmp_path, plan_of(n_unlabelled=0), overwrite=True)
    assert not list((folder / TRUTH_FOLDER).glob("unlabelled*"))


def test_a_drawing_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("out of ink")

    monkeypatch.setattr(phantom_dataset, "draw_study", fail)
    with pytest.raises(RuntimeError, match="out of ink"):
        write(tmp_path, plan_of())
    assert not any(tmp_path.iterdir())
