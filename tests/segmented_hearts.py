"""Small segmented hearts for reports, in memory and on disk, shared by tests. Not a test."""

import json
from pathlib import Path

import numpy as np
from mask_folders import IGNORE, LV, MYO, SCHEME, make_stack, write_dataset, write_masks

from nnunet_temporal.report.cohort import StackSources, StudySources
from nnunet_temporal.report.page_content import StudyContent, describe_study
from nnunet_temporal.report.segmented_study import SegmentedStack, SegmentedStudy, segmented_stack

SIDE = 24


def ring(half: int, shift: int = 0) -> np.ndarray:
    """Return labels (Y, X): a square cavity of 2 ``half`` pixels a side in a wall of two pixels."""
    labels = np.zeros((SIDE, SIDE), np.uint8)
    middle = SIDE // 2
    for size, value in ((half + 2, MYO), (half, LV)):
        labels[middle - size : middle + size, middle - size + shift : middle + size + shift] = value if half else 0
    return labels


def beating(halves: tuple[int, ...] = (5, 4, 3, 4), slices: int = 2) -> np.ndarray:
    """Return labels (T, Z, Y, X) of hearts of these sizes, alike in all slices."""
    return np.repeat(np.stack([ring(half) for half in halves])[:, None], slices, axis=1)


def drawn_at(labels: np.ndarray, *frames: int) -> np.ndarray:
    """Return an expert's labels (T, ...) that are known at these frames only."""
    truth = np.full_like(labels, IGNORE)
    truth[list(frames)] = labels[list(frames)]
    return truth


def grey(labels: np.ndarray) -> np.ndarray:
    """Return intensities of the same shape: the cavity is bright, the wall dark, and no frame is like another."""
    noise = np.random.default_rng(0).integers(0, 30, labels.shape)
    return (np.array([60, 200, 20], np.uint8)[labels] + noise).astype(np.uint8)


def segmented(
    prediction: np.ndarray, truth: np.ndarray | None = None, labels=SCHEME, name: str = "s", **fields: object
) -> SegmentedStack:
    """Return a stack of labels (T, Z, Y, X) or (T, Y, X); without ``truth`` nobody drew anything."""
    truth = np.full_like(prediction, IGNORE) if truth is None else truth
    stack = make_stack(prediction, truth, **fields)
    return segmented_stack(name, grey(np.minimum(stack.prediction, MYO)), stack, labels)


def describe(
    *stacks: SegmentedStack, name: str = "s", labels=SCHEME, folder: Path = Path("nowhere"), budget: int = 200_000
) -> StudyContent:
    """Return what stands on the page about a study of these stacks."""
    sources = tuple(StackSources(name, stack.stack.sequences, (), (folder / "masks",), ()) for stack in stacks)
    return describe_study(SegmentedStudy(name, stacks), StudySources(name, sources), labels, budget)


def write_folders(
    root: Path,
    prediction: dict[str, np.ndarray],
    truth: dict[str, np.ndarray] | None = None,
    entries: dict[str, dict] | None = None,
    labels: dict[str, int] | None = None,
) -> list[str]:
    """Write images, masks and labelsTs below ``root``, and return the arguments of ``report`` that name them.

    A name is that of a sequence (T, Y, X) or of a whole movie (T, Z, Y, X).
    """
    movies = {f"{name}_0000" if maps.ndim == 3 else name: grey(maps) for name, maps in prediction.items()}
    write_masks(root / "images", movies)
    write_masks(root / "masks", prediction)
    arguments = ["-i", str(root / "images"), "-p", str(root / "masks"), "-o", str(root / "page.html")]
    if truth is not None:
        return [*arguments, "-ref", str(write_dataset(root, truth, entries, labels))]
    write_dataset(root, prediction, entries, labels)
    return arguments


def film_of(page: str) -> list[list[dict]]:
    """Return what the viewers of a page are given, study by study."""
    opening = '<script type="application/json" class="film">'
    return [json.loads(part.split("</script>")[0]) for part in page.split(opening)[1:]]
