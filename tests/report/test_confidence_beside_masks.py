"""How sure the model was, from what prediction leaves beside the masks."""

import numpy as np
import pytest
from segmented_hearts import beating, segmented

from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.confidence import write_confidence
from nnunet_temporal.inference.propagation.study_records import FrameRecord, write_records
from nnunet_temporal.report.confidence import read_confidence

HEART = beating()
STACK = segmented(HEART).stack


def read(folder):
    return read_confidence(folder / "s", STACK.sequences, HEART)


def test_without_files_nothing_is_known(tmp_path):
    assert read(tmp_path) is None


def test_probabilities_are_averaged_over_what_was_called_foreground(tmp_path):
    probabilities = np.zeros((3, *HEART[:, 0].shape), np.float32)
    probabilities[0] = 0.3
    probabilities[1, :, :, :12] = 0.6
    probabilities[2, :, :, 12:] = 0.7
    np.savez(tmp_path / "s_z01.npz", probabilities=probabilities)
    # The heart lies evenly on both halves.
    confidence = read(tmp_path)
    np.testing.assert_allclose(confidence[:, 1], 0.65, atol=1e-6)
    assert np.isnan(confidence[:, 0]).all()


def test_a_frame_without_foreground_has_no_confidence(tmp_path):
    masks = HEART.copy()
    masks[1] = 0
    np.savez(tmp_path / "s_z00.npz", probabilities=np.full((3, *HEART[:, 0].shape), 0.5))
    confidence = read_confidence(tmp_path / "s", STACK.sequences, masks)
    assert np.isnan(confidence[:, 0]).tolist() == [False, True, False, False]


def test_records_of_a_propagated_study_come_first(tmp_path):
    records = [FrameRecord(1, frame, "middle", "time", confidence=0.4 + 0.1 * frame) for frame in range(3)]
    write_records([*records, FrameRecord(1, 3, "middle", "beyond the heart")], tmp_path / "s_frames.csv")
    np.savez(tmp_path / "s_z00.npz", probabilities=np.ones((3, *HEART[:, 0].shape)))
    confidence = read(tmp_path)
    np.testing.assert_allclose(confidence[:, 1], [0.4, 0.5, 0.6, np.nan])
    assert np.isnan(confidence[:, 0]).all()


@pytest.mark.parametrize("record", [FrameRecord(2, 3, "middle", "time"), FrameRecord(0, 4, "middle", "time")])
def test_records_of_another_study_are_refused(tmp_path, record):
    write_records([record], tmp_path / "s_frames.csv")
    with pytest.raises(InputError, match="expected 2 slices of 4 frames"):
        read(tmp_path)


@pytest.mark.parametrize("text", ["slice,frame\n0,0\n", "slice,frame,region,origin\nx,0,middle,time\n"])
def test_damaged_records_are_refused(tmp_path, text):
    (tmp_path / "s_frames.csv").write_text(text)
    with pytest.raises(InputError, match=r"s_frames\.csv: cannot be read"):
        read(tmp_path)


def test_probabilities_that_do_not_fit_are_refused(tmp_path):
    np.savez(tmp_path / "s_z00.npz", probabilities=np.zeros((3, 4, 5, 5)))
    with pytest.raises(InputError, match=r"found probabilities of shape .* expected \(4, 24, 24\)"):
        read(tmp_path)


@pytest.mark.parametrize("content", [b"nothing", b""])
def test_damaged_probabilities_are_refused(tmp_path, content):
    (tmp_path / "s_z00.npz").write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as nnU-Net's probabilities"):
        read(tmp_path)


def test_what_predict_leaves_beside_a_movie_or_its_sequences_is_read(tmp_path):
    frames = {0: np.array([0.9, 0.8, np.nan, 0.7]), 1: np.array([0.6, 0.5, 0.4, 0.3])}
    write_confidence(frames, tmp_path / "s_confidence.csv")
    np.testing.assert_allclose(read(tmp_path), np.stack([frames[0], frames[1]], axis=1))
    (tmp_path / "s_confidence.csv").unlink()
    write_confidence({None: frames[1]}, tmp_path / "s_z01_confidence.csv")
    confidence = read(tmp_path)
    np.testing.assert_allclose(confidence[:, 1], frames[1])
    assert np.isnan(confidence[:, 0]).all()


@pytest.mark.parametrize("frames", [{2: np.ones(4)}, {0: np.ones(3)}])
def test_confidence_of_other_masks_is_refused(tmp_path, frames):
    write_confidence(frames, tmp_path / "s_confidence.csv")
    with pytest.raises(InputError, match="expected 2 slices of 4 frames"):
        read(tmp_path)
