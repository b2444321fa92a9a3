"""nnU-Net with a sense of time: planners, trainers and networks for heart movies, on an unmodified nnU-Net 2.8."""

__version__ = "0.1.0"
