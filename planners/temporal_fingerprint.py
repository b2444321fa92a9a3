"""Adds to nnU-Net's dataset fingerprint what it knows nothing of: time."""

from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from nnunetv2.paths import nnUNet_preprocessed
from tqdm import tqdm

from nnunet_temporal.atomic import read_json_object, write_json
from nnunet_temporal.datasets.integrity import check_raw_dataset
from nnunet_temporal.datasets.problems import apply_to_all
from nnunet_temporal.errors import InputError
from nnunet_temporal.planners.sequence_measures import SequenceMeasures, foreground_structures, measure_sequence
from nnunet_temporal.sequences import Manifest, Sequence

FINGERPRINT_NAME = "dataset_fingerprint.json"
TEMPORAL_KEY = "temporal"

CREDIBLE = 0.5
"""A cycle length is believed from this confidence on."""

SHARE_THAT_DECIDES = 0.25
"""So many sequences must show their cycle before the dataset is said to have one: in a stack of slices base and apex
often show none, while few sequences that seem to repeat among many that do not are chance."""


class TemporalFingerprintExtractor(DatasetFingerprintExtractor):
    """Checks a dataset of sequences, extracts nnU-Net's fingerprint and adds the entry ``temporal``.

    A fingerprint of an earlier state of the dataset (other cases, frames or labelled frames) is extracted anew.
    """

    def run(self, overwrite_existing: bool = False) -> dict:
        """Extract the fingerprint, or read it if it is there and still fits.

        Returns:
            nnU-Net's fingerprint with ``temporal`` added, as stored in ``dataset_fingerprint.json``.

        Raises:
            InputError: Something is wrong with the dataset; every problem is listed with the file it is in.
        """
        manifest = check_raw_dataset(Path(self.input_folder), self.num_processes)
        path = Path(str(nnUNet_preprocessed)) / self.dataset_name / FINGERPRINT_NAME
        if path.is_file() and not overwrite_existing:
            stored = _read(path)
            overwrite_existing = not _describes(stored, manifest)
            if not overwrite_existing and TEMPORAL_KEY in stored:
                return stored
            if overwrite_existing:
                tqdm.write(f"{path} is of an earlier state of the dataset; extracting it anew.")
        super().run(overwrite_existing)
        # What super().run() returned holds numpy arrays; the file holds what every later reader sees.
        fingerprint = {**_read(path), TEMPORAL_KEY: summarise(self._measure(manifest), manifest)}
        write_json(fingerprint, path)
        return fingerprint

    def _measure(self, manifest: Manifest) -> dict[str, SequenceMeasures]:
        example = next(iter(self.dataset.values()))["images"][0]
        reader = determine_reader_writer_from_dataset_json(self.dataset_json, example, verbose=False)()
        structures = foreground_structures(self.dataset_json["labels"])

        def measure(case: str) -> SequenceMeasures:
            image, properties = reader.read_images(self.dataset[case]["images"])
            mask = reader.read_seg(self.dataset[case]["label"])[0][0]
            try:
                return measure_sequence(image, mask, properties["spacing"][1:], manifest[case], structures)
            except ValueError as error:
                raise InputError(f"{self.dataset[case]['images'][0]}: cannot be measured: {error}") from error

        with ThreadPoolExecutor(self.num_processes) as pool:
            jobs = {case: pool.submit(measure, case) for case in manifest}
            progress = tqdm(jobs.values(), "Measuring heart beats", unit="sequence", disable=not self.show_progress_bar)
            return dict(zip(jobs, apply_to_all(progress, lambda job: job.result()), strict=True))


def summarise(measures: Mapping[str, SequenceMeasures], manifest: Manifest) -> dict[str, Any]:
    """Summarise the measurements of all sequences into the fingerprint's entry ``temporal``.

    Returns:
        Per quantity its median and range, or its median, confidence and share of the sequences where it can be
        unknown; under ``labelled_movies`` the medians that clips are planned from, and under ``sequences`` what was
        measured on each.
    """
    sequences = list(measures.values())
    labelled = [m for m in sequences if m.labelled_frames]
    return {
        **_stacks(manifest),
        "n_frames": _range([m.n_frames for m in sequences]),
        "frame_interval_s": _known([m.frame_interval_s for m in sequences]),
        "frames_per_cycle": _cycle(sequences),
        "cyclic_share": _share([m.cyclic for m in sequences]),
        "labelled_share": _share([bool(m.labelled_frames) for m in sequences]),
        "labelled_frames": _range([len(m.labelled_frames) for m in labelled]),
        "labelled_gap_frames": _known(_gaps(labelled)),
        "labelled_position": _range([frame / m.n_frames for m in labelled for frame in m.labelled_frames]),
        "interframe_change": _known([m.interframe_change for m in sequences]),
        "displacement_mm": _known([m.displacement_mm for m in labelled]),
        "labelled_movies": _movies(sequences),
        "sequences": {case: _plain(m) for case, m in measures.items()},
    }


def _describes(fingerprint: Mapping[str, Any], manifest: Manifest) -> bool:
    """Tell whether a stored fingerprint is of these sequences, as far as the manifest tells them apart."""
    if len(fingerprint.get("spacings", ())) != len(manifest):
        return False
    if TEMPORAL_KEY not in fingerprint:
        return True
    temporal = fingerprint[TEMPORAL_KEY]
    wanted = {case: _stated(sequence) for case, sequence in manifest.items()}
    try:
        stored = {case: {name: entry[name] for name in wanted[case]} for case, entry in temporal["sequences"].items()}
        stacks = {name: temporal[name] for name in _stacks(manifest)}
    except (KeyError, TypeError):  # of another version, or edited
        return False
    return stored == wanted and stacks == _stacks(manifest)


def _stated(sequence: Sequence) -> dict[str, Any]:
    """Return what the manifest states about a sequence and the fingerprint repeats."""
    return {
        "n_frames": sequence.n_frames,
        "labelled_frames": list(sequence.labelled_frames),
        "frame_interval_s": sequence.frame_interval_s,
        "cyclic": sequence.cyclic,
    }


def _stacks(manifest: Manifest) -> dict[str, Any]:
    """Summarise how sequences make studies."""
    studies = manifest.studies()
    return {
        "n_sequences": len(manifest),
        "n_studies": len(studies),
        "sequences_per_study": _range([len(study.sequences) for study in studies]),
        "slice_spacing_mm": _known([sequence.slice_spacing_mm for sequence in manifest.values()]),
    }


def _movies(sequences: Collection[SequenceMeasures]) -> dict[str, float | None]:
    """Return medians over what clips are made of: labelled sequences, single frames left out unless all are."""
    labelled = [m for m in sequences if m.labelled_frames]
    movies = [m for m in labelled if m.n_frames > 1] or labelled
    share = sum(len(m.labelled_frames) for m in movies) / sum(m.n_frames for m in movies)
    return {
        "n_frames": _range([m.n_frames for m in movies])["median"],
        "frames_per_cycle": _cycle(movies)["median"],
        "labelled_frames": _range([len(m.labelled_frames) for m in movies])["median"],
        "labelled_frame_share": _rounded(share),
        "gap_frames": _known(_gaps(movies))["median"],
        "displacement_mm": _known([m.displacement_mm for m in movies])["median"],
    }


def _gaps(sequences: Collection[SequenceMeasures]) -> list[int]:
    """Return how far the first labelled frame is from the last, of sequences with two or more."""
    return [max(m.labelled_frames) - min(m.labelled_frames) for m in sequences if len(m.labelled_frames) > 1]


def _cycle(sequences: Collection[SequenceMeasures]) -> dict[str, float | None]:
    """Decide about frames per cycle: by the sequences that show it, if there are enough."""
    credible = [m for m in sequences if m.frames_per_cycle is not None and m.cycle_confidence >= CREDIBLE]
    share = len(credible) / len(sequences)
    confidence = float(np.median([m.cycle_confidence for m in credible])) if credible else 0.0
    if share < SHARE_THAT_DECIDES:
        return {
            "median": None,
            "min": None,
            "max": None,
            "confidence": _rounded(confidence * share),
            "share": _rounded(share),
        }
    lengths = [m.frames_per_cycle for m in credible]
    return {**_range(lengths), "confidence": _rounded(confidence), "share": _rounded(share)}


def _known(values: Collection[float | None]) -> dict[str, float | None]:
    """Summarise the values that are known, and how many are."""
    known = [value for value in values if value is not None]
    share = len(known) / len(values) if len(values) else 0.0
    return {**(_range(known) if known else dict.fromkeys(("min", "median", "max"))), "share": _rounded(share)}


def _range(values: Collection[float]) -> dict[str, float]:
    return {
        "min": _rounded(min(values)),
        "median": _rounded(float(np.median(list(values)))),
        "max": _rounded(max(values)),
    }


def _share(flags: Collection[bool]) -> float:
    return _rounded(sum(flags) / len(flags))


def _rounded(value: float) -> float:
    return round(float(value), 3)


def _plain(measures: SequenceMeasures) -> dict[str, Any]:
    return {**asdict(measures), "labelled_frames": list(measures.labelled_frames)}


def _read(path: Path) -> dict[str, Any]:
    return read_json_object(path, "Extract it anew with --clean.")
