"""Surface distances against MONAI, an independent implementation of the same definitions, on 200 random pairs."""

import numpy as np
import pytest
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance
from scipy import ndimage

from nnunet_temporal.metrics.surface import surface_distances

PAIRS_PER_BATCH = 20


def random_blobs(generator: np.random.Generator, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return two related masks with holes, islands and parts cut off by the border of the image."""
    smooth = ndimage.gaussian_filter(generator.normal(size=(3, *shape)), (0, *(2.0,) * len(shape)))
    smooth /= smooth.std()
    threshold = generator.uniform(-0.2, 1.0)
    return smooth[0] + 0.5 * smooth[1] > threshold, smooth[0] + 0.5 * smooth[2] > threshold


@pytest.mark.parametrize("shape", [(40, 33), (9, 24, 20)], ids=["2D", "3D"])
@pytest.mark.parametrize("batch", range(5))
def test_hd_hd95_and_assd_agree_with_monai_to_a_thousandth(shape, batch) -> None:
    generator = np.random.default_rng([len(shape), batch])
    for _ in range(PAIRS_PER_BATCH):
        prediction, reference = random_blobs(generator, shape)
        assert prediction.any() and reference.any()
        spacing = generator.uniform(0.3, 3.0, size=len(shape)).tolist()
        ours = surface_distances(prediction, reference, spacing)
        pair = [torch.from_numpy(mask)[None, None] for mask in (prediction, reference)]
        options = {"include_background": True, "spacing": spacing}
        theirs = [
            compute_hausdorff_distance(*pair, **options),
            compute_hausdorff_distance(*pair, percentile=95, **options),
            compute_average_surface_distance(*pair, symmetric=True, **options),
        ]
        np.testing.assert_allclose([ours.hausdorff(), ours.hausdorff95(), ours.assd()], np.ravel(theirs), atol=1e-3)
