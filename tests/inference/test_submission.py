import hashlib
import json
import shutil
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from acdc_layout import save_database, save_patient
from camus_files import PIXEL_MM, frames_of, save_camus, save_camus_mhd, save_split
from mnms_layout import mask_of, save_mnm2

from nnunet_temporal.cli import main
from nnunet_temporal.datasets.challenges import CHALLENGES
from nnunet_temporal.datasets.image_io import read_header, read_labels, write_sequence
from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.study import PREDICTION_ARGUMENTS, merge_studies
from nnunet_temporal.inference.submission import write_submission
from nnunet_temporal.sequences import MANIFEST_NAME, Manifest


def convert(kind, folder, raw, *words):
    assert main(["convert", kind, "-i", str(folder), "-d", "27", "--name", "X", *words]) == 0
    return raw / "Dataset027_X"


@pytest.fixture
def acdc(tmp_path, nnunet_folders):
    """Convert a database of two patients for training and two for testing; return it and the raw dataset."""
    database = save_database(tmp_path)
    save_patient(database / "testing" / "patient102", ed=4, es=2, size=(5, 7))
    return database, convert("acdc", database, nnunet_folders.raw)


@pytest.fixture
def masks(acdc, tmp_path):
    """Return perfect masks of both patients for testing, as a predict command leaves them."""
    folder = shutil.copytree(acdc[1] / "labelsTs", tmp_path / "masks")
    record = {"list_of_lists_or_source_folder": str(acdc[1] / "imagesTs")}
    (folder / PREDICTION_ARGUMENTS).write_text(json.dumps(record))
    shutil.copy(acdc[1] / "dataset.json", folder)
    return folder


def write(kind, masks, output, **options):
    return write_submission(masks, output, CHALLENGES[kind], **options)


def voxels(path):
    image = nibabel.load(path)
    return np.asanyarray(image.dataobj), image.header


def check_acdc(database, output, patient, **frames):
    for phase, frame in frames.items():
        found, header = voxels(output / f"{patient}_{phase}.nii.gz")
        expected, original = voxels(database / "testing" / patient / f"{patient}_frame{frame:02d}_gt.nii.gz")
        assert np.array_equal(found, expected) and found.dtype == np.uint8
        for field in ("pixdim", "sform_code", "qform_code", "srow_x", "srow_y", "srow_z"):
            assert np.array_equal(header[field], original[field])


def test_perfect_masks_of_acdc_become_its_own_files(acdc, masks, tmp_path):
    written = write("acdc", masks, tmp_path / "out")
    assert written == [f"patient10{n}_{phase}.nii.gz" for n in (1, 2) for phase in ("ED", "ES")]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == written
    check_acdc(acdc[0], tmp_path / "out", "patient101", ED=1, ES=3)
    check_acdc(acdc[0], tmp_path / "out", "patient102", ED=4, ES=2)


def test_merged_masks_give_the_same_bytes_in_the_same_zip(acdc, masks, tmp_path):
    merge_studies(masks, tmp_path / "merged")
    write("acdc", masks, tmp_path / "one", pack=True)
    write("acdc", tmp_path / "merged", tmp_path / "other", manifest=acdc[1] / MANIFEST_NAME, pack=True)
    digests = {hashlib.sha256((tmp_path / f"{name}.zip").read_bytes()).digest() for name in ("one", "other")}
    assert len(digests) == 1
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        assert archive.namelist()[0] == "patient101_ED.nii.gz" and len(archive.namelist()) == 4
        assert archive.read("patient101_ED.nii.gz") == (tmp_path / "one" / "patient101_ED.nii.gz").read_bytes()


def test_label_values_that_the_converter_changed_are_changed_back(tmp_path, nnunet_folders):
    database = save_database(tmp_path)
    raw = convert("acdc", database, nnunet_folders.raw, "--labels", "mnms")
    assert set(np.unique(read_labels(raw / "labelsTs" / "patient101_z00.nii.gz")[0])) == {0, 1, 2, 3}
    write("acdc", raw / "labelsTs", tmp_path / "out", manifest=raw / MANIFEST_NAME)
    check_acdc(database, tmp_path / "out", "patient101", ED=1, ES=3)


@pytest.mark.parametrize("words", [(), ("--labels", "acdc")])
def test_perfect_masks_of_mnms2_become_its_own_values_in_a_folder_per_patient(tmp_path, nnunet_folders, words):
    folder = save_mnm2(tmp_path)
    raw = convert("mnms2", folder, nnunet_folders.raw, *words)
    written = write("mnms2", raw / "labelsTs", tmp_path / "out", manifest=raw / MANIFEST_NAME)
    assert written == [f"201/201_{view}_{phase}_pred.nii.gz" for view in ("LA", "SA") for phase in ("ED", "ES")]
    for name in written:
        _, view, phase, _ = name.split("_")
        found, header = voxels(tmp_path / "out" / name)
        original = nibabel.load(folder / "dataset" / "201" / f"201_{view}_{phase}.nii.gz")
        assert np.array_equal(found, mask_of(phase == "ED", 2 if view == "SA" else 1))
        assert np.array_equal(header.get_sform(), original.header.get_sform())


@pytest.mark.parametrize("backwards", [False, True])
def test_perfect_masks_of_camus_become_metaimages(tmp_path, nnunet_folders, backwards):
    for part, name in (("training", "patient0001"), ("training", "patient0002"), ("testing", "patient0001")):
        save_camus_mhd(tmp_path / "camus" / part / name, backwards)
    raw = convert("camus_mhd", tmp_path / "camus", nnunet_folders.raw)
    written = write("camus", raw / "labelsTs", tmp_path / "out", manifest=raw / MANIFEST_NAME)
    assert written == [f"patient0001_{view}_{phase}.mhd" for view in ("2CH", "4CH") for phase in ("ED", "ES")]
    assert len(list((tmp_path / "out").glob("*.raw"))) == 4
    _, labels = frames_of("patient0001")
    for name in written:
        found = SimpleITK.ReadImage(str(tmp_path / "out" / name))
        own = SimpleITK.ReadImage(str(tmp_path / "camus" / "testing" / "patient0001" / name))
        assert np.array_equal(SimpleITK.GetArrayFromImage(found)[0], labels[0 if "ED" in name else 3])
        assert found.GetSpacing() == own.GetSpacing() == (PIXEL_MM, PIXEL_MM / 2, 1.54)
        assert found.GetOrigin() == own.GetOrigin() and found.GetPixelID() == SimpleITK.sitkUInt8


@pytest.mark.parametrize("backwards", [False, True])
def test_the_nifti_release_of_camus_is_written_as_metaimages_too(tmp_path, nnunet_folders, backwards):
    names = ("patient0001", "patient0002", "patient0003")
    for name in names:
        save_camus(tmp_path / "camus", name, backwards=backwards)
    save_split(tmp_path / "camus", *([name] for name in names))
    raw = convert("camus", tmp_path / "camus", nnunet_folders.raw)
    written = write("camus", raw / "labelsTs", tmp_path / "out", manifest=raw / MANIFEST_NAME)
    assert len(written) == 4
    for name in written:
        found = SimpleITK.ReadImage(str(tmp_path / "out" / name))
        labels = frames_of("patient0003")[1][0 if "ED" in name else -1]
        assert np.array_equal(SimpleITK.GetArrayFromImage(found)[0], labels)
        assert found.GetSpacing()[:2] == pytest.approx((PIXEL_MM, PIXEL_MM))


def fails(masks, output, **options):
    """Run, and return the message of an error that has left nothing behind."""
    before = {path: path.stat().st_mtime_ns for path in output.parent.rglob("*")}
    with pytest.raises(InputError) as error:
        write("acdc", masks, output, pack=True, **options)
    assert before == {path: path.stat().st_mtime_ns for path in output.parent.rglob("*")}
    return str(error.value)


@pytest.fixture
def output(tmp_path):
    (tmp_path / "here").mkdir()
    return tmp_path / "here" / "out"


def change_manifest(acdc, case, **fields):
    manifest = json.loads((acdc[1] / MANIFEST_NAME).read_text())
    manifest["sequences"][case].update(fields)
    (acdc[1] / MANIFEST_NAME).write_text(json.dumps(manifest))


def change_mask(masks, case, change, pixel_mm=None):
    path = masks / f"{case}.nii.gz"
    write_sequence(change(read_labels(path)), pixel_mm or read_header(path).spacing.pixel_mm, path)


def test_a_patient_without_es_is_named(acdc, masks, output):
    change_manifest(acdc, "patient102_z00", es=None)
    message = fails(masks, output)
    assert "patient102: the manifest does not say which frame is ES" in message and "patient101" not in message


def test_all_missing_patients_and_slices_are_listed(masks, output):
    (masks / "patient101_z01.nii.gz").unlink()
    for path in masks.glob("patient102*"):
        path.unlink()
    message = fails(masks, output)
    assert "2 inputs" in message and "patient101: found no masks patient101_z01.nii.gz in" in message
    assert "patient102: found no masks patient102_z00.nii.gz, patient102_z01.nii.gz" in message


def test_a_missing_patient_is_missed_in_merged_masks_too(acdc, masks, output, tmp_path):
    merge_studies(masks, tmp_path / "merged")
    (tmp_path / "merged" / "patient102.nii.gz").unlink()
    message = fails(tmp_path / "merged", output, manifest=acdc[1] / MANIFEST_NAME)
    assert message.startswith("patient102: found no masks")


def test_an_unknown_label_at_ed_is_named_and_elsewhere_does_not_matter(masks, output, tmp_path):
    write("acdc", masks, tmp_path / "out")  # frames without a mask carry the ignore label

    def change(mask):
        mask[0, 0, 0] = 4
        return mask

    change_mask(masks, "patient101_z01", change)
    assert fails(masks, output) == "patient101, ED: found label value 4, expected only [0, 1, 2, 3]"


def test_unreadable_masks_and_masks_of_other_grids_are_listed_together(masks, output):
    path = masks / "patient101_z00.nii.gz"
    path.write_bytes(path.read_bytes()[:-4])
    change_mask(masks, "patient102_z01", lambda mask: mask, pixel_mm=(9.0, 9.0))
    message = fails(masks, output)
    assert "patient101_z00.nii.gz: expected a readable NIfTI file" in message
    assert "patient102_z01.nii.gz: found pixels of (9.0, 9.0) mm" in message


def test_masks_of_another_shape_or_length_are_refused(masks, output):
    for z in (0, 1):
        change_mask(masks, f"patient101_z{z:02d}", lambda mask: mask[:-1])
        change_mask(masks, f"patient102_z{z:02d}", lambda mask: np.ascontiguousarray(mask.swapaxes(1, 2)))
    message = fails(masks, output)
    assert "patient101: found masks of 4 frames, expected 5" in message
    assert "found masks of (7, 5, 2) voxels (x, y, z), expected (5, 7, 2)" in message


def test_images_that_moved_are_found_in_the_named_folder_only(acdc, masks, output, tmp_path):
    moved = (acdc[0]).rename(tmp_path / "moved")
    message = fails(masks, output)
    assert "found 0 files patient101_frame01.nii.gz or patient101_frame01.nii, expected one" in message
    write("acdc", masks, output, images=moved / "testing")
    check_acdc(moved, output, "patient101", ED=1, ES=3)


def test_an_image_on_another_grid_than_the_masks_is_refused(acdc, masks, output, tmp_path):
    images = shutil.copytree(acdc[0] / "testing", tmp_path / "images")
    own = nibabel.load(images / "patient101" / "patient101_frame01.nii.gz")
    nibabel.save(own.slicer[:-1], images / "patient101" / "patient101_frame01.nii.gz")
    assert "found masks of (6, 5, 2) voxels (x, y, z), expected (5, 5, 2)" in fails(masks, output, images=images)


def test_existing_output_stays_as_it_is(masks, output, monkeypatch):
    output.mkdir()
    assert "exists already" in fails(masks, output)
    output.rmdir()
    monkeypatch.chdir(output.parent)
    assert "exists already" in fails(masks, Path())
    output.with_name("out.zip").write_text("")
    assert "out.zip: exists already" in fails(masks, output)


def test_masks_without_manifest_or_label_names_say_where_these_come_from(masks, acdc, output):
    (masks / "dataset.json").unlink()
    (acdc[1] / "dataset.json").unlink()
    assert "copy that of the model beside the masks" in fails(masks, output)
    (masks / PREDICTION_ARGUMENTS).unlink()
    assert f"found no {MANIFEST_NAME} there" in fails(masks, output)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"background": 0, "LV": 1, "ignore": 2}, "expected also MYO, RV"),
        ({"background": 0, "heart": [1, 2, 3], "LV": 3}, "regions are not supported"),
    ],
)
def test_a_model_of_other_structures_is_refused(masks, output, labels, message):
    (masks / "dataset.json").write_text(json.dumps({"labels": labels}))
    assert message in fails(masks, output)


def test_masks_that_are_unknown_or_there_twice_are_refused(masks, acdc, output, tmp_path):
    merge_studies(masks, tmp_path / "merged")
    shutil.copy(tmp_path / "merged" / "patient101.nii.gz", masks)
    assert "found masks of its slices beside it" in fails(masks, output)
    (masks / "patient101.nii.gz").rename(masks / "somebody.nii.gz")
    assert "found masks that the manifest does not know: somebody.nii.gz" in fails(masks, output)
    for path in masks.glob("*.nii.gz"):
        path.unlink()
    assert "found no masks" in fails(masks, output)


def test_two_patients_of_camus_with_one_name_are_not_mixed(tmp_path, nnunet_folders, output):
    for part, name in (("training", "patient0001"), ("training", "patient0002"), ("testing", "patient0001")):
        save_camus_mhd(tmp_path / "camus" / part / name)
    raw = convert("camus_mhd", tmp_path / "camus", nnunet_folders.raw)
    masks = shutil.copytree(raw / "labelsTs", tmp_path / "masks")
    shutil.copytree(raw / "labelsTr", masks, dirs_exist_ok=True)
    assert len(Manifest.load(raw)) == len(list(masks.iterdir())) == 6
    with pytest.raises(InputError, match="'patient0001' and 'testing_patient0001' both lead to patient0001_2CH"):
        write("camus", masks, output, manifest=raw / MANIFEST_NAME)
    assert not output.exists()
