"""What converting many echo clips costs: time by the number of workers, in turn, and peak memory.

Draws clips in the layout of EchoNet-Dynamic (Motion JPEG, 112 x 112, two tracings each) and converts them.

    python benchmarks/convert_speed.py --clips 200 --frames 150 --workers 1 2 --rounds 2 --output DIR

Needs ``nnunet_temporal[video]``. Peak memory is that of a process of its own per conversion, with Python and libraries.
"""

import argparse
import csv
import multiprocessing
import resource
import shutil
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

SIZE, RATE = 112, 50


def draw_clips(folder: Path, clips: int, frames: int) -> None:
    """Write clips of a beating ellipse in noise, their list and their tracings."""
    import av

    (folder / "Videos").mkdir(parents=True)
    listed, traced = [], []
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    phases = np.cos(2 * np.pi * np.arange(frames) / 50)
    heights = 30 + 5 * phases
    for number in tqdm(range(clips), desc="Drawing", unit="clip"):
        noise = np.random.default_rng(number).integers(0, 60, (frames, SIZE, SIZE), dtype=np.uint8)
        inside = (y / heights[:, None, None]) ** 2 + (x / (20 + 4 * phases[:, None, None])) ** 2 < 1
        pixels = np.where(inside, noise // 3, noise + 120).astype(np.uint8)
        name = f"0X{number:08X}"
        with av.open(str(folder / "Videos" / f"{name}.avi"), "w") as file:
            stream = file.add_stream("mjpeg", rate=RATE)
            stream.width = stream.height = SIZE
            stream.pix_fmt = "yuvj420p"
            for frame in pixels:
                file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "gray").reformat(format="yuvj420p")))
            file.mux(stream.encode(None))
        split = ("TRAIN", "TRAIN", "VAL", "TEST")[number % 4]
        listed.append([name, 60, 40, 100, SIZE, SIZE, RATE, frames, split])
        for t in (0, 25):
            rows = np.linspace(-heights[t] + 1, heights[t] - 1, 20)
            half = (20 + 4 * phases[t]) * np.sqrt(1 - (rows / heights[t]) ** 2)
            chords = [(0, -heights[t], 0, heights[t]), *zip(-half, rows, half, rows, strict=True)]
            traced += [[f"{name}.avi", *(SIZE / 2 + np.array(chord)).round(2), t] for chord in chords]
    columns = "FileName,EF,ESV,EDV,FrameHeight,FrameWidth,FPS,NumberOfFrames,Split"
    for file, header, rows in (
        ("FileList.csv", columns, listed),
        ("VolumeTracings.csv", "FileName,X1,Y1,X2,Y2,Frame", traced),
    ):
        with (folder / file).open("w", newline="") as content:
            csv.writer(content).writerows([header.split(","), *rows])


def convert(clips: Path, raw: Path, workers: int) -> tuple[float, float]:
    """Convert; return seconds and the peak of memory in MB."""
    from nnunet_temporal.datasets import echonet_dynamic
    from nnunet_temporal.datasets.raw_writer import DatasetInfo, write_raw_dataset

    info = DatasetInfo(1, "Clips", echonet_dynamic.LABELS, echonet_dynamic.CHANNEL)
    raw.mkdir()
    start = time.perf_counter()
    write_raw_dataset(
        echonet_dynamic.find_studies(clips), info, raw,
        held_out=echonet_dynamic.held_out_studies(clips), folds=echonet_dynamic.official_folds(clips), workers=workers,
    )  # fmt: skip
    return time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--output", type=Path, required=True, help="folder for the clips; made once")
    arguments = parser.parse_args()
    clips = arguments.output / f"clips_{arguments.clips}_{arguments.frames}"
    if not clips.is_dir():
        draw_clips(clips, arguments.clips, arguments.frames)
    measured: dict[int, list[tuple[float, float]]] = {workers: [] for workers in arguments.workers}
    for _ in range(arguments.rounds):
        for workers in arguments.workers:
            raw = arguments.output / "raw"
            shutil.rmtree(raw, ignore_errors=True)
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                measured[workers].append(pool.apply(convert, (clips, raw, workers)))
    one = min(seconds for seconds, _ in measured[arguments.workers[0]])
    for workers, values in measured.items():
        seconds, peak = min(value[0] for value in values), max(value[1] for value in values)
        print(f"{workers} workers: {seconds:6.1f} s, x {one / seconds:.2f}; peak {peak:.0f} MB")


if __name__ == "__main__":
    main()
