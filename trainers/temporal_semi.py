"""The recommended memory with everything that learns from unlabelled frames."""

from nnunet_temporal.trainers.place_memory import nnUNetTrainerPlaceMemory
from nnunet_temporal.trainers.semi_supervised import SemiSupervised


class nnUNetTrainerTemporalSemi(SemiSupervised, nnUNetTrainerPlaceMemory):
    """Memory of every place; boundary constraint, pseudo-labels, their contrast and cross-mix.

    Its supervised twin is ``nnUNetTrainerPlaceMemory``.

    Source: NCM-Net and MSSNet for the unlabelled part, the memory is ours; no paper puts them together.
    """

    boundary_weight = 0.1
    pseudo_label_weight = 1.0
    contrastive_weight = 0.1
    cross_mix_probability = 0.5
