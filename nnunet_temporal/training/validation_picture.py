"""The picture of a fold's validation, which a finished training must not depend on."""

from collections.abc import Mapping
from pathlib import Path

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_temporal.report.validated_sequences import Validation
from nnunet_temporal.report.validation_sheet import SHEET_NAME, write_validation_sheet
from nnunet_temporal.sequences import Sequence


def draw_validation(trainer: nnUNetTrainer, sequences: Mapping[str, Sequence]) -> None:
    """Draw ``validation_sheet.png`` beside ``progress.png``; log what is left out, or why nothing can be drawn.

    The sheet of an earlier validation is removed in any case: it would stand beside masks that it does not show.

    Args:
        trainer: A trainer whose validation is complete, masks and ``summary.json``.
        sequences: The sequences of its dataset by case, as in the manifest.
    """
    output, preprocessed = Path(trainer.output_folder), Path(trainer.preprocessed_dataset_folder_base)
    title = f"{trainer.plans_manager.dataset_name}, {type(trainer).__name__}, {trainer.configuration_name}"
    try:
        (output / SHEET_NAME).unlink(missing_ok=True)
        validation = Validation(
            masks=output / "validation",
            references=preprocessed / "gt_segmentations",
            file_ending=trainer.dataset_json["file_ending"],
            reader=trainer.plans_manager.image_reader_writer_class(),
            dataset=trainer.dataset_class(trainer.preprocessed_dataset_folder),
            sequences=sequences,
            labels=trainer.dataset_json["labels"],
        )
        left_out = write_validation_sheet(validation, output / SHEET_NAME, f"{title}, fold {trainer.fold}")
    # What unreadable files and full disks raise. TypeError, KeyError and the like are our mistakes and stay errors.
    except (OSError, RuntimeError, ValueError) as error:
        trainer.print_to_log_file(
            f"WARNING! {SHEET_NAME} was not drawn; the validation itself is complete. {type(error).__name__}: {error}"
        )
        return
    if left_out:
        trainer.print_to_log_file(
            f"{SHEET_NAME} leaves out sequences with no structure in truth or prediction: {', '.join(left_out)}"
        )
