"""Small runs on disk, as the tools write them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

TOP1 = {"split": "val", "metric": "top-1 over all images (micro)", "candidates": 100, "vocabulary_sha256": "ab" * 32}
LVIS = {
    "split": "lvis_v1_val",
    "metric": "LVIS AP (federated)",
    "detections": "300 of an image, over all classes",
    "images": 19_809,
}
RESNET = "MODEL:\n  TIMM:\n    BASE_NAME: resnet50_in21k\n"
VERSIONS = {"python": "3.11.7", "prompt_core": "0.1.0", "torch": "2.13.0"}


@pytest.fixture
def write_run(tmp_path: Path) -> Callable[..., Path]:
    """Write ``tmp_path/NAME/metrics.json``; returns the folder."""

    def write(name: str, numbers: Mapping[str, Any], protocol: Mapping[str, Any] | None = None, **about: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        run = {"command": "evaluate_prompt.py", "versions": VERSIONS, "seed": 0, "device": "cpu", **about}
        document = {**numbers, "_run": run, "_protocol": dict(protocol or {})}
        (folder / "metrics.json").write_text(json.dumps(document), encoding="utf-8")
        return folder

    return write


@pytest.fixture
def write_base_novel(tmp_path: Path) -> Callable[..., Path]:
    """Write what compare_prompts.py keeps of a run; returns the file."""

    def write(
        name: str, base: float, novel: float, seed: int | None = 0, half: str = "report", **settings: Any
    ) -> Path:
        folder = tmp_path / "base_novel"
        folder.mkdir(exist_ok=True)
        document = {
            "name": name,
            "top1": {"base / 160": base, "base / 200": base - 4, "novel / 40": novel, "novel / 200": novel - 10},
            "novel": {"alignment": 1.55, "uniformity": -3.0},
            "seed": seed,
            "settings": {"clip": "cd" * 32, "half": half, "seed": seed, **settings},
            "_run": {"command": "compare_prompts.py", "versions": VERSIONS, "seed": seed, "device": "cpu"},
        }
        path = folder / f"{len(list(folder.iterdir())):03}.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        return path

    return write


@pytest.fixture
def all_kinds(write_run: Callable[..., Path], write_base_novel: Callable[..., Path], tmp_path: Path) -> Path:
    """Runs of all tasks and forms below one folder."""
    hand = {"templates": ["a photo of a {}."]}
    write_base_novel('"a photo of a {}."', 41.4, 32.9, None, **hand)
    for seed in (0, 1):
        for number in (100, 1000):
            for correction in ("log10", None):
                how = {"num_classes": number, "correction": correction, "shots": 16}
                base = 41 + seed / 2 + number / 1000
                write_base_novel(f"POMP K={number}, {correction}", base, 32 - number / 1000, seed, **how)
    numbers = {"lvis_v1_val/box_AP": 36.0, "lvis_v1_val/box_APr": 26.5, "lvis_v1_val/mask_AP": 32.5}
    detector = write_run("detector", numbers, {"lvis_v1_val": LVIS}, config=RESNET)
    (detector / "log.jsonl").write_text(
        "".join(json.dumps({"iteration": 20 * i, "total_loss": 5 / (i + 1), "lr": 0.1}) + "\n" for i in range(5))
        + '{"iteration": 100, "tot',
        encoding="utf-8",
    )
    segmenter = {"voc_sem_seg_test/mIoU": 70.0, "voc_sem_seg_test/mIoU-base": 80.0, "voc_sem_seg_test/mIoU-seen": 80.0}
    words = {"split": "voc_sem_seg_test", "metric": "mIoU", "miou_denominator": "union"}
    write_run("segmenter", {**segmenter, "voc_sem_seg_test/mIoU-unseen": 60.0}, {"voc_sem_seg_test": words})
    history = [{"loss": 6.0 - epoch, "accuracy": 0.1 * epoch, "lr": 0.1} for epoch in range(4)]
    train = {"train": {"metric": "running mean over the last epoch"}}
    write_run("prompt", {"train/loss": 3.0, "train/accuracy": 0.3}, train, history=history)
    write_run("evaluation", {"caltech-101/top1": 94.5, "caltech-101/top5": 99.0}, {"caltech-101": TOP1})
    return tmp_path
