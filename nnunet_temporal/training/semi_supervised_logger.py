"""What a semi-supervised training logs beside nnU-Net's values, and a fourth panel in progress.png for it."""

import math
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from nnunetv2.training.logging.nnunet_logger import LocalLogger
from PIL import Image

from nnunet_temporal.atomic import atomic_path
from nnunet_temporal.training.window_losses import LOSSES

AGREEMENT = ("accept_rates", "teacher_agreements")
_WIDTH, _HEIGHT = 30, 18
"""Inches of a panel of nnU-Net's figure."""


class SemiSupervisedLogger(LocalLogger):
    """nnU-Net's logger with one more value per epoch for each unsupervised loss and for the pseudo-labels.

    ``accept_rates`` is the share of sequences whose new prediction the last round accepted, ``teacher_agreements`` one
    minus the mean deviation between the round's predictions and those before. Both are NaN until there are two rounds.
    """

    def __init__(self, verbose: bool = False) -> None:
        super().__init__(verbose)
        self.my_fantastic_logging.update({key: [] for key in (*LOSSES, *AGREEMENT)})

    def load_checkpoint(self, checkpoint: dict) -> None:
        """Take the values of a checkpoint; one that was trained on labels alone has none of ours."""
        epochs = len(checkpoint["train_losses"])
        ours = {key: [math.nan] * epochs for key in (*LOSSES, *AGREEMENT)}
        super().load_checkpoint({**ours, **checkpoint})

    def plot_progress_png(self, output_folder: str) -> None:
        """Draw nnU-Net's panels and ours below them."""
        super().plot_progress_png(output_folder)
        path = Path(output_folder) / "progress.png"
        with Image.open(path) as image:
            stock = np.asarray(image.convert("RGB"))
        panel = self._draw_panel(stock.shape[1])
        with atomic_path(path) as temporary:
            Image.fromarray(np.concatenate((stock, panel))).save(temporary, format="png")

    def _draw_panel(self, pixels: int) -> np.ndarray:
        """Draw losses and agreement over epochs, ``pixels`` wide: (Y, X, 3) uint8."""
        figure, axis = plt.subplots(figsize=(_WIDTH, _HEIGHT), dpi=pixels / _WIDTH)
        shares = axis.twinx()
        for key in LOSSES:
            axis.plot(self.my_fantastic_logging[key], label=key.replace("_", " "), linewidth=4)
        for key, style in zip(AGREEMENT, ("--", ":"), strict=True):
            shares.plot(self.my_fantastic_logging[key], "k", ls=style, label=key.replace("_", " "), linewidth=4)
        # The contrast is a hundred times the boundary constraint; before unlabelled frames have a part all are 0.
        if any(loss > 0 for key in LOSSES for loss in self.my_fantastic_logging[key]):
            axis.set_yscale("log", nonpositive="mask")
        axis.set(xlabel="epoch", ylabel="loss on unlabelled frames")
        shares.set(ylabel="share", ylim=(0, 1))
        axis.legend(loc=(0, 1))
        shares.legend(loc=(0.3, 1))
        figure.tight_layout()
        figure.canvas.draw()
        drawn = np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()  # type: ignore[attr-defined]  # Agg has it
        plt.close(figure)
        return drawn
