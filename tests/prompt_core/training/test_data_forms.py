"""A prompt learned from the tar of class tars and one learned from prepared shards are the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from prompt_core.config import load_config
from prompt_core.data.write_shards import ShardOptions, prepare_shards
from prompt_core.prompt import SoftPrompt
from prompt_core.training.recipe import pretrain

from ...support import class_tars as made


@pytest.mark.slow
def test_the_result_does_not_depend_on_the_form(tmp_path: Path) -> None:
    photos = made.photos_of(dict(zip(made.PROCESSED, (57, 52, 75), strict=True)))
    whole = made.write_whole(tmp_path / "winter21_whole.tar", photos)
    prepare_shards(str(whole), tmp_path / "shards", ShardOptions(shard_bytes=30_720))
    contexts = []
    for number, source in enumerate((whole, tmp_path / "shards", made.write_folders(tmp_path / "folders", photos))):
        chosen = {
            "MODEL.NAME": "mini",
            "DATA.TRAIN": f"imagenet21k:{source}",
            "DATA.CACHE": tmp_path / "cache",
            "AUGMENT.STORED_VIEWS": 2,
            "LOSS.NUM_CLASSES": 3,
            "OPTIM.BATCH": 4,
            "OPTIM.EPOCHS": 2,
            "DEVICE": "cpu",
        }
        cfg = load_config(None, [str(part) for pair in chosen.items() for part in pair])
        assert pretrain(cfg, tmp_path / f"run{number}") == 0
        contexts.append(SoftPrompt.load(tmp_path / f"run{number}/prompt.safetensors").context)
        assert len(list((tmp_path / "cache").iterdir())) == 1, "features are found again"
    assert all(torch.equal(context, contexts[0]) for context in contexts)
    assert contexts[0].abs().sum() > 0
