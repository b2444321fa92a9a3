"""What surrounds the heart of the cine phantom: chest wall, lungs, liver, stomach, aorta, all of them still.

Positions are in mm from the left ventricle's axis, x to the right of the image and y down; z as in ``left_ventricle``.
Grey values are relative to blood, which is 1.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

AIR, LUNG, MUSCLE, LIVER, FAT, BLOOD = 0.02, 0.05, 0.26, 0.36, 0.8, 1.0


@dataclass(frozen=True)
class Chest:
    """Where the organs around one heart are.

    Attributes:
        wall_angle: Direction in which the chest wall is nearest, in radians from x towards y.
        wall_mm: How far its inner surface is.
        skin_mm: Thickness of the fat under the skin.
        rib_phase: Shift of the ribs along the wall, in radians.
        diaphragm_mm: y of the diaphragm's dome at the base of the heart.
        dome_mm: x of that dome.
        organ_edge_mm: x where the liver (left) ends and the stomach (right) begins.
        stomach: Grey value of the stomach.
        aorta_mm: x, y and radius of the descending aorta.
    """

    wall_angle: float
    wall_mm: float
    skin_mm: float
    rib_phase: float
    diaphragm_mm: float
    dome_mm: float
    organ_edge_mm: float
    stomach: float
    aorta_mm: tuple[float, float, float]


def draw_chest(heart_radius_mm: float, rng: np.random.Generator) -> Chest:
    """Draw the surroundings of a heart whose left ventricle has the outer radius ``heart_radius_mm``."""
    return Chest(
        wall_angle=math.radians(rng.uniform(225, 262)),
        wall_mm=heart_radius_mm * rng.uniform(1.45, 1.8),
        skin_mm=rng.uniform(10, 30),
        rib_phase=rng.uniform(0, 2 * math.pi),
        diaphragm_mm=heart_radius_mm + rng.uniform(0, 10),
        dome_mm=rng.uniform(-45, -5),
        organ_edge_mm=rng.uniform(-25, 20),
        stomach=rng.uniform(0.15, 0.75),
        aorta_mm=(rng.uniform(15, 40), heart_radius_mm + rng.uniform(14, 24), rng.uniform(8, 12)),
    )


def paint_chest(
    chest: Chest, x_mm: np.ndarray, y_mm: np.ndarray, z_mm: float, pixel_mm: float, rng: np.random.Generator
) -> np.ndarray:
    """Paint one slice without its heart.

    Args:
        chest: Where the organs are.
        x_mm: (Y, X) positions of the pixels.
        y_mm: (Y, X) positions of the pixels.
        z_mm: Height of the slice; the diaphragm rises towards the apex, and the aorta runs away from the heart.
        pixel_mm: Size of a pixel.
        rng: Source of the texture.

    Returns:
        Grey values (Y, X) float32, 0 and more.
    """
    coarse, fine = (_draw_texture(x_mm.shape, length_mm / pixel_mm, rng) for length_mm in (8.0, 1.8))
    image = LUNG * (1 + 0.3 * coarse) + 0.25 * np.clip(fine - 1.8, 0, None)  # the clipped peaks are vessels
    depth_mm = y_mm - chest.diaphragm_mm + 0.1 * z_mm - (x_mm - chest.dome_mm) ** 2 / 450
    image = _paint_belly(chest, x_mm, depth_mm, pixel_mm, (coarse, fine), image)
    aorta_x, aorta_y, aorta_radius = chest.aorta_mm
    to_aorta = np.hypot(x_mm - aorta_x, y_mm - aorta_y - 0.1 * z_mm)
    image = _blend(aorta_radius + 2 - to_aorta + coarse, pixel_mm, image, MUSCLE)
    image = _blend(aorta_radius - to_aorta, pixel_mm, image, 0.9 * BLOOD)
    image = _paint_wall(chest, x_mm, y_mm, pixel_mm, coarse, image)
    return np.clip(image * (1 + 0.05 * fine), 0, None).astype(np.float32)


def _paint_belly(
    chest: Chest,
    x_mm: np.ndarray,
    depth_mm: np.ndarray,
    pixel_mm: float,
    textures: tuple[np.ndarray, np.ndarray],
    image: np.ndarray,
) -> np.ndarray:
    """Paint liver and stomach under a diaphragm with fat on it."""
    coarse, fine = textures
    liver = LIVER + 0.3 * np.clip(coarse + 0.5 * fine - 1.2, 0, 0.8)
    stomach = chest.stomach * (1 + 0.3 * coarse + 0.2 * fine)
    to_stomach = x_mm - chest.organ_edge_mm + 6 * coarse
    organs = _blend(3 - np.abs(to_stomach), 2.0, _blend(to_stomach, 2.0, liver, stomach), FAT)
    depth_mm = depth_mm + 1.5 * coarse
    fat_mm = 3 + 2 * coarse
    image = _blend(depth_mm, pixel_mm, image, FAT)
    image = _blend(depth_mm - fat_mm, pixel_mm, image, MUSCLE)
    return _blend(depth_mm - fat_mm - 2, pixel_mm, image, organs)


def _paint_wall(
    chest: Chest, x_mm: np.ndarray, y_mm: np.ndarray, pixel_mm: float, coarse: np.ndarray, image: np.ndarray
) -> np.ndarray:
    """Paint the fat before the chest wall, its muscle with ribs, the fat under the skin, and the air outside."""
    across, along = math.cos(chest.wall_angle), math.sin(chest.wall_angle)
    tangential = y_mm * across - x_mm * along
    depth = x_mm * across + y_mm * along + tangential**2 / 350 - chest.wall_mm + 1.5 * coarse
    image = _blend(depth + 5 + 5 * coarse - np.abs(tangential) / 6, 2 * pixel_mm, image, 0.9 * FAT)
    image = _blend(depth, pixel_mm, image, MUSCLE * (1 + 0.3 * coarse))
    image = _blend(4 * np.sin(tangential / 8 + chest.rib_phase) - np.abs(depth - 6), pixel_mm, image, 0.6 * FAT)
    image = _blend(depth - 13, pixel_mm, image, FAT * (1 + 0.15 * coarse))
    return _blend(depth - 13 - chest.skin_mm, pixel_mm, image, AIR)


def _blend(inside_mm: np.ndarray, edge_mm: float, outside: np.ndarray, inside: np.ndarray | float) -> np.ndarray:
    share = np.clip(inside_mm / edge_mm + 0.5, 0.0, 1.0)
    return outside + (inside - outside) * share


def _draw_texture(shape: tuple[int, ...], sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Draw smooth noise with mean 0 and standard deviation 1."""
    noise = gaussian_filter(rng.standard_normal(shape), sigma, mode="reflect")
    return (noise - noise.mean()) / noise.std()
