"""How sure the mask of every frame of a study is, and where it came from."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

import numpy as np

from nnunet_temporal.atomic import atomic_path
from nnunet_temporal.inference.propagation.regions import Region
from nnunet_temporal.metrics.overlap import dice

Origin = Literal["seed", "time", "slices", "blank", "beyond the heart"]


@dataclass(frozen=True)
class FrameRecord:
    """What is known of a frame's mask.

    Attributes:
        slice: Index of the slice.
        frame: Index of the moment.
        region: Region of the slice.
        origin: A given or automatic seed; propagated along ``time`` or from the neighbouring slice (``slices``); a
            frame that is zero everywhere; a slice beyond the apex that was not segmented.
        confidence: In 0..1, mean probability of what the foreground pixels were called; without foreground, the least
            probability of background. Lower by the ratio of a matched patch to the jump, where that is larger than a
            patch. None where nothing was segmented.
        agreement: Mean Dice of the passes from both sides, in 0..1; for a seed, of the mask found again once around the
            heart cycle. None where there is nothing to compare.
        jump_px: How far the centre of the foreground is from that in the neighbouring slice, in pixels of the networks;
            None without neighbour or foreground.
    """

    slice: int
    frame: int
    region: Region
    origin: Origin
    confidence: float | None = None
    agreement: float | None = None
    jump_px: float | None = None


def write_records(records: Iterable[FrameRecord], file: Path) -> None:
    """Write one line of CSV per frame, atomically; what is not known is empty."""
    with atomic_path(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as content:
        writer = csv.DictWriter(content, [field.name for field in fields(FrameRecord)])
        writer.writeheader()
        for record in records:
            values = asdict(record)
            writer.writerow({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in values.items()})


def read_records(file: Path) -> list[FrameRecord]:
    """Read what ``write_records`` wrote."""

    def number(text: str) -> float | None:
        return float(text) if text else None

    with file.open(newline="", encoding="utf-8") as content:
        return [
            FrameRecord(
                int(line["slice"]),
                int(line["frame"]),
                line["region"],  # type: ignore[arg-type]  # as it was written
                line["origin"],  # type: ignore[arg-type]  # as above
                *(number(line[name]) for name in ("confidence", "agreement", "jump_px")),
            )
            for line in csv.DictReader(content)
        ]


def remarks_on(records: Sequence[FrameRecord], masks: np.ndarray) -> list[str]:
    """Say what a user should know of a study before trusting its volumes.

    Args:
        records: One per frame.
        masks: (T, Z, Y, X) label values.
    """
    remarks = []
    slices = masks.shape[1]
    if slices > 2 and all(record.region == "middle" for record in records):
        remarks.append("no slice counts as apical, because both ends of the stack look alike; --apex says where it is")
    everywhere: np.ndarray = np.asarray((masks > 0).any(axis=(2, 3)).all(axis=0))
    if ends := [name for name, z in (("first", 0), ("last", -1)) if slices > 1 and everywhere[z]]:
        remarks.append(
            f"the heart fills the {' and the '.join(ends)} slice at all times: the stack may be cut off there"
        )
    seeds = [masks[record.frame, record.slice] for record in records if record.origin == "seed"]
    known = np.unique(seeds) if seeds else np.unique(masks)
    if unseen := sorted(set(np.unique(masks).tolist()) - set(known.tolist()) - {0}):
        remarks.append(f"label values {unseen} are in none of the masks it began with, and were found elsewhere")
    return remarks


def mean_dice(masks: np.ndarray, others: np.ndarray) -> float:
    """Return the mean Dice of the label values that either (Y, X) map has; 1 if both are background."""
    values = np.union1d(np.unique(masks), np.unique(others))
    overlaps = [dice(masks == value, others == value) for value in values[values > 0]]
    return float(np.mean(overlaps)) if overlaps else 1.0


def centre_of(mask: np.ndarray, corner: tuple[int, int]) -> np.ndarray | None:
    """Return the centre (y, x) of the foreground of a map (Y, X) that begins at a corner; None without any."""
    pixels = np.argwhere(mask > 0)
    return pixels.mean(0) + corner if len(pixels) else None
