"""What a case is: its study, slice or view, its frames and which of them are labelled. The one place that names cases.

nnU-Net knows cases and nothing else. The manifest ``sequences.json`` beside ``dataset.json`` says for each case which
study it belongs to, which slice or view it is, which frames carry a human mask and what the file format cannot hold:
the true frame interval, end diastole and end systole, the distance between slices. Frame indices are 0-based.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_temporal.atomic import write_json
from nnunet_temporal.errors import InputError
from nnunet_temporal.sequence_fields import FIELD_RULES

MANIFEST_NAME = "sequences.json"
MANIFEST_VERSION = 1

Splits = list[dict[str, list[str]]]

_SLICE_SUFFIX = re.compile(r"_z(\d{2,})$")


@dataclass(frozen=True)
class Sequence:
    """One sequence: the ordered frames of one slice or one view; nnU-Net calls it a case.

    Attributes:
        case: Case name, the stem of its files in the nnU-Net folders.
        study: Name of the study the sequence belongs to.
        n_frames: Number of frames, at least 1.
        labelled_frames: Indices of the frames with a human mask, strictly increasing; empty when there is none.
        slice: Index of the slice in its stack, None for a sequence that is not part of a stack.
        view: Name of the view ("4CH"), None when there is only one.
        ed: Index of the end-diastolic frame, None when unknown.
        es: Index of the end-systolic frame, None when unknown.
        cyclic: Whether the frames cover exactly one heart beat, so that the first frame follows the last.
        frame_interval_s: Time between two frames in seconds, None when unknown.
        slice_spacing_mm: Distance between the centres of neighbouring slices in mm, None outside a stack.
        pixel_spacing_known: False when the in-plane spacing is a placeholder and no length in mm can be trusted.
        source: Relative or absolute path of the file the sequence was cut from; empty when there is none.

    Raises:
        InputError: A field holds a value of the wrong type or outside its range.
    """

    case: str
    study: str
    n_frames: int
    labelled_frames: tuple[int, ...]
    slice: int | None = None
    view: str | None = None
    ed: int | None = None
    es: int | None = None
    cyclic: bool = False
    frame_interval_s: float | None = None
    slice_spacing_mm: float | None = None
    pixel_spacing_known: bool = True
    source: str = ""

    def __post_init__(self) -> None:
        for name, (is_valid, expected) in FIELD_RULES.items():
            value = getattr(self, name)
            if not is_valid(value):
                raise InputError(f"case {self.case!r}: field {name!r}: found {value!r}, expected {expected}")
        last = self.n_frames - 1
        for name, indices in (("labelled_frames", self.labelled_frames), ("ed", (self.ed,)), ("es", (self.es,))):
            outside = [index for index in indices if index is not None and index > last]
            if outside:
                raise InputError(f"case {self.case!r}: field {name!r}: found {outside}, expected frames in 0..{last}")


@dataclass(frozen=True)
class Study:
    """All sequences of one patient visit, ordered by slice, then view."""

    name: str
    sequences: tuple[Sequence, ...]


class Manifest(Mapping[str, Sequence]):
    """The sequences of a dataset by case name, as stored in ``sequences.json``."""

    def __init__(self, sequences: Mapping[str, Sequence]) -> None:
        """Hold ``sequences`` by case name.

        Raises:
            InputError: A key differs from the case it holds, or two cases claim the same study, slice and view.
        """
        self.sequences: dict[str, Sequence] = dict(sequences)
        places: dict[tuple[str, int | None, str | None], str] = {}
        for case, sequence in self.sequences.items():
            if case != sequence.case:
                raise InputError(f"case {case!r}: found a sequence of case {sequence.case!r}, expected {case!r}")
            other = places.setdefault((sequence.study, sequence.slice, sequence.view), case)
            if other != case:
                raise InputError(
                    f"case {case!r}: found study {sequence.study!r}, slice {sequence.slice}, view {sequence.view!r}, "
                    f"the same as case {other!r}; expected each place in a study once"
                )

    def __getitem__(self, case: str) -> Sequence:
        return self.sequences[case]

    def __iter__(self) -> Iterator[str]:
        return iter(self.sequences)

    def __len__(self) -> int:
        return len(self.sequences)

    def studies(self) -> list[Study]:
        """Group the sequences by study; studies sorted by name, their sequences by slice, then view."""
        groups: dict[str, list[Sequence]] = {}
        for sequence in self.sequences.values():
            groups.setdefault(sequence.study, []).append(sequence)
        for group in groups.values():
            group.sort(key=lambda sequence: (-1 if sequence.slice is None else sequence.slice, sequence.view or ""))
        return [Study(name, tuple(groups[name])) for name in sorted(groups)]

    def subset(self, cases: Iterable[str]) -> "Manifest":
        """Return a manifest of ``cases`` only; InputError when one is not in this manifest."""
        cases = list(cases)
        if unknown := [case for case in cases if case not in self.sequences]:
            raise InputError(f"{MANIFEST_NAME} has no entry for these cases: {', '.join(unknown)}")
        return Manifest({case: self.sequences[case] for case in cases})

    @classmethod
    def load(cls, folder: Path) -> "Manifest":
        """Read ``folder/sequences.json``; see :meth:`read`."""
        return cls.read(Path(folder) / MANIFEST_NAME)

    @classmethod
    def read(cls, path: Path) -> "Manifest":
        """Read and validate a manifest.

        Raises:
            InputError: The file is missing, no JSON, of another version, or an entry is wrong. The message names file,
                case, field, what was found and what was expected.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"{path}: the manifest is missing; write it with 'nnunet_temporal convert'") from None
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: expected a manifest in JSON, but it cannot be read: {error}") from error
        if not isinstance(content, dict) or content.get("version") != MANIFEST_VERSION:
            found = content.get("version") if isinstance(content, dict) else content
            raise InputError(f"{path}: field 'version': found {found!r}, expected {MANIFEST_VERSION}")
        entries = content.get("sequences")
        if not isinstance(entries, dict):
            raise InputError(f"{path}: field 'sequences': found {entries!r}, expected an object of cases")
        try:
            return cls({case: _sequence_from_json(case, entry) for case, entry in entries.items()})
        except InputError as error:
            raise InputError(f"{path}: {error}") from error

    def write(self, path: Path) -> None:
        """Write the manifest as JSON, atomically. The folder of ``path`` must exist."""
        entries = {case: asdict(sequence) for case, sequence in self.sequences.items()}
        for entry in entries.values():
            del entry["case"]
        write_json({"version": MANIFEST_VERSION, "sequences": entries}, Path(path))


def case_name(study: str, slice: int | None = None, view: str | None = None) -> str:
    """Name the case of a sequence: ``study``, ``study_z03`` for a slice, ``study_4CH`` for a view."""
    name = study if view is None else f"{study}_{view}"
    return name if slice is None else f"{name}_z{slice:02d}"


def parse_case_name(case: str) -> tuple[str, int | None, str | None]:
    """Read (study, slice, view) from a case name without a manifest.

    A suffix ``_zNN`` is a slice. Views cannot be told from study names, so without that suffix the whole name is the
    study and the view is None.
    """
    match = _SLICE_SUFFIX.search(case)
    if match is None or match.start() == 0:
        return case, None, None
    return case[: match.start()], int(match.group(1)), None


def study_splits(manifest: Manifest, n_folds: int = 5, seed: int = 12345) -> Splits:
    """Split into folds by study, in the format of nnU-Net's ``splits_final.json``.

    Validation holds labelled sequences only. Sequences without a labelled frame are in every fold's training list
    unless their study is validated in that fold; then they are in neither.

    Args:
        manifest: Training sequences only; held-out studies must not be in it.
        n_folds: Number of folds wanted; fewer studies with a labelled frame give as many folds as such studies.
        seed: Seed of the shuffle.

    Returns:
        One ``{"train": [cases], "val": [cases]}`` per fold, cases sorted by study and place.

    Raises:
        InputError: Fewer than two folds are wanted, or fewer than two studies have a labelled frame.
    """
    studies = manifest.studies()
    labelled = [study.name for study in studies if any(sequence.labelled_frames for sequence in study.sequences)]
    if n_folds < 2:
        raise InputError(f"n_folds must be at least 2, got {n_folds}")
    if len(labelled) < 2:
        raise InputError(
            f"cross-validation needs at least 2 training studies with a labelled frame, found {len(labelled)} "
            f"{labelled}; add studies or hold fewer out"
        )
    # RandomState, not default_rng: only its stream is guaranteed to stay the same in every numpy version.
    shuffled = np.random.RandomState(seed).permutation(labelled)
    splits: Splits = []
    for fold in np.array_split(shuffled, min(n_folds, len(labelled))):
        validated = set(fold.tolist())
        split: dict[str, list[str]] = {"train": [], "val": []}
        for study in studies:
            for sequence in study.sequences:
                if study.name not in validated:
                    split["train"].append(sequence.case)
                elif sequence.labelled_frames:
                    split["val"].append(sequence.case)
        splits.append(split)
    return splits


def check_splits(splits: Splits, manifest: Manifest) -> None:
    """Check that folds keep each study on one side, name known cases and validate on labelled ones.

    Raises:
        InputError: The splits are no list of train and val lists, a case has no entry in the manifest, a study is on
            both sides of a fold, or a case to validate on has no labelled frame.
    """
    if not isinstance(splits, list) or not splits:
        raise InputError(f"splits: found {splits!r}, expected a list with one entry per fold")
    for fold, split in enumerate(splits):
        sides = {}
        for side in ("train", "val"):
            cases = split.get(side) if isinstance(split, dict) else None
            if not isinstance(cases, list):
                raise InputError(f"splits, fold {fold}: found {cases!r} for {side!r}, expected a list of cases")
            if unknown := [case for case in cases if case not in manifest]:
                raise InputError(f"splits, fold {fold}, {side}: {MANIFEST_NAME} has no entry for {', '.join(unknown)}")
            sides[side] = {manifest[case].study for case in cases}
        if shared := sorted(sides["train"] & sides["val"]):
            raise InputError(f"splits, fold {fold}: studies {shared} are in both train and val; split by study")
        if unlabelled := [case for case in split["val"] if not manifest[case].labelled_frames]:
            raise InputError(
                f"splits, fold {fold}, val: {unlabelled} have no labelled frame to validate on; remove them"
            )


def _sequence_from_json(case: str, entry: Any) -> Sequence:  # noqa: ANN401 - whatever the JSON file holds
    if not isinstance(entry, dict):
        raise InputError(f"case {case!r}: found {entry!r}, expected an object with the fields of a sequence")
    known = {field.name: field for field in fields(Sequence) if field.name != "case"}
    if unknown := sorted(set(entry) - set(known)):
        raise InputError(f"case {case!r}: found unknown field(s) {unknown}, expected only {sorted(known)}")
    if missing := [name for name, field in known.items() if field.default is MISSING and name not in entry]:
        raise InputError(f"case {case!r}: required field(s) {missing} are missing")
    frames = entry["labelled_frames"]
    return Sequence(case=case, **{**entry, "labelled_frames": tuple(frames) if isinstance(frames, list) else frames})
