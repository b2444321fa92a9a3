"""How strongly each tissue of an apical view reflects: blood, walls, valves, the right heart and the surroundings."""

import numpy as np

from nnunet_temporal.datasets.phantom.apical_heart import ApicalOutline
from nnunet_temporal.datasets.phantom.apical_view import ApicalView

# Levels in dB; 0 is the wall of the ventricle where it faces the probe. Pairs: along the beam, and facing it.
BLOOD_DB = -32.0
_WALL_DB = (-6.0, 1.0)
_ATRIAL_WALL_DB = (-14.0, 4.0)
_PERICARDIUM_DB = (-9.0, 9.0)
_RIGHT_WALL_DB = -6.0
_TRICUSPID_VALVE_DB = -3.0
_PAPILLARY_MUSCLE_DB = -8.0
_CHEST_WALL_DB = -4.0
_SURROUNDINGS_DB = -12.0
_LUNG_DB = -28.0
_FADING_DB_PER_MM = 0.25

# Unevenness of tissue: size in dB and extent in mm, large in the surroundings, small everywhere but in blood.
_PATCH_DB, _PATCH_MM = 4.0, 16.0
_GRAIN_DB, _GRAIN_MM = 2.0, 7.0

_PERICARDIUM_MM = 2.5
_RIGHT_WALL_MM = 4.0
_ATRIAL_SEPTUM_MM = 1.5
_TRICUSPID_OFFSET_MM = 4.0
_TRICUSPID_MM = 2.4


def tissue_db(places_mm: np.ndarray, view: ApicalView, rng: np.random.Generator) -> np.ndarray:
    """Return how strongly tissue reflects.

    Args:
        places_mm: (N, 2) places at end diastole.
        view: The view.
        rng: Source of the unevenness of tissue.

    Returns:
        (N,) mean levels in dB; exactly :data:`BLOOD_DB` in blood.
    """
    outline = view.outline(0.0)
    level_mm, from_axis_mm = places_mm[:, 0], np.abs(places_mm[:, 1])
    beyond_mm = from_axis_mm - outline.border_mm(level_mm)
    facing, grain_db = _facing(places_mm, view), _GRAIN_DB * _unevenness(places_mm, _GRAIN_MM, rng)
    level_db = _surroundings_db(level_mm, beyond_mm) + _PATCH_DB * _unevenness(places_mm, _PATCH_MM, rng)
    at_heart = (level_mm > outline.tip_mm) & (level_mm < outline.roof_mm)
    level_db = np.where(at_heart & (beyond_mm < _PERICARDIUM_MM), _between(_PERICARDIUM_DB, facing), level_db)
    if view.name == "4CH":
        level_db = _with_right_heart(level_db, places_mm, outline)
    wall_db = np.where(level_mm < outline.length_mm, _between(_WALL_DB, facing), _between(_ATRIAL_WALL_DB, facing))
    level_db = np.where(beyond_mm < 0, wall_db, level_db)
    level_db = np.where(level_db == BLOOD_DB, BLOOD_DB, level_db + grain_db)
    level_db[from_axis_mm < outline.cavity_mm(level_mm)] = BLOOD_DB
    level_db[_in_papillary_muscle(places_mm, outline, rng)] = _PAPILLARY_MUSCLE_DB
    return level_db


def _unevenness(places_mm: np.ndarray, scale_mm: float, rng: np.random.Generator) -> np.ndarray:
    """Draw a field that varies over ``scale_mm`` and return it at places (N, 2): (N,), mean 0, variance 1."""
    n_waves = 12
    waves = rng.standard_normal((n_waves, 2)) / scale_mm
    shifts = rng.uniform(0, 2 * np.pi, n_waves)
    return np.sqrt(2 / n_waves) * np.cos(places_mm @ waves.T + shifts).sum(axis=-1)


def _between(ends_db: tuple[float, float], share: np.ndarray) -> np.ndarray:
    return ends_db[0] + (ends_db[1] - ends_db[0]) * share


def _facing(places_mm: np.ndarray, view: ApicalView) -> np.ndarray:
    """How squarely the outer border at a place's level faces the beam: (N,) in [0, 1], 0 along the beam."""
    outline, level_mm = view.outline(0.0), places_mm[:, 0]
    slope = (outline.border_mm(level_mm + 1.0) - outline.border_mm(level_mm - 1.0)) / 2.0
    probe_mm = view.to_heart(np.zeros(2), 0.0)
    along_mm, across_mm = (places_mm - probe_mm).T
    # The border's normal is (-slope, 1) on the right of the axis and mirrored on its left.
    cosine = (across_mm * np.sign(places_mm[:, 1]) - slope * along_mm) / np.hypot(along_mm, across_mm)
    return np.abs(cosine) / np.sqrt(1 + slope * slope)


def _surroundings_db(level_mm: np.ndarray, beyond_mm: np.ndarray) -> np.ndarray:
    """Chest wall above the heart; beside and below it tissue that gives way to lung."""
    fading_db = _SURROUNDINGS_DB - _FADING_DB_PER_MM * np.maximum(beyond_mm, 0)
    return np.where(level_mm < 0, _CHEST_WALL_DB, np.maximum(fading_db, _LUNG_DB))


def _in_papillary_muscle(places_mm: np.ndarray, outline: ApicalOutline, rng: np.random.Generator) -> np.ndarray:
    """Draw an oval at the inner border; (N,) bool. It stays part of the cavity in the masks, as experts draw it."""
    side, level_mm = rng.choice([-1, 1]), rng.uniform(0.45, 0.6) * outline.length_mm
    middle_mm = (level_mm, side * 0.92 * float(outline.cavity_mm(np.array(level_mm))))
    size_mm = (rng.uniform(5.0, 9.0), rng.uniform(2.0, 4.5))
    return (((places_mm - middle_mm) / size_mm) ** 2).sum(axis=-1) < 1


def _with_right_heart(level_db: np.ndarray, places_mm: np.ndarray, outline: ApicalOutline) -> np.ndarray:
    """Put the right ventricle and atrium, which lie to the left of the left heart, into levels (N,)."""
    level_mm, lateral_mm = places_mm.T
    beyond_mm = -lateral_mm - outline.border_mm(level_mm)
    along = np.clip((level_mm / outline.length_mm - 0.22) / 0.78, 0, 1)
    ventricle_mm = 1.15 * outline.half_width_mm * np.sin(np.pi / 2 * along) ** 0.8
    along = np.clip((level_mm - outline.length_mm) / (1.05 * outline.atrium_length_mm), 0, 1)
    atrium_mm = 1.3 * outline.atrium_half_width_mm * np.sqrt(1 - along**3)
    is_atrium = level_mm > outline.length_mm
    cavity_mm = np.where(is_atrium, atrium_mm, ventricle_mm)
    is_right = (lateral_mm < 0) & (cavity_mm > 0)
    is_wall = is_right & (beyond_mm < cavity_mm + _RIGHT_WALL_MM)
    is_blood = is_right & (beyond_mm > np.where(is_atrium, _ATRIAL_SEPTUM_MM, 0.0)) & (beyond_mm < cavity_mm)
    # The tricuspid valve hangs a little nearer to the apex than the mitral one.
    from_valve_mm = np.abs(level_mm - outline.length_mm + _TRICUSPID_OFFSET_MM)
    is_valve = is_blood & (from_valve_mm < _TRICUSPID_MM / 2)
    levels_db = [_TRICUSPID_VALVE_DB, BLOOD_DB, _RIGHT_WALL_DB]
    return np.select([is_valve, is_blood, is_wall], levels_db, level_db)
