"""Jobs on movies in other formats than NIfTI, with masks made up: what is found, and what is written."""

import pickle
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
from dicom_layout import change, clip_pixels, save_cine, save_clip
from echo_layouts import save_video
from nifti_movies import save_nifti
from PIL import Image, ImageSequence
from trained_models import DATASET, REGIONS

from nnunet_temporal.datasets.dicom import find_studies
from nnunet_temporal.datasets.image_io import read_header, read_labels
from nnunet_temporal.datasets.movie_io import movie_header, read_movie
from nnunet_temporal.datasets.video_io import read_frames
from nnunet_temporal.datasets.video_io import read_header as video_header
from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.dicom_jobs import FaultyJob, structure_values
from nnunet_temporal.inference.prediction_jobs import find_jobs
from nnunet_temporal.inference.sequence_predictor import Prediction

DATA = Path(__file__).resolve().parent.parent / "data"
MODEL = SimpleNamespace(dataset=DATASET, labels=SimpleNamespace(foreground_labels=[1, 2]))
MOVIE = np.random.default_rng(0).integers(-50, 1000, (5, 2, 4, 3)).astype(np.int16)  # (T, Z, Y, X)
OBLIQUE = [0.8, -0.6, 0, 0, 0.6, 0.8, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]


def save_itk(path, pixels=MOVIE, compressed=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(pixels, isVector=False)
    image.SetSpacing((1.5, 1.25, 8.0, 40.0)[: pixels.ndim])
    image.SetOrigin((-7.0, 3.5, 11.0, 0.0)[: pixels.ndim])
    if pixels.ndim == 4:
        image.SetDirection(OBLIQUE)
    SimpleITK.WriteImage(image, str(path), useCompression=compressed)
    return path


def grid(path):
    image = SimpleITK.ReadImage(str(path))
    return image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection()


def found(source, output):
    output.mkdir(exist_ok=True)
    return find_jobs(source, output, ".nii.gz")


def answered(job):
    """Write masks that no two pixels' neighbours share; return them, (T, Z, Y, X) or (T, Y, X)."""
    reading = job.read(MODEL)
    generator = np.random.default_rng(1)
    masks = {z: generator.integers(0, 3, image.shape[1:]).astype(np.uint8) for z, image in reading.images.items()}
    job.write(MODEL, reading, {z: Prediction(mask, None) for z, mask in masks.items()})
    assert job.is_done(False) and all(file.is_file() for file in job.outputs)
    return masks[None] if None in masks else np.stack([masks[z] for z in range(len(masks))], axis=1)


@pytest.mark.parametrize("pixels", [MOVIE, MOVIE[:, 0]], ids=["4D", "3D"])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(("ending", "answer"), [(".nrrd", ".nrrd"), (".mha", ".mha"), (".mhd", ".mha")])
def test_masks_lie_where_their_movie_lies(tmp_path, pixels, compressed, ending, answer):
    movie = save_itk(tmp_path / "in" / f"a{ending}", pixels, compressed)
    (job,) = found(tmp_path / "in", tmp_path / "out")
    masks = answered(job)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.nii.gz", f"a{answer}"}
    assert grid(tmp_path / "out" / f"a{answer}") == grid(movie)
    assert np.array_equal(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "out" / f"a{answer}"))), masks)
    assert np.array_equal(read_movie(tmp_path / "out" / f"a{answer}")[0], masks)
    assert np.array_equal(read_labels(tmp_path / "out" / "a.nii.gz"), masks)
    assert read_header(tmp_path / "out" / "a.nii.gz").spacing.pixel_mm == (1.25, 1.5)
    assert pixels.ndim == 3 or read_header(tmp_path / "out" / "a.nii.gz").spacing.slice_mm == 8.0


def test_more_than_255_labels_are_kept(tmp_path):
    for ending in (".nrrd", ".mha"):
        save_itk(tmp_path / ending / f"a{ending}")
        (job,) = found(tmp_path / ending, tmp_path / "out")
        reading = job.read(MODEL)
        masks = np.full((5, 4, 3), 300, np.uint16)
        job.write(MODEL, reading, {z: Prediction(masks + z, None) for z in (0, 1)})
        expected = np.stack([masks, masks + 1], axis=1)
        assert np.array_equal(read_movie(tmp_path / "out" / f"a{ending}")[0], expected)
        assert np.array_equal(read_labels(tmp_path / "out" / "a.nii.gz"), expected)


def test_a_nrrd_whose_first_axis_is_time_is_answered_so_with_its_notes(tmp_path):
    fields = [
        "NRRD0005", "# a comment", "type: short", "dimension: 4", "sizes: 5 3 4 2", "endian: big", "encoding: raw",
        "kinds: list domain domain domain", "space: left-posterior-superior",
        "space directions: none (1.5,0,0) (0,1.25,0) (0,0,8)", "space origin: (1,2,3)", "type:=a note",
    ]  # fmt: skip
    stored = np.ascontiguousarray(np.moveaxis(MOVIE, 0, -1)).astype(">i2")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.nrrd").write_bytes("\n".join(fields).encode() + b"\n\n" + stored.tobytes())
    (job,) = found(tmp_path / "in", tmp_path / "out")
    masks = answered(job)
    assert np.array_equal(read_movie(tmp_path / "out" / "a.nrrd")[0], masks)
    assert movie_header(tmp_path / "out" / "a.nrrd").spacing == movie_header(tmp_path / "in" / "a.nrrd").spacing
    lines = (tmp_path / "out" / "a.nrrd").read_bytes().split(b"\n\n")[0].decode().split("\n")
    assert set(fields) - set(lines) == {"type: short", "endian: big", "encoding: raw"}


@pytest.mark.parametrize("ending", [".avi", ".mp4", ".gif"])
def test_a_video_is_answered_by_a_video_of_its_label_values_and_an_overlay(tmp_path, ending):
    pytest.importorskip("av")
    frames = np.repeat(np.repeat(clip_pixels(5, (8, 12)), 4, 1), 4, 2)
    (tmp_path / "in").mkdir()
    if ending == ".gif":
        images = [Image.fromarray(frame) for frame in frames]
        images[0].save(tmp_path / "in" / "a.gif", save_all=True, append_images=images[1:], duration=50)
    else:
        save_video(tmp_path / "in" / f"a{ending}", frames, 20)
    (job,) = found(tmp_path / "in", tmp_path / "out")
    assert job.read(MODEL).pixel_mm == (1, 1)
    masks = answered(job)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.nii.gz", "a_overlay.gif", "a_masks.avi"}
    assert np.array_equal(read_frames(tmp_path / "out" / "a_masks.avi"), masks)
    assert video_header(tmp_path / "out" / "a_masks.avi").spacing.frame_s == pytest.approx(0.05, rel=0.01)
    assert np.array_equal(read_labels(tmp_path / "out" / "a.nii.gz"), masks)
    assert not read_header(tmp_path / "out" / "a.nii.gz").spacing.pixel_known
    with Image.open(tmp_path / "out" / "a_overlay.gif") as overlay:
        pictures = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(overlay)]
    assert len(pictures) == 5
    for picture, mask, grey in zip(pictures, masks, read_frames(job.files[0]), strict=True):
        coloured = np.ptp(picture, axis=-1) > 0
        assert np.array_equal(coloured, mask > 0)
        assert np.abs(picture[..., 0][mask == 0] - grey[mask == 0].astype(float)).max() < 7


def test_equal_masks_in_a_row_are_frames_of_their_own(tmp_path):
    pytest.importorskip("av")
    save_video(tmp_path / "in" / "a.avi", clip_pixels(5, (16, 24)))
    (job,) = found(tmp_path / "in", tmp_path / "out")
    job.write(MODEL, job.read(MODEL), {None: Prediction(np.ones((5, 16, 24), np.uint8), None)})
    assert read_frames(tmp_path / "out" / "a_masks.avi").shape == (5, 16, 24)


def test_videos_are_remarked_on_for_pixels_and_for_colour(tmp_path):
    pytest.importorskip("av")
    save_video(tmp_path / "grey.avi", clip_pixels(3, (16, 24)))
    colours = np.zeros((3, 16, 24, 3), np.uint8)
    colours[:, :8, :8, 0] = 255
    save_video(tmp_path / "flow.avi", colours)
    flow, grey = found(tmp_path, tmp_path / "out")
    assert len(grey.remarks()) == 1 and "without knowing the size of a pixel" in grey.remarks()[0]
    assert len(flow.remarks()) == 2 and "colour Doppler" in flow.remarks()[1]


def test_a_clip_is_answered_in_the_full_frame_and_as_nifti_in_its_window(tmp_path):
    save_clip(tmp_path / "in" / "no_ending")
    (job,) = found(tmp_path / "in", tmp_path / "out")
    masks = answered(job)
    assert masks.shape == (4, 8, 10) and job.name == "P1" and job.remarks() == []
    assert np.array_equal(read_labels(tmp_path / "out" / "P1.nii.gz"), masks)
    assert read_header(tmp_path / "out" / "P1.nii.gz").spacing.pixel_mm == pytest.approx((0.4, 0.5))
    seg = pydicom.dcmread(tmp_path / "out" / "P1.dcm")
    assert [item.SegmentLabel for item in seg.SegmentSequence] == ["LV", "MYO"]
    full = seg.pixel_array.reshape(2, 4, 12, 16)
    assert full.sum() == np.count_nonzero(masks)
    assert np.array_equal(full[:, :, 2:10, 3:13], np.stack([masks == 1, masks == 2]))


def test_a_stack_is_answered_with_its_affine_as_the_converter_reads_masks(tmp_path):
    save_cine(tmp_path / "in" / "P" / "series")
    (job,) = found(tmp_path / "in", tmp_path / "out")
    masks = answered(job)
    assert np.allclose(nibabel.load(tmp_path / "out" / "P1.nii.gz").affine, job.movie.affine, atol=1e-5)
    spacing = read_header(tmp_path / "out" / "P1.nii.gz").spacing
    assert spacing.pixel_mm == pytest.approx((1.5, 1.25)) and spacing.slice_mm == pytest.approx(9)
    assert spacing.frame_s == pytest.approx(0.04)
    (study,) = find_studies(tmp_path / "in", tmp_path / "out", ignore=3, empty_frames="background")
    assert study.study == "P1" and np.array_equal(study.load_labels(), masks)
    seg = pydicom.dcmread(tmp_path / "out" / "P1.dcm")
    bits = seg.pixel_array.reshape(2, 3, 4, 6, 5)
    assert np.array_equal(bits, np.stack([masks == 1, masks == 2]).swapaxes(1, 2))


@pytest.mark.parametrize(
    ("source", "shape"),
    [("sunnybrook_dicom", (20, 1, 128, 128)), ("echo_a4c/examples_ybr_color.dcm", (30, 240, 320))],
)
def test_real_movies_are_answered(tmp_path, source, shape):
    (job,) = found(DATA / source, tmp_path / "out")
    masks = answered(job)
    assert masks.shape == shape
    assert pydicom.dcmread(job.companions[0]).pixel_array.sum() == np.count_nonzero(masks)


def test_masks_that_cannot_all_be_written_leave_no_nifti_behind(tmp_path):
    save_clip(tmp_path / "in" / "a.dcm")
    (job,) = found(tmp_path / "in", tmp_path / "out")
    reading = job.read(MODEL)
    with pytest.raises(InputError, match="found mask values"):
        job.write(MODEL, reading, {None: Prediction(np.full((4, 8, 10), 7, np.uint8), None)})
    assert list((tmp_path / "out").iterdir()) == []


def test_movies_of_dicom_are_called_as_the_converter_calls_them(tmp_path):
    for number, patient in (("1", "A"), ("2", "A"), ("3", "B b")):
        uids = {"StudyInstanceUID": "1.2.8" if patient == "A" else "1.2.9", "SOPInstanceUID": f"1.2.{number}"}
        save_clip(tmp_path / "in" / number, PatientID=patient, InstanceNumber=int(number), **uids)
    jobs = found(tmp_path / "in", tmp_path / "out")
    assert [job.name for job in jobs] == ["A_s1i1", "A_s1i2", "B-b"]
    (one,) = found(tmp_path / "in" / "2", tmp_path / "out")
    assert one.name == "A_s1i2"


def test_colour_flow_in_dicom_is_remarked_on(tmp_path):
    save_clip(tmp_path / "in" / "a.dcm", np.stack([clip_pixels()] * 3, -1), regions=[], UltrasoundColorDataPresent=1)
    (job,) = found(tmp_path / "in", tmp_path / "out")
    assert ["size of a pixel" in remark or "colour Doppler" in remark for remark in job.remarks()] == [True, True]


def test_dicom_that_is_no_movie_is_left_out_with_a_warning(tmp_path):
    save_clip(tmp_path / "in" / "a.dcm")
    still = save_clip(tmp_path / "in" / "b.dcm", clip_pixels(1), SOPInstanceUID="1.2.99")
    with pytest.warns(UserWarning, match="left out 1 DICOM files: .*b.dcm: Ultrasound"):
        assert len(found(tmp_path / "in", tmp_path / "out")) == 1
    with pytest.raises(InputError, match="is part of no movie"):
        found(still, tmp_path / "out")


def test_dicom_headers_at_fault_are_all_named_before_anything_is_predicted(tmp_path):
    save_cine(tmp_path / "in")
    for name in ("x.dcm", "y.dcm"):
        (tmp_path / "in" / name).write_bytes(b"no DICOM")
    with pytest.raises(InputError, match=r"(?s)2 inputs cannot be used.*x\.dcm.*y\.dcm"):
        found(tmp_path / "in", tmp_path / "out")


def test_a_faulty_file_stops_only_the_stack_it_may_be_part_of(tmp_path):
    for patient, study in (("A", "1.2.7"), ("B", "1.2.8"), ("C", "1.2.9")):
        save_cine(tmp_path / "in" / patient, PatientID=patient, StudyInstanceUID=study)
    save_clip(tmp_path / "in" / "B" / "clip.dcm", clip_pixels(3), PatientID="D", StudyInstanceUID="1.2.10")
    (tmp_path / "in" / "B" / "x.dcm").write_bytes(b"no DICOM")
    next((tmp_path / "in" / "C").iterdir()).unlink()  # a phase is missing
    with pytest.warns(UserWarning, match="B: a stack beside a file that cannot be read"):
        jobs = found(tmp_path / "in", tmp_path / "out")
    assert [job.name for job in jobs] == ["A", "C", "D", "x.dcm"]
    faulty = [job for job in jobs if isinstance(job, FaultyJob)]
    assert [job.name for job in faulty] == ["C", "x.dcm"] and not any(job.is_done(False) for job in faulty)
    with pytest.raises(InputError, match=r"^/.*B.x\.dcm: expected a DICOM file"):
        pickle.loads(pickle.dumps(faulty[1])).read(MODEL)


def test_every_job_can_be_sent_to_a_worker_elsewhere(tmp_path, monkeypatch):
    pytest.importorskip("av")
    save_itk(tmp_path / "mha" / "a.mha")
    save_video(tmp_path / "avi" / "a.avi", clip_pixels(3, (16, 24)))
    save_cine(tmp_path / "dicom")
    monkeypatch.chdir(tmp_path)
    for kind in ("mha", "avi", "dicom"):
        (job,) = found(Path(kind), Path("out"))
        copy = pickle.loads(pickle.dumps(job))
        assert copy.outputs == job.outputs and len(copy.read(MODEL).images) == len(job.read(MODEL).images)
    monkeypatch.chdir("/")
    assert pickle.loads(pickle.dumps(job)).read(MODEL).images[0].shape == (1, 4, 6, 5)  # of the DICOM movie


def test_values_of_regions_without_a_name_are_segments_too():
    model = SimpleNamespace(dataset=REGIONS, labels=SimpleNamespace(foreground_labels=[1, 2]))
    assert structure_values(model) == {"background": 0, "LV": 1, "ignore": 3, "label 2": 2}


def fill(folder, kinds):
    if "sequences" in kinds:
        save_nifti(folder / "case_0000.nii.gz", MOVIE[:, 0].T)
    if "NIfTI" in kinds:
        save_nifti(folder / "movie.nii.gz", MOVIE.T)
    if "NRRD" in kinds:
        save_itk(folder / "a.nrrd")
    if "videos" in kinds:
        save_video(folder / "v.AVI", clip_pixels(3, (16, 24)))
    if "DICOM" in kinds:
        save_clip(folder / "clip")


KINDS = ("sequences", "NIfTI", "NRRD", "videos", "DICOM")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_found_alone(tmp_path, kind):
    pytest.importorskip("av")
    fill(tmp_path / "in", [kind])
    (tmp_path / "in" / "notes.txt").write_text("nothing")
    (tmp_path / "in" / ".hidden.mp4").write_text("nothing")
    assert len(found(tmp_path / "in", tmp_path / "out")) == 1


@pytest.mark.parametrize("pair", list(zip(KINDS, (*KINDS[1:], KINDS[0]), strict=True)))
def test_two_kinds_in_one_folder_are_refused(tmp_path, pair):
    pytest.importorskip("av")
    fill(tmp_path / "in", pair)
    with pytest.raises(InputError, match="predict them from separate folders") as error:
        found(tmp_path / "in", tmp_path / "out")
    assert all(kind in str(error.value) for kind in pair)


def test_movies_of_one_name_and_an_output_that_is_an_input_are_refused(tmp_path):
    save_itk(tmp_path / "in" / "a.nrrd")
    with pytest.raises(InputError, match=r"its a\.nrrd would overwrite"):
        found(tmp_path / "in", tmp_path / "in")
    save_itk(tmp_path / "in" / "a.mha")
    with pytest.raises(InputError, match=r"its a\.nii\.gz would overwrite"):
        found(tmp_path / "in", tmp_path / "out")
    shutil.move(save_clip(tmp_path / "clips" / "x"), tmp_path / "clips" / "P1.dcm")
    with pytest.raises(InputError, match=r"its P1\.dcm would overwrite"):
        found(tmp_path / "clips", tmp_path / "clips")


def test_a_file_of_no_known_kind_and_a_folder_without_any_are_refused(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("nothing")
    for source in (tmp_path / "in", tmp_path / "in" / "a.txt"):
        with pytest.raises(InputError, match=r"found neither sequences CASE_0000\.nii\.gz nor movies"):
            found(source, tmp_path / "out")


@pytest.mark.parametrize(("package", "extra"), [("av", "video"), ("pydicom", "dicom")])
def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch, package, extra):
    if package == "av":
        images = [Image.fromarray(frame) for frame in clip_pixels()]
        images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:])
    else:
        save_clip(tmp_path / "a.dcm")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"pip install 'nnunet_temporal\[{extra}\]'"):
        found(tmp_path, tmp_path / "out")


def test_pixels_that_cannot_be_read_are_found_out_by_the_job(tmp_path):
    for number in (1, 2):
        save_clip(tmp_path / f"{number}.dcm", InstanceNumber=number, SOPInstanceUID=f"1.2.{number}")
    broken, whole = found(tmp_path, tmp_path / "out")
    change(tmp_path / "1.dcm", PixelData=b"\0" * 10)
    assert whole.read(MODEL).images[None].shape == (1, 4, 8, 10)
    with pytest.raises(InputError, match=r"1\.dcm: the pixels cannot be decoded"):
        broken.read(MODEL)
