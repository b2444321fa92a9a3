"""Every trainer nnU-Net can find by name: the methods, and shorter or longer versions of each."""

from nnunet_temporal.trainers.cstm import nnUNetTrainerCSTM
from nnunet_temporal.trainers.distilled import nnUNetTrainerGDKVMDistilled, nnUNetTrainerPlaceMemoryDistilled
from nnunet_temporal.trainers.gdkvm import nnUNetTrainerGDKVM, nnUNetTrainerGDKVMPaper
from nnunet_temporal.trainers.mssnet import nnUNetTrainerMSSNet, nnUNetTrainerMSSNetSupervised
from nnunet_temporal.trainers.ncmnet import nnUNetTrainerNCMNet, nnUNetTrainerNCMNetSupervised
from nnunet_temporal.trainers.place_memory import nnUNetTrainerPlaceMemory
from nnunet_temporal.trainers.temporal_conv import nnUNetTrainerTemporalConv
from nnunet_temporal.trainers.temporal_semi import nnUNetTrainerTemporalSemi
from nnunet_temporal.trainers.temporal_trainer import nnUNetTrainerTemporal

METHODS: tuple[type[nnUNetTrainerTemporal], ...] = (
    nnUNetTrainerPlaceMemory,
    nnUNetTrainerGDKVM,
    nnUNetTrainerGDKVMPaper,
    nnUNetTrainerCSTM,
    nnUNetTrainerNCMNetSupervised,
    nnUNetTrainerMSSNetSupervised,
    nnUNetTrainerTemporalConv,
)

SEMI_SUPERVISED: tuple[type[nnUNetTrainerTemporal], ...] = (
    nnUNetTrainerNCMNet,
    nnUNetTrainerMSSNet,
    nnUNetTrainerTemporalSemi,
)

DISTILLED: tuple[type[nnUNetTrainerTemporal], ...] = (nnUNetTrainerPlaceMemoryDistilled, nnUNetTrainerGDKVMDistilled)
"""They need the finished folds of another trainer."""

_EPOCHS = (1, 5, 10, 20, 50, 100, 250)


def make_variant(base: type[nnUNetTrainerTemporal], suffix: str, **attributes: int) -> type[nnUNetTrainerTemporal]:
    """Derive a trainer that differs from ``base`` in class attributes only.

    It belongs to this module, under the name nnU-Net will look for, so that it can be pickled.
    """
    name = f"{base.__name__}_{suffix}"
    return type(name, (base,), {"__module__": __name__, "__doc__": f"{base.__name__} with {attributes}.", **attributes})


def _variants_of(base: type[nnUNetTrainerTemporal]) -> list[type[nnUNetTrainerTemporal]]:
    smoke = make_variant(base, "10iterations", epochs=1, iterations_per_epoch=10, validation_iterations_per_epoch=2)
    demo = make_variant(base, "demo", epochs=12, iterations_per_epoch=25, validation_iterations_per_epoch=1)
    lengths = [make_variant(base, f"{n}epoch{'s' * (n > 1)}", epochs=n) for n in _EPOCHS]
    return [base, smoke, demo, *lengths]


VARIANTS: dict[str, type[nnUNetTrainerTemporal]] = {
    variant.__name__: variant for method in (*METHODS, *SEMI_SUPERVISED, *DISTILLED) for variant in _variants_of(method)
}
globals().update(VARIANTS)
