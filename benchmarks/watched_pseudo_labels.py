"""Pseudo-labels whose rounds are compared with a truth that the training does not see."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from shared_plans import Dataset
from tqdm import tqdm

from nnunet_temporal.datasets.phantom.dataset import TRUTH_FOLDER
from nnunet_temporal.metrics.overlap import dice
from nnunet_temporal.sequences import Manifest
from nnunet_temporal.training.pseudo_label_maps import LEVELS
from nnunet_temporal.training.pseudo_labels import Prediction, PseudoLabelRound, PseudoLabels, RoundSummary
from nnunet_temporal.training.sequence_loader import first_kept_frame

VERDICTS = ("first", "accepted", "refused", "replaced")

Row = dict[str, dict[str, float | str]]
"""Of each case its verdict, the Dice of its prediction in the round, and of its pseudo-label after it."""


@dataclass(frozen=True)
class Truth:
    """The truth of the frames of a case that nobody labelled for the training.

    Attributes:
        labels: (T, Y, X) uint8, on the grid of the preprocessed case.
        unlabelled: (T,) bool.
    """

    labels: np.ndarray
    unlabelled: np.ndarray

    def dice(self, labels: np.ndarray) -> float:
        """Return the mean over the structures of the Dice of (T, Y, X) labels, all unlabelled frames together."""
        found, true = labels[self.unlabelled], self.labels[self.unlabelled]
        return float(np.nanmean([dice(found == value, true == value) for value in range(1, int(true.max()) + 1)]))


class WatchedPseudoLabels(PseudoLabels):
    """What a trainer remembers, and beside it how good that is and was.

    Attributes:
        rounds: A row per round.
    """

    def __init__(self, truths: Mapping[str, Truth]) -> None:
        """Start without pseudo-labels; ``truths`` hold every case of the training."""
        super().__init__()
        self.rounds: list[Row] = []
        self._truths = truths

    def start_round(self) -> PseudoLabelRound:
        """Do as the base; the round reports itself when it is closed."""
        return _WatchedRound(self)

    def record(self, predictions: Mapping[str, Prediction], summary: RoundSummary) -> None:
        """Compare a round's predictions and what is remembered after it with the truth."""
        verdicts = {case: verdict for verdict in VERDICTS for case in getattr(summary, verdict)}
        row: Row = {}
        for case, prediction in predictions.items():
            truth, stored = self._truths[case], self.read(case)
            if stored is None:
                raise ValueError(f"{case}: a closed round remembers every case it judged, found nothing")
            row[case] = {
                "verdict": verdicts[case],
                "predicted": truth.dice(prediction.maps.unpack()[0]),
                "stored": truth.dice(stored[0]),
            }
        self.rounds.append(row)


class TruePseudoLabels(PseudoLabels):
    """The truth in place of every pseudo-label, whatever the teacher predicts: the most that they could bring."""

    def __init__(self, truths: Mapping[str, Truth]) -> None:
        """Take the truth of every case of the training."""
        super().__init__()
        self._truths = truths

    def read(self, case: str) -> tuple[np.ndarray, np.ndarray, float]:
        """Return the truth, of which every pixel is certain."""
        labels = self._truths[case].labels
        return labels, np.full(labels.shape, LEVELS, np.uint8), 1.0


class _WatchedRound(PseudoLabelRound):
    def __init__(self, watched: WatchedPseudoLabels) -> None:
        super().__init__(watched._labels)
        self._watched = watched

    def close(self) -> RoundSummary:
        predictions = dict(self.predictions)
        summary = super().close()
        self._watched.record(predictions, summary)
        return summary


def read_truths(dataset: Dataset, trainer: nnUNetTrainer) -> dict[str, Truth]:
    """Read the truth of all training cases of a phantom dataset, on the grid of the preprocessed cases.

    Image and truth go through the preprocessor of the plans, as image and labels did: same crop, same resampling.
    """
    plans, configuration = trainer.plans_manager, trainer.configuration_manager
    preprocessor = configuration.preprocessor_class(verbose=False)
    truths = {}
    for sequence in tqdm(Manifest.load(dataset.preprocessed).values(), desc="Reading the truth", unit="sequence"):
        image, truth = (
            str(dataset.raw / name / f"{sequence.case}{suffix}.nii.gz")
            for name, suffix in (("imagesTr", "_0000"), (TRUTH_FOLDER, ""))
        )
        _, labels, properties = preprocessor.run_case([image], truth, plans, configuration, trainer.dataset_json)
        frames = np.arange(labels.shape[1]) + first_kept_frame(properties)
        unlabelled = ~np.isin(frames, sequence.labelled_frames)
        # The preprocessor marks background outside the image's nonzero region by -1.
        truths[sequence.case] = Truth(labels[0].clip(0).astype(np.uint8), unlabelled)
    return truths


def print_rounds(runs: list[list[Row]]) -> None:
    """Print Dice against the hidden truth, round by round, averaged over runs.

    The columns are the predictions by verdict, what was kept in the place of the refused ones, and all pseudo-labels
    after the round.
    """
    columns = (*VERDICTS, "kept for refused", "all stored")
    print(f"  {'round':>5} " + " ".join(f"{column:>17}" for column in columns))
    for number, rows in enumerate(zip(*runs, strict=True), start=1):
        cases = [case for row in rows for case in row.values()]
        groups = [[case["predicted"] for case in cases if case["verdict"] == verdict] for verdict in VERDICTS]
        groups.append([case["stored"] for case in cases if case["verdict"] == "refused"])
        groups.append([case["stored"] for case in cases])
        print(f"  {number:5d} " + " ".join(_cell(group) for group in groups))


def _cell(values: list) -> str:
    return f"{100 * np.mean(values):9.2f} ({len(values):5d})" if values else f"{'-':>17}"
