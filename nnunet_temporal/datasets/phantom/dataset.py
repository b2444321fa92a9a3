"""A raw nnU-Net dataset of phantoms: labels at ED and ES only, and the truth of every frame out of training's reach."""

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from tqdm import tqdm

from nnunet_temporal.atomic import write_json
from nnunet_temporal.datasets.image_io import SEQUENCE_ENDING, Spacing, write_sequence
from nnunet_temporal.datasets.phantom import apical_heart, short_axis
from nnunet_temporal.datasets.phantom.cine import draw_cine_study
from nnunet_temporal.datasets.phantom.echo import draw_echo_study
from nnunet_temporal.datasets.phantom.heartbeat import MAX_JITTER, MIN_BEATS, MIN_FRAMES_PER_CYCLE, Heartbeat
from nnunet_temporal.datasets.phantom.lost_segment import LABELLED_MOMENTS, LostSegment
from nnunet_temporal.datasets.phantom.phantom_study import PhantomSequence, PhantomStudy
from nnunet_temporal.datasets.raw_writer import DatasetInfo, RawDataset, check_dataset_id, write_raw_dataset
from nnunet_temporal.datasets.study_source import StudySource
from nnunet_temporal.errors import InputError
from nnunet_temporal.sequences import case_name

TRUTH_FOLDER = "truth"
STUDIES_NAME = "studies.json"
MIN_SIZE = 32
DEFAULT_SIZE = 96

Range = tuple[float, float]
Group = Literal["labelled", "unlabelled", "test"]

DEFAULT_FRAMES_PER_CYCLE: Range = (12.0, 80.0)


@dataclass(frozen=True)
class Modality:
    """One kind of phantom: how it is drawn, what its labels and its channel are called, and how long it usually is."""

    draw: Callable[[str, Heartbeat, int, np.random.Generator], PhantomStudy]
    labels: dict[str, int]
    channel: str
    beats: Range


MODALITIES = {
    "cine": Modality(draw_cine_study, short_axis.LABELS, "cineMRI", (1.0, 1.0)),
    "echo": Modality(draw_echo_study, apical_heart.LABELS, "US", (0.5, 4.0)),
}


@dataclass(frozen=True)
class PhantomPlan:
    """What to draw.

    Attributes:
        modality: A key of ``MODALITIES``.
        n_studies: Training studies with labels at ED and ES, at least 2.
        n_unlabelled: Training studies without any label.
        n_test: Held-out studies, with labels at ED and ES.
        size: Rows and columns of a frame, at least 32.
        frames_per_cycle: Smallest and largest number of frames in a beat.
        beats: Smallest and largest number of beats in a sequence.
        jitter: Largest share by which a beat is longer or shorter than usual, at most 0.5.
        seed: Everything follows from it.
        lost_segment: Whether each study loses a segment of its wall for a third of every beat; echo only. In every
            other study it is lost at ED or ES, in the others at neither. The masks are those of the whole heart.
    """

    modality: str
    n_studies: int
    n_unlabelled: int = 0
    n_test: int = 0
    size: int = DEFAULT_SIZE
    frames_per_cycle: Range = DEFAULT_FRAMES_PER_CYCLE
    beats: Range = (1.0, 1.0)
    jitter: float = 0.0
    seed: int = 0
    lost_segment: bool = False


def write_phantom_dataset(
    plan: PhantomPlan, info: DatasetInfo, nnunet_raw: Path, *, overwrite: bool = False
) -> RawDataset:
    """Draw all studies and write them as a raw nnU-Net dataset.

    Beside what every dataset has, the folder ``truth`` holds a mask of every frame for each case, and ``studies.json``
    what the studies were drawn from. nnU-Net reads neither.

    Args:
        plan: What to draw.
        info: Dataset id and name, with labels and channel of the modality.
        nnunet_raw: nnU-Net's raw folder; must exist.
        overwrite: Replace an existing dataset of this id and name.

    Returns:
        What was written.

    Raises:
        InputError: The plan, the id or the name is not possible, or the dataset exists.
    """
    _check_plan(plan)
    check_dataset_id(info, [nnunet_raw])
    if (nnunet_raw / info.folder_name).exists() and not overwrite:
        # Said here as well as by the writer, because drawing takes a while.
        raise InputError(f"{nnunet_raw / info.folder_name}: the dataset exists already; pass --overwrite to replace it")
    # The name must not start with "Dataset", or nnU-Net would take it for one.
    with tempfile.TemporaryDirectory(dir=nnunet_raw, prefix=".phantom_") as working:
        pixels, truth = Path(working, "pixels"), Path(working, TRUTH_FOLDER)
        pixels.mkdir()
        truth.mkdir()
        sources = _draw_all(plan, info, pixels, truth)
        held_out = {source.study for source in sources if source.study.startswith("test")}
        dataset = write_raw_dataset(sources, info, nnunet_raw, held_out=held_out, overwrite=overwrite)
        truth.rename(dataset.folder / TRUTH_FOLDER)
    return dataset


def draw_study(plan: PhantomPlan, group: Group, index: int) -> PhantomStudy:
    """Draw one study of a plan, the same whatever other studies the plan has.

    Args:
        plan: The plan.
        group: Which studies it is one of.
        index: Its number among them, from 0.

    Returns:
        The study, named by group and number.
    """
    rng = np.random.default_rng((plan.seed, get_args(Group).index(group), index))
    heartbeat = Heartbeat.draw(rng, plan.frames_per_cycle, plan.beats, plan.jitter)
    name = f"{group}{index:03d}"
    if plan.lost_segment:
        # ED, neither, ES, neither, ED, ...
        moment = None if index % 2 else LABELLED_MOMENTS[index // 2 % 2]
        return draw_echo_study(name, heartbeat, plan.size, rng, LostSegment.draw(rng.spawn(1)[0], heartbeat, moment))
    return MODALITIES[plan.modality].draw(name, heartbeat, plan.size, rng)


def _check_plan(plan: PhantomPlan) -> None:
    if plan.modality not in MODALITIES:
        raise InputError(f"--modality: found {plan.modality!r}, expected one of {', '.join(MODALITIES)}")
    if plan.lost_segment and plan.modality != "echo":
        raise InputError(f"--lost-segment: found with --modality {plan.modality}, possible with echo only")
    limits: dict[str, tuple[float, float]] = {
        "-n": (plan.n_studies, 2),
        "--unlabelled": (plan.n_unlabelled, 0),
        "--test": (plan.n_test, 0),
        "--size": (plan.size, MIN_SIZE),
        "--seed": (plan.seed, 0),
        "--frames-per-cycle": (plan.frames_per_cycle[0], MIN_FRAMES_PER_CYCLE),
        "--beats": (plan.beats[0], MIN_BEATS),
        "--jitter": (plan.jitter, 0),
    }
    for name, (found, least) in limits.items():
        if not found >= least:
            raise InputError(f"{name}: found {found:g}, expected {least:g} or more")
    if plan.jitter > MAX_JITTER:
        raise InputError(f"--jitter: found {plan.jitter:g}, expected {MAX_JITTER:g} or less")
    for name, (low, high) in {"--frames-per-cycle": plan.frames_per_cycle, "--beats": plan.beats}.items():
        if not low <= high < np.inf:
            raise InputError(f"{name}: found {low:g} to {high:g}, expected two rising numbers")


def _draw_all(plan: PhantomPlan, info: DatasetInfo, pixels: Path, truth: Path) -> list[StudySource]:
    """Draw the studies of a plan one after another; store pixels and truth in their folders, return what loads them."""
    sources: list[StudySource] = []
    facts: dict[str, dict[str, object]] = {}
    for group, index in tqdm(_places(plan), desc=f"Drawing {info.folder_name}", unit="study"):
        study = draw_study(plan, group, index)
        _write_truth(study, truth)
        facts[study.name] = {"group": group, **_facts(study)}
        sources += _sources(study, pixels, ignore=len(info.labels), is_labelled=group != "unlabelled")
    write_json({"plan": asdict(plan), "studies": facts}, truth / STUDIES_NAME)
    return sources


def _places(plan: PhantomPlan) -> list[tuple[Group, int]]:
    counts: dict[Group, int] = {"labelled": plan.n_studies, "unlabelled": plan.n_unlabelled, "test": plan.n_test}
    return [(group, index) for group, count in counts.items() for index in range(count)]


def _cases(study: PhantomStudy) -> dict[str, PhantomSequence]:
    return {case_name(study.name, sequence.slice, sequence.view): sequence for sequence in study.sequences}


def _write_truth(study: PhantomStudy, folder: Path) -> None:
    for case, sequence in _cases(study).items():
        write_sequence(sequence.truth, study.pixel_mm, folder / f"{case}{SEQUENCE_ENDING}")


def _facts(study: PhantomStudy) -> dict[str, object]:
    ed, es = study.heartbeat.ed_es()
    return {
        "cases": list(_cases(study)),
        **asdict(study.heartbeat),
        "n_frames": study.heartbeat.n_frames,
        "true_frames_per_cycle": study.heartbeat.true_frames_per_cycle,
        "cyclic": study.cyclic,
        "frame_interval_s": study.heartbeat.frame_interval_s,
        "ed": ed,
        "es": es,
        "pixel_mm": study.pixel_mm,
        "slice_mm": study.slice_mm,
        "volumes_ml": {structure: volumes.tolist() for structure, volumes in study.volumes_ml.items()},
        "lost_segment": None if study.lost_segment is None else _lost_facts(study.lost_segment, study.heartbeat),
    }


def _lost_facts(lost: LostSegment, heartbeat: Heartbeat) -> dict[str, object]:
    return {**asdict(lost), "affected": lost.is_affected(heartbeat.phases()).tolist()}


def _sources(study: PhantomStudy, folder: Path, *, ignore: int, is_labelled: bool) -> list[StudySource]:
    """Store a study's pixels, and of its truth only ED and ES; return what loads them, one source per view or stack.

    A large dataset does not fit into memory, and the writer asks for each study twice.
    """
    parts = {sequence.view: (sequence.image, sequence.truth) for sequence in study.sequences}
    if study.slice_mm is not None:
        images, truths = ([getattr(s, name) for s in study.sequences] for name in ("image", "truth"))
        parts = {None: (np.stack(images, axis=1), np.stack(truths, axis=1))}  # (T, Z, Y, X)
    ed, es = study.heartbeat.ed_es() if is_labelled else (None, None)
    frames = [frame for frame in (ed, es) if frame is not None]
    sources = []
    for view, (image, truth) in parts.items():
        labels = np.full_like(truth, ignore)
        labels[frames] = truth[frames]
        image_path, labels_path = (
            folder / f"{case_name(study.name, view=view)}_{kind}.npy" for kind in ("image", "labels")
        )
        np.save(image_path, image)
        np.save(labels_path, labels)
        sources.append(
            StudySource(
                study=study.name,
                load_image=partial(np.load, image_path),
                load_labels=partial(np.load, labels_path) if is_labelled else None,
                spacing=Spacing(study.pixel_mm, slice_mm=study.slice_mm, frame_s=study.heartbeat.frame_interval_s),
                view=view,
                ed=ed,
                es=es,
                cyclic=study.cyclic,
            )
        )
    return sources
