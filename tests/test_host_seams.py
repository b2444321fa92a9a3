"""One test per thing of nnU-Net that we build on. A failure means that nnU-Net has changed: look before upgrading."""

import contextlib
import inspect
import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from batchgenerators.dataloading.data_loader import DataLoader
from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from phantom_dataset import LABELS, PLANS

from nnunet_temporal.networks.temporal_unet import Clip
from nnunet_temporal.planners.temporal_planner import TemporalPlanner
from nnunet_temporal.trainers.temporal_trainer import nnUNetTrainerTemporal
from nnunet_temporal.trainers.variants import VARIANTS

TRAINER_HOOKS = (
    "initialize", "configure_optimizers", "do_split", "get_dataloaders", "train_step", "validation_step",
    "configure_rotation_dummyDA_mirroring_and_inital_patch_size", "build_network_architecture", "save_checkpoint",
)  # fmt: skip
PLANNER_HOOKS = {
    "determine_transpose": ["self"],
    "determine_resampling": ["self", "args", "kwargs"],
    "determine_segmentation_softmax_export_fn": ["self", "args", "kwargs"],
    "get_plans_for_configuration": [
        "self", "spacing", "median_shape", "data_identifier", "approximate_n_voxels_dataset", "_cache",
    ],
    "save_plans": ["self", "plans"],
}  # fmt: skip


def parameters(function) -> list[str]:
    """Return the names of a function's parameters."""
    return list(inspect.signature(function).parameters)


class Recorder:
    """Stands in for a batch's data: all it can do is move to a device."""

    def __init__(self):
        self.device = None

    def to(self, device, non_blocking=False):
        self.device = device
        return self


def stock_trainer(logits, loss=None, **label_manager):
    """Return what nnU-Net's steps read of a trainer; its network takes anything and returns ``logits``."""
    seen = []

    def network(data):
        seen.append(data)
        return logits

    network.parameters = lambda: [logits]
    return SimpleNamespace(
        device=torch.device("cpu"), network=network, seen=seen, grad_scaler=None, enable_deep_supervision=False,
        optimizer=torch.optim.SGD([logits], 0.1) if logits.requires_grad else None,
        loss=loss or (lambda output, target: output.mean()), label_manager=SimpleNamespace(**label_manager),
    )  # fmt: skip


def test_a_trainer_is_made_from_these_arguments():
    assert parameters(nnUNetTrainer.__init__) == ["self", "plans", "configuration", "fold", "dataset_json", "device"]


def test_the_network_is_built_from_these_arguments():
    assert parameters(nnUNetTrainer.build_network_architecture) == [
        "plans_manager", "configuration_manager", "num_input_channels", "num_output_channels",
        "enable_deep_supervision",
    ]  # fmt: skip


@pytest.mark.parametrize("caller", [nnUNetTrainer.initialize, nnUNetPredictor.initialize_from_trained_model_folder])
def test_training_and_prediction_build_the_network_through_the_trainer_by_the_new_signature(caller):
    source = inspect.getsource(caller)
    assert "build_network_architecture(" in source
    assert "'plans_manager' in sig.parameters" in source


def test_prediction_builds_the_network_without_deep_supervision():
    assert "enable_deep_supervision=False" in inspect.getsource(nnUNetPredictor.initialize_from_trained_model_folder)


@pytest.mark.parametrize("hook", TRAINER_HOOKS)
def test_the_trainers_hooks_have_the_parameters_we_override(hook):
    assert parameters(getattr(nnUNetTrainerTemporal, hook)) == parameters(getattr(nnUNetTrainer, hook))


@pytest.mark.parametrize("name", ["get_tr_and_val_datasets", "_get_deep_supervision_scales", "print_to_log_file"])
def test_the_trainers_methods_we_call_exist(name):
    assert callable(getattr(nnUNetTrainer, name))


@pytest.mark.parametrize(("hook", "expected"), PLANNER_HOOKS.items())
def test_the_planners_hooks_have_the_parameters_we_override(hook, expected):
    assert parameters(getattr(ExperimentPlanner, hook)) == expected


def test_a_planner_is_made_from_these_arguments():
    assert parameters(ExperimentPlanner.__init__) == parameters(TemporalPlanner.__init__)


def test_the_planners_numbers_that_the_light_preset_changes_exist(phantom):
    planner = ExperimentPlanner(777)
    assert (planner.UNet_base_num_features, planner.UNet_max_features_2d) == (32, 512)


def test_a_training_step_only_moves_its_data_before_the_network_sees_them():
    trainer, data = stock_trainer(torch.zeros(1, requires_grad=True)), Recorder()
    nnUNetTrainer.train_step(trainer, {"data": data, "target": torch.zeros(1)})
    assert trainer.seen == [data]
    assert data.device == torch.device("cpu")


def test_a_validation_step_only_moves_its_data_before_the_network_sees_them():
    logits = torch.zeros(1, 2, 1, 2, 2)
    trainer, data = stock_trainer(logits, has_regions=False, has_ignore_label=False), Recorder()
    nnUNetTrainer.validation_step(trainer, {"data": data, "target": torch.zeros(1, 1, 1, 2, 2)})
    assert trainer.seen == [data]


def test_a_clip_passes_through_a_training_step():
    clip = Clip(torch.rand(1, 1, 2, 4, 4), torch.ones(1, 2, dtype=torch.bool), torch.tensor([[0]]))
    trainer = stock_trainer(torch.zeros(1, requires_grad=True))
    nnUNetTrainer.train_step(trainer, {"data": clip, "target": torch.zeros(1)})
    assert isinstance(trainer.seen[0], Clip)
    assert torch.equal(trainer.seen[0].frames, clip.frames)


def test_validation_counts_no_pixel_of_the_ignore_label():
    logits = torch.stack((torch.zeros(1, 1, 1, 4), torch.ones(1, 1, 1, 4)), 1)
    target = torch.tensor([1, 0, 3, 3]).view(1, 1, 1, 1, 4)
    trainer = stock_trainer(logits, has_regions=False, has_ignore_label=True, ignore_label=3)
    counts = nnUNetTrainer.validation_step(trainer, {"data": Recorder(), "target": target})
    assert [int(counts[name].item()) for name in ("tp_hard", "fp_hard", "fn_hard")] == [1, 1, 0]


def test_the_plans_have_the_keys_we_read(planned_phantom):
    plan = planned_phantom.plans()["configurations"]["2d"]
    assert {"batch_size", "patch_size", "median_image_size_in_voxels", "spacing", "data_identifier"} <= set(plan)
    assert {"arch_kwargs", "network_class_name", "_kw_requires_import"} == set(plan["architecture"])
    assert {"strides", "kernel_sizes", "features_per_stage", "conv_op", "norm_op"} <= set(
        plan["architecture"]["arch_kwargs"]
    )


def test_a_configuration_manager_keeps_keys_it_does_not_know(planned_phantom):
    manager = PlansManager(planned_phantom.plans()).get_configuration("2dt")
    assert manager.configuration["temporal"] == planned_phantom.plans()["configurations"]["2dt"]["temporal"]
    assert manager.pool_op_kernel_sizes == [[1, 1, 1], [1, 2, 2], [1, 2, 2], [1, 2, 2]]
    assert list(manager.use_mask_for_norm) == [False]


@pytest.fixture
def coarse_movie(planned_phantom):
    """Preprocess seven constant frames of odd spacing as 2dt; return managers, data and properties."""
    manager = PlansManager(planned_phantom.plans())
    movie = np.broadcast_to(np.arange(1.0, 8.0)[:, None, None], (7, 33, 52))[None]
    properties = {"spacing": [3.7, 1.9, 0.8]}
    configuration = manager.get_configuration("2dt")
    dataset_json = {"labels": LABELS, "channel_names": {"0": "cineMRI"}, "file_ending": ".nii.gz"}
    data, _, properties = DefaultPreprocessor(verbose=False).run_case_npy(
        movie, None, properties, manager, configuration, dataset_json
    )
    return manager, configuration, dataset_json, data, properties


def test_two_spacings_leave_time_as_it_is_in_preprocessing(coarse_movie):
    _, _, _, data, _ = coarse_movie
    # 33 * 1.9 / 1.25 by 52 * 0.8 / 1.25 pixels.
    assert data.shape == (1, 7, 50, 33)
    normalised = (np.arange(7) - 3) / np.std(np.arange(7))
    np.testing.assert_allclose(data[0], np.broadcast_to(normalised[:, None, None], (7, 50, 33)), atol=1e-5)


def test_two_spacings_leave_time_as_it_is_in_export(coarse_movie):
    manager, configuration, dataset_json, data, properties = coarse_movie
    label_of_frame = np.array([0, 1, 2, 1, 0, 2, 1])
    logits = torch.zeros(3, *data.shape[1:])
    for frame, label in enumerate(label_of_frame):
        logits[label, frame] = 5
    with contextlib.redirect_stdout(io.StringIO()):
        mask = convert_predicted_logits_to_segmentation_with_correct_shape(
            logits, manager, configuration, manager.get_label_manager(dataset_json), properties, num_threads_torch=1
        )
    np.testing.assert_array_equal(mask, np.broadcast_to(label_of_frame[:, None, None], (7, 33, 52)))


def test_the_crop_to_nonzero_is_recorded_as_half_open_bounds_of_time_first(planned_phantom):
    manager = PlansManager(planned_phantom.plans())
    movie = np.zeros((1, 6, 20, 22))
    movie[:, 2:5, 3:20, 1:21] = 1 + np.random.default_rng(0).random((3, 17, 20))
    dataset_json = {"labels": LABELS, "channel_names": {"0": "cineMRI"}, "file_ending": ".nii.gz"}
    _, _, properties = DefaultPreprocessor(verbose=False).run_case_npy(
        movie, None, {"spacing": [10.0, 1.25, 1.25]}, manager, manager.get_configuration("2dt"), dataset_json
    )
    assert [list(map(int, bounds)) for bounds in properties["bbox_used_for_cropping"]] == [[2, 5], [3, 20], [1, 21]]
    assert tuple(properties["shape_before_cropping"]) == (6, 20, 22)


def test_cropping_marks_background_outside_the_nonzero_mask_with_minus_one():
    # A corner, because holes are filled.
    image = np.ones((1, 2, 4, 4))
    image[:, :, 0, 0] = 0
    _, segmentation, _ = crop_to_nonzero(image, np.zeros((1, 2, 4, 4), np.int16))
    assert segmentation[0, 0, 0, 0] == -1
    assert segmentation[0, 0, 1, 1] == 0


def test_class_locations_hold_channel_and_time_first_and_a_tuple_for_all_that_is_annotated(planned_phantom):
    folder = planned_phantom.preprocessed / f"{PLANS}_2d"
    _, segmentation, _, properties = infer_dataset_class(str(folder))(str(folder)).load_case("study_a_z00")
    locations = properties["class_locations"]
    assert {1, 2} < set(locations)
    (annotated,) = [label for label in locations if isinstance(label, tuple)]
    assert -1 in annotated
    assert locations[1].shape[1] == 4
    assert set(np.unique(locations[1][:, 1])) == {0, 4}
    assert {int(segmentation[tuple(position)]) for position in locations[1][:20]} == {1}


def test_a_preprocessed_case_is_data_segmentation_previous_and_properties(planned_phantom):
    folder = planned_phantom.preprocessed / f"{PLANS}_2d"
    data, segmentation, previous, _ = infer_dataset_class(str(folder))(str(folder)).load_case("study_a_z00")
    assert data.shape == segmentation.shape == (1, 8, 40, 36)
    assert previous is None


def test_a_planner_copies_the_raw_datasets_splits(phantom):
    target = phantom.preprocessed / "splits_final.json"
    target.unlink()
    ExperimentPlanner(777)
    assert target.read_text() == (phantom.raw / "splits_final.json").read_text()


def test_the_external_look_up_returns_the_installed_class_itself(findable_trainers):
    with contextlib.redirect_stdout(io.StringIO()):
        found = [recursive_find_trainer_class_by_name("nnUNetTrainerGDKVM_10iterations") for _ in range(2)]
    assert found[0] is found[1] is VARIANTS["nnUNetTrainerGDKVM_10iterations"]


def test_the_spatial_transform_fills_the_segmentation_with_the_given_label():
    torch.manual_seed(0)
    transform = SpatialTransform(
        (16, 16), 0, False, p_rotation=1, rotation=(np.pi / 4, np.pi / 4), bg_style_seg_sampling=False,
        border_mode_seg="constant", padding_value_seg=3,
    )  # fmt: skip
    sample = transform(image=torch.ones(1, 16, 16), segmentation=torch.ones(1, 16, 16, dtype=torch.int16))
    assert sample["segmentation"][0, 0, 0] == 3
    assert sample["segmentation"][0, 8, 8] == 1
    assert set(sample["segmentation"].unique().tolist()) == {1, 3}


def test_deep_supervision_targets_keep_time_when_the_scale_starts_with_one():
    segmentation = torch.arange(2 * 8 * 8, dtype=torch.int16).view(1, 2, 8, 8)
    targets = DownsampleSegForDSTransform([[1, 1, 1], [1, 0.5, 0.5]])(segmentation=segmentation)["segmentation"]
    assert [tuple(target.shape) for target in targets] == [(1, 2, 8, 8), (1, 2, 4, 4)]
    assert targets[1].dtype == torch.int16
    assert torch.isin(targets[1][:, 1], segmentation[:, 1]).all()


class CountingLoader(DataLoader):
    """Yields worker and batch number; the first worker is slower."""

    def __init__(self):
        super().__init__([0], 1, num_threads_in_multithreaded=1)
        self.drawn = 0

    def generate_train_batch(self):
        if self.thread_id == 0:
            np.linalg.svd(np.random.rand(60, 60))
        self.drawn += 1
        return {"worker": self.thread_id, "number": self.drawn}


def test_the_workers_batches_come_in_turn_whatever_their_speed():
    augmenter = MultiThreadedAugmenter(CountingLoader(), None, 2, seeds=[0, 1], wait_time=0.002)
    batches = [next(augmenter) for _ in range(6)]
    augmenter._finish()
    assert [(batch["worker"], batch["number"]) for batch in batches] == [(0, 1), (1, 1), (0, 2), (1, 2), (0, 3), (1, 3)]


def test_prediction_records_its_source_folder_under_the_key_that_merging_reads():
    for function in (nnUNetPredictor.predict_from_files, nnUNetPredictor.predict_from_files_sequential):
        assert "list_of_lists_or_source_folder" in parameters(function)
        assert "predict_from_raw_data_args.json" in inspect.getsource(function)


def test_prediction_pads_short_sequences_with_zeros():
    source = inspect.getsource(nnUNetPredictor.predict_sliding_window_return_logits)
    assert "'constant', {'value': 0}" in source
