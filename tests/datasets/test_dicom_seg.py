import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_layout import change, cine_pixels, clip_pixels, save_cine, save_clip, save_enhanced_cine

from nnunet_temporal.datasets.dicom_io import find_movies
from nnunet_temporal.datasets.dicom_seg import write_dicom_seg
from nnunet_temporal.errors import InputError

DATA = Path(__file__).resolve().parent.parent / "data"
LABELS = {"background": 0, "LV": 1, "Lump": 2, "ignore": 3}


def masks_of(movie):
    return np.random.default_rng(3).integers(0, 3, movie.shape).astype(np.uint8)


def written(folder, tmp_path, labels=LABELS):
    """Return a movie, its masks and the segmentation as pydicom reads it."""
    (movie,) = find_movies(folder).movies
    masks = masks_of(movie)
    write_dicom_seg(masks, movie, labels, tmp_path / "seg.dcm")
    return movie, masks, pydicom.dcmread(tmp_path / "seg.dcm")


@pytest.fixture
def clip(tmp_path):
    save_clip(tmp_path / "in" / "1.dcm")
    return written(tmp_path / "in", tmp_path)


@pytest.fixture
def cine(tmp_path):
    save_cine(tmp_path / "cine")
    return written(tmp_path / "cine", tmp_path)


def bits_of(seg):
    """Unpack the frames (N, Y, X) bit by bit: the first pixel of a byte is its lowest bit (DICOM PS3.5 8.1.1)."""
    count = int(seg.NumberOfFrames) * seg.Rows * seg.Columns
    bits = [(seg.PixelData[i // 8] >> (i % 8)) & 1 for i in range(count)]
    return np.array(bits, np.uint8).reshape(-1, seg.Rows, seg.Columns)


def frames_of(seg):
    """Yield for each frame: segment, temporal position, its source item, its functional groups, its pixels."""
    for groups, pixels in zip(seg.PerFrameFunctionalGroupsSequence, bits_of(seg), strict=True):
        source = groups.DerivationImageSequence[0].SourceImageSequence[0]
        segment = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        yield segment, groups.FrameContentSequence[0].TemporalPositionIndex, source, groups, pixels


def test_a_clip_comes_back_in_the_full_frame_of_its_source(clip):
    _, masks, seg = clip
    full = np.zeros((2, 4, 12, 16), np.uint8)
    for segment, time, source, _, pixels in frames_of(seg):
        assert source.ReferencedFrameNumber == time and source.ReferencedSOPInstanceUID == "1.2.3.5.1"
        full[segment - 1, time - 1] = pixels
    expected = np.zeros_like(full)
    expected[..., 2:10, 3:13] = np.stack([masks == 1, masks == 2])
    assert np.array_equal(full, expected)


def test_a_cine_comes_back_by_the_instances_of_its_source(cine):
    movie, masks, seg = cine
    instances = {movie.frames[t][z].sop_instance_uid: (t, z) for t in range(4) for z in range(3)}
    seen = set()
    for segment, time, source, groups, pixels in frames_of(seg):
        t, z = instances[source.ReferencedSOPInstanceUID]
        assert time == t + 1 and "ReferencedFrameNumber" not in source
        position = [float(value) for value in groups.PlanePositionSequence[0].ImagePositionPatient]
        assert position == pytest.approx(movie.frames[t][z].position_mm)
        assert np.array_equal(pixels, masks[t, z] == segment)
        seen.add((segment, t, z))
    assert len(seen) == seg.NumberOfFrames == 2 * 4 * 3


def test_frames_of_enhanced_mr_are_named_by_number(tmp_path):
    save_enhanced_cine(tmp_path / "in" / "1.dcm", cine_pixels(), np.ones((4, 3), int))
    movie, masks, seg = written(tmp_path / "in", tmp_path)
    places = {movie.frames[t][z].number + 1: (t, z) for t in range(4) for z in range(3)}
    for segment, _, source, _, pixels in frames_of(seg):
        assert np.array_equal(pixels, masks[places[source.ReferencedFrameNumber]] == segment)


@pytest.mark.parametrize(("kind", "n_indices"), [("clip", 2), ("cine", 3)])
def test_dimension_indices_tell_every_frame_apart(kind, n_indices, request):
    _, _, seg = request.getfixturevalue(kind)
    indices = {tuple(groups.FrameContentSequence[0].DimensionIndexValues) for *_, groups, _ in frames_of(seg)}
    assert len(indices) == seg.NumberOfFrames
    assert {len(values) for values in indices} == {len(seg.DimensionIndexSequence)} == {n_indices}


def test_geometry_is_stated_where_the_source_has_it(cine, tmp_path):
    shared = cine[2].SharedFunctionalGroupsSequence[0]
    measures = shared.PixelMeasuresSequence[0]
    assert list(measures.PixelSpacing) == [1.5, 1.25]
    assert (float(measures.SliceThickness), float(measures.SpacingBetweenSlices)) == (7, pytest.approx(9))
    orientation = [float(value) for value in shared.PlaneOrientationSequence[0].ImageOrientationPatient]
    assert orientation == pytest.approx([1, 0, 0, 0, 0.8, 0.6])
    assert cine[2].FrameOfReferenceUID == "1.2.3.6"


def test_ultrasound_has_spacing_and_no_place(clip):
    seg = clip[2]
    shared = seg.SharedFunctionalGroupsSequence[0]
    assert [float(value) for value in shared.PixelMeasuresSequence[0].PixelSpacing] == pytest.approx([0.4, 0.5])
    assert "PlaneOrientationSequence" not in shared and "FrameOfReferenceUID" not in seg
    assert all("PlanePositionSequence" not in groups for *_, groups, _ in frames_of(seg))


def test_unknown_spacing_is_not_stated(tmp_path):
    save_clip(tmp_path / "in" / "1.dcm", regions=[])
    assert "PixelMeasuresSequence" not in written(tmp_path / "in", tmp_path)[2].SharedFunctionalGroupsSequence[0]


def test_patient_and_study_are_the_sources_and_series_and_instance_are_new(tmp_path):
    save_cine(tmp_path / "in", PatientBirthDate="19500101", StudyDate="20200101", StudyDescription="Herz")
    _, _, seg = written(tmp_path / "in", tmp_path)
    assert (seg.PatientID, str(seg.PatientName), seg.PatientBirthDate) == ("P1", "One^Patient", "19500101")
    assert (seg.StudyInstanceUID, seg.StudyDate, seg.StudyDescription) == ("1.2.3", "20200101", "Herz")
    assert seg.SeriesInstanceUID != "1.2.3.4" and seg.Modality == "SEG"
    assert (
        seg.SOPClassUID.name == "Segmentation Storage"
        and seg.file_meta.MediaStorageSOPInstanceUID == seg.SOPInstanceUID
    )
    assert len({seg.SOPInstanceUID, seg.SeriesInstanceUID, seg.DimensionOrganizationSequence[0][0x00209164].value}) == 3


def test_two_files_share_no_uid_of_their_own(clip, tmp_path):
    movie, masks, seg = clip
    write_dicom_seg(masks, movie, LABELS, tmp_path / "again.dcm")
    again = pydicom.dcmread(tmp_path / "again.dcm")
    assert again.SOPInstanceUID != seg.SOPInstanceUID and again.SeriesInstanceUID != seg.SeriesInstanceUID


def test_every_source_instance_is_referenced_once_per_series(cine, clip):
    (series,) = cine[2].ReferencedSeriesSequence
    instances = [item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence]
    assert len(instances) == len(set(instances)) == 12 and series.SeriesInstanceUID == "1.2.3.4"
    assert len(clip[2].ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 1


def test_known_structures_have_their_code_and_others_one_of_our_own(clip):
    lv, lump = clip[2].SegmentSequence
    assert [segment.SegmentLabel for segment in (lv, lump)] == ["LV", "Lump"]
    assert lv.SegmentedPropertyTypeCodeSequence[0].CodeValue == "87878005"
    own = lump.SegmentedPropertyTypeCodeSequence[0]
    assert own.CodingSchemeDesignator == "99NNUNETTEMPORAL" and own.CodeMeaning == "Lump"


def test_lossy_sources_are_said_to_be_lossy(tmp_path):
    seg = written(DATA / "echo_a4c", tmp_path)[2]
    assert (seg.LossyImageCompression, seg.LossyImageCompressionMethod) == ("01", "ISO_10918_1")
    assert float(seg.LossyImageCompressionRatio) == 19


def test_an_odd_number_of_bytes_is_padded(tmp_path):
    save_clip(tmp_path / "in" / "1.dcm", clip_pixels(3, (3, 3)), regions=[])
    _, masks, seg = written(tmp_path / "in", tmp_path, {"background": 0, "A": 1, "B": 2})
    assert len(seg.PixelData) == 8
    assert np.array_equal(bits_of(seg).reshape(2, 3, 3, 3), np.stack([masks == 1, masks == 2]))


# The real cine has UIDs and dates that break the rules of DICOM, which readers complain about.
@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize("name", ["sunnybrook_dicom", "echo_a4c"])
def test_another_library_reads_the_same_masks_of_real_movies(name, tmp_path):
    highdicom = pytest.importorskip("highdicom")
    movie, masks, _ = written(DATA / name, tmp_path)
    seg = highdicom.seg.segread(tmp_path / "seg.dcm")
    if movie.is_stack:
        uids = [slices[0].sop_instance_uid for slices in movie.frames]
        read = seg.get_pixels_by_source_instance(uids, combine_segments=True)
        masks = masks[:, 0]
    else:
        uid = movie.frames[0][0].sop_instance_uid
        read = seg.get_pixels_by_source_frame(uid, list(range(1, len(masks) + 1)), combine_segments=True)
    assert np.array_equal(read, masks)


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy, of dicom3tools, is not installed")
@pytest.mark.parametrize("kind", ["clip", "cine"])
def test_a_validator_finds_no_error(kind, tmp_path, request):
    request.getfixturevalue(kind)
    done = subprocess.run(["dciodvfy", tmp_path / "seg.dcm"], capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    assert "Segmentation" in lines and not [line for line in lines if line.startswith("Error")]


def test_values_that_are_no_structure_are_refused_and_nothing_is_written(clip, tmp_path):
    movie, masks, _ = clip
    masks = masks.copy()
    masks[0, 0, 0] = 3
    with pytest.raises(InputError, match=r"found mask values \[3\], expected only 0 and those of structures"):
        write_dicom_seg(masks, movie, LABELS, tmp_path / "new.dcm")
    assert not list(tmp_path.glob("*new*"))


def test_masks_of_another_shape_are_refused(clip, tmp_path):
    movie, masks, _ = clip
    with pytest.raises(ValueError, match="expected masks of shape"):
        write_dicom_seg(masks[:2], movie, LABELS, tmp_path / "new.dcm")


def test_a_source_with_bad_uids_keeps_them_without_a_warning(tmp_path, recwarn):
    for path in save_cine(tmp_path / "in").values():
        change(path, FrameOfReferenceUID="1.2.03")
    (movie,) = find_movies(tmp_path / "in").movies
    recwarn.clear()
    write_dicom_seg(masks_of(movie), movie, LABELS, tmp_path / "seg.dcm")
    assert not recwarn.list
    assert pydicom.dcmread(tmp_path / "seg.dcm").FrameOfReferenceUID == "1.2.03"
