"""The demo without its long steps: command lines, folders, scores of the embedded data, the summary, failures."""

import argparse
import json

import nibabel
import numpy as np
import pytest

from nnunet_temporal.cli import build_parser, main
from nnunet_temporal.commands import demo
from nnunet_temporal.commands.demo import DemoFolders, demo_environment, demo_steps, prepare_output
from nnunet_temporal.commands.steps import CommandFailedError
from nnunet_temporal.demo_data import demo_data_folder
from nnunet_temporal.errors import InputError


def parse(*arguments: str) -> argparse.Namespace:
    """Parse the demo's arguments."""
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    return parser.parse_args(arguments)


def fake_run_steps(steps, environment, logs):
    """Run our own steps, none of nnU-Net's: the predicted masks are the expert's, empty where nothing is labelled."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_raw", environment["nnUNet_raw"])
        for step in steps:
            if step.name in ("convert", "split"):
                assert main(step.command[1:]) == 0
    expert = nibabel.load(demo_data_folder() / f"{demo.HELD_OUT}_gt_lv.nii.gz")
    masks = (np.asanyarray(expert.dataobj) == 1).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(masks, expert.affine, expert.header), logs.parent / "masks" / "SC-HF-I-1.nii.gz")
    return {step.name: 0.1 for step in steps}


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory):
    """Run the demo once with a perfect prediction; return its folder and its printed lines."""
    output = tmp_path_factory.mktemp("demo") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "run_steps", fake_run_steps)
        assert demo.run(parse("--output", str(output))) == 0
    return output


def test_the_embedded_studies_are_complete():
    folder = demo_data_folder()
    studies = [path.stem for path in folder.glob("*.json")]
    assert sorted(studies) == [f"SC-HF-I-{number}" for number in (1, 2, 4, 5, 6)]
    assert all((folder / f"{study}_{kind}.nii.gz").is_file() for study in studies for kind in ("cine", "gt_lv"))
    assert (folder / "LICENSE_AND_SOURCE.txt").is_file()


def test_a_perfect_prediction_has_the_experts_figures_in_the_summary(demo_run):
    summary = json.loads((demo_run / "summary.json").read_text())
    assert summary["lv_dice"] == 1.0
    # The contours hold 10797 pixels at ED and 8079 at ES, of 1.367188 x 1.367188 x 10 mm.
    assert summary["edv_ml_reference"] == pytest.approx(10797 * 1.367188**2 * 10 / 1000, rel=1e-3)
    assert summary["esv_ml_reference"] == pytest.approx(8079 * 1.367188**2 * 10 / 1000, rel=1e-3)
    assert summary["ef_percent_reference"] == pytest.approx(100 * (1 - 8079 / 10797), rel=1e-3)
    for name in ("edv_ml", "esv_ml", "ef_percent"):
        assert summary[name] == pytest.approx(summary[f"{name}_reference"])


def test_the_mean_mask_of_the_training_studies_is_a_poor_answer(demo_run):
    assert json.loads((demo_run / "summary.json").read_text())["mean_mask_dice"] == pytest.approx(0.779, abs=1e-3)


def test_the_summary_says_what_was_run(demo_run):
    summary = json.loads((demo_run / "summary.json").read_text())
    assert summary["trainer"] == "nnUNetTrainerGDKVM_demo"
    assert summary["folds"] == [0, 1, 2, 3]
    assert set(summary["versions"]) == {"python", "nnunet_temporal", "nnunetv2", "torch"}
    assert summary["seconds"] > 0
    assert "train fold 3" in summary["seconds_per_step"]


def test_the_report_and_the_movie_are_written_and_small_enough_to_pass_on(demo_run):
    page = (demo_run / "report.html").read_text()
    assert "25 %" in page
    assert len(page) < 3_000_000
    assert 0 < (demo_run / "movies" / "SC-HF-I-1.gif").stat().st_size < 3_000_000


def test_the_table_shows_model_and_expert(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "run_steps", fake_run_steps)
    monkeypatch.setattr(demo, "make_report", lambda request: None)
    demo.run(parse("--output", str(tmp_path / "out")))
    printed = capsys.readouterr().out
    line = next(line for line in printed.splitlines() if line.startswith("ejection fraction"))
    assert line.split()[-2:] == ["25.2", "25.2"]
    assert "Research use only" in printed
    assert str(tmp_path / "out" / "report.html") in printed


def test_the_figures_that_do_not_exist_are_null(tmp_path, monkeypatch):
    def nothing_predicted(steps, environment, logs):
        seconds = fake_run_steps(steps, environment, logs)
        path = logs.parent / "masks" / "SC-HF-I-1.nii.gz"
        image = nibabel.load(path)
        nibabel.save(nibabel.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine, image.header), path)
        return seconds

    monkeypatch.setattr(demo, "run_steps", nothing_predicted)
    demo.run(parse("--output", str(tmp_path / "out")))
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["lv_dice"] == 0
    assert summary["ef_percent"] is None


def test_every_fold_is_trained_and_all_folds_predict(tmp_path):
    commands = [step.command for step in demo_steps(DemoFolders(tmp_path), 901, "nnUNetTrainerX", "cpu")]
    trained = [command for command in commands if command[0] == "nnUNetv2_train"]
    assert trained[2] == (
        "nnUNetv2_train", "901", "2dt", "2", "-tr", "nnUNetTrainerX", "-p", "nnUNetTemporalLightPlans", "-device", "cpu"
    )  # fmt: skip
    assert [command[3] for command in trained] == ["0", "1", "2", "3"]
    predict = next(command for command in commands if command[0] == "nnUNetv2_predict")
    folds = predict.index("-f")
    assert predict[folds + 1 : folds + 5] == ("0", "1", "2", "3")
    assert predict[predict.index("-tr") + 1] == "nnUNetTrainerX"


def test_the_held_out_study_is_not_converted_for_training(tmp_path):
    convert = demo_steps(DemoFolders(tmp_path), 901, "nnUNetTrainerX", "cpu")[0].command
    assert convert[convert.index("--held-out") + 1] == "SC-HF-I-1"


def test_our_own_commands_take_the_arguments_the_demo_gives_them(tmp_path):
    for step in demo_steps(DemoFolders(tmp_path), 901, "nnUNetTrainerX", "cpu"):
        program, *arguments = step.command
        if program == "nnunet_temporal":
            build_parser(arguments[0]).parse_args(arguments)


def test_the_users_own_nnunet_folders_are_left_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", "/data/of/the/user")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    environment = demo_environment(DemoFolders(tmp_path), "cpu")
    assert {name: environment[name] for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")} == {
        name: str(tmp_path / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    }
    assert environment["nnUNet_extTrainer"].endswith("search_path")
    assert (environment["nnUNet_n_proc_DA"], environment["OMP_NUM_THREADS"]) == ("2", "7")


def test_a_failing_command_ends_the_demo_with_its_message(tmp_path, monkeypatch, capsys):
    def fail(steps, environment, logs):
        raise CommandFailedError("the whole output is in some_log.txt")

    monkeypatch.setattr(demo, "run_steps", fail)
    assert demo.run(parse("--output", str(tmp_path / "out"))) == 1
    assert "some_log.txt" in capsys.readouterr().err
    assert not (tmp_path / "out" / "summary.json").exists()


def test_an_output_folder_with_other_files_is_refused_even_to_overwrite(tmp_path):
    (tmp_path / "nnUNet_raw").mkdir()
    with pytest.raises(InputError, match="found files that no demo made"):
        prepare_output(DemoFolders(tmp_path), overwrite=True)
    assert (tmp_path / "nnUNet_raw").is_dir()


def test_an_earlier_demo_is_replaced_only_on_request(tmp_path):
    folders = DemoFolders(tmp_path / "out")
    prepare_output(folders, overwrite=False)
    (folders.masks / "old.nii.gz").touch()
    (folders.output / "notes.txt").touch()
    with pytest.raises(InputError, match="add --overwrite to replace them"):
        prepare_output(folders, overwrite=False)
    prepare_output(folders, overwrite=True)
    assert not (folders.masks / "old.nii.gz").exists()
    assert (folders.output / "notes.txt").exists()


def test_an_output_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(InputError, match="expected a folder, found a file"):
        prepare_output(DemoFolders(tmp_path / "out"), overwrite=True)
