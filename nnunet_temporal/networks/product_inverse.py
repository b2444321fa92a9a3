"""The inverse of a matrix by a fixed number of matrix products, for run times that have no solver, such as ONNX."""

import torch
from torch import Tensor

STEPS = 12
"""Two products each; enough for condition numbers up to 1e5."""


def inverse_by_products(matrix: Tensor) -> Tensor:
    """Invert symmetric matrices whose eigenvalues are 1 or more, such as I + c A of the implicit update.

    Newton's iteration X <- X (2 I - M X) squares the error 1 - x of each eigenvalue x of M X. Far from 1 it only
    doubles x, so its parabola is scaled to what is known of the eigenvalues here: where they lie in l .. 1,
    x (1 + l - x) 4 / (1 + l)^2 lies in 4 l / (1 + l)^2 .. 1, which brings the smallest four times nearer. The start is
    I over the largest eigenvalue that the trace allows when all others are 1, so that l is one over that value.

    Condition number 1e5 needs 12 steps: l is 1e-5, 4e-5, .., 0.04, 0.15, 0.45, 0.86, 0.994, and then 1 - 1e-5 and
    1 - 1e-11. Unit-norm keys with ``memory_rules.mean_per_direction`` have moments of trace D_k, so that gates of 0.99
    at most give condition numbers up to 1 + 99 D_k: 3,169 for 32 channels, and 1e5 for a thousand.

    The products are in float64, which costs next to nothing at this size: run times that round float32 products to TF32
    or half precision would multiply that error by the condition number.

    Source: the iteration is Schulz's (1933); scaling it by bounds of the eigenvalues is from Pan and Schreiber (SIAM
    J. Sci. Stat. Comput., 1991).

    Args:
        matrix: M, (..., D, D).

    Returns:
        M^-1 (..., D, D), of the type of ``matrix``.
    """
    exact = matrix.double()
    size = matrix.shape[-1]
    identity = torch.eye(size, dtype=torch.float64, device=matrix.device)
    largest = exact.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None] - (size - 1)
    inverse, smallest = identity / largest, 1 / largest
    for _ in range(STEPS):
        scale = 4 / (1 + smallest) ** 2
        inverse = inverse @ ((1 + smallest) * identity - exact @ inverse) * scale
        smallest = smallest * scale
    return inverse.to(matrix.dtype)
