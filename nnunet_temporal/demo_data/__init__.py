"""Five real short-axis cine MRI studies (Sunnybrook Cardiac Data, CC0 1.0) with expert contours of the left ventricle.

Per study: ``NAME_cine.nii.gz`` (x, y, z, t), ``NAME_gt_lv.nii.gz`` on the same grid (0 background, 1 left ventricle,
2 not labelled) and ``NAME.json`` (spacing, ED and ES phase). Licence and citation: ``LICENSE_AND_SOURCE.txt``.
"""

from importlib.resources import files
from pathlib import Path


def demo_data_folder() -> Path:
    """Return the folder that holds the embedded studies.

    Returns:
        The installed folder. nnU-Net's commands need real files, so a zipped installation is not supported.
    """
    return Path(str(files(__name__)))
