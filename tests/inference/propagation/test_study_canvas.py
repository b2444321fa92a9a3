"""Slices that were cropped and resampled each on its own lie on the canvas as they lie in the study."""

import numpy as np
import pytest
import torch
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from phantom_dataset import HEIGHT, WIDTH, masks, movie
from scipy import ndimage
from trained_models import DATASET, make_plans, pooled_dice

from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.preparation import PreparedSequence
from nnunet_temporal.inference.propagation.study_canvas import StudyCanvas

PLAIN_MM, FINE_MM = (1.25, 1.25), (1.5, 1.0)  # the networks' own grid, and another one
FRAMES = 3
# Black borders of each slice: above, below, left, right.
BORDERS = {0: (3, 5, 0, 2), 1: (0, 0, 4, 1), 2: (6, 2, 2, 7), 3: (0, 0, 0, 0)}
PLANS = PlansManager(make_plans())


def image_of(borders, seed=0, frames=FRAMES):
    """Return a slice (1, T, Y, X) of the phantom that is black at its borders."""
    image = np.maximum(movie(frames, seed)[:, 0], 1)
    above, below, left, right = borders
    image[:, :above] = image[:, HEIGHT - below :] = image[..., :left] = image[..., WIDTH - right :] = 0
    return image[None]


def prepared(image, pixel_mm):
    return PreparedSequence.measure(image, pixel_mm, PLANS, PLANS.get_configuration("2dt"))


def canvas_of(pixel_mm, borders=BORDERS):
    """Lay out slices of one image."""
    return StudyCanvas.of({z: prepared(image_of(border), pixel_mm) for z, border in borders.items()})


def test_without_resampling_slices_lie_exactly_where_they_were_cropped():
    canvas = canvas_of(PLAIN_MM)
    assert canvas.corners == {0: (3, 0), 1: (0, 4), 2: (6, 2), 3: (0, 0)}
    assert canvas.size == (HEIGHT, WIDTH) and canvas.frames == FRAMES
    for z, (above, below, left, right) in BORDERS.items():
        found, own = canvas.prepare(z, np.arange(FRAMES)), canvas.slices[z].frames(np.arange(FRAMES))
        assert found.dtype == np.float32
        expected = np.pad(own, ((0, 0), (0, 0), (above, below), (left, right)))
        np.testing.assert_array_equal(found, expected)


def test_the_canvas_holds_no_more_than_the_slices():
    canvas = canvas_of(PLAIN_MM, {z: BORDERS[z] for z in (0, 1, 2)} | {1: (4, 0, 1, 1)})
    assert canvas.corners == {0: (0, 0), 1: (1, 1), 2: (3, 2)}
    assert canvas.size == (HEIGHT - 3, WIDTH - 1)


def test_resampled_slices_show_the_heart_at_the_same_place_whatever_was_cropped():
    canvas = canvas_of(FINE_MM)
    assert canvas.size == (48, 29)  # 40 x 36 pixels of 1.5 x 1 mm in pixels of 1.25 mm
    centres = []
    for z in BORDERS:
        frame = canvas.prepare(z, np.array([1]))[0, 0]
        level = canvas.slices[z].frames(np.array([1])).max() / 2
        centres.append(ndimage.center_of_mass(frame > level))
    assert np.ptp(centres, axis=0).max() < 1  # half a pixel each, for corners are whole
    np.testing.assert_allclose(centres[3], np.multiply((20, 18), (1.2, 0.8)) - 0.5, atol=0.75)


def test_any_frames_can_be_asked_for():
    canvas = canvas_of(FINE_MM)
    np.testing.assert_array_equal(canvas.prepare(2, np.array([2, 0])), canvas.prepare(2, np.arange(3))[:, [2, 0]])


def on_native(canvas, z, maps):
    """Return maps (K, N, *size) of a slice as label values (N, Y, X), as they are written."""
    native, (rows, columns) = canvas.to_native(z, maps)
    labels = np.zeros((maps.shape[1], HEIGHT, WIDTH), np.uint8)
    labels[:, rows, columns] = native.argmax(0)
    return labels


@pytest.mark.parametrize("pixel_mm", [PLAIN_MM, FINE_MM])
@pytest.mark.parametrize("z", BORDERS)
def test_a_mask_that_goes_to_the_canvas_comes_back(z, pixel_mm):
    canvas, drawn = canvas_of(pixel_mm), masks(FRAMES)[:, 0]
    there = np.stack([canvas.from_native(z, mask) for mask in drawn])
    assert there.shape == (FRAMES, *canvas.size) and there.dtype == np.uint8
    back = on_native(canvas, z, torch.nn.functional.one_hot(torch.from_numpy(there).long(), 3).movedim(-1, 0).float())
    if pixel_mm == PLAIN_MM:
        np.testing.assert_array_equal(back, drawn)
    assert pooled_dice(back, drawn) > 0.95


@pytest.mark.parametrize("pixel_mm", [PLAIN_MM, FINE_MM])
def test_maps_of_the_canvas_come_back_as_the_crop_of_the_slice(pixel_mm):
    canvas = canvas_of(pixel_mm)
    maps = torch.rand(2, 1, *canvas.size, generator=torch.Generator().manual_seed(0))
    (y, x), preparation = canvas.corners[2], canvas.slices[2].preparation
    height, width = preparation.network_size
    own = maps[..., y : y + height, x : x + width]
    torch.testing.assert_close(canvas.crop(2, maps), own)
    native, (rows, columns) = canvas.to_native(2, maps)
    assert (rows, columns) == (slice(6, HEIGHT - 2), slice(2, WIDTH - 7))
    torch.testing.assert_close(native, preparation.to_native(own))


@pytest.mark.parametrize("pixel_mm", [PLAIN_MM, FINE_MM])
def test_beyond_the_crop_a_mask_is_background(pixel_mm):
    canvas = canvas_of(pixel_mm)
    there = canvas.from_native(2, np.full((HEIGHT, WIDTH), 2, np.uint8))
    (y, x), (height, width) = canvas.corners[2], canvas.slices[2].preparation.network_size
    inside = np.zeros(canvas.size, bool)
    inside[y : y + height, x : x + width] = True
    np.testing.assert_array_equal(there, 2 * inside)
    assert not inside.all()


@pytest.mark.parametrize("z", [0, 2])
def test_masks_are_resampled_as_by_nnunet(z):
    canvas, drawn = canvas_of(FINE_MM), masks(FRAMES)[:, 0]
    _, expected, _ = DefaultPreprocessor(verbose=False).run_case_npy(
        image_of(BORDERS[z]), drawn[None].astype(np.int16), {"spacing": [10.0, *FINE_MM]},
        PLANS, PLANS.get_configuration("2dt"), DATASET,
    )  # fmt: skip
    ours = np.stack([canvas.crop(z, torch.from_numpy(canvas.from_native(z, mask))).numpy() for mask in drawn])
    np.testing.assert_array_equal(ours, expected[0])


@pytest.mark.parametrize(
    "slices",
    [
        {},
        {0: image_of(BORDERS[0]), 2: image_of(BORDERS[2])},
        {1: image_of(BORDERS[1])},
        {0: image_of(BORDERS[0]), 1: image_of(BORDERS[1], frames=FRAMES + 1)},
        {0: image_of(BORDERS[0]), 1: image_of(BORDERS[1])[..., :-1]},
    ],
)
def test_missing_slices_and_different_sizes_are_refused(slices):
    shapes = sorted({image.shape for image in slices.values()})
    with pytest.raises(InputError) as error:
        StudyCanvas.of({z: prepared(image, PLAIN_MM) for z, image in slices.items()})
    assert f"found slices {sorted(slices)} of shapes {shapes}, expected all of 0..Z-1" in str(error.value)
