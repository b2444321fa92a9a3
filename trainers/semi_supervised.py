"""Training on frames nobody labelled, for any temporal trainer."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.collate_outputs import collate_outputs
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA
from torch import Tensor
from tqdm import tqdm

from nnunet_temporal.errors import InputError
from nnunet_temporal.networks.mixed_precision import mixed_precision
from nnunet_temporal.networks.temporal_unet import Clip
from nnunet_temporal.trainers.temporal_trainer import Augmenter, nnUNetTrainerTemporal
from nnunet_temporal.training.augmenter import start_augmenter
from nnunet_temporal.training.clip_sampling import WindowSampler
from nnunet_temporal.training.cross_mix import CrossMix
from nnunet_temporal.training.network_layers import DecoderTap, features_of_decoded
from nnunet_temporal.training.processes import from_all_processes, own_share, stop_loader
from nnunet_temporal.training.pseudo_labels import PseudoLabels, label_map
from nnunet_temporal.training.semi_supervised_logger import AGREEMENT, SemiSupervisedLogger
from nnunet_temporal.training.sequence_loader import kept_labelled_frames
from nnunet_temporal.training.sidecar import load_sidecar, remove_stale_sidecars, save_sidecar
from nnunet_temporal.training.teacher import Teacher
from nnunet_temporal.training.unlabelled_loader import UnlabelledLoader
from nnunet_temporal.training.unlabelled_schedule import UnlabelledSchedule
from nnunet_temporal.training.window_losses import LOSSES, Window, WindowLosses

_VERDICTS = ("first", "accepted", "refused", "replaced")
_GRADIENT_NORM = 12  # nnU-Net's
_BOUNDARY_FRAMES, _MIXED_CLIPS = 3, 2


class SemiSupervised(nnUNetTrainerTemporal):
    """Adds to each supervised step one on clips of any training sequence, labelled or not; mixed into a method.

    The supervised part of a step is nnU-Net's. The unlabelled part has three losses, each with its weight; one that
    weighs nothing is not computed. Pseudo-labels come from a teacher, a running average of the network, which predicts
    all training sequences anew in rounds; a memory takes in what agrees with what it holds ("dynamic offset
    correction"). The weights that validation and prediction use are the network's own, not the teacher's.

    Source: NCM-Net (boundary constraint), MSSNet (cross-mix, offset correction), each as its module says.

    Attributes:
        boundary_weight: Weight of the cross-frame boundary constraint.
        pseudo_label_weight: Weight of segmentation by pseudo-labels.
        contrastive_weight: Weight of the contrast between the features of pseudo-labelled pixels.
        cross_mix_probability: Share of unlabelled clips into which the region of another one is pasted.
        teacher_decay: Decay of the running average per step.
        rounds: Times that the teacher predicts all sequences.
    """

    boundary_weight: float = 0.0
    pseudo_label_weight: float = 0.0
    contrastive_weight: float = 0.0
    cross_mix_probability: float = 0.0
    teacher_decay: float = 0.99
    rounds: int = 10

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net's signature, which must be repeated
    ) -> None:
        """Take nnU-Net's arguments; see ``nnUNetTrainer``."""
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.logger.local_logger = SemiSupervisedLogger()
        self.pseudo_labels = PseudoLabels()
        self.round_values = dict.fromkeys(AGREEMENT, math.nan)
        self.generator = torch.Generator()
        self.dataloader_unlabelled: Augmenter | None = None
        self._resumed_checkpoint: Path | None = None

    @property
    def schedule(self) -> UnlabelledSchedule:
        """When what happens. Trainers' lengths may change until they run."""
        return UnlabelledSchedule(self.num_epochs, rounds=self.rounds)

    @property
    def uses_pseudo_labels(self) -> bool:
        """Whether any part needs them."""
        return bool(self.pseudo_label_weight or self.contrastive_weight or self.cross_mix_probability)

    def initialize(self) -> None:
        """Do as the base, and make what learns from unlabelled frames.

        Raises:
            InputError: The planned unlabelled clips are too few or too short for a part that has a weight.
        """
        self._check_plan()
        super().initialize()
        self.tap = DecoderTap(self.network)
        weights = (self.boundary_weight, self.pseudo_label_weight, self.contrastive_weight)
        self.window_losses = WindowLosses(
            dict(zip(LOSSES, weights, strict=True)),
            self.label_manager,
            image_size=tuple(self.configuration_manager.patch_size[1:]),
            feature_channels=self.tap.channels,
            batch_dice=self.configuration_manager.batch_dice,
            scale_weights=self.loss.weight_factors if self.enable_deep_supervision else None,
        ).to(self.device)
        self.cross_mix = CrossMix(self.cross_mix_probability, self.label_manager.ignore_label)

    def _check_plan(self) -> None:
        clips, window = self.temporal.unlabelled_clips, self.temporal.window_frames
        if self.boundary_weight and window < _BOUNDARY_FRAMES:
            raise InputError(
                f"plans: temporal.window_frames is {window}, but the boundary constraint of {type(self).__name__} "
                f"holds a frame against both its neighbours: {_BOUNDARY_FRAMES} or more are needed. Raise it in the "
                "plans, or plan with more memory"
            )
        if self.cross_mix_probability and clips < _MIXED_CLIPS:
            raise InputError(
                f"plans: temporal.unlabelled_clips is {clips}, but cross-mix of {type(self).__name__} pastes between "
                f"clips: {_MIXED_CLIPS} or more are needed. Raise it in the plans, or plan with more memory"
            )

    def on_train_start(self) -> None:
        """Do as nnU-Net; a resumed training takes up the teacher and the pseudo-labels it had."""
        super().on_train_start()
        # Not earlier: weights may have been loaded into the network since it was made.
        self.teacher = Teacher(self.network, self.teacher_decay)
        if self._resumed_checkpoint is not None:
            self._load_state(load_sidecar(self._resumed_checkpoint, self.current_epoch, self.device))

    def on_train_epoch_start(self) -> None:
        """Do as nnU-Net; where a round begins, predict pseudo-labels anew, and start the loader that hands them out."""
        super().on_train_epoch_start()
        # Draws on the device repeat from any checkpoint on.
        self.generator.manual_seed(self.seed_of(stream=3))
        if not self.schedule.is_active(self.current_epoch):
            return
        starts_round = self.uses_pseudo_labels and self.schedule.starts_round(self.current_epoch)
        if not starts_round and self.dataloader_unlabelled is not None:
            return
        # It refuses a dataset without unlabelled frames, before the teacher predicts all of it.
        loader = self._unlabelled_loader()
        if starts_round:
            self.run_round()
        stop_loader(self.dataloader_unlabelled)
        self.dataloader_unlabelled = start_augmenter(loader, get_allowed_n_proc_DA() // 2, self.device)

    def _unlabelled_loader(self) -> UnlabelledLoader:
        """Make the loader of unlabelled clips, with the pseudo-labels of this round."""
        dataset, _ = self.get_tr_and_val_datasets()
        _, _, crop_size, _ = self.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        temporal = self.temporal
        # nnU-Net has divided the labelled clips between the processes of a distributed training.
        share = self.batch_size / self.configuration_manager.batch_size
        fewest = _MIXED_CLIPS if self.cross_mix_probability else 1
        clips = max(fewest, round(temporal.unlabelled_clips * share))
        return UnlabelledLoader(
            dataset,
            self.manifest.sequences,
            self.loader_options(clips, tuple(crop_size), self.training_transforms(None, None), stream=2),
            WindowSampler(temporal.window_frames, temporal.context_frames, temporal.frame_stride),
            pseudo_labels=self.pseudo_labels,
            confidence_threshold=self.schedule.confidence_threshold(self.current_epoch),
        )

    @torch.inference_mode()
    def run_round(self) -> None:
        """Let the teacher predict every training sequence, and the memory of pseudo-labels judge what it says."""
        dataset, _ = self.get_tr_and_val_datasets()
        share = own_share(sorted(dataset.identifiers))
        sequences, manager = self.manifest.sequences, self.label_manager
        predictor, judged = self._teacher_predictor(), self.pseudo_labels.start_round()
        for case in tqdm(share, desc="Pseudo-labels", unit="sequence", disable=self.local_rank != 0):
            data, _, _, properties = dataset.load_case(case)
            logits = predictor.predict_sliding_window_return_logits(torch.from_numpy(np.array(data[:])))
            labels, confidence = label_map(
                manager.apply_inference_nonlin(logits),
                regions=self.regions,
                regions_class_order=manager.regions_class_order,
            )
            labelled = kept_labelled_frames(sequences[case], len(labels), properties)
            judged.add(case, labels, confidence, labelled.tolist())
        for predictions in from_all_processes(judged.predictions):
            judged.merge(predictions)
        summary = judged.close()
        self.round_values = dict(zip(AGREEMENT, (summary.accept_rate, 1 - summary.threshold), strict=True))
        counts = ", ".join(f"{len(getattr(summary, verdict))} {verdict}" for verdict in _VERDICTS)
        self.print_to_log_file(f"Pseudo-labels: {counts}; mean deviation {summary.threshold:.4f}")

    def _teacher_predictor(self) -> nnUNetPredictor:
        predictor = nnUNetPredictor(use_mirroring=False, device=self.device, allow_tqdm=False)
        predictor.manual_initialization(
            self.teacher.network, self.plans_manager, self.configuration_manager, None, self.dataset_json,
            type(self).__name__, None,
        )  # fmt: skip
        return predictor

    def train_step(self, batch: dict) -> dict:
        """Take one step on labelled clips and, once the schedule says so, on unlabelled ones."""
        if self.dataloader_unlabelled is None:
            result = super().train_step(batch)
            losses = {key: torch.zeros(()) for key in LOSSES}
        else:
            self.optimizer.zero_grad(set_to_none=True)
            # One after the other, so that only one of the two graphs is in memory.
            supervised = self._supervised_loss(batch)
            self._backward(supervised)
            losses = self._unlabelled_losses(next(self.dataloader_unlabelled))
            self._backward(self.schedule.weight(self.current_epoch) * self.window_losses.total(losses))
            self._take_step()
            result = {"loss": supervised.detach().cpu().numpy()}
        self.teacher.update(self.network)
        return {**result, **{key: loss.detach().cpu().numpy() for key, loss in losses.items()}}

    def _supervised_loss(self, batch: dict) -> Tensor:
        target = batch["target"]
        if isinstance(target, list):
            target = [scale.to(self.device, non_blocking=True) for scale in target]
        else:
            target = target.to(self.device, non_blocking=True)
        with mixed_precision(self.device):
            return self.loss(self.network(self.network_input(batch).to(self.device, non_blocking=True)), target)

    def _unlabelled_losses(self, batch: dict) -> dict[str, Tensor]:
        """Segment the windows of unlabelled clips, some mixed, and compute the losses that have a weight."""
        clip = Clip(batch["data"], batch["valid"], batch["decoded"]).to(self.device, non_blocking=True)
        known = (batch[key].to(self.device, non_blocking=True) for key in ("labels", "weight", "labelled"))
        labels, weight, labelled = known
        mixed = self.cross_mix(clip, labels, weight, batch["view"], self.generator)
        with mixed_precision(self.device), self.tap.open() as kept:
            scales = self.network(clip._replace(frames=mixed.data))
        window = Window.of_clips(mixed, labelled, clip.valid, clip.decoded)
        scales = scales if isinstance(scales, list) else [scales]
        features = features_of_decoded(kept, clip) if self.contrastive_weight else None
        return self.window_losses(scales, features, window, self.generator)

    def _backward(self, loss: Tensor) -> None:
        (loss if self.grad_scaler is None else self.grad_scaler.scale(loss)).backward()

    def _take_step(self) -> None:
        """Clip gradients and step as nnU-Net does."""
        if self.grad_scaler is not None:
            self.grad_scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), _GRADIENT_NORM)
        if self.grad_scaler is None:
            self.optimizer.step()
        else:
            self.grad_scaler.step(self.optimizer)
            self.grad_scaler.update()

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        """Log as nnU-Net, and the unlabelled part beside it."""
        super().on_train_epoch_end(train_outputs)
        outputs = collate_outputs(train_outputs)
        losses = {key: float(np.mean(from_all_processes(outputs[key]))) for key in LOSSES}
        for key, value in (losses | self.round_values).items():
            self.logger.log(key, value, self.current_epoch)
        if self.dataloader_unlabelled is not None:
            values = ", ".join(f"{key} {value:.4f}" for key, value in losses.items())
            self.print_to_log_file(f"Unlabelled frames: {values}")

    def save_checkpoint(self, filename: str) -> None:
        """Save as the base, and teacher and pseudo-labels in a file beside the checkpoint."""
        checkpoint, epoch = Path(filename), self.current_epoch + 1
        if self.local_rank == 0 and not self.disable_checkpointing:
            save_sidecar(self._state(), checkpoint, epoch)
        super().save_checkpoint(filename)
        if self.local_rank == 0 and not self.disable_checkpointing:
            remove_stale_sidecars(checkpoint, epoch)

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        """Load as nnU-Net; what is beside the checkpoint is read when the training goes on."""
        super().load_checkpoint(filename_or_checkpoint)
        if isinstance(filename_or_checkpoint, str):
            self._resumed_checkpoint = Path(filename_or_checkpoint)

    def on_train_end(self) -> None:
        """Do as nnU-Net, which removes the latest checkpoint."""
        super().on_train_end()
        if self.local_rank == 0:
            remove_stale_sidecars(Path(self.output_folder) / "checkpoint_latest.pth", None)
        stop_loader(self.dataloader_unlabelled)
        self.dataloader_unlabelled = None

    def _state(self) -> dict[str, Any]:
        return {
            "teacher": self.teacher.state_dict() if hasattr(self, "teacher") else None,
            "pseudo_labels": self.pseudo_labels.state_dict(),
            "window_losses": self.window_losses.state_dict(),
            "round_values": self.round_values,
        }

    def _load_state(self, state: dict[str, Any]) -> None:
        if state["teacher"] is not None:  # a model that was given a sense of time starts without one
            self.teacher.load_state_dict(state["teacher"])
        self.pseudo_labels.load_state_dict(state["pseudo_labels"])
        self.window_losses.load_state_dict(state["window_losses"])
        self.round_values = state["round_values"]
