"""Images without a label file: what is written for them, when not, and where they go in the folds."""

import json
import multiprocessing.dummy
import shutil

import nibabel
import numpy as np
import pytest
import SimpleITK
import tifffile
from nnunetv2.experiment_planning import verify_dataset_integrity
from phantom_dataset import write_phantom

from nnunet_temporal.datasets.integrity import check_raw_dataset
from nnunet_temporal.datasets.unlabelled import extend_splits, label_unlabelled_images
from nnunet_temporal.errors import InputError
from nnunet_temporal.sequences import MANIFEST_NAME, Manifest, Sequence, check_splits, study_splits

NEW = ("study_e_z00", "study_e_z01")


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """Write the phantom's raw dataset and add a study without any label file, and without a manifest."""
    # nnU-Net lists files with 12 processes; threads do it in a tenth of the time.
    monkeypatch.setattr("nnunetv2.utilities.utils.Pool", multiprocessing.dummy.Pool)
    raw = write_phantom(tmp_path)
    for case, source in zip(NEW, ("study_b_z00", "study_b_z01"), strict=True):
        shutil.copy(raw / "imagesTr" / f"{source}_0000.nii.gz", raw / "imagesTr" / f"{case}_0000.nii.gz")
    (raw / MANIFEST_NAME).unlink()
    return raw


def dataset_json(raw, **entries):
    """Replace entries of dataset.json and return it; None removes one."""
    path = raw / "dataset.json"
    content = {**json.loads(path.read_text()), **entries}
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))
    return json.loads(path.read_text())


def label_of(raw, case):
    return raw / "labelsTr" / f"{case}.nii.gz"


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_image_without_a_label_gets_an_all_ignore_one_on_its_grid(raw):
    image = SimpleITK.ReadImage(raw / "imagesTr" / "study_e_z00_0000.nii.gz")
    image.SetOrigin((3.0, -4.0, 5.0))
    SimpleITK.WriteImage(image, raw / "imagesTr" / "study_e_z00_0000.nii.gz")
    label_unlabelled_images(raw)
    label = SimpleITK.ReadImage(label_of(raw, "study_e_z00"))
    assert (SimpleITK.GetArrayFromImage(label) == 3).all()
    for read in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert np.allclose(getattr(label, read)(), getattr(image, read)())


def test_other_files_stay_as_they_are_and_nothing_else_is_left(raw):
    before = contents(raw)
    label_unlabelled_images(raw)
    after = contents(raw)
    new = {label_of(raw, case) for case in NEW}
    assert set(after) == set(before) | new
    assert {path for path in before if before[path] != after[path]} == {raw / "dataset.json"}
    assert not list(raw.rglob(".partial_*"))


def test_what_was_written_is_told_with_counts(raw):
    lines = label_unlabelled_images(raw)
    assert lines[0].endswith("dataset.json: numTraining is 10 now, was 8")
    assert lines[1].endswith("labelsTr: 2 all-ignore labels for images without: study_e_z00, study_e_z01")


def test_a_second_run_writes_nothing(raw):
    label_unlabelled_images(raw)
    before = contents(raw)
    assert label_unlabelled_images(raw) == []
    assert contents(raw) == before


def test_a_dataset_without_an_ignore_label_gets_one_above_its_labels(raw):
    for path in (raw / "labelsTr").iterdir():
        image = nibabel.load(path)
        nibabel.save(nibabel.Nifti1Image(np.minimum(np.asanyarray(image.dataobj), 2), image.affine), path)
    dataset_json(raw, labels={"background": 0, "LV": 1, "MYO": 2})
    assert any("added the label 'ignore', 3" in line for line in label_unlabelled_images(raw))
    assert dataset_json(raw)["labels"] == {"background": 0, "LV": 1, "MYO": 2, "ignore": 3}
    manifest = check_raw_dataset(raw)
    assert [manifest[case].labelled_frames for case in NEW] == [(), ()]
    assert manifest["study_a_z00"].labelled_frames == tuple(range(8))


def test_the_ignore_label_of_regions_is_above_all_their_values(raw):
    dataset_json(raw, labels={"background": 0, "heart": [1, 2], "LV": [1]}, regions_class_order=[2, 1])
    label_unlabelled_images(raw)
    assert dataset_json(raw)["labels"] == {"background": 0, "heart": [1, 2], "LV": [1], "ignore": 3}
    assert (np.asanyarray(nibabel.load(label_of(raw, NEW[0])).dataobj) == 3).all()


def test_a_dataset_whose_images_all_have_labels_is_left_alone(raw):
    for case in NEW:
        (raw / "imagesTr" / f"{case}_0000.nii.gz").unlink()
    dataset_json(raw, labels={"background": 0, "LV": 1, "MYO": 2})
    before = contents(raw)
    assert label_unlabelled_images(raw) == [] and contents(raw) == before


def test_nnunets_own_check_passes_afterwards(raw, monkeypatch):
    monkeypatch.setattr(verify_dataset_integrity.multiprocessing, "get_context", lambda method: multiprocessing.dummy)
    label_unlabelled_images(raw)
    verify_dataset_integrity.verify_dataset_integrity(str(raw), 1)


def test_a_dataset_without_any_label_file_is_refused_and_left_alone(raw):
    for path in (raw / "labelsTr").iterdir():
        path.unlink()
    before = contents(raw)
    with pytest.raises(InputError, match="none of its 10 training images has a label file"):
        label_unlabelled_images(raw)
    assert contents(raw) == before


def test_a_label_file_that_the_manifest_counts_on_is_missed_before_anything_is_written(raw):
    entries = {case: Sequence(case, "e", 6, (0, 3) if case == NEW[1] else (), slice=z) for z, case in enumerate(NEW)}
    known = {path.name.removesuffix(".nii.gz") for path in (raw / "labelsTr").iterdir()}
    Manifest({**entries, **{case: Sequence(case, case, 8, (0,)) for case in known}}).write(raw / MANIFEST_NAME)
    before = contents(raw)
    with pytest.raises(InputError, match=r"study_e_z01\.nii\.gz is missing: sequences\.json calls frames \[0, 3\]"):
        label_unlabelled_images(raw)
    assert contents(raw) == before


def test_a_broken_link_is_no_image_without_labels(raw):
    label_of(raw, NEW[0]).symlink_to(raw / "elsewhere.nii.gz")
    with pytest.raises(InputError, match=r"study_e_z00\.nii\.gz is missing: it links to .*elsewhere"):
        label_unlabelled_images(raw)


@pytest.mark.parametrize("function", ["tempfile.mkstemp", "tempfile.mkdtemp"])
def test_a_folder_that_cannot_be_written_to_is_named(raw, monkeypatch, function):
    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(function, refuse)
    with pytest.raises(InputError, match=r"Dataset777_Phantom: 2 training images .* Permission denied.* writable"):
        label_unlabelled_images(raw)


def test_all_images_that_cannot_be_read_are_named(raw):
    for case in NEW:
        (raw / "imagesTr" / f"{case}_0000.nii.gz").write_bytes(b"")
    with pytest.raises(InputError) as raised:
        label_unlabelled_images(raw)
    assert all(f"{case}_0000.nii.gz" in str(raised.value) for case in NEW)
    assert not label_of(raw, NEW[0]).exists()


def test_an_unsplit_4d_image_is_named_with_what_to_do(raw):
    path = raw / "imagesTr" / f"{NEW[0]}_0000.nii.gz"
    pixels = np.asanyarray(nibabel.load(path).dataobj)
    nibabel.save(nibabel.Nifti1Image(np.stack([pixels] * 3, 2), np.eye(4)), path)
    with pytest.raises(InputError, match=r"study_e_z00_0000\.nii\.gz: .*split"):
        label_unlabelled_images(raw)


def test_a_label_that_cannot_be_written_is_named_and_nothing_is_left(raw, monkeypatch):
    def run_full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nnunetv2.imageio.simpleitk_reader_writer.SimpleITKIO.write_seg", run_full)
    with pytest.raises(InputError, match=r"labelsTr/study_e_z00\.nii\.gz: cannot be written: .*No space left"):
        label_unlabelled_images(raw)
    assert not [path for path in (raw / "labelsTr").iterdir() if path.name.startswith((".partial", "study_e"))]


def test_a_format_whose_spacing_lies_beside_the_label_gets_that_too(tmp_path):
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
    for case in "ab":
        tifffile.imwrite(
            tmp_path / "imagesTr" / f"{case}_0000.tif", np.zeros((6, 4, 5), np.float32), photometric="minisblack"
        )
        (tmp_path / "imagesTr" / f"{case}.json").write_text('{"spacing": [10.0, 1.5, 1.25]}')
    tifffile.imwrite(tmp_path / "labelsTr" / "a.tif", np.ones((6, 4, 5), np.uint8), photometric="minisblack")
    content = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "LV": 1}, "numTraining": 1}
    content |= {"file_ending": ".tif", "overwrite_image_reader_writer": "Tiff3DIO"}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    label_unlabelled_images(tmp_path)
    assert (tifffile.imread(tmp_path / "labelsTr" / "b.tif") == 2).all()
    assert json.loads((tmp_path / "labelsTr" / "b.json").read_text())["spacing"] == [10.0, 1.5, 1.25]


def manifest_of(*entries):
    """Describe sequences by (study, slice, whether labelled)."""
    sequences = [Sequence(f"{s}_z{z:02d}", s, 8, (0,) if labelled else (), slice=z) for s, z, labelled in entries]
    return Manifest({sequence.case: sequence for sequence in sequences})


def test_sequences_that_no_fold_knows_are_trained_on_with_their_study():
    old = manifest_of(("a", 0, True), ("b", 0, True), ("c", 0, True))
    manifest = Manifest({**old, **manifest_of(("a", 1, False), ("d", 0, False), ("d", 1, False))})
    before = study_splits(old)
    extended = extend_splits(before, manifest)
    check_splits(extended, manifest)
    for fold, others in zip(extended, before, strict=True):
        validates_a = "a_z00" in fold["val"]
        assert fold["val"] == others["val"]
        assert fold["train"] == others["train"] + ([] if validates_a else ["a_z01"]) + ["d_z00", "d_z01"]


def test_a_study_that_a_fold_leaves_out_stays_out_of_it():
    manifest = manifest_of(("a", 0, True), ("b", 0, True), ("c", 0, True), ("c", 1, False))
    splits = [{"train": ["a_z00"], "val": ["b_z00"]}, {"train": ["a_z00", "c_z00"], "val": ["b_z00"]}]
    extended = extend_splits(splits, manifest)
    assert [fold["train"] for fold in extended] == [["a_z00"], ["a_z00", "c_z00", "c_z01"]]


def test_labelled_sequences_and_those_a_fold_knows_are_not_added():
    manifest = manifest_of(("a", 0, True), ("b", 0, True), ("c", 0, True), ("d", 0, False))
    splits = [{"train": ["a_z00", "d_z00"], "val": ["b_z00"]}, {"train": ["b_z00"], "val": ["a_z00"]}]
    assert extend_splits(splits, manifest) == splits
