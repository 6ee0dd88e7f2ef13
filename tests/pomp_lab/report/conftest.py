"""Small runs on disk, as the tools write them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from pomp_lab.report.build import Report, build_report
from pomp_lab.report.find import find_runs

Write = Callable[..., Path]
TOP1 = {"split": "val", "metric": "top-1 over all images (micro)", "candidates": 100, "vocabulary_sha256": "ab" * 32}
LVIS = {
    "split": "lvis_v1_val",
    "metric": "LVIS AP (federated)",
    "detections": "300 of an image, over all classes",
    "images": 19_809,
}
RESNET = "MODEL:\n  TIMM:\n    BASE_NAME: resnet50_in21k\n"
VERSIONS = {"python": "3.11.7", "prompt_core": "0.1.0", "torch": "2.13.0"}


def run_writer(root: Path) -> Write:
    """Writes ``root/NAME/metrics.json`` and returns the folder."""

    def write(name: str, numbers: Mapping[str, Any], protocol: Mapping[str, Any] | None = None, **about: Any) -> Path:
        folder = root / name
        folder.mkdir(parents=True)
        run = {"command": "evaluate_prompt.py", "versions": VERSIONS, "seed": 0, "device": "cpu", **about}
        document = {**numbers, "_run": run, "_protocol": dict(protocol or {})}
        (folder / "metrics.json").write_text(json.dumps(document), encoding="utf-8")
        return folder

    return write


def base_novel_writer(root: Path) -> Write:
    """Puts a run into ``root/base_novel.json``, the results file of a table, and returns the file."""

    def write(row: str, base: float, novel: float, seed: int | None = 0, half: str = "report", **settings: Any) -> Path:
        path = root / "base_novel.json"
        runs = json.loads(path.read_text(encoding="utf-8"))["runs"] if path.is_file() else {}
        numbers, protocol = {}, {}
        for group, value, classes in (("base", base, 160), ("novel", novel, 40)):
            for among, less, count in (("own", 0, classes), ("both", 5, 200)):
                name = f"tiny_{group}_of_{among}"
                numbers[f"{name}/top1"] = value - less
                protocol[name] = {"candidate_names": among, "candidates": count, "half": half}
        numbers |= {"tiny_novel_of_own/alignment": 1.55, "tiny_novel_of_own/uniformity": -3.0}
        run = {"seed": seed, "settings": settings, "hand_prompt": "templates" in settings}
        runs[row if seed is None else f"{row}/seed {seed}"] = {**numbers, "_run": run, "_protocol": protocol}
        about = {"command": "compare_prompts.py", "versions": VERSIONS}
        path.write_text(json.dumps({"about": about, "runs": runs}), encoding="utf-8")
        return path

    return write


@pytest.fixture
def write_run(tmp_path: Path) -> Write:
    return run_writer(tmp_path)


@pytest.fixture
def write_base_novel(tmp_path: Path) -> Write:
    return base_novel_writer(tmp_path)


@pytest.fixture(scope="session")
def all_kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of all tasks below one folder; tests leave it as it is."""
    root = tmp_path_factory.mktemp("all_kinds")
    write_run, write_base_novel = run_writer(root), base_novel_writer(root)
    write_base_novel('"a photo of a {}."', 41.4, 32.9, None, templates=["a photo of a {}."])
    for seed in (0, 1):
        for number in (100, 1000):
            for correction in ("log10", None):
                how = {"K": number, "correction": correction, "shots": 16}
                base = 41 + seed / 2 + number / 1000
                write_base_novel(f"POMP K={number}, {correction}", base, 32 - number / 1000, seed, **how)
    numbers = {"lvis_v1_val/box_AP": 36.0, "lvis_v1_val/box_APr": 26.5, "lvis_v1_val/mask_AP": 32.5}
    detector = write_run("detector", numbers, {"lvis_v1_val": LVIS}, config=RESNET)
    log = [json.dumps({"iteration": 20 * i, "total_loss": 5 / (i + 1), "lr": 0.1}) for i in range(5)]
    (detector / "log.jsonl").write_text("\n".join([*log, '{"iteration": 100, "tot']), encoding="utf-8")
    segmenter = {"voc_sem_seg_test/mIoU": 70.0, "voc_sem_seg_test/mIoU-base": 80.0, "voc_sem_seg_test/mIoU-seen": 80.0}
    words = {"split": "voc_sem_seg_test", "metric": "mIoU", "miou_denominator": "union"}
    write_run("segmenter", {**segmenter, "voc_sem_seg_test/mIoU-unseen": 60.0}, {"voc_sem_seg_test": words})
    history = [{"loss": 6.0 - epoch, "accuracy": 0.1 * epoch, "lr": 0.1} for epoch in range(4)]
    train = {"train": {"metric": "running mean over the last epoch"}}
    write_run("prompt", {"train/loss": 3.0, "train/accuracy": 0.3}, train, history=history)
    write_run("evaluation", {"caltech-101/top1": 94.5, "caltech-101/top5": 99.0}, {"caltech-101": TOP1})
    return root


@pytest.fixture(scope="session")
def all_kinds_report(all_kinds: Path) -> Report:
    """Of these runs, with its plots; made once."""
    return build_report(find_runs([all_kinds]))
