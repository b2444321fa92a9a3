"""Draw phantom studies of one modality as a picture: a row per study, three phases, each without and with its truth.

python benchmarks/phantom_montage.py --modality echo --output documentation/pictures/phantom_echo.png

The defaults are those of the pictures in the documentation.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nnunet_temporal.atomic import atomic_path
from nnunet_temporal.datasets.phantom import apical_heart, short_axis
from nnunet_temporal.datasets.phantom.cine import draw_cine_study
from nnunet_temporal.datasets.phantom.echo import draw_echo_study
from nnunet_temporal.datasets.phantom.heartbeat import Heartbeat
from nnunet_temporal.datasets.phantom.phantom_study import PhantomSequence, PhantomStudy

MODALITIES = {"echo": (draw_echo_study, apical_heart.LABELS), "cine": (draw_cine_study, short_axis.LABELS)}
# Okabe-Ito: apart for every kind of colour vision.
COLOURS = {"LV": "#56b4e9", "MYO": "#e69f00", "LA": "#f0e442", "RV": "#f0e442"}
FRAMES_PER_CYCLE = 24
PANEL_INCHES = 2.0


def draw_study(modality: str, size: int, rng: np.random.Generator) -> PhantomStudy:
    """Draw a study of one beat from end diastole on."""
    ef_percent, systole_share = rng.uniform(30.0, 70.0), rng.uniform(0.33, 0.4)
    heartbeat = Heartbeat(FRAMES_PER_CYCLE, 1.0, ef_percent, systole_share, cycle_s=rng.uniform(0.7, 1.1))
    return MODALITIES[modality][0]("montage", heartbeat, size, rng)


def phases_of(heartbeat: Heartbeat) -> dict[str, int]:
    """Return the frames to show: end diastole, end systole, and the middle of early filling."""
    filling = heartbeat.systole_share + 0.22 * (1 - heartbeat.systole_share)
    shares = {"end diastole": 0.0, "end systole": heartbeat.systole_share, "early filling": filling}
    return {name: round(share * FRAMES_PER_CYCLE) for name, share in shares.items()}


def title_of(sequence: PhantomSequence, study: PhantomStudy) -> str:
    """Name a row: view or slice, and the ejection fraction."""
    place = sequence.view or f"slice {sequence.slice} of 0-{len(study.sequences) - 1}"
    return f"{place}, EF {study.heartbeat.ef_percent:.0f} %"


def sequence_to_show(study: PhantomStudy, row: int, rows: int) -> PhantomSequence:
    """Choose a view in turn, or slices from base to apex."""
    if study.sequences[0].view is not None:
        return study.sequences[row % len(study.sequences)]
    # From the base, where slices lose the ventricle in systole, to where the apex begins.
    return study.sequences[int((0.15 + 0.7 * row / rows) * len(study.sequences))]


def draw_panel(axes: Axes, image: np.ndarray, limits: tuple[float, float], masks: dict[str, np.ndarray]) -> None:
    """Draw a frame (Y, X) and the outlines of its masks {structure: (Y, X)}, of which there may be none."""
    axes.imshow(image, cmap="gray", vmin=limits[0], vmax=limits[1], interpolation="bicubic")
    axes.set(xticks=[], yticks=[])
    # The wall first: where outlines coincide, that of the cavity is seen.
    for name in sorted(masks, key=lambda name: name != "MYO"):
        if masks[name].any():
            axes.contour(masks[name], [0.5], colors=COLOURS[name], linewidths=1.2)


def draw_montage(modality: str, studies: int, size: int, seed: int) -> Figure:
    """Draw the montage."""
    figure = Figure(figsize=(6 * PANEL_INCHES, studies * PANEL_INCHES + 0.6), facecolor="black", layout="constrained")
    panels = figure.subplots(studies, 6, squeeze=False)
    labels = {name: value for name, value in MODALITIES[modality][1].items() if value > 0}
    for row, child in enumerate(np.random.default_rng(seed).spawn(studies)):
        study = draw_study(modality, size, child)
        sequence = sequence_to_show(study, row, studies)
        low, high = (float(value) for value in np.percentile(sequence.image, (0.5, 99.7)))
        for column, (name, frame) in enumerate(phases_of(study.heartbeat).items()):
            plain, outlined = panels[row, 2 * column : 2 * column + 2]
            masks = {name: sequence.truth[frame] == value for name, value in labels.items()}
            draw_panel(plain, sequence.image[frame], (low, high), {})
            draw_panel(outlined, sequence.image[frame], (low, high), masks)
            if row == 0:
                plain.set_title(name, color="white", fontsize=10, loc="left")
        panels[row, 0].set_ylabel(title_of(sequence, study), color="white", fontsize=9)
    handles = [Line2D([], [], color=COLOURS[name], label=name) for name in labels]
    figure.legend(handles=handles, loc="outside lower right", ncols=3, labelcolor="white", frameon=False)
    return figure


def main() -> None:
    """Draw the montage of one modality."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modality", choices=MODALITIES, required=True)
    parser.add_argument("--output", type=Path, required=True, help="the PNG to write")
    parser.add_argument("--studies", type=int, default=4)
    parser.add_argument("--size", type=int, default=160, help="height and width of the images in pixels")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    figure = draw_montage(arguments.modality, arguments.studies, arguments.size, arguments.seed)
    with atomic_path(arguments.output) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


if __name__ == "__main__":
    main()
