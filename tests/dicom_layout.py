"""Small DICOM movies on disk, shared by tests. Not a test."""

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

US_MULTI_FRAME = "1.2.840.10008.5.1.4.1.1.3.1"
MR, ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1"
STUDY, SERIES = "1.2.3", "1.2.3.4"
ORIENTATION = [1, 0, 0, 0, 0.8, 0.6]
NORMAL = np.cross(ORIENTATION[:3], ORIENTATION[3:])
ORIGIN = np.array([-20.0, -30.0, 40.0])
SLICE_MM = 9.0


def dataset_of(sop_class: str, uid: str, pixels: np.ndarray, **facts) -> Dataset:
    """Return a dataset that holds pixels (..., Y, X) grey or (..., Y, X, 3) colour, without compression."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    is_colour = pixels.shape[-1] == 3
    bits = pixels.dtype.itemsize * 8
    image = {
        "SOPClassUID": sop_class,
        "SOPInstanceUID": uid,
        "StudyInstanceUID": STUDY,
        "SeriesInstanceUID": SERIES,
        "PatientID": "P1",
        "PatientName": "One^Patient",
        "SamplesPerPixel": 3 if is_colour else 1,
        "PhotometricInterpretation": "RGB" if is_colour else "MONOCHROME2",
        "Rows": pixels.shape[-3 if is_colour else -2],
        "Columns": pixels.shape[-2 if is_colour else -1],
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "PixelData": pixels.tobytes(),
    }
    if is_colour:
        image["PlanarConfiguration"] = 0
    for keyword, value in {**image, **facts}.items():
        if value is not None:
            setattr(dataset, keyword, value)
    return dataset


def save(dataset: Dataset, path: Path) -> Path:
    """Write a dataset and make its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def region_of(left: int, top: int, right: int, bottom: int, **facts) -> Dataset:
    """Return a 2D tissue region, both corners inside, 0.05 cm per pixel sideways and 0.04 cm in depth."""
    region = Dataset()
    corners = dict(zip(("MinX0", "MinY0", "MaxX1", "MaxY1"), (left, top, right, bottom), strict=True))
    values = {
        "RegionSpatialFormat": 1,
        "RegionDataType": 1,
        "RegionFlags": 2,
        **{f"RegionLocation{name}": value for name, value in corners.items()},
        "PhysicalUnitsXDirection": 3,
        "PhysicalUnitsYDirection": 3,
        "PhysicalDeltaX": 0.05,
        "PhysicalDeltaY": 0.04,
    }
    for keyword, value in {**values, **facts}.items():
        setattr(region, keyword, value)
    return region


def clip_pixels(n_frames: int = 4, size: tuple[int, int] = (12, 16)) -> np.ndarray:
    """Return grey values (T, Y, X), uint8, no two frames alike."""
    return np.random.default_rng(0).integers(0, 256, (n_frames, *size)).astype(np.uint8)


def save_clip(path: Path, pixels: np.ndarray | None = None, regions: list | None = None, **facts) -> Path:
    """Write an ultrasound clip (T, Y, X[, 3]), by default with one region that spans rows 2-9 and columns 3-12."""
    pixels = clip_pixels() if pixels is None else pixels
    clip = {
        "Modality": "US",
        "NumberOfFrames": len(pixels),
        "FrameTime": "25",
        "FrameIncrementPointer": 0x00181063,
        "SeriesNumber": 1,
        "InstanceNumber": 7,
        "SequenceOfUltrasoundRegions": [region_of(3, 2, 12, 9)] if regions is None else regions,
    }
    return save(dataset_of(US_MULTI_FRAME, "1.2.3.5.1", pixels, **{**clip, **facts}), path)


def cine_pixels(n_phases: int = 4, n_slices: int = 3, size: tuple[int, int] = (6, 5)) -> np.ndarray:
    """Return grey values (T, Z, Y, X), int16, no two frames alike."""
    return np.random.default_rng(0).integers(-50, 1000, (n_phases, n_slices, *size)).astype(np.int16)


def position_of(z: int) -> list[float]:
    """Return the position of slice ``z``, 9 mm apart along the normal."""
    return (ORIGIN + SLICE_MM * z * NORMAL).tolist()


def plane_of(pixels: np.ndarray, t: int, z: int, **facts) -> Dataset:
    """Return the classic MR image of one phase and slice; thickness, gap and location are misleading on purpose."""
    place = {
        "Modality": "MR",
        "SeriesNumber": 5,
        "InstanceNumber": 1 + t + 20 * z,
        "ImageOrientationPatient": ORIENTATION,
        "ImagePositionPatient": position_of(z),
        "FrameOfReferenceUID": "1.2.3.6",
        "PixelSpacing": [1.5, 1.25],
        "SliceThickness": 7,
        "SpacingBetweenSlices": 11,
        "SliceLocation": 6.7 * z,
        "TriggerTime": 10 + 40 * t + z,
    }
    return dataset_of(MR, f"1.2.3.4.{z + 1}.{t + 1}", pixels, **{**place, **facts})


def save_cine(folder: Path, pixels: np.ndarray | None = None, **facts) -> dict[tuple[int, int], Path]:
    """Write a cine (T, Z, Y, X), one file per phase and slice, names in no order; return the file of each (t, z)."""
    pixels = cine_pixels() if pixels is None else pixels
    places = [(t, z) for t in range(pixels.shape[0]) for z in range(pixels.shape[1])]
    names = np.random.default_rng(1).permutation(len(places))
    return {
        (t, z): save(plane_of(pixels[t, z], t, z, **facts), folder / f"{name:04d}.dcm")
        for (t, z), name in zip(places, names, strict=True)
    }


def change(path: Path, **facts) -> None:
    """Set tags of a file, or remove those whose value is None."""
    dataset = pydicom.dcmread(path)
    for keyword, value in facts.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(path)


def item_of(**facts) -> Dataset:
    """Return an item of a sequence."""
    item = Dataset()
    for keyword, value in facts.items():
        setattr(item, keyword, value)
    return item


def save_enhanced_cine(path: Path, pixels: np.ndarray, slopes: np.ndarray) -> Path:
    """Write a cine (T, Z, Y, X) as enhanced MR, frames in a random order, a rescale slope (T, Z) for each."""
    places = [(t, z) for t in range(pixels.shape[0]) for z in range(pixels.shape[1])]
    places = [places[index] for index in np.random.default_rng(2).permutation(len(places))]
    shared = item_of(
        PixelMeasuresSequence=[item_of(PixelSpacing=[1.5, 1.25], SliceThickness=7)],
        PlaneOrientationSequence=[item_of(ImageOrientationPatient=ORIENTATION)],
    )
    frames = [
        item_of(
            PlanePositionSequence=[item_of(ImagePositionPatient=position_of(z))],
            CardiacSynchronizationSequence=[item_of(NominalCardiacTriggerDelayTime=10.0 + 40 * t)],
            PixelValueTransformationSequence=[
                item_of(RescaleSlope=str(slopes[t, z]), RescaleIntercept="3", RescaleType="US")
            ],
        )
        for t, z in places
    ]
    facts = {
        "NumberOfFrames": len(frames),
        "SharedFunctionalGroupsSequence": [shared],
        "PerFrameFunctionalGroupsSequence": frames,
    }
    stored = np.stack([pixels[t, z] for t, z in places])
    return save(dataset_of(ENHANCED_MR, "1.2.3.4.99", stored, Modality="MR", **facts), path)
