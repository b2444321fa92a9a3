"""``predict``: folders of sequences and of movies, in parts and after interruptions, past broken files."""

import contextlib
import io
import json
import re
import shutil

import nibabel
import numpy as np
import pytest
from challenge_road import grid, mask_paths, pixels
from nifti_movies import save_nifti
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from phantom_dataset import movie
from trained_models import TWO_CHANNELS, pooled_dice, write_model

from nnunet_temporal.cli import main
from nnunet_temporal.inference.study import merge_studies, split_studies
from nnunet_temporal.trainers.gdkvm import nnUNetTrainerGDKVM

MODEL = "nnUNetTrainerGDKVM__plans__2dt"


@pytest.fixture
def work(nnunet_folders, tmp_path):
    """Write a model, two movies of two slices, and their sequences; return the folder with all of them."""
    write_model(nnunet_folders.results / "Dataset777_Phantom" / MODEL, nnUNetTrainerGDKVM, folds=(0, 1))
    for name, seed in (("a", 1), ("b", 2)):
        on_disk = movie(6, seed).transpose(3, 2, 1, 0)
        save_nifti(tmp_path / "movies" / f"{name}.nii.gz", on_disk, zooms=(1.25, 1.5, 8.0, 0.03))
    split_studies(sorted((tmp_path / "movies").iterdir()), tmp_path / "sequences")
    return tmp_path


def predict(source, output, *words, trainer="nnUNetTrainerGDKVM", configuration="2dt"):
    """Run the command on the CPU; return the exit code and what it printed on both channels."""
    words = ("-d", 777, "-tr", trainer, "-c", configuration, "-p", "plans", "-device", "cpu", *words)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        code = main(["predict", "-i", str(source), "-o", str(output), *map(str, words)])
    return code, printed.getvalue()


def test_sequences_get_masks_on_their_grid_and_everything_later_commands_ask_for(work):
    code, printed = predict(work / "sequences", work / "masks")
    assert code == 0, printed
    assert "4 files predicted" in printed and "frames/s" in printed
    for image in mask_paths(work / "sequences"):
        mask = work / "masks" / image.name.replace("_0000", "")
        assert grid(mask) == grid(image)
        assert len(np.unique(pixels(mask))) > 1
    assert json.loads((work / "masks" / "dataset.json").read_text())["labels"]["LV"] == 1
    assert (work / "masks" / "plans.json").is_file()
    assert len(merge_studies(work / "masks", work / "merged")) == 2  # finds the sequences by the record


def test_movies_are_split_predicted_and_merged_in_one_go(work):
    predict(work / "sequences", work / "masks")
    merge_studies(work / "masks", work / "merged")
    assert predict(work / "movies", work / "direct")[0] == 0
    for name in ("a.nii.gz", "b.nii.gz"):
        ours, by_parts = (nibabel.load(work / folder / name) for folder in ("direct", "merged"))
        assert ours.shape == (36, 40, 2, 6)
        np.testing.assert_array_equal(ours.dataobj, by_parts.dataobj)
        assert ours.header == by_parts.header


def test_one_movie_may_be_named(work):
    assert predict(work / "movies" / "a.nii.gz", work / "out")[0] == 0
    assert [path.name for path in mask_paths(work / "out")] == ["a.nii.gz"]


def test_the_report_shows_what_was_predicted_by_which_model(work):
    code, printed = predict(work / "movies", work / "out", "--report", work / "page.html")
    assert code == 0, printed
    page = (work / "page.html").read_text(encoding="utf-8")
    assert page.count('<article class="study"') == 2
    assert "nnUNetTrainerGDKVM / plans / 2dt, folds 0" in page
    # The model says how sure it was, and untrained as it is, that was not much.
    assert "low confidence" in page


def test_the_report_shows_masks_that_were_there_already_and_comes_after_what_went_wrong(work):
    assert predict(work / "movies", work / "out")[0] == 0
    words = ("--continue_prediction", "--report", work / "page.html")
    code, printed = predict(work / "movies", work / "out", *words)
    assert code == 0 and (work / "page.html").read_text(encoding="utf-8").count('<article class="study"') == 2, printed
    (work / "page.html").unlink()
    (work / "movies" / "b.nii.gz").write_bytes(b"broken")
    (work / "out" / "b.nii.gz").unlink()
    code, printed = predict(work / "movies", work / "out", *words)
    assert code == 1 and printed.index("1 could not be predicted") < printed.index("1 studies"), printed


def test_what_a_propagation_knew_of_earlier_masks_is_removed(work):
    (work / "out").mkdir()
    (work / "out" / "a_frames.csv").write_text("slice,frame,region,origin,confidence,agreement,jump_px\n")
    assert predict(work / "movies", work / "out")[0] == 0
    assert {path.name for path in (work / "out").glob("*.csv")} == {"a_confidence.csv", "b_confidence.csv"}


def test_a_part_of_the_input_gets_no_report(work):
    code, printed = predict(work / "movies", work / "out", "--report", work / "page.html", "-num_parts", 2)
    assert code != 0 and "--report: cannot show what other calls predict" in printed


def test_a_page_that_cannot_be_written_is_refused_before_the_work(work):
    code, printed = predict(work / "movies", work / "out", "--report", work / "page.html", "--table", work)
    assert code == 2 and f"--table {work}: found a folder" in printed
    code, printed = predict(work / "movies", work / "out", "--report", work / "movies")
    assert code == 2 and f"--report {work / 'movies'}: found a folder" in printed
    assert not (work / "out").exists()


def test_a_broken_file_stops_nobody_and_is_listed(work):
    broken = work / "sequences" / "a_z01_0000.nii.gz"
    # Half of it, which SimpleITK would read without complaint, as zeros from there on.
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    code, printed = predict(work / "sequences", work / "masks")
    assert code == 1
    assert "3 files predicted" in printed
    assert "1 could not be predicted" in printed and str(broken) in printed
    assert {path.name for path in (work / "masks").iterdir()} == {
        "a_z00.nii.gz", "b_z00.nii.gz", "b_z01.nii.gz", "dataset.json", "plans.json", "predict_from_raw_data_args.json",
        "predicted_by.json", "a_z00_confidence.csv", "b_z00_confidence.csv", "b_z01_confidence.csv",
    }  # fmt: skip


def test_parts_share_the_input_and_a_later_call_adds_what_is_missing(work):
    assert predict(work / "sequences", work / "masks", "-num_parts", 2, "-part_id", 1)[0] == 0
    done = {path.name: path.stat().st_mtime_ns for path in mask_paths(work / "masks")}
    assert set(done) == {"a_z01.nii.gz", "b_z01.nii.gz"}
    _, printed = predict(work / "sequences", work / "masks", "--continue_prediction")
    assert "2 files predicted" in printed
    after = {path.name: path.stat().st_mtime_ns for path in mask_paths(work / "masks")}
    assert len(after) == 4 and {name: after[name] for name in done} == done


def test_probabilities_are_written_as_nnunet_does_and_asked_for_when_continuing(work):
    predict(work / "sequences", work / "masks")
    _, printed = predict(work / "sequences", work / "masks", "--save_probabilities", "--continue_prediction")
    assert "4 files predicted" in printed
    for mask in mask_paths(work / "masks"):
        probabilities = np.load(mask.with_name(mask.name.replace(".nii.gz", ".npz")))["probabilities"]
        assert probabilities.shape == (3, 6, 40, 36)
        np.testing.assert_array_equal(probabilities.argmax(0), pixels(mask))
    folders = (work / "masks", work / "copy")
    shutil.copytree(*folders)
    assert main(["ensemble", "-i", *map(str, folders), "-o", str(work / "mean")]) == 0


def test_folds_and_checkpoints_can_be_named(work, nnunet_folders):
    folder = nnunet_folders.results / "Dataset777_Phantom" / MODEL
    (folder / "fold_1" / "checkpoint_final.pth").rename(folder / "fold_1" / "checkpoint_best.pth")
    predict(work / "sequences", work / "first")
    predict(work / "sequences", work / "best", "-f", 1, "-chk", "checkpoint_best.pth")
    assert pooled_dice(*(pixels(work / name / "a_z00.nii.gz") for name in ("first", "best"))) < 0.99


@pytest.mark.parametrize("both_ways", [False, True])
def test_the_time_of_each_stage_is_printed_on_request_and_none_is_counted_twice(both_ways, work):
    _, printed = predict(work / "movies", work / "masks", "--profile", *["--both_ways"] * both_ways)
    seconds = {stage: float(number) for stage, number in re.findall(r"^  ([a-z-]+) +([0-9.]+) s$", printed, re.M)}
    assert list(seconds) == ["read", "resample", "network", "post-process", "write"]
    total = float(re.search(r"files predicted in ([0-9.]+) s", printed)[1])
    # These follow each other; the others go on beside them.
    assert 0 < seconds["network"] + seconds["post-process"] + seconds["write"] <= total + 0.1


def test_both_ways_gives_other_masks(work):
    for name, words in (("one", ()), ("both", ("--both_ways",))):
        assert predict(work / "sequences", work / name, *words)[0] == 0
    assert any((pixels(path) != pixels(work / "both" / path.name)).any() for path in mask_paths(work / "one"))


def test_smoothing_gives_other_masks_and_is_recorded(work):
    for name, words in (("plain", ()), ("smooth", ("--smooth", 5))):
        assert predict(work / "sequences", work / name, *words)[0] == 0
    assert any((pixels(path) != pixels(work / "smooth" / path.name)).any() for path in mask_paths(work / "plain"))
    records = (json.loads((work / name / "predicted_by.json").read_text()) for name in ("plain", "smooth"))
    assert [record["options"]["smooth"] for record in records] == [None, 5]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_networks_give_the_same_masks(work):
    for name, words in (("eager", ()), ("compiled", ("--compile",))):
        assert predict(work / "sequences", work / name, *words)[0] == 0
    for path in mask_paths(work / "eager"):
        np.testing.assert_array_equal(pixels(path), pixels(work / "compiled" / path.name))


def test_a_stock_2d_model_of_two_channels_predicts_sequences(work, nnunet_folders):
    folder = nnunet_folders.results / "Dataset777_Phantom" / "nnUNetTrainer__plans__2d"
    write_model(folder, nnUNetTrainer, "2d", dataset=TWO_CHANNELS)
    for image in mask_paths(work / "sequences"):
        shutil.copy(image, image.with_name(image.name.replace("_0000", "_0001")))
    code, printed = predict(work / "sequences", work / "masks", trainer="nnUNetTrainer", configuration="2d")
    assert code == 0, printed
    assert len(mask_paths(work / "masks")) == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-num_parts", 2, "-part_id", 2), "expected one of 0..1"),
        (("-f", 3), "fold_3/checkpoint_final.pth: is missing; folds with a checkpoint_final.pth: [0, 1]"),
        (("-tr", "nnUNetTrainerUnknown"), "expected the folder of a trained model"),
        (("-d", 778), "-d 778"),
        (("--save_probabilities",), "first 'nnunet_temporal split'"),
        (("--smooth", 6), "--smooth: smoothing over 6 frames: expected an odd number from 5 on"),
    ],
)
def test_what_cannot_be_done_is_said(words, message, work):
    code, printed = predict(work / "movies", work / "masks", *words)
    assert code == 2
    assert message in printed


def test_sequences_and_movies_in_one_folder_are_refused(work):
    shutil.copy(work / "movies" / "a.nii.gz", work / "sequences")
    assert "predict them from separate folders" in predict(work / "sequences", work / "masks")[1]


def test_an_empty_folder_and_overwritten_movies_are_refused(work):
    (work / "empty").mkdir()
    assert "found neither sequences" in predict(work / "empty", work / "masks")[1]
    assert "would overwrite" in predict(work / "movies", work / "movies")[1]


def test_a_machine_without_gpu_says_how_to_go_on(work):
    code, printed = predict(work / "movies", work / "masks", "-device", "cuda")
    assert code == 2 and "-device cpu" in printed
