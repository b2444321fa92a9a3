"""Metadata, dependencies and the mapping of the top-level folders ``planners`` and ``trainers`` into the namespace."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent

# setuptools cannot discover packages by itself under a custom package_dir, so the list is put together per folder.
PACKAGE_DIR = {
    "nnunet_temporal": "nnunet_temporal",
    "nnunet_temporal.planners": "planners",
    "nnunet_temporal.trainers": "trainers",
}

REQUIREMENTS = [
    "torch>=2.1.2,!=2.9.*",
    # The first release line that finds trainers outside its own package; widen only after tests of every seam.
    "nnunetv2>=2.8,<2.9",
    "batchgenerators>=0.25.1",
    "batchgeneratorsv2>=0.3.2",
    "dynamic-network-architectures>=0.4.3",
    "acvl-utils>=0.2.6",
    "SimpleITK>=2.2.1",
    "nibabel>=5.0",
    "blosc2>=3.3.2",
    "numpy>=1.24",
    "scipy>=1.10",
    "scikit-image>=0.19.3",
    "matplotlib>=3.7",
    "pillow>=9.4",
    "jinja2>=3.1",
    "tqdm>=4.64",
    "packaging>=22.0",
]

# Older torch exports by another way, which is gone by now.
ONNX_REQUIREMENTS = ["torch>=2.6", "onnx>=1.17", "onnxscript>=0.3", "onnxruntime>=1.20"]
DASK_REQUIREMENTS = ["dask[distributed]>=2024.2"]
# The wheels of PyAV bundle FFmpeg with encoders under the GPL. None of these is used: an av that was built against an
# FFmpeg without them does as well.
VIDEO_REQUIREMENTS = ["av>=12.0"]
HMCQU_REQUIREMENTS = [*VIDEO_REQUIREMENTS, "openpyxl>=3.1"]
DICOM_REQUIREMENTS = ["pydicom>=3.0", "python-gdcm>=3.0.24"]
# ruff is held within one minor release, because the next may format differently.
TEST_REQUIREMENTS = [
    "pytest>=8.0",
    "pytest-xdist>=3.7",
    "setuptools>=77",
    "ruff>=0.17.5,<0.18",
    "mypy>=2.0",
    "monai>=1.4",
    *DASK_REQUIREMENTS,
    *ONNX_REQUIREMENTS,
    *HMCQU_REQUIREMENTS,
    *DICOM_REQUIREMENTS,
    "highdicom>=0.23",
    "playwright>=1.40",
]


def package_names() -> list[str]:
    """Return the installed name of every package in the mapped folders."""
    names: list[str] = []
    for package, folder in PACKAGE_DIR.items():
        names.append(package)
        names.extend(f"{package}.{found}" for found in find_packages(str(ROOT / folder)))
    return names


def version() -> str:
    """Return the version written in the package, without importing it: its dependencies may not be there yet."""
    text = (ROOT / "nnunet_temporal" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, flags=re.MULTILINE)
    if found is None:
        raise RuntimeError('nnunet_temporal/__init__.py holds no line of the form __version__ = "1.2.3"')
    return found.group(1)


# Guarded because nnU-Net's look-up of trainers imports every module it meets in a folder it searches.
if __name__ == "__main__":
    setup(
        name="nnunet_temporal",
        version=version(),
        description="nnU-Net with a sense of time: cine MRI and echo sequences on an unmodified nnU-Net 2.8",
        long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
        long_description_content_type="text/markdown",
        license="Apache-2.0",
        license_files=["LICENSE"],
        python_requires=">=3.10",
        packages=package_names(),
        package_dir=PACKAGE_DIR,
        package_data={
            "nnunet_temporal.demo_data": ["*.nii.gz", "*.nii", "*.json", "*.txt", "LICENSE*"],
            "nnunet_temporal.report.page_files": ["*.html.j2", "*.css", "*.js"],
            "nnunet_temporal.commands.container_recipe": ["Dockerfile", "README.md", "test_run.sh"],
        },
        install_requires=REQUIREMENTS,
        extras_require={
            "test": TEST_REQUIREMENTS,
            "dask": DASK_REQUIREMENTS,
            "onnx": ONNX_REQUIREMENTS,
            "video": VIDEO_REQUIREMENTS,
            "hmcqu": HMCQU_REQUIREMENTS,
            "dicom": DICOM_REQUIREMENTS,
        },
        entry_points={"console_scripts": ["nnunet_temporal = nnunet_temporal.cli:main"]},
    )
