"""The folds of a trainer teach one network: what they say, how it learns, and what is refused."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from challenge_road import mask_paths, pixels
from command_workspace import ON_CPU
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from phantom_dataset import PLANS, make_trainer
from semi_supervised import make_regions, parameters, quietly
from test_methods import NUMBER, prepare
from torch.nn import functional

from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.sequence_predictor import SequencePredictor
from nnunet_temporal.losses.distillation import Divergence
from nnunet_temporal.networks.temporal_unet import Clip
from nnunet_temporal.trainers.cstm import nnUNetTrainerCSTM
from nnunet_temporal.trainers.distilled import (
    Distilled,
    nnUNetTrainerPlaceMemoryDistilled,
)
from nnunet_temporal.trainers.temporal_conv import nnUNetTrainerTemporalConv
from nnunet_temporal.trainers.variants import DISTILLED, VARIANTS

PAGE = Path(__file__).resolve().parents[2] / "documentation" / "how_to" / "distil_an_ensemble.md"
COARSEST = "decoder.seg_layers.0."
STUDENT = nnUNetTrainerPlaceMemoryDistilled


class nnUNetTrainerUnnamed(Distilled, nnUNetTrainerTemporalConv):
    """Its name says nothing of whose folds teach."""


class nnUNetTrainerCSTMDistilled(Distilled, nnUNetTrainerCSTM):
    """Learns from triplets."""


pytestmark = pytest.mark.usefixtures("findable_trainers")  # teachers are found by their names


def twin_of(student):
    _, twin = student.__bases__
    return twin


def write_teachers(phantom, student=STUDENT, folds=(0, 1)):
    """Write finished folds of the student's twin, each with weights of its own in every layer; return their folder."""
    for seed, fold in enumerate(folds):
        with quietly():
            teacher = make_trainer(twin_of(student), phantom, fold=fold)
            teacher.initialize()
            teacher.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in teacher.network.parameters():
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        folder = Path(teacher.output_folder)
        (folder.parent / "plans.json").write_text(json.dumps(teacher.plans_manager.plans))
        (folder.parent / "dataset.json").write_text(json.dumps(teacher.dataset_json))
        with quietly():
            teacher.save_checkpoint(str(folder / "checkpoint_final.pth"))
    return folder.parent


def short_student(phantom, student=STUDENT, fold="all", epochs=1):
    with quietly():
        trainer = make_trainer(student, phantom, fold=fold)
    trainer.num_epochs, trainer.save_every = epochs, 1
    trainer.num_iterations_per_epoch = trainer.num_val_iterations_per_epoch = 1
    return trainer


def started(phantom, student=STUDENT, **options):
    """Return a student in the first epoch of its training."""
    trainer = short_student(phantom, student, **options)
    with quietly():
        trainer.on_train_start()
        trainer.on_train_epoch_start()
    return trainer


def divergence_on(trainer, batch):
    with torch.no_grad():
        logits = trainer.network(trainer.network_input(batch))[0]
        return float(trainer.loss.divergence(logits, trainer.teach(batch)))


def gradients(trainer):
    return {name: parameter.grad for name, parameter in trainer.network.named_parameters()}


@pytest.mark.parametrize("student", DISTILLED)
def test_the_student_starts_as_the_first_teacher(phantom, student):
    folder = write_teachers(phantom, student)
    trainer = short_student(phantom, student)
    with quietly():
        trainer.initialize()
    expected = torch.load(folder / "fold_0" / "checkpoint_final.pth", weights_only=False)["network_weights"]
    found = trainer.network.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert trainer.network.training and trainer.network.decoder.deep_supervision


@pytest.mark.parametrize("student", DISTILLED)
def test_teachers_say_the_mean_of_the_logits_of_all_folds_on_the_same_clips(phantom, student):
    write_teachers(phantom, student, folds=(0, 1, 2))
    trainer = started(phantom, student)
    batch = next(trainer.dataloader_train)
    expected = []
    for fold in range(3):
        with quietly():
            teacher = make_trainer(twin_of(student), phantom, fold=fold)
            teacher.load_checkpoint(str(Path(teacher.output_folder) / "checkpoint_final.pth"))
        with torch.no_grad():
            expected.append(teacher.network.eval()(Clip(batch["data"], batch["valid"], batch["decoded"]))[0])
    assert (expected[0] - expected[1]).abs().max() > 0.1
    soft = trainer.teach(batch)
    torch.testing.assert_close(soft.logits, sum(expected) / 3, rtol=1e-4, atol=1e-4)
    assert torch.equal(soft.counted, batch["counted"])
    assert not soft.logits.requires_grad
    assert not any(parameter.requires_grad for net in trainer.teachers for parameter in net.parameters())
    assert not any(net.training for net in trainer.teachers)


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("student", DISTILLED)
def test_a_step_follows_labels_and_teachers_with_every_parameter(phantom, student, regions):
    if regions:
        make_regions(phantom)
    write_teachers(phantom, student)
    trainer = started(phantom, student)
    batch = next(trainer.dataloader_train)
    output, soft = trainer.network(trainer.network_input(batch)), trainer.teach(batch)
    loss = trainer.loss.supervised(output, batch["target"]) + Divergence(exclusive=not regions)(output[0], soft)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trainer.network.parameters(), 12)
    expected = gradients(trainer)
    before, taught = parameters(trainer.network), parameters(trainer.teachers[0])
    result = trainer.train_step(batch)
    assert float(result["loss"]) == pytest.approx(float(loss.detach()), rel=1e-5)
    for name, gradient in gradients(trainer).items():
        if name.startswith(COARSEST):  # nnU-Net's loss counts the coarsest output on several devices only
            continue
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-6)
        # Biases before an instance norm have no effect on the logits.
        assert gradient.abs().sum() > 0 or "conv" in name
    assert any(not torch.equal(*pair) for pair in zip(before, parameters(trainer.network), strict=True))
    assert all(torch.equal(*pair) for pair in zip(taught, parameters(trainer.teachers[0]), strict=True))


def test_frames_that_nobody_labelled_teach_too(phantom):
    write_teachers(phantom)
    trainer = started(phantom)
    batch = next(trainer.dataloader_train)
    for scale in batch["target"]:
        scale.fill_(trainer.label_manager.ignore_label)
    trainer.train_step(batch)
    assert max(float(gradient.abs().max()) for gradient in gradients(trainer).values() if gradient is not None) > 1e-4


def test_padding_frames_and_pixels_outside_teach_nothing(phantom):
    write_teachers(phantom)
    trainer = started(phantom)
    batches = [next(trainer.dataloader_train) for _ in range(10)]
    padding = [~batch["valid"].gather(1, batch["decoded"]) for batch in batches]
    for batch, is_padding in zip(batches, padding, strict=True):
        assert not batch["counted"][is_padding[:, None]].any()
        assert batch["counted"].float().mean() > 0.3
        known = batch["target"][0] != trainer.label_manager.ignore_label
        assert (batch["counted"] | ~known).float().mean() > 0.99


def test_a_student_comes_to_agree_with_its_teachers(phantom):
    write_teachers(phantom)
    trainer = started(phantom)
    # Labels and these teachers, who know nothing, disagree: a step must show who it follows.
    trainer.loss.weight, trainer.optimizer.param_groups[0]["lr"] = 10.0, 1e-2
    batch = next(trainer.dataloader_train)
    before = divergence_on(trainer, batch)
    for _ in range(5):
        trainer.train_step(batch)
    assert divergence_on(trainer, batch) < 0.7 * before


def test_validation_is_measured_by_labels_alone(phantom):
    write_teachers(phantom)
    trainer = started(phantom)
    batch = next(trainer.dataloader_val)
    trainer.network.eval()
    with torch.no_grad():
        expected = trainer.loss.supervised(trainer.network(trainer.network_input(batch)), batch["target"])
        found = trainer.validation_step(batch)["loss"]
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_a_resumed_training_takes_the_steps_that_an_unbroken_one_takes(phantom):
    write_teachers(phantom)
    trainer, resumed = (short_student(phantom) for _ in range(2))
    with quietly():
        trainer.run_training()
        resumed.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
        resumed.on_train_start()
    assert resumed.current_epoch == trainer.current_epoch == 1
    trainer.network.train()
    batch = next(resumed.dataloader_train)
    losses = [float(each.train_step(batch)["loss"]) for each in (trainer, resumed)]
    assert np.isfinite(losses[0]) and losses[0] == losses[1]
    assert all(torch.equal(*pair) for pair in zip(*(parameters(t.network) for t in (trainer, resumed)), strict=True))


def test_a_checkpoint_holds_the_student_alone_and_predicts_without_teachers(phantom):
    folder = write_teachers(phantom)
    trainer = short_student(phantom)
    with quietly():
        trainer.run_training()
    file = Path(trainer.output_folder) / "checkpoint_final.pth"
    assert file.stat().st_size < 2.2 * (folder / "fold_0" / "checkpoint_final.pth").stat().st_size  # with momentum
    shutil.rmtree(folder)
    frames = torch.randn(1, 1, 5, 40, 40)
    with quietly():
        predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(trainer.output_folder_base, ("all",))
        validated = short_student(phantom)
        validated.load_checkpoint(str(file))
        with torch.no_grad():
            expected = trainer.network.eval()(frames)
            assert torch.equal(
                predictor.network.eval()(frames), expected[0] if isinstance(expected, list) else expected
            )
        with pytest.raises(InputError, match="Train them first"):
            validated.on_train_start()
    mean = SequencePredictor.from_model_folder(Path(trainer.output_folder_base), ["all"], torch.device("cpu"))
    image = np.random.default_rng(0).normal(100, 20, (4, 40, 36)).astype(np.float32)
    assert mean.predict(image, (1.25, 1.25)).masks.shape == (4, 40, 36)


def test_a_student_of_one_fold_says_that_its_scores_are_too_good(phantom):
    write_teachers(phantom)
    trainer = started(phantom, fold=1)
    assert "1 or more of the 2 teachers were trained on the studies that fold 1" in Path(trainer.log_file).read_text()
    assert set(trainer.dataloader_train.data_loader.indices) <= set(phantom.splits()[1]["train"])


def test_training_draws_any_frames_and_validation_labelled_ones(phantom):
    write_teachers(phantom)
    trainer = started(phantom)
    ignore = trainer.label_manager.ignore_label

    def unlabelled(loader):
        shown = []
        for _ in range(20):
            batch = next(loader)
            is_frame = batch["valid"].gather(1, batch["decoded"])
            shown.append((batch["target"][0][:, 0] == ignore).all(-1).all(-1)[is_frame])
        return float(torch.cat(shown).float().mean())

    assert unlabelled(trainer.dataloader_train) > 0.15
    assert unlabelled(trainer.dataloader_val) == 0


@pytest.mark.parametrize("student", DISTILLED)
def test_a_variant_learns_from_the_folds_of_its_twins_variant(phantom, student):
    trainer = short_student(phantom, VARIANTS[f"{student.__name__}_50epochs"])
    assert trainer.teachers_folder == phantom.results / f"{twin_of(student).__name__}_50epochs__{PLANS}__2dt"
    assert (student.epochs, VARIANTS[f"{student.__name__}_50epochs"].epochs) == (250, 50)


def test_a_student_without_teachers_is_refused_and_told_how_to_train_them(phantom):
    trainer = short_student(phantom)
    with pytest.raises(InputError, match=rf"does not exist.*2dt 0 -tr nnUNetTrainerPlaceMemory -p {PLANS}"):
        trainer.run_training()


@pytest.mark.parametrize("folds", [(0,), (2, "all")])
def test_a_single_teacher_is_refused(phantom, folds):
    write_teachers(phantom, folds=folds)
    with pytest.raises(InputError, match=rf"2 at least; found \[{folds[0]}\]"):
        short_student(phantom).run_training()


@pytest.mark.parametrize(
    ("file", "path", "value", "named"),
    [
        ("dataset.json", ("labels",), {"background": 0, "RV": 1, "MYO": 2, "ignore": 3}, "labels"),
        ("plans.json", ("configurations", "2dt", "patch_size"), [8, 48, 48], "patch_size"),
        ("plans.json", ("configurations", "2dt", "temporal", "memory_stages"), [0, 1], "memory_stages"),
        ("plans.json", ("foreground_intensity_properties_per_channel", "0", "mean"), 1.0, "intensities"),
    ],
)
def test_teachers_of_other_plans_or_labels_are_refused(phantom, file, path, value, named):
    edited = write_teachers(phantom) / file
    content = json.loads(edited.read_text())
    entry = content
    for key in path[:-1]:
        entry = entry[key]
    entry[path[-1]] = value
    edited.write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf"other plans or labels.*\b{named} differ.*found.*expected"):
        short_student(phantom).run_training()


def test_a_student_may_take_smaller_batches_and_other_draws_than_its_teachers(phantom):
    write_teachers(phantom)
    with quietly():
        trainer = make_trainer(STUDENT, phantom, fold="all", seed=7)
    trainer.configuration_manager.configuration["batch_size"] = 1
    assert len(trainer.teachers) == 2


def test_a_student_whose_name_does_not_say_who_teaches_needs_an_attribute(phantom):
    trainer = short_student(phantom, nnUNetTrainerUnnamed)
    with pytest.raises(ValueError, match="attribute 'twin'"):
        trainer.initialize()
    trainer.twin = "nnUNetTrainerTemporalConv"
    assert trainer.teachers_folder.name == f"nnUNetTrainerTemporalConv__{PLANS}__2dt"


def test_a_method_that_draws_no_clips_is_refused(phantom):
    write_teachers(phantom, nnUNetTrainerCSTMDistilled)
    with pytest.raises(NotImplementedError, match="TripletLoader"):
        short_student(phantom, nnUNetTrainerCSTMDistilled).run_training()


def test_divergence_of_regions_is_that_of_yes_or_no(phantom):
    make_regions(phantom)
    write_teachers(phantom)
    trainer = started(phantom)
    batch = next(trainer.dataloader_train)
    soft = trainer.teach(batch)
    p, q = soft.logits.sigmoid(), torch.full_like(soft.logits, 0.5)
    entropy = -(p * p.log() + (1 - p) * (1 - p).log()).sum(1, keepdim=True)
    cross = functional.binary_cross_entropy(q, p, reduction="none").sum(1, keepdim=True)
    expected = float((cross - entropy)[soft.counted].mean())
    assert float(trainer.loss.divergence(torch.zeros_like(p), soft)) == pytest.approx(expected, rel=1e-4)


def test_the_example_of_the_page_learns_from_the_semi_supervised_folds(phantom):
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names = {"__name__": __name__}
    exec(block, names)
    student = names["nnUNetTrainerPlaceMemoryDistilledSemi"]
    assert short_student(phantom, student).teachers_folder.name == f"nnUNetTrainerTemporalSemi__{PLANS}__2dt"


@pytest.mark.slow
def test_nnunets_commands_train_a_student_and_predict_with_it(tmp_path):
    work, twin, student = (
        prepare(tmp_path / "work", "echo"),
        *(f"{name}_10iterations" for name in ("nnUNetTrainerPlaceMemory", STUDENT.__name__)),
    )
    for trainer, fold in ((twin, 0), (twin, 1), (student, "all")):
        work.run("nnUNetv2_train", NUMBER, "2dt", fold, "-tr", trainer, "-p", PLANS, *ON_CPU)
    model = ("-d", NUMBER, "-c", "2dt", "-tr", student, "-p", PLANS, "-f", "all", *ON_CPU)
    images, stock, ours = work.raw / "imagesTs", tmp_path / "stock", tmp_path / "ours"
    work.run("nnUNetv2_predict", "-i", images, "-o", stock, *model, "-npp", 0, "-nps", 0, "--disable_tta")
    work.run("nnunet_temporal", "predict", "-i", images, "-o", ours, *model)
    fold = work.results / f"{student}__{PLANS}__2dt" / "fold_all"
    assert {path.name for path in fold.glob("checkpoint_*")} == {"checkpoint_final.pth", "checkpoint_best.pth"}
    assert (fold / "validation" / "summary.json").is_file()
    assert len(mask_paths(stock)) == 2
    for one, other in zip(mask_paths(stock), mask_paths(ours), strict=True):
        assert one.name == other.name and (pixels(one) == pixels(other)).mean() > 0.99
