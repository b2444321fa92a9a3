"""The trainers, for nnU-Net's look-up: the folder of this file is what ``nnUNet_extTrainer`` has to name."""

from nnunet_temporal.trainers.variants import VARIANTS

# nnU-Net asks each module in this folder for an attribute with the trainer's name, and afterwards forgets the modules
# that came from here. Classes defined here could therefore not be pickled and would be new objects at each look-up;
# classes of the installed package, passed on by name, stay the ones every other module imports.
globals().update(VARIANTS)
