"""Shared by the segmenter's tests: the published files, and a tiny CLIP as a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ..support.label_examples import CLASSES, IGNORE
from ..support.segmenter import tiny
from ..support.tools import call_tool

__all__ = ["call_tool", "golden_clip", "published", "tiny"]


@pytest.fixture(scope="session")
def published(shared: Path) -> Path:
    """Folder of the published configurations of ZSSeg and POMP."""
    return shared / "data/published_configs/zsseg"


@pytest.fixture
def no_initial_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing the weights of full-size models takes most of the time, and tests of building do not look at them."""
    for name in ("uniform_", "normal_"):
        monkeypatch.setattr(torch.Tensor, name, lambda self, *arguments, **options: self)


@pytest.fixture(scope="session")
def golden_clip(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The CLIP of the golden segmenter as one OpenAI state dict: text tower of one fixture, image tower of another."""
    text = load_file(shared / "golden/prompt_text/weights.safetensors")
    state = {key: value for key, value in text.items() if not key.startswith("visual.")}
    state |= load_file(shared / "golden/zsseg/clip_visual.safetensors")
    file = tmp_path_factory.mktemp("clip") / "clip.safetensors"
    save_file({key: value.contiguous() for key, value in state.items()}, file)
    return file


@pytest.fixture
def data_set() -> Iterator[str]:
    """The name of a registered data set with semantic labels."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    name = "mappers_test_sem_seg"
    DatasetCatalog.register(name, list)
    MetadataCatalog.get(name).set(stuff_classes=[f"class {index}" for index in range(CLASSES)], ignore_label=IGNORE)
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


@pytest.fixture
def cfg(data_set: str) -> Any:
    """A configuration of small crops on that data set."""
    from detectron2.config import get_cfg

    from pomp_seg import add_segmenter_config

    cfg = get_cfg()
    add_segmenter_config(cfg)
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = (data_set,)
    cfg.INPUT.FORMAT = "RGB"
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (40, 60, 90), 200
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE = True, "absolute", (48, 48)
    cfg.INPUT.SIZE_DIVISIBILITY = 48
    return cfg
