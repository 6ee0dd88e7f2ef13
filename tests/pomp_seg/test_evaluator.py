"""The evaluator: label maps on disk, numbers, scoring again, errors, and two processes as one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("detectron2")

from pomp_seg.data.registration import check_labels, register_dataset
from pomp_seg.evaluation.evaluator import SegmentationEvaluator
from pomp_seg.evaluation.metrics import segmentation_metrics
from pomp_seg.evaluation.scoring import score_predictions
from prompt_core.documents.sealed_json import without_seal
from prompt_core.errors import UserError
from prompt_core.evaluation.protocol import read_metrics
from prompt_core.files import read_json, read_sealed_json

ROOT = Path(__file__).resolve().parents[2]
SIZE = (12, 17)


def build(folder: Path, classes: int = 5, photos: int = 5, name: str = "mine") -> Path:
    """Photos, labels and a registered data set ``name``; the last class is unseen."""
    generator = np.random.default_rng(classes)
    kind, ignored = (np.uint8, 255) if classes <= 255 else (np.uint16, 65535)
    for place in ("photos", "labels"):
        (folder / place).mkdir(parents=True)
    for number in range(photos):
        labels = generator.integers(0, classes, SIZE)
        labels[generator.random(SIZE) < 0.1] = ignored
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(folder / f"photos/{number}.jpg")
        Image.fromarray(labels.astype(kind)).save(folder / f"labels/{number}.png")
    (folder / "names.txt").write_text("".join(f"class {index}\n" for index in range(classes)), encoding="utf-8")
    seen = [f"class {index}" for index in range(classes - 1)]
    register_dataset(name, folder / "labels", folder / "photos", folder / "names.txt", seen)
    return folder


def scores(classes: int, number: int) -> torch.Tensor:
    """(C, H, W) of one image."""
    return torch.rand((classes, *SIZE), generator=torch.Generator().manual_seed(number))


def run(folder: Path, classes: int = 5, **options: Any) -> dict[str, float]:
    evaluator = SegmentationEvaluator("mine", folder, run={}, **options)
    evaluator.reset()
    for record in check_labels("mine"):
        evaluator.process([record], [{"sem_seg": scores(classes, int(record["image_id"]))}])
    results = evaluator.evaluate()
    assert results is not None
    return results["sem_seg"]


def test_numbers_and_files(tmp_path: Path) -> None:
    build(tmp_path)
    numbers = run(tmp_path / "run")
    confusion = np.load(tmp_path / "run/confusion.npy")
    assert numbers == segmentation_metrics(confusion, {"base": [0, 1, 2, 3]})
    assert 0 < numbers["mIoU"] < 40
    metrics = read_json(tmp_path / "run/metrics.json")
    assert metrics["mine/mIoU"] == numbers["mIoU"]
    assert metrics["mine/hIoU"] == numbers["hIoU-base"]
    protocol = metrics["_protocol"]["mine"]
    assert protocol["miou_denominator"] == "ground_truth"
    assert (protocol["classes"], protocol["images"], protocol["ignore_label"]) == (5, 5, 255)
    assert protocol["evaluation_set"] == {"base": 4}
    assert metrics["_run"] is not None
    rows = read_json(tmp_path / "run/per_class.json")["classes"]
    assert [row["seen"] for row in rows] == [True, True, True, True, False]
    assert np.mean([row["IoU"] for row in rows]) == pytest.approx(numbers["mIoU"])
    assert sum(row["pixels"] for row in rows) == confusion[:, :-1].sum()
    files = sorted(path.name for path in (tmp_path / "run/predictions").iterdir())
    assert files == [*(f"{number}.png" for number in range(5)), "manifest.json"]
    with Image.open(tmp_path / "run/predictions/3.png") as image:
        assert image.mode == "L"
        assert (np.asarray(image) == scores(5, 3).argmax(0).numpy()).all()


@pytest.mark.parametrize("classes", [5, 300])
def test_scoring_again_gives_the_same_bytes(tmp_path: Path, classes: int) -> None:
    build(tmp_path, classes)
    run(tmp_path / "run", classes)
    names = ("metrics.json", "per_class.json", "confusion.npy")
    before = {name: (tmp_path / "run" / name).read_bytes() for name in names}
    with Image.open(tmp_path / "run/predictions/0.png") as image:
        assert image.mode == ("L" if classes == 5 else "I;16")
        assert (np.asarray(image) == scores(classes, 0).argmax(0).numpy()).all()
    for name in names:
        (tmp_path / "run" / name).unlink()
    score_predictions(tmp_path / "run", run={"command": "none"})
    metrics = without_seal(json.loads(before["metrics.json"])) | {"_run": {"command": "none"}}
    assert read_metrics(tmp_path / "run/metrics.json") == metrics
    assert (tmp_path / "run/per_class.json").read_bytes() == before["per_class.json"]
    assert (tmp_path / "run/confusion.npy").read_bytes() == before["confusion.npy"]


def test_the_denominator_is_stamped(tmp_path: Path) -> None:
    build(tmp_path)
    for path in (tmp_path / "labels").iterdir():  # class 2 is nowhere true
        labels = np.asarray(Image.open(path)).copy()
        labels[labels == 2] = 1
        Image.fromarray(labels).save(path)
    new = run(tmp_path / "run")
    old = score_predictions(tmp_path / "run", denominator="union")
    assert old.results["sem_seg"]["mIoU"] == pytest.approx(new["mIoU"] * 4 / 5)
    assert old.protocol["miou_denominator"] == "union"
    assert read_json(tmp_path / "run/metrics.json")["_protocol"]["mine"]["miou_denominator"] == "union"
    with pytest.raises(UserError, match=r"the denominator of mIoU is 'old'"):
        SegmentationEvaluator("mine", tmp_path / "run", denominator="old")


def test_an_image_that_comes_twice_counts_once(tmp_path: Path) -> None:
    build(tmp_path)
    once = run(tmp_path / "once")
    evaluator = SegmentationEvaluator("mine", tmp_path / "twice", run={})
    evaluator.reset()
    records = check_labels("mine")
    for record in [*records, records[0]]:
        evaluator.process([record], [{"sem_seg": scores(5, int(record["image_id"]))}])
    assert evaluator.evaluate() == {"sem_seg": once}


def test_a_map_of_classes_serves_as_well_as_scores(tmp_path: Path) -> None:
    build(tmp_path)
    expected = run(tmp_path / "scores")
    evaluator = SegmentationEvaluator("mine", tmp_path / "maps", run={})
    evaluator.reset()
    for record in check_labels("mine"):
        evaluator.process([record], [{"sem_seg": scores(5, int(record["image_id"])).argmax(0)}])
    assert evaluator.evaluate() == {"sem_seg": expected}


def test_what_is_wrong_at_the_start(tmp_path: Path) -> None:
    build(tmp_path)
    with pytest.raises(UserError, match=r"data set 'mien' is not registered; nearest: 'mine'"):
        SegmentationEvaluator("mien", tmp_path / "run")
    (tmp_path / "labels/3.png").unlink()
    with pytest.raises(UserError, match=r"1 of 5 photos have no label file below .*the first is .*3.jpg"):
        SegmentationEvaluator("mine", tmp_path / "run")


def test_what_is_wrong_on_the_way(tmp_path: Path) -> None:
    build(tmp_path)
    evaluator = SegmentationEvaluator("mine", tmp_path / "run", run={})
    evaluator.reset()
    record = {"image_id": "0"}

    def refused(pattern: str, sem_seg: torch.Tensor, record: dict[str, Any] = record) -> None:
        with pytest.raises(UserError, match=pattern):
            evaluator.process([record], [{"sem_seg": sem_seg}])

    refused(r"image '9' is not of data set 'mine'", scores(5, 0), {"image_id": "9"})
    refused(r"labels/0.png is 17 x 12 pixels .*the prediction .*0.png 17 x 11; photo and label", scores(5, 0)[:, :-1])
    refused(r"0.png has class 6 of more than the 5 classes", torch.full(SIZE, 6))
    labels = np.asarray(Image.open(tmp_path / "labels/0.png")).copy()
    labels[0, 0] = 5
    Image.fromarray(labels).save(tmp_path / "labels/0.png")
    refused(r"labels/0.png has the value 5; expected 0..4, or 255", scores(5, 0))
    (tmp_path / "labels/0.png").write_bytes(b"none")
    refused(r"cannot read label file .*labels/0.png", scores(5, 0))
    (tmp_path / "labels/0.png").unlink()
    refused(r"labels/0.png does not exist", scores(5, 0))
    assert not (tmp_path / "run/predictions/0.png").exists()  # nothing of a refused image stays
    evaluator.process([{"image_id": "1"}], [{"sem_seg": scores(5, 1)}])
    with pytest.raises(UserError, match=r"4 of 5 images of 'mine' have no prediction .*the first is 0"):
        evaluator.evaluate()
    with pytest.raises(UserError, match=r"predictions is unfinished: the run was interrupted"):
        score_predictions(tmp_path / "run")


def test_what_is_wrong_when_scoring_again(tmp_path: Path) -> None:
    build(tmp_path)
    with pytest.raises(UserError, match=r"holds no predictions"):
        score_predictions(tmp_path / "run")
    run(tmp_path / "run")
    labels = {str(number): tmp_path / f"labels/{number}.png" for number in range(4)}
    with pytest.raises(UserError, match=r"1 images have a label or a prediction .* but not both, the first is 4"):
        score_predictions(tmp_path / "run", labels=labels)
    path = tmp_path / "run/predictions/2.png"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UserError, match=r"cannot read label file .*predictions/2.png"):
        score_predictions(tmp_path / "run")
    path.unlink()
    with pytest.raises(UserError, match=r"predictions/2.png does not exist"):
        score_predictions(tmp_path / "run")
    file = tmp_path / "run/predictions/manifest.json"
    manifest = read_sealed_json(file)
    for change, message in (
        ([], r"does not describe predictions"),
        ({**manifest, "classes": [1]}, r"manifest.json: classes\[0\] is 1; a text is expected"),
        ({**manifest, "ignore_label": "255"}, r"ignore_label is '255'; a whole number is expected"),
        ({**manifest, "images": {"../../outside": "a.png"}}, r"'../../outside' leads out of the data set's folder"),
    ):
        file.write_text(json.dumps(change), encoding="utf-8")
        with pytest.raises(UserError, match=message):
            score_predictions(tmp_path / "run")


def test_a_new_run_removes_the_old_one(tmp_path: Path) -> None:
    build(tmp_path)
    run(tmp_path / "run")
    stray = tmp_path / "run/predictions/of_another_run.png"
    stray.write_bytes(b"")
    run(tmp_path / "run")
    assert not stray.exists()


SCRIPT = """
import os
import sys
import torch
from detectron2.data.samplers import InferenceSampler
from detectron2.utils import comm
from pomp_seg.data.registration import check_labels, register_dataset
from pomp_seg.evaluation.evaluator import SegmentationEvaluator

root, rank = sys.argv[1], int(sys.argv[2])
torch.distributed.init_process_group("gloo", init_method=f"file://{root}/store", rank=rank, world_size=2)
comm.create_local_process_group(2)
seen = [f"class {index}" for index in range(299)]
register_dataset("mine", f"{root}/labels", f"{root}/photos", f"{root}/names.txt", seen)
records = check_labels("mine")
for output, indices in (("shared_out", InferenceSampler(len(records))), ("overlapping", range(len(records)))):
    evaluator = SegmentationEvaluator("mine", f"{root}/{output}", run={})
    evaluator.reset()
    for index in indices:
        number = int(records[index]["image_id"])
        scores = torch.rand((300, 12, 17), generator=torch.Generator().manual_seed(number))
        evaluator.process([records[index]], [{"sem_seg": scores}])
    results = evaluator.evaluate()
    assert (results is None) == (rank > 0)
    comm.synchronize()
os._exit(0)  # gloo's threads abort one of ten processes in the interpreter's last steps
"""


def test_two_processes_give_the_same_bytes_as_one(tmp_path: Path) -> None:
    """Whether each image goes to one of them, or all images to both."""
    build(tmp_path, classes=300)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(tmp_path)]
    started = [
        subprocess.Popen([*command, str(rank)], env=environment, stderr=subprocess.PIPE, text=True) for rank in range(2)
    ]
    run(tmp_path / "one", 300)
    for process in started:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    single, *others = (
        {str(path.relative_to(tmp_path / name)): path.read_bytes() for path in (tmp_path / name).rglob("*.*")}
        for name in ("one", "shared_out", "overlapping")
    )
    metrics = without_seal(json.loads(single.pop("metrics.json")))
    metrics.pop("_run")  # names the command
    assert len(single) == 8
    for files in others:
        numbers = without_seal(json.loads(files.pop("metrics.json")))
        numbers.pop("_run")
        assert numbers == metrics
        assert files == single
