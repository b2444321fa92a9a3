import json
import sys
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from dicom_layout import MR, change, cine_pixels, clip_pixels, dataset_of, plane_of, save, save_cine, save_clip

import nnunet_temporal.demo_data
from nnunet_temporal.datasets.dicom_io import find_movies
from nnunet_temporal.errors import InputError

DATA = Path(__file__).resolve().parent.parent / "data"
DEMO_DATA = Path(nnunet_temporal.demo_data.__file__).parent


def test_a_real_cine_equals_the_nifti_that_others_made_of_it_voxel_by_voxel():
    (movie,) = find_movies(DATA / "sunnybrook_dicom").movies
    x, y = json.loads((DEMO_DATA / "SC-HF-I-4.json").read_text())["crop_xy0"]
    # The DICOM files are cut to start at column 68 and row 61, and are slice 3 of the stack.
    left, top = x - 68, y - 61
    nifti = nibabel.load(DEMO_DATA / "SC-HF-I-4_cine.nii.gz")
    image = movie.load_image()[..., top : top + 96, left : left + 96]
    assert np.array_equal(image[:, 0], np.asarray(nifti.dataobj)[:, :, 3].T)
    assert movie.spacing.frame_s == pytest.approx(0.046) and movie.cyclic
    corner = (movie.affine @ [left, top, 0, 1])[:3]
    assert corner == pytest.approx((nifti.affine @ [0, 0, 3, 1])[:3], abs=1e-3)
    assert movie.affine[:3, :2] == pytest.approx(nifti.affine[:3, :2], abs=1e-4)


def test_a_real_echo_clip_equals_its_nifti_but_for_colour():
    (movie,) = find_movies(DATA / "echo_a4c").movies
    expected = np.asarray(nibabel.load(DATA / "echo_a4c" / "a4c_gray_frames_0_14_29.nii.gz").dataobj).T
    # The NIfTI holds the mean of red, green and blue, which luma equals on grey pixels only; decoders round on top.
    difference = np.abs(movie.load_image()[[0, 14, 29]] - expected)
    assert movie.shape == (30, 240, 320)
    assert difference.mean() < 0.3 and np.percentile(difference, 99) < 4 and difference.max() < 12
    # The clip was exported at reduced size: its region lies beyond the pixels, and so its spacing is not theirs.
    assert not movie.spacing.pixel_known and movie.spacing.frame_s == pytest.approx(0.033333)


def test_movies_are_found_in_folders_whatever_the_files_are_called(tmp_path):
    save_clip(tmp_path / "A" / "B" / "no_ending", PatientID="A", StudyInstanceUID="1.5")
    save_cine(tmp_path / "C")
    (tmp_path / "notes.txt").write_text("no DICOM")
    (tmp_path / ".hidden.dcm").write_text("no DICOM")
    found = find_movies(tmp_path)
    assert [(movie.patient_id, movie.is_stack) for movie in found.movies] == [("A", False), ("P1", True)]
    assert found.left_out == ()


def test_what_is_no_movie_is_left_out_by_name(tmp_path):
    save_cine(tmp_path)
    pixels = cine_pixels()[0]
    for z in range(3):
        facts = {"SeriesInstanceUID": "1.2.3.1", "SOPInstanceUID": f"1.2.3.1.{z}"}
        save(plane_of(pixels[z], 0, z, **facts), tmp_path / f"localiser{z}.dcm")
    save(dataset_of("1.2.840.10008.5.1.4.1.1.7", "1.8", pixels[0]), tmp_path / "screen.dcm")
    found = find_movies(tmp_path)
    assert len(found.movies) == 1
    assert [line.removeprefix(f"{tmp_path}/") for line in found.left_out] == [
        "localiser0.dcm: MR Image Storage, no movie",
        "localiser1.dcm: MR Image Storage, no movie",
        "localiser2.dcm: MR Image Storage, no movie",
        "screen.dcm: Secondary Capture Image Storage, no movie",
    ]


def test_a_clip_of_one_frame_is_no_movie(tmp_path):
    save_cine(tmp_path)
    save_clip(tmp_path / "still.dcm", clip_pixels(1))
    assert find_movies(tmp_path).left_out == (
        f"{tmp_path / 'still.dcm'}: Ultrasound Multi-frame Image Storage, no movie",
    )


def test_a_table_of_contents_is_passed_over(tmp_path):
    save_cine(tmp_path)
    contents = pydicom.Dataset()
    contents.file_meta = pydicom.dataset.FileMetaDataset()
    contents.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    contents.file_meta.MediaStorageSOPInstanceUID = "1.2.9"
    contents.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    save(contents, tmp_path / "DICOMDIR")
    assert find_movies(tmp_path).left_out == ()


def test_without_pydicom_the_message_says_how_to_get_it(tmp_path, monkeypatch):
    save_cine(tmp_path)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(InputError, match=r"pip install 'nnunet_temporal\[dicom\]'") as error:
        find_movies(tmp_path)
    assert str(error.value).count("pip install") == 1


def test_a_folder_without_movies_is_refused(tmp_path):
    save(plane_of(cine_pixels()[0, 0], 0, 0), tmp_path / "one.dcm")
    with pytest.raises(InputError, match=r"found no movie among 1 DICOM files.*one\.dcm: MR Image Storage"):
        find_movies(tmp_path)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        find_movies(tmp_path / "nowhere")


def test_all_bad_files_are_listed(tmp_path):
    save_clip(tmp_path / "good.dcm")
    for name in ("a.dcm", "b.dcm"):
        (tmp_path / name).write_text("no DICOM")
    with pytest.raises(InputError, match=r"2 inputs[^$]*a\.dcm: expected a DICOM file[^$]*b\.dcm: "):
        find_movies(tmp_path)


def test_all_bad_series_are_listed(tmp_path):
    for patient in ("1", "2"):
        files = save_cine(tmp_path / patient, StudyInstanceUID=f"1.4.{patient}", SeriesInstanceUID=f"1.4.{patient}.9")
        files[1, 1].unlink()
    with pytest.raises(InputError, match=r"2 inputs[^$]*series 1\.4\.1\.9 [^$]*series 1\.4\.2\.9 "):
        find_movies(tmp_path)


def test_views_without_numbers_are_counted(tmp_path):
    for name, uid in (("a", "1.8.2"), ("b", "1.8.1")):
        change(save_clip(tmp_path / f"{name}.dcm", SOPInstanceUID=uid), SeriesNumber=None, InstanceNumber=None)
    views = {movie.view: movie.frames[0][0].path.name for movie in find_movies(tmp_path).movies}
    assert views == {"s0i0n1": "b.dcm", "s0i0n2": "a.dcm"}


def test_a_uid_that_breaks_the_rules_is_read_without_a_warning(tmp_path, recwarn):
    save_cine(tmp_path, SeriesInstanceUID="1.2.3.04")
    recwarn.clear()
    (movie,) = find_movies(tmp_path).movies
    movie.load_image()
    assert movie.frames[0][0].series_uid == "1.2.3.04" and movie.frames[0][0].sop_class_uid == MR
    assert not recwarn.list
