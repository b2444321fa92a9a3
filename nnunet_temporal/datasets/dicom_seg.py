"""Masks as DICOM-SEG: one binary segment per structure, each frame tied to the source frame it was drawn on.

Attributes and their place: DICOM PS3.3 A.51 (Segmentation IOD), C.8.20 (its modules), C.7.6.16 (functional groups).
Many frames at one position are told apart by the temporal position, the last dimension index.
"""

import warnings
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_temporal import __version__
from nnunet_temporal.atomic import atomic_path
from nnunet_temporal.datasets.dicom_files import DicomDataset, DicomMovie, FrameSource, import_pydicom
from nnunet_temporal.datasets.study_source import IGNORE
from nnunet_temporal.errors import InputError

_SEGMENTATION_STORAGE = "1.2.840.10008.5.1.4.1.1.66.4"
_PRODUCER = "nnunet_temporal"
# SNOMED CT; names without an entry get a code of our own, which DICOM marks by a leading 99.
_STRUCTURES = {
    "LV": ("87878005", "Left ventricle"),
    "RV": ("53085002", "Right ventricle"),
    "LA": ("82471001", "Left atrium"),
    "RA": ("73829009", "Right atrium"),
    "MYO": ("49848007", "Left Ventricle Myocardium"),
}
_OWN_SCHEME = "99NNUNETTEMPORAL"
_SERIES_NUMBER_OFFSET = 9000
_PATIENT_MUST_EXIST = ["PatientName", "PatientID", "PatientBirthDate", "PatientSex"]
_STUDY_MUST_EXIST = ["StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"]
_PATIENT = ["IssuerOfPatientID", "PatientAge", "PatientSize", "PatientWeight", "PatientIdentityRemoved"]
_STUDY = ["SpecificCharacterSet", "DeidentificationMethod", "StudyInstanceUID", "StudyDescription"]
_LOSSY = ("LossyImageCompressionRatio", "LossyImageCompressionMethod")
_LOSSY_METHODS = {
    "1.2.840.10008.1.2.4.50": "ISO_10918_1",
    "1.2.840.10008.1.2.4.51": "ISO_10918_1",
    "1.2.840.10008.1.2.4.81": "ISO_14495_1",
    "1.2.840.10008.1.2.4.91": "ISO_15444_1",
}
_TEMPORAL_INDEX, _FRAME_CONTENT = 0x00209128, 0x00209111


def write_dicom_seg(masks: np.ndarray, movie: DicomMovie, labels: dict[str, int], path: Path) -> None:
    """Write the masks of a movie as one DICOM-SEG file, every structure at every frame, empty or not.

    Masks of a cut ultrasound image are put back into its full frame. Patient and study are copied from the source.

    Args:
        masks: (T, Z, Y, X) or (T, Y, X) as ``movie.shape``, integer; every pixel is 0 or a value of ``labels``.
        movie: The movie that was segmented.
        labels: Names and values of the structures; ``background`` and the ignore label become no segment.
        path: File to write, usually ending in ``.dcm``; its folder must exist.

    Raises:
        InputError: pydicom is missing, or the masks hold a value that is no structure.
        ValueError: The masks have another shape.
    """
    if masks.shape != movie.shape:
        raise ValueError(f"expected masks of shape {movie.shape}, that of the movie, got {masks.shape}")
    structures = {name: value for name, value in labels.items() if value != 0 and name != IGNORE}
    unknown = sorted(set(np.unique(masks).tolist()) - {0, *structures.values()})
    if unknown or not structures:
        raise InputError(f"{path}: found mask values {unknown}, expected only 0 and those of structures, {structures}")
    # A stack with time first, one slice for ultrasound.
    full = np.zeros((len(movie.frames), len(movie.frames[0]), *movie.stored_shape), masks.dtype)
    full[movie.window.cut] = masks.reshape(*full.shape[:2], *masks.shape[-2:])
    with warnings.catch_warnings():
        # What breaks the rules in the source is copied as it is: other UIDs or dates would belong to nobody.
        warnings.simplefilter("ignore")
        source = import_pydicom().dcmread(movie.frames[0][0].path, stop_before_pixels=True)
        segmentation = _header(source, movie)
        _add_segments(segmentation, list(structures))
        _add_frames(segmentation, source, movie, len(structures))
        _add_pixels(segmentation, [full == value for value in structures.values()])
        with atomic_path(path) as temporary:
            segmentation.save_as(temporary, enforce_file_format=True)


def _item(**values: Any) -> DicomDataset:  # noqa: ANN401 - values of any type DICOM knows
    dataset = import_pydicom().Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def _code(value: str, scheme: str, meaning: str) -> DicomDataset:
    return _item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def _numbers(*values: float) -> list[str]:
    """Write numbers as DICOM's decimal strings, which hold 16 characters."""
    return [import_pydicom().valuerep.format_number_as_ds(float(value)) for value in values]


def _header(source: DicomDataset, movie: DicomMovie) -> DicomDataset:
    """Return the segmentation without segments, frames and pixels."""
    uid = import_pydicom().uid
    now = datetime.now()
    header = _item(
        SOPClassUID=_SEGMENTATION_STORAGE,
        SOPInstanceUID=uid.generate_uid(prefix=None),
        SeriesInstanceUID=uid.generate_uid(prefix=None),
        SeriesNumber=int(source.get("SeriesNumber") or 0) + _SERIES_NUMBER_OFFSET,
        SeriesDescription=f"Masks by {_PRODUCER}",
        Modality="SEG",
        Manufacturer=_PRODUCER,
        ManufacturerModelName=_PRODUCER,
        DeviceSerialNumber="0",
        SoftwareVersions=__version__,
        InstanceNumber=1,
        ContentDate=now.strftime("%Y%m%d"),
        ContentTime=now.strftime("%H%M%S"),
        ContentLabel="SEGMENTATION",
        ContentDescription=f"Masks by {_PRODUCER}",
        ContentCreatorName="",
        ImageType=["DERIVED", "PRIMARY"],
        LossyImageCompression=source.get("LossyImageCompression") or "00",
        ReferencedSeriesSequence=_referenced_series(movie),
    )
    for keyword in (*_PATIENT_MUST_EXIST, *_STUDY_MUST_EXIST):
        setattr(header, keyword, source.get(keyword, ""))
    copied = [*_PATIENT, *_STUDY, "FrameOfReferenceUID", *(_LOSSY if header.LossyImageCompression == "01" else ())]
    for keyword in (keyword for keyword in copied if source.get(keyword)):
        setattr(header, keyword, source.get(keyword))
    method = _LOSSY_METHODS.get(source.file_meta.TransferSyntaxUID)
    if header.LossyImageCompression == "01" and method and "LossyImageCompressionMethod" not in header:
        header.LossyImageCompressionMethod = method
    if "FrameOfReferenceUID" in header:
        header.PositionReferenceIndicator = source.get("PositionReferenceIndicator", "")
    else:
        header.PatientOrientation = ""
    header.file_meta = import_pydicom().dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    return header


def _referenced_series(movie: DicomMovie) -> list[DicomDataset]:
    """Return one item per source series, with each of its instances once."""
    instances: dict[str, dict[str, str]] = {}
    for source in (source for slices in movie.frames for source in slices):
        instances.setdefault(source.series_uid, {})[source.sop_instance_uid] = source.sop_class_uid
    return [
        _item(
            SeriesInstanceUID=series_uid,
            ReferencedInstanceSequence=[
                _item(ReferencedSOPClassUID=sop_class, ReferencedSOPInstanceUID=instance)
                for instance, sop_class in of_series.items()
            ],
        )
        for series_uid, of_series in instances.items()
    ]


def _add_segments(segmentation: DicomDataset, names: list[str]) -> None:
    segmentation.SegmentationType = "BINARY"
    segmentation.SegmentsOverlap = "NO"
    segmentation.SegmentSequence = [
        _item(
            SegmentNumber=number,
            SegmentLabel=name,
            SegmentAlgorithmType="AUTOMATIC",
            SegmentAlgorithmName=_PRODUCER,
            SegmentedPropertyCategoryCodeSequence=[_code("91723000", "SCT", "Anatomical Structure")],
            SegmentedPropertyTypeCodeSequence=[_structure_code(name)],
        )
        for number, name in enumerate(names, start=1)
    ]


def _structure_code(name: str) -> DicomDataset:
    if name.upper() in _STRUCTURES:
        value, meaning = _STRUCTURES[name.upper()]
        return _code(value, "SCT", meaning)
    return _code(name[:16], _OWN_SCHEME, name)


def _add_frames(segmentation: DicomDataset, source: DicomDataset, movie: DicomMovie, n_segments: int) -> None:
    """Say of each frame which segment, place and time it is, and of which source frame."""
    organization = import_pydicom().uid.generate_uid(prefix=None)
    pointers = [(0x0062000B, 0x0062000A), (_TEMPORAL_INDEX, _FRAME_CONTENT)]
    has_places = movie.frames[0][0].position_mm is not None
    if has_places:
        pointers.insert(1, (0x00200032, 0x00209113))
    segmentation.DimensionOrganizationSequence = [_item(DimensionOrganizationUID=organization)]
    segmentation.DimensionIndexSequence = [
        _item(DimensionOrganizationUID=organization, DimensionIndexPointer=index, FunctionalGroupPointer=group)
        for index, group in pointers
    ]
    segmentation.SharedFunctionalGroupsSequence = [_shared_groups(source, movie)]
    segmentation.PerFrameFunctionalGroupsSequence = [
        _frame_groups(frame, [segment, z + 1, t + 1] if has_places else [segment, t + 1])
        for segment in range(1, n_segments + 1)
        for z in range(len(movie.frames[0]))
        for t, frame in enumerate(slices[z] for slices in movie.frames)
    ]


def _shared_groups(source: DicomDataset, movie: DicomMovie) -> DicomDataset:
    shared = _item()
    if movie.spacing.pixel_known:
        shared.PixelMeasuresSequence = [_item(PixelSpacing=_numbers(*movie.spacing.pixel_mm))]
    if movie.affine is not None and movie.is_stack:
        # From NIfTI's axes back to DICOM's.
        right, front = (movie.affine[:3, axis] / np.linalg.norm(movie.affine[:3, axis]) for axis in (0, 1))
        directions = np.array([right, front]) * [-1, -1, 1]
        shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=_numbers(*directions.ravel()))]
        thickness = source.get("SliceThickness") or movie.spacing.slice_mm
        if thickness:
            shared.PixelMeasuresSequence[0].SliceThickness = _numbers(thickness)[0]
        if movie.spacing.slice_mm:
            shared.PixelMeasuresSequence[0].SpacingBetweenSlices = _numbers(movie.spacing.slice_mm)[0]
    return shared


def _frame_groups(source: FrameSource, indices: list[int]) -> DicomDataset:
    """Return the functional groups of one frame; ``indices`` are segment, place if any, and time, from 1."""
    image = _item(
        ReferencedSOPClassUID=source.sop_class_uid,
        ReferencedSOPInstanceUID=source.sop_instance_uid,
        SpatialLocationsPreserved="YES",
        PurposeOfReferenceCodeSequence=[_code("121322", "DCM", "Source image for image processing operation")],
    )
    if source.is_multi_frame:
        image.ReferencedFrameNumber = source.number + 1
    content = _item(DimensionIndexValues=indices, TemporalPositionIndex=indices[-1])
    groups = _item(
        FrameContentSequence=[content],
        DerivationImageSequence=[
            _item(SourceImageSequence=[image], DerivationCodeSequence=[_code("113076", "DCM", "Segmentation")])
        ],
        SegmentIdentificationSequence=[_item(ReferencedSegmentNumber=indices[0])],
    )
    if source.position_mm is not None:
        content.StackID, content.InStackPositionNumber = "1", indices[1]
        groups.PlanePositionSequence = [_item(ImagePositionPatient=_numbers(*source.position_mm))]
    return groups


def _add_pixels(segmentation: DicomDataset, segments: list[np.ndarray]) -> None:
    """Pack the segments, each (T, Z, Y, X) bool, frame after frame without gaps, the first pixel in the lowest bit."""
    stack = np.stack(segments).swapaxes(1, 2)
    packed = np.packbits(stack, bitorder="little").tobytes()
    segmentation.SamplesPerPixel = 1
    segmentation.PhotometricInterpretation = "MONOCHROME2"
    segmentation.PixelRepresentation = 0
    segmentation.BitsAllocated, segmentation.BitsStored, segmentation.HighBit = 1, 1, 0
    segmentation.Rows, segmentation.Columns = stack.shape[-2:]
    segmentation.NumberOfFrames = int(np.prod(stack.shape[:3]))
    # DICOM values have an even number of bytes.
    segmentation.PixelData = packed + b"\0" * (len(packed) % 2)
    segmentation["PixelData"].VR = "OB"
