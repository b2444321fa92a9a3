"""Grey values of the cine phantom: a steady-state free precession image with bright blood, dark muscle, bright fat.

Tissues are painted on one another with edges one pixel wide, at several heights through the thickness of the slice, and
averaged: pixels and slices that hold two tissues show a mixture of them (partial volume).
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from nnunet_temporal.datasets.phantom.chest import BLOOD, FAT, MUSCLE
from nnunet_temporal.datasets.phantom.cine_look import CineLook
from nnunet_temporal.datasets.phantom.left_ventricle import radii_at
from nnunet_temporal.datasets.phantom.short_axis import CrossSection, Heart, SliceCoordinates, cross_section, per_frame

_LAYERS = 4
_ATRIUM_WALL_MM = 2.5
_RV_WALL_MM = 2.5
# Over this many mm the groove between the ventricles is rounded off by fat.
_GROOVE_MM = 4.0
# z where the right ventricle's outflow tract leaves it.
_OUTFLOW_END_MM = 8.0


@dataclass(frozen=True)
class SlicePainter:
    """Paints the heart into one slice.

    Attributes:
        look: Grey values and details.
        heart: The heart.
        at: Where the pixels are.
        pixel_mm: Size of a pixel.
        fat_mm: (T, Y, X) thickness of the fat around the heart in the direction of each pixel.
        trabeculae: (T, Y, X) how far the trabeculae reach in that direction, 0 and more.
    """

    look: CineLook
    heart: Heart
    at: SliceCoordinates
    pixel_mm: float
    fat_mm: np.ndarray
    trabeculae: np.ndarray

    def paint_slice(self, surroundings: np.ndarray, z_mm: float, thickness_mm: float) -> np.ndarray:
        """Average several layers of a slice.

        Args:
            surroundings: (Y, X) grey values without the heart.
            z_mm: Height of the slice's centre.
            thickness_mm: Thickness of the slice.

        Returns:
            Grey values (T, Y, X) float32, without noise.
        """
        layer_mm = thickness_mm / _LAYERS
        heights_mm = [z_mm + (layer - (_LAYERS - 1) / 2) * layer_mm for layer in range(_LAYERS)]
        return np.mean([self._paint_layer(surroundings, height_mm, layer_mm) for height_mm in heights_mm], axis=0)

    def _paint_layer(self, surroundings: np.ndarray, z_mm: float, layer_mm: float) -> np.ndarray:
        cut = cross_section(self.at, z_mm, self.heart)
        is_crescent = np.clip(8 * self.at.crescent, 0, 1)
        free_wall = cut.right + _RV_WALL_MM * is_crescent
        free_wall[is_crescent == 0] = -np.inf
        image = self._paint_fat(surroundings, np.logaddexp(cut.wall / _GROOVE_MM, free_wall / _GROOVE_MM) * _GROOVE_MM)
        image = self._paint_outflow(image, float(np.clip(0.5 - (z_mm - _OUTFLOW_END_MM) / layer_mm, 0, 1)))
        left_mm, right_mm = self.look.trabeculae_mm
        image = self._over(image, MUSCLE, free_wall)
        image = self._over(image, 0.95 * BLOOD, cut.right - right_mm * self.trabeculae)
        image = self._over(image, self.look.muscle, cut.wall)
        # Above the valve plane lies the left atrium: wider than the cavity, with a thin wall.
        below = np.clip(cut.below_valve / layer_mm + 0.5, 0, 1)
        reach = per_frame(np.clip(radii_at(self.heart.left, z_mm)[0] / 20, 0, 1))
        atrium = self._share(cut.wall - _ATRIUM_WALL_MM)
        cavity = self._share(cut.cavity - left_mm * reach * self.trabeculae)
        image = image + (BLOOD - image) * (atrium + (cavity - atrium) * below)
        return self._over(image, self.look.muscle, self._papillary_mm(cut, z_mm))

    def _paint_fat(self, image: np.ndarray, heart_mm: np.ndarray) -> np.ndarray:
        """Paint fat around the heart, a dark line in it (the pericardium) and one at the heart's edge.

        The latter is where pixels hold both fat and water, whose signals cancel one another.
        """
        image = self._over(image, FAT, heart_mm + self.fat_mm)
        lines = 0.4 * np.exp(-np.square(heart_mm + 0.6 * self.fat_mm)) + np.exp(-np.square(heart_mm))
        return image * (1 - 0.6 * np.clip(lines, 0, 1))

    def _paint_outflow(self, image: np.ndarray, share: float) -> np.ndarray:
        """Paint the right ventricle's outflow tract, which fills a share of the layer's height."""
        angle, distance_mm, radius_mm = self.look.outflow
        u_mm, v_mm = distance_mm * math.cos(angle), distance_mm * math.sin(angle)
        inside = radius_mm - np.hypot(self.at.u - u_mm, self.at.v - v_mm)
        painted = self._over(self._over(image, MUSCLE, inside + 1.5), 0.95 * BLOOD, inside)
        return image + (painted - image) * share

    def _papillary_mm(self, cut: CrossSection, z_mm: float) -> np.ndarray:
        """Return how deep pixels are inside a papillary muscle; they stand on the wall in the cavity's middle third."""
        depth = (z_mm - self.heart.left.base_mm) / self.heart.left.cavity_length_mm
        radius_mm = self.look.papillary_mm * np.sqrt(np.clip(1 - ((depth - 0.55) / 0.28) ** 2, 0, None))
        cavity_mm, _ = radii_at(self.heart.left, z_mm)
        distance_mm = per_frame(np.clip(cavity_mm - 0.8 * self.look.papillary_mm, 0, None))
        away = [
            np.hypot(self.at.u - distance_mm * math.cos(angle), self.at.v - distance_mm * math.sin(angle))
            for angle in self.look.papillary_angles
        ]
        return np.minimum(per_frame(radius_mm) - np.minimum(*away), cut.cavity)

    def _over(self, image: np.ndarray, value: float, inside_mm: np.ndarray) -> np.ndarray:
        return image + (value - image) * self._share(inside_mm)

    def _share(self, inside_mm: np.ndarray) -> np.ndarray:
        """Return how much of each pixel a tissue fills whose edge is ``inside_mm`` away, 0 to 1."""
        return np.clip(inside_mm / self.pixel_mm + 0.5, 0, 1)


def slice_painter(look: CineLook, heart: Heart, at: SliceCoordinates, pixel_mm: float, z_mm: float) -> SlicePainter:
    """Prepare what all layers of the slice at ``z_mm`` have in common; arguments as in :class:`SlicePainter`."""
    fat_mm = look.fat_mm * (1 + 0.5 * look.fat_waves.at(at.angle, z_mm))
    trabeculae = np.clip(look.trabeculae_waves.at(at.angle, z_mm), 0, None)
    return SlicePainter(look, heart, at, pixel_mm, fat_mm, trabeculae)


def receive(look: CineLook, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turn grey values into a scanner's image: blurred, unevenly bright, with the noise of a magnitude image (Rician).

    Args:
        look: Sharpness, sensitivity and noise.
        image: (T, Y, X) grey values.
        rng: Source of the noise.

    Returns:
        The image (T, Y, X) float32, whole numbers, 0 and more.
    """
    _, height, width = image.shape
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    sensitivity = np.exp(np.tensordot(look.coil, np.stack([x, y, x**2 + y**2, x * y]), axes=1)).astype(np.float32)
    mottles = gaussian_filter(rng.standard_normal(image.shape, dtype=np.float32), (1.0, 1.5, 1.5))
    # Only what is bright moves fast; still tissue keeps its grey value from frame to frame.
    flowing = image * (1 + look.flow / mottles.std() * mottles * (image > 0.9 * BLOOD))
    blurred = gaussian_filter(flowing, (0, look.blur_pixels, look.blur_pixels)) * sensitivity
    noise = look.noise * rng.standard_normal((2, *image.shape), dtype=np.float32)
    return np.rint(look.gain * np.hypot(blurred + noise[0], noise[1]))
