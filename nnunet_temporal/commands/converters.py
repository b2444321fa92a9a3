"""The table of ``nnunet_temporal convert``: which module reads which dataset, and which options it has of its own."""

import re
from argparse import ArgumentTypeError, Namespace
from pathlib import Path

from nnunet_temporal.commands.converter_kinds import Converter, FolderConverter
from nnunet_temporal.datasets import (
    acdc,
    camus,
    camus_mhd,
    cardiacuda,
    dicom,
    echonet_dynamic,
    echonet_pediatric,
    hmcqu,
    mnms,
    mnms2,
    nifti,
    sunnybrook,
    ted,
    video,
)
from nnunet_temporal.datasets.study_source import StudySource

_CYCLIC = {"action": "store_true", "help": "each movie covers exactly one heart beat"}


def _view(text: str) -> str:
    """Read the name of a view, which becomes part of the names of files."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*", text):
        raise ArgumentTypeError(f"found {text!r}, expected letters, digits and hyphens, such as 4CH")
    return text


_VIEW = {
    "type": _view,
    "metavar": "NAME",
    "help": "view that all movies show: 2CH or 4CH, of which an ejection fraction is computed, or another",
}


def _views(choices: tuple[str, ...]) -> dict[str, object]:
    return {"nargs": "+", "choices": choices, "default": choices, "help": "views to take (default: all)"}


def _read_nifti(arguments: Namespace, ignore: int) -> list[StudySource]:
    layout = nifti.NiftiLayout(
        images=(arguments.images,) if arguments.images else nifti.DEFAULT_IMAGES,
        labels=(arguments.labels,) if arguments.labels else nifti.DEFAULT_LABELS,
        cyclic=arguments.cyclic,
        empty_frames=arguments.empty_frames,
        view=arguments.view,
    )
    return nifti.find_studies(arguments.input, layout, ignore)


def _read_video(arguments: Namespace, ignore: int) -> list[StudySource]:
    labels = (arguments.labels,) if arguments.labels else nifti.DEFAULT_LABELS
    layout = video.VideoLayout(
        labels=labels, cyclic=arguments.cyclic, empty_frames=arguments.empty_frames, view=arguments.view
    )
    return video.find_studies(arguments.input, layout, ignore)


def _read_dicom(arguments: Namespace, ignore: int) -> list[StudySource]:
    return dicom.find_studies(
        arguments.input,
        arguments.masks,
        ignore=ignore,
        empty_frames=arguments.empty_frames,
        colour_flow=arguments.colour_flow,
    )


CONVERTERS: dict[str, Converter] = {
    "acdc": Converter(
        acdc,
        "ACDC as downloaded; -i is 'database', the folder it is in, or 'database/training'",
        held_out="the patients in 'testing'",
        has_presets=True,
    ),
    "mnms": Converter(
        mnms, "M&Ms as downloaded; -i is 'OpenDataset'", held_out="the patients in 'Testing'", has_presets=True
    ),
    "mnms2": Converter(
        mnms2,
        "M&Ms-2 as downloaded; -i is 'MnM2'",
        held_out="patients 201 to 360",
        options={"--views": _views(mnms2.VIEWS)},
        has_presets=True,
    ),
    "sunnybrook": Converter(sunnybrook, "Sunnybrook Cardiac Data in NIfTI form"),
    "camus": Converter(
        camus,
        "CAMUS, NIfTI release; -i is 'CAMUS_public' or its 'database_nifti'",
        held_out="those of subgroup_testing.txt",
    ),
    "camus_mhd": Converter(
        camus_mhd,
        "CAMUS, MetaImage release; -i is the folder of the patients or of 'training' and 'testing'",
        held_out="the patients in 'testing'",
    ),
    "ted": Converter(ted, "TED as downloaded; -i is 'database' or the folder it is in"),
    "echonet_dynamic": Converter(
        echonet_dynamic, "EchoNet-Dynamic as downloaded; -i is the folder of FileList.csv", held_out="split TEST"
    ),
    "echonet_pediatric": Converter(
        echonet_pediatric,
        "EchoNet-Pediatric as downloaded; -i is 'pediatric_echo_avi'",
        held_out="split 9",
        options={"--views": _views(echonet_pediatric.VIEWS)},
    ),
    "hmcqu": Converter(hmcqu, "HMC-QU as downloaded; -i is the folder of A4C.xlsx"),
    "cardiacuda": Converter(
        cardiacuda,
        "CardiacUDA as downloaded; -i is 'cardiacUDC_dataset'",
        held_out="the videos in 'label_all_frame'",
        options={
            "--view": {
                "choices": sorted(cardiacuda.VIEW_LABELS),
                "default": cardiacuda.DEFAULT_VIEW,
                "help": "view to take; each has labels of its own (default: %(default)s)",
            }
        },
        labels=lambda arguments: cardiacuda.VIEW_LABELS[arguments.view],
    ),
    "nifti": FolderConverter(
        nifti,
        "any folder of 4D (x, y, z, t) or 3D (x, y, t) NIfTI files",
        options={
            "--images": {"metavar": "GLOB", "help": "image files relative to -i (default: images/*.nii.gz)"},
            "--labels": {
                "metavar": "TEMPLATE",
                "help": "label file relative to -i; {name} is the image's file name without ending, {folder} the "
                "folder it is in (default: labels/{name}.nii.gz)",
            },
            "--cyclic": _CYCLIC,
            "--view": _VIEW,
        },
        read=_read_nifti,
    ),
    "video": FolderConverter(
        video,
        "any folder of AVI, MP4 or GIF files, with masks as NIfTI files (x, y, t)",
        options={
            "--labels": {
                "metavar": "TEMPLATE",
                "help": "label file relative to -i; {name} is the video's file name without ending (default: "
                "labels/{name}.nii.gz)",
            },
            "--cyclic": _CYCLIC,
            "--view": _VIEW,
        },
        read=_read_video,
    ),
    "dicom": FolderConverter(
        dicom,
        "any folder of DICOM ultrasound clips or cine MRI, with masks as NIfTI files",
        options={
            "--masks": {"type": Path, "metavar": "FOLDER", "help": "folder of masks called like the studies"},
            "--colour-flow": {"action": "store_true", "help": "take also clips whose colours stand for flow"},
        },
        read=_read_dicom,
    ),
}
