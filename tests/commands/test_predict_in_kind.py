"""``predict`` on NRRD, MetaImage, videos and DICOM: each is answered in kind, past broken files and interruptions."""

import contextlib
import io

import numpy as np
import pydicom
import pytest
import SimpleITK
from dicom_layout import save_cine, save_clip
from echo_layouts import save_video
from nifti_movies import save_nifti
from phantom_dataset import movie
from trained_models import write_model

from nnunet_temporal.cli import main
from nnunet_temporal.datasets.image_io import read_labels
from nnunet_temporal.datasets.movie_io import read_movie
from nnunet_temporal.datasets.video_io import read_frames
from nnunet_temporal.trainers.gdkvm import nnUNetTrainerGDKVM

FRAMES = 4
STACK = movie(FRAMES, 1)  # (T, Z, Y, X)
STORED = np.clip(STACK, 0, 255).astype(np.uint8)
SPACING = (1.5, 1.25, 8.0, 40.0)


@pytest.fixture
def model(nnunet_folders):
    """Write a model."""
    folder = nnunet_folders.results / "Dataset777_Phantom" / "nnUNetTrainerGDKVM__plans__2dt"
    return write_model(folder, nnUNetTrainerGDKVM)


@pytest.fixture
def work(model, tmp_path):
    """Return a folder beside the model, with the same movie as NIfTI, predicted."""
    save_nifti(tmp_path / "nifti" / "a.nii.gz", STORED.T, SPACING)
    code, printed = predict(tmp_path / "nifti", tmp_path / "expected")
    assert code == 0 and "Remarks" not in printed, printed
    return tmp_path


def predict(source, output, *words):
    """Run the command on the CPU; return the exit code and what it printed on both channels."""
    words = ("-d", 777, "-tr", "nnUNetTrainerGDKVM", "-p", "plans", "-device", "cpu", *words)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        code = main(["predict", "-i", str(source), "-o", str(output), *map(str, words)])
    return code, printed.getvalue()


def expected(work):
    masks = read_labels(work / "expected" / "a.nii.gz")
    assert len(np.unique(masks)) > 1
    return masks


def save_itk(path, spacing=SPACING):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(STORED, isVector=False)
    image.SetSpacing(spacing)
    SimpleITK.WriteImage(image, str(path))
    return path


def shown(page):
    """Return the number of studies on a page."""
    return page.read_text(encoding="utf-8").count('<article class="study"')


def written(output):
    names = {path.name for path in output.iterdir()} - {"dataset.json", "plans.json", "predicted_by.json"}
    masks = {name.removesuffix(".nii.gz") for name in names if name.endswith(".nii.gz")}
    assert {name.removesuffix("_confidence.csv") for name in names if name.endswith("_confidence.csv")} == masks
    return {name for name in names if not name.endswith("_confidence.csv")}


def test_nrrd_and_metaimage_get_the_masks_that_nifti_gets(work):
    for name in ("a.nrrd", "b.mha"):
        save_itk(work / "movies" / name)
    code, printed = predict(work / "movies", work / "out", "--report", work / "page.html")
    assert code == 0 and "2 files predicted" in printed, printed
    assert "Remarks" not in printed and shown(work / "page.html") == 2
    assert written(work / "out") == {"a.nrrd", "a.nii.gz", "b.mha", "b.nii.gz"}
    for name in ("a.nii.gz", "b.nii.gz"):
        assert np.array_equal(read_labels(work / "out" / name), expected(work))
    for name in ("a.nrrd", "b.mha"):
        assert np.array_equal(read_movie(work / "out" / name)[0], expected(work))


def test_a_broken_movie_stops_nobody_and_a_later_call_adds_what_is_missing(work):
    for name in ("a.mha", "b.mha", "c.mha"):
        save_itk(work / "movies" / name, (1.0,) * 4)
    whole = (work / "movies" / "b.mha").read_bytes()
    (work / "movies" / "b.mha").write_bytes(whole[:-100])
    code, printed = predict(work / "movies", work / "out")
    assert code == 1
    assert "2 files predicted" in printed and "1 could not be predicted" in printed and "b.mha: found" in printed
    assert "a, c: predicted without knowing the size of a pixel" in printed
    assert written(work / "out") == {"a.mha", "a.nii.gz", "c.mha", "c.nii.gz"}
    (work / "movies" / "b.mha").write_bytes(whole)
    before = (work / "out" / "a.nii.gz").stat().st_mtime_ns
    code, printed = predict(work / "movies", work / "out", "--continue_prediction")
    assert code == 0 and "1 files predicted" in printed and "b: predicted without" in printed
    assert (work / "out" / "a.nii.gz").stat().st_mtime_ns == before


def test_videos_get_a_video_of_labels_and_an_overlay_and_remarks(model, tmp_path):
    pytest.importorskip("av")
    save_video(tmp_path / "movies" / "a.avi", STORED[:, 0], 25, "ffv1", "gray")
    colours = np.repeat(STORED[:, 0, ..., None], 3, -1)
    colours[:, :12, :12, 2] = 0
    save_video(tmp_path / "movies" / "flow.mp4", colours, 25, "png", "rgb24")
    (tmp_path / "movies" / "broken.avi").write_bytes((tmp_path / "movies" / "a.avi").read_bytes()[:900])
    save_nifti(tmp_path / "nifti" / "a.nii.gz", STORED[:, 0].T, (1.0, 1.0, 1.0))
    assert predict(tmp_path / "nifti", tmp_path / "expected")[0] == 0
    code, printed = predict(tmp_path / "movies", tmp_path / "out", "--report", tmp_path / "page.html")
    assert code == 1 and "2 files predicted" in printed and "broken.avi: " in printed, printed
    assert shown(tmp_path / "page.html") == 2
    files = {f"{name}{ending}" for name in ("a", "flow") for ending in (".nii.gz", "_masks.avi", "_overlay.gif")}
    assert written(tmp_path / "out") == files
    masks = read_labels(tmp_path / "out" / "a.nii.gz")
    assert np.array_equal(masks, expected(tmp_path))
    assert np.array_equal(read_frames(tmp_path / "out" / "a_masks.avi"), masks)
    assert "a, flow: predicted without knowing the size of a pixel" in printed
    assert "- flow: seems to be colour Doppler" in printed


def test_dicom_gets_a_dicom_seg_and_one_faulty_patient_stops_no_other(work):
    place = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [1.25, 1.5]}
    save_cine(work / "dicom" / "P1", STORED.astype(np.int16), **place)
    save_clip(work / "dicom" / "P2" / "clip", STORED[:, 0], [], PatientID="P2", StudyInstanceUID="1.2.9")
    (work / "dicom" / "P3").mkdir()
    (work / "dicom" / "P3" / "x.dcm").write_bytes(b"no DICOM")
    code, printed = predict(work / "dicom", work / "out", "--continue_prediction")
    assert code == 1 and "2 files predicted" in printed and "x.dcm: expected a DICOM file" in printed, printed
    assert "P2: predicted without knowing the size of a pixel" in printed
    assert written(work / "out") == {"P1.dcm", "P1.nii.gz", "P2.dcm", "P2.nii.gz"}
    assert np.array_equal(read_labels(work / "out" / "P1.nii.gz"), expected(work))
    seg = pydicom.dcmread(work / "out" / "P1.dcm")
    bits = seg.pixel_array.reshape(2, 2, FRAMES, 40, 36).swapaxes(1, 2)
    assert np.array_equal(bits[0] + 2 * bits[1], expected(work))
    done = {path.name: path.stat().st_mtime_ns for path in (work / "out").glob("*.*")}
    (work / "dicom" / "P3" / "x.dcm").unlink()
    code, printed = predict(work / "dicom", work / "out", "--continue_prediction", "--report", work / "page.html")
    assert code == 0 and "0 files predicted" in printed and shown(work / "page.html") == 2, printed
    assert all((work / "out" / name).stat().st_mtime_ns == time for name, time in done.items() if "P" in name)


def test_one_file_may_be_named(work):
    save_itk(work / "a.nrrd")
    assert predict(work / "a.nrrd", work / "out")[0] == 0
    assert written(work / "out") == {"a.nrrd", "a.nii.gz"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--seed", "auto"), "--seed: found a.mha, expected movies in NIfTI"),
        (("--save_probabilities",), "there are files for those of sequences only"),
    ],
)
def test_what_is_not_for_these_movies_is_refused(words, message, model, tmp_path):
    save_itk(tmp_path / "movies" / "a.mha")
    code, printed = predict(tmp_path / "movies", tmp_path / "out", *words)
    assert code == 2 and message in printed


def test_kinds_are_not_mixed(model, tmp_path):
    save_itk(tmp_path / "movies" / "a.mha")
    save_nifti(tmp_path / "movies" / "b.nii.gz", STORED.T)
    code, printed = predict(tmp_path / "movies", tmp_path / "out")
    assert code == 2 and "predict them from separate folders" in printed


@pytest.mark.slow
def test_workers_write_what_one_process_does(work, monkeypatch):
    save_cine(work / "dicom", STORED.astype(np.int16))
    monkeypatch.chdir(work)
    assert predict("dicom", "here")[0] == 0
    code, printed = predict("dicom", "there", "--engine", "dask", "--workers", 1)
    assert code == 0 and "1 files predicted" in printed, printed
    assert written(work / "here") == written(work / "there") == {"P1.dcm", "P1.nii.gz"}
    here, there = (read_labels(work / place / "P1.nii.gz") for place in ("here", "there"))
    assert np.mean(here != there) < 1e-3  # other numbers of threads round otherwise
