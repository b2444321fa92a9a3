"""The verb on the phantom: a stock 2D model becomes the start of a temporal training, or is refused."""

import json
import multiprocessing
import multiprocessing.dummy
import shutil
from dataclasses import replace
from types import SimpleNamespace

import nnunetv2.utilities.utils
import numpy as np
import pytest
import torch
from conftest import set_nnunet_folders
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.run.run_training import run_training
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from phantom_dataset import PLANS
from stock_2d_model import INFLATED, TRAINER, residual, stock_plans, write_stock_model

from nnunet_temporal.cli import main
from nnunet_temporal.commands import inflate
from nnunet_temporal.commands.env import VARIABLE, ext_trainer_value
from nnunet_temporal.networks.build import frame_architecture

RESAMPLING = ("resampling_fn_data_kwargs", "resampling_fn_seg_kwargs", "resampling_fn_probabilities_kwargs")


@pytest.fixture(autouse=True)
def one_process(findable_trainers, monkeypatch):
    """Set what the verb sets for its process, so that it is undone; threads for nnU-Net's pools of processes."""
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: multiprocessing.dummy)
    monkeypatch.setattr(nnunetv2.utilities.utils, "Pool", multiprocessing.dummy.Pool)


@pytest.fixture(scope="module")
def inflated(planned_phantom, tmp_path_factory):
    """Inflate the folds of a plain 2D model, once; tests must not change what is there."""
    root = tmp_path_factory.mktemp("inflated")
    with pytest.MonkeyPatch.context() as patch:
        folders, name = set_nnunet_folders(root, patch), planned_phantom.raw.name
        patch.setenv(VARIABLE, ext_trainer_value())
        phantom = replace(planned_phantom, preprocessed=folders.preprocessed / name, results=folders.results / name)
        shutil.copytree(planned_phantom.raw, folders.raw / name)
        shutil.copytree(planned_phantom.preprocessed, phantom.preprocessed)
        model = write_stock_model(phantom, folds=(0, 1, "all"))
        before = sorted(path.name for path in phantom.preprocessed.iterdir())
        assert run(model) == 0
    after = sorted(path.name for path in phantom.preprocessed.iterdir())
    return SimpleNamespace(
        phantom=phantom, model=model, target=target_of(phantom), plans=phantom.plans(INFLATED),
        configurations=phantom.plans(INFLATED)["configurations"], new_files=sorted(set(after) - set(before)),
    )  # fmt: skip


def run(model, *arguments, trainer=TRAINER):
    """Run the verb in this process; return its exit code."""
    return main(["inflate", "-m", str(model), "-d", "777", "-tr", trainer, "-np", "1", *map(str, arguments)])


def refusal(capsys, model, *arguments, **options):
    """Run the verb, which must refuse; return the message."""
    assert run(model, *arguments, **options) == 2
    return capsys.readouterr().err


def target_of(phantom, plans=INFLATED):
    return phantom.results / f"{TRAINER}__{plans}__2dt"


def weights_of(file):
    return torch.load(file, weights_only=False)["network_weights"]


def edit(file, **entries):
    """Replace entries of a JSON file."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))


def edit_configuration(file, **entries):
    """Replace entries of configuration 2d in plans."""
    configurations = json.loads(file.read_text())["configurations"]
    edit(file, configurations={**configurations, "2d": {**configurations["2d"], **entries}})


def write_splits(phantom, splits):
    for folder in (phantom.raw, phantom.preprocessed):
        (folder / "splits_final.json").write_text(json.dumps(splits))


def as_other_dataset(model, phantom, **entries):
    """Let a model claim that it was trained on another dataset, of as many cases as its folds have validated."""
    edit(model / "plans.json", dataset_name="Dataset778_Other")
    cases = {file.name for file in model.glob("fold_*/validation/*")}
    edit(model / "dataset.json", **{"numTraining": len(cases), **entries})


def logits(folder, checkpoint, case, data_folder):
    """Predict a preprocessed sequence as nnUNetv2_predict does, without test-time augmentation.

    Nor with its weights of tiles, which in half precision vanish in the corners of a tile's first and last frame.
    """
    predictor = nnUNetPredictor(use_gaussian=False, use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(folder), (0,), checkpoint)
    data, *_ = nnUNetDatasetBlosc2(str(data_folder)).load_case(case)
    return predictor.predict_logits_from_preprocessed_data(torch.from_numpy(data[:])).float().numpy()


def test_the_plans_are_those_of_the_2d_model_with_time_added(inflated):
    source = stock_plans(inflated.phantom)
    assert {**inflated.plans, "configurations": None} == {
        **source, "plans_name": INFLATED, "configurations": None
    }  # fmt: skip
    plan, plan_2d = inflated.configurations["2dt"], source["configurations"]["2d"]
    assert frame_architecture(plan["architecture"]) == plan_2d["architecture"]
    assert plan["patch_size"] == [8, *plan_2d["patch_size"]]
    kept = ("spacing", "normalization_schemes", "use_mask_for_norm", "preprocessor_name", "resampling_fn_data")
    assert [plan[key] for key in kept] == [plan_2d[key] for key in kept]
    assert "temporal" in plan and set(inflated.configurations) == {"2d", "2dt"}


@pytest.mark.parametrize("configuration", ["2d", "2dt"])
@pytest.mark.parametrize("key", RESAMPLING)
def test_time_is_not_resampled_separately_although_the_2d_model_left_that_open(inflated, configuration, key):
    assert json.loads((inflated.model / "plans.json").read_text())["configurations"]["2d"][key] == {
        **inflated.configurations[configuration][key], "force_separate_z": None
    }  # fmt: skip
    assert inflated.configurations[configuration][key]["force_separate_z"] is False


def test_the_arrays_the_2d_model_was_trained_on_are_shared(inflated):
    assert inflated.configurations["2dt"]["data_identifier"] == f"{PLANS}_2d"
    assert inflated.new_files == [f"{INFLATED}.json"]


@pytest.mark.parametrize("fold", [0, 1, "all"])
def test_each_fold_starts_from_the_weights_of_its_own_fold(inflated, fold):
    source = weights_of(inflated.model / f"fold_{fold}" / "checkpoint_final.pth")
    start = weights_of(inflated.target / f"fold_{fold}" / "checkpoint_latest.pth")
    assert all(torch.equal(start[name], value) for name, value in source.items())
    new = set(start) - set(source)
    assert new and all(name.startswith("temporal.") for name in new)
    assert any("seg_layers" in name for name in source)


def test_the_checkpoint_is_one_of_the_trainer_before_its_first_epoch(inflated):
    checkpoint = torch.load(inflated.target / "fold_0" / "checkpoint_latest.pth", weights_only=False)
    assert (checkpoint["current_epoch"], checkpoint["trainer_name"]) == (0, TRAINER)
    assert checkpoint["optimizer_state"]["state"] == {}
    assert checkpoint["init_args"]["configuration"] == "2dt"
    assert not list(inflated.target.rglob(".partial_*"))


def test_predictions_before_the_first_step_are_those_of_the_2d_model(inflated):
    data, case = inflated.phantom.preprocessed / f"{PLANS}_2d", inflated.phantom.splits()[0]["val"][0]
    expected = logits(inflated.model, "checkpoint_final.pth", case, data)
    found = logits(inflated.target, "checkpoint_latest.pth", case, data)
    # nnU-Net keeps logits in half precision.
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())
    assert np.ptp(expected) > 0.1


def test_the_counts_and_the_command_to_go_on_with_are_printed(phantom, capsys):
    model = write_stock_model(phantom)
    assert run(model, "-p", "MyPlans") == 0
    printed = capsys.readouterr().out
    count = len(weights_of(model / "fold_0" / "checkpoint_final.pth"))
    new = len(weights_of(target_of(phantom, "MyPlans") / "fold_0" / "checkpoint_latest.pth")) - count
    assert f"Fold 0: all {count} tensors of the 2D network loaded, {new} new ones for time" in printed
    assert f"nnUNetv2_train 777 2dt FOLD -tr {TRAINER} -p MyPlans --c" in printed
    assert "Choices about time:\n  Cl" in printed


def test_a_compiled_residual_network_is_inflated_too(phantom):
    model = write_stock_model(phantom, residual(stock_plans(phantom)), prefix="_orig_mod.")
    # Other plans of the same name made the phantom's arrays; only the architecture differs.
    assert run(model) == 0
    source = weights_of(model / "fold_0" / "checkpoint_final.pth")
    start = weights_of(target_of(phantom) / "fold_0" / "checkpoint_latest.pth")
    assert all(torch.equal(start[name.removeprefix("_orig_mod.")], value) for name, value in source.items())


@pytest.mark.slow
def test_nnunets_training_continues_from_the_start(phantom, capsys):
    assert run(write_stock_model(phantom)) == 0
    folder = target_of(phantom) / "fold_0"
    start = weights_of(folder / "checkpoint_latest.pth")
    capsys.readouterr()
    run_training("777", "2dt", 0, TRAINER, INFLATED, continue_training=True, device=torch.device("cpu"))
    printed = capsys.readouterr().out
    assert "Epoch 0" in printed and "Epoch 1" not in printed
    assert "no checkpoint available" not in printed
    final = torch.load(folder / "checkpoint_final.pth", weights_only=False)
    assert final["current_epoch"] == 1
    name = "encoder.stages.0.0.convs.0.conv.weight"
    # Ten steps away from the start, but not from anywhere else.
    steps = (final["network_weights"][name] - start[name]).norm() / start[name].norm()
    assert 0 < steps < 0.5
    assert (folder / "validation" / "summary.json").is_file()


def test_a_model_of_another_dataset_gets_arrays_of_its_own(phantom, monkeypatch):
    asked = []
    monkeypatch.setattr(inflate, "preprocess_dataset", lambda *arguments: asked.append(arguments))
    monkeypatch.setattr(inflate, "_inflate_fold", lambda *arguments: None)
    model = write_stock_model(phantom, folds=(0, 1, 2, 3), weights=False)
    as_other_dataset(model, phantom)
    assert run(model) == 0
    assert asked == [(777, INFLATED, ["2dt"], [1])]
    configurations = phantom.plans(INFLATED)["configurations"]
    assert configurations["2d"]["data_identifier"] == configurations["2dt"]["data_identifier"] == f"{INFLATED}_2d"
    assert phantom.plans(INFLATED)["dataset_name"] == phantom.raw.name


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"channel_names": {"0": "MRI"}}, r"input channels are ['MRI'], the dataset's ['cineMRI']"),
        ({"channel_names": {"0": "cineMRI", "1": "T2"}}, "input channels are ['cineMRI', 'T2']"),
        ({"labels": {"background": 0, "MYO": 1, "LV": 2}}, "its labels are {'background': 0, 'MYO': 1, 'LV': 2}"),
        ({"labels": {"background": 0, "LV": 1}}, "its labels are"),
        ({"labels": {"background": 0, "LV": [1, 2], "MYO": 2}, "regions_class_order": [1, 2]}, "its labels are"),
    ],
)
def test_other_channels_or_labels_are_refused(phantom, capsys, entries, message):
    model = write_stock_model(phantom, weights=False)
    edit(model / "dataset.json", **entries)
    assert message in refusal(capsys, model)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"spacing": [0.2, 0.2]}, "more than 3 times apart"),
        ({"normalization_schemes": ["CTNormalization"]}, "bring the images to the same unit"),
        ({"normalization_schemes": ["ZScoreNormalization"] * 2}, "normalise 2 channels, but it has 1"),
        ({"patch_size": [8, 40, 40]}, "is a 3D model"),
    ],
)
def test_another_spacing_normalisation_or_rank_is_refused(phantom, capsys, entries, message):
    model = write_stock_model(phantom, weights=False)
    edit_configuration(model / "plans.json", **entries)
    intensities = {"0": {"percentile_00_5": -900.0, "percentile_99_5": 0.0, "median": -100.0}}
    edit(model / "plans.json", foreground_intensity_properties_per_channel=intensities)
    assert message in refusal(capsys, model)


def test_a_refusal_lists_every_disagreement_and_leaves_nothing_behind(phantom, capsys):
    model = write_stock_model(phantom, weights=False)
    edit(model / "dataset.json", channel_names={"0": "MRI"}, labels={"background": 0, "LV": 1})
    edit(model / "plans.json", transpose_forward=[1, 0, 2])
    message = refusal(capsys, model)
    assert "3 inputs cannot be used" in message
    assert all(text in message for text in ("input channels", "labels", "transpose_forward"))
    assert not (phantom.preprocessed / f"{INFLATED}.json").exists()
    assert not target_of(phantom).exists()


def test_a_study_that_the_2d_model_was_trained_on_is_not_validated_on(phantom, capsys):
    model = write_stock_model(phantom, folds=(0, 1, 2, 3), weights=False)
    as_other_dataset(model, phantom)
    write_splits(phantom, phantom.splits()[::-1])
    message = refusal(capsys, model, "-f", 0, "--assume_unseen")
    assert "was trained on 1 of the studies that this fold validates on" in message
    assert not target_of(phantom).exists()


def test_what_cannot_be_checked_needs_the_users_word(phantom, capsys, monkeypatch):
    monkeypatch.setattr(inflate, "preprocess_dataset", lambda *arguments: None)
    monkeypatch.setattr(inflate, "_inflate_fold", lambda *arguments: None)
    model = write_stock_model(phantom, weights=False)
    as_other_dataset(model, phantom, numTraining=100)
    assert "nothing tells which cases" in refusal(capsys, model)
    assert run(model, "--assume_unseen") == 0


def test_checkpoints_are_replaced_on_request_only(phantom, capsys):
    model = write_stock_model(phantom)
    folder = target_of(phantom) / "fold_0"
    folder.mkdir(parents=True)
    (folder / "checkpoint_final.pth").write_text("weeks of work")
    assert "checkpoint_final.pth: exists already" in refusal(capsys, model)
    assert (folder / "checkpoint_final.pth").read_text() == "weeks of work"
    assert run(model, "--overwrite") == 0
    # nnU-Net would continue from a final checkpoint, if there were one.
    assert [file.name for file in folder.glob("checkpoint_*")] == ["checkpoint_latest.pth"]


def test_a_failure_while_saving_leaves_the_earlier_training_as_it_was(phantom, monkeypatch):
    model = write_stock_model(phantom)
    folder = target_of(phantom) / "fold_0"
    folder.mkdir(parents=True)
    for name in ("checkpoint_latest.pth", "checkpoint_best.pth"):
        (folder / name).write_text("weeks of work")

    def full_disk(checkpoint, file):
        with open(file, "w") as broken:
            broken.write("half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        run(model, "--overwrite")
    assert {file.name: file.read_text() for file in folder.iterdir() if "training_log" not in file.name} == {
        "checkpoint_latest.pth": "weeks of work", "checkpoint_best.pth": "weeks of work"
    }  # fmt: skip


def test_folds_of_different_2d_models_do_not_share_plans(phantom, capsys, monkeypatch):
    monkeypatch.setattr(inflate, "_inflate_fold", lambda *arguments: None)
    model = write_stock_model(phantom, folds=(0, 1), weights=False)
    assert run(model, "-f", 0) == run(model, "-f", 1) == 0
    edit_configuration(model / "plans.json", batch_size=1)
    assert "holds other plans" in refusal(capsys, model, "-f", 1)


def test_another_network_than_the_planned_one_is_refused(phantom, capsys):
    model = write_stock_model(phantom)
    file = model / "fold_0" / "checkpoint_final.pth"
    checkpoint = torch.load(file, weights_only=False)
    checkpoint["network_weights"]["decoder.attention.weight"] = torch.zeros(3)
    torch.save(checkpoint, file)
    message = refusal(capsys, model)
    assert "1 of " in message and "such as decoder.attention.weight: found (3,), expected none" in message
    assert not list(target_of(phantom).rglob("checkpoint_*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-f", 1), "so fold 1 is not trained; folds that are: [0]"),
        (("-d", 778), "-d 778"),
        (("-tr", "nnUNetTrainer"), "is no temporal trainer"),
        (("-tr", "nnUNetTrainerNowhere"), "Could not find requested nnunet trainer"),
    ],
)
def test_arguments_that_name_nothing_are_refused(phantom, capsys, arguments, message):
    model = write_stock_model(phantom, weights=False)
    assert message in refusal(capsys, model, *arguments)


def test_folders_that_are_no_trained_model_are_refused(phantom, capsys):
    assert "TRAINER__PLANS__CONFIGURATION" in refusal(capsys, phantom.results)
    assert "plans.json" in refusal(capsys, phantom.results / "nnUNetTrainer__nnUNetPlans__2d")


def test_a_dataset_that_is_not_planned_is_refused_with_the_command_to_run(phantom, capsys):
    model = write_stock_model(phantom, weights=False)
    (phantom.preprocessed / "sequences.json").unlink()
    assert "nnunet_temporal plan_and_preprocess -d 777 --no_pp" in refusal(capsys, model)


def test_a_fold_beyond_the_splits_is_refused(phantom, capsys):
    model = write_stock_model(phantom, folds=(0, 3), weights=False)
    write_splits(phantom, phantom.splits()[:2])
    assert "has 2 folds (0 to 1)" in refusal(capsys, model, "-f", 3)


def test_splits_that_differ_from_the_raw_datasets_are_refused_in_words(phantom, capsys):
    model = write_stock_model(phantom, weights=False)
    (phantom.preprocessed / "splits_final.json").write_text(json.dumps(phantom.splits()[::-1]))
    assert "splits_final.json: its folds differ from those of" in refusal(capsys, model)
