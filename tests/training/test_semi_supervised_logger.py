"""The logger: nnU-Net's values and ours, one per epoch, on paper, in checkpoints and for other loggers."""

import math
import warnings

import numpy as np
import pytest
from nnunetv2.training.logging.nnunet_logger import LocalLogger, MetaLogger
from PIL import Image

from nnunet_temporal.training.semi_supervised_logger import AGREEMENT, SemiSupervisedLogger
from nnunet_temporal.training.window_losses import LOSSES

OURS = (*LOSSES, *AGREEMENT)
STOCK = tuple(LocalLogger().my_fantastic_logging)


def filled(logger, epochs, keys):
    for epoch in range(epochs):
        for key in keys:
            logger.log(key, [0.5, 0.6] if key == "dice_per_class_or_region" else 0.1 * epoch, epoch)
    return logger


def panels(folder):
    """The picture in greys, as an array of rows."""
    with Image.open(folder / "progress.png") as image:
        return np.asarray(image.convert("L"))


def test_our_keys_can_be_logged_beside_nnunets():
    logger = filled(SemiSupervisedLogger(), 2, (*STOCK, *OURS))
    assert {key: len(values) for key, values in logger.my_fantastic_logging.items()} == dict.fromkeys(STOCK + OURS, 2)


def test_a_checkpoint_gives_back_all_values():
    saved, loaded = filled(SemiSupervisedLogger(), 2, (*STOCK, *OURS)), SemiSupervisedLogger()
    loaded.load_checkpoint(saved.get_checkpoint())
    assert loaded.my_fantastic_logging == saved.my_fantastic_logging


@pytest.mark.parametrize("epochs", [0, 3])
def test_a_checkpoint_of_a_supervised_training_is_filled_up_and_can_be_gone_on_with(epochs):
    checkpoint = filled(LocalLogger(), epochs, STOCK).get_checkpoint()
    logger = SemiSupervisedLogger()
    logger.load_checkpoint(checkpoint)
    assert all(len(logger.get_value(key, None)) == epochs for key in OURS)
    assert all(math.isnan(value) for key in OURS for value in logger.get_value(key, None))
    logger.log(OURS[0], 1.0, epochs)
    assert logger.get_value(OURS[0], -1) == 1.0
    assert set(checkpoint) == set(STOCK)


def test_progress_has_a_fourth_panel_below_nnunets_three(tmp_path):
    folders = [tmp_path / name for name in ("stock", "ours")]
    for folder, logger, keys in zip(
        folders, (LocalLogger(), SemiSupervisedLogger()), (STOCK, STOCK + OURS), strict=True
    ):
        folder.mkdir()
        filled(logger, 3, keys).plot_progress_png(str(folder))
    stock, ours = (panels(folder) for folder in folders)
    assert ours.shape == (len(stock) * 4 // 3, stock.shape[1])
    assert np.array_equal(ours[: len(stock)], stock)
    assert ours[len(stock) :].std() > 0
    assert [path.name for path in folders[1].iterdir()] == ["progress.png"]


def test_losses_that_are_all_zero_are_drawn_without_a_warning(tmp_path):
    logger = filled(SemiSupervisedLogger(), 2, STOCK)
    for key in OURS:
        for epoch in range(2):
            logger.log(key, 0.0 if key in LOSSES else math.nan, epoch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        logger.plot_progress_png(str(tmp_path))


def test_the_fourth_panel_shows_what_was_logged_and_takes_missing_values(tmp_path):
    drawn = []
    for value in (math.nan, 0.5):
        logger = filled(SemiSupervisedLogger(), 3, (*STOCK, *LOSSES))
        for epoch in range(3):
            for key in AGREEMENT:
                logger.log(key, value, epoch)
        logger.plot_progress_png(str(tmp_path))
        drawn.append(panels(tmp_path))
    assert not np.array_equal(*drawn)


def test_other_loggers_such_as_wandb_receive_our_values(tmp_path):
    class Fake:
        def __init__(self):
            self.received = []

        def log(self, key, value, step):
            self.received.append((key, value, step))

    logger = MetaLogger(str(tmp_path), resume=False)
    logger.local_logger = SemiSupervisedLogger()
    logger.loggers.append(Fake())
    for key in OURS:
        logger.log(key, 0.25, 0)
    assert logger.loggers[0].received == [(key, 0.25, 0) for key in OURS]
