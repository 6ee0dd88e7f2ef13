"""Two real processes write and score as one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("detectron2")
pytest.importorskip("hotcoco")

from pomp_lab.shapes.generate import build_shapes
from pomp_lab.shapes.options import ShapesOptions
from prompt_core.evaluation.protocol import read_metrics

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import os
import sys
import torch
from detectron2.data import DatasetCatalog
from detectron2.data.samplers import InferenceSampler
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm
from pomp_det.data.registration import register_datasets
from pomp_det.evaluation.evaluator import DetectionEvaluator

root, output, rank, ranks = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
if ranks > 1:
    torch.distributed.init_process_group("gloo", init_method=f"file://{output}.store", rank=rank, world_size=ranks)
    comm.create_local_process_group(ranks)
register_datasets(root)
records = DatasetCatalog.get("shapes_lvis_val")
evaluator = DetectionEvaluator("shapes_lvis_val", output)
evaluator.reset()
for index in InferenceSampler(len(records)):
    record = records[index]
    boxes = torch.tensor([each["bbox"] for each in record["annotations"]], dtype=torch.float32)
    boxes[:, 2:] += boxes[:, :2]
    boxes += torch.randn(boxes.shape, generator=torch.Generator().manual_seed(index)) * 2
    found = Instances((record["height"], record["width"]))
    found.pred_boxes = Boxes(boxes)
    found.scores = torch.linspace(0.9, 0.1, len(boxes))
    found.pred_classes = torch.tensor([each["category_id"] for each in record["annotations"]])
    evaluator.process([record], [{"instances": found}])
results = evaluator.evaluate()
assert (results is None) == (rank > 0)
if ranks > 1:
    comm.synchronize()
    os._exit(0)  # gloo's threads abort one of ten processes in the interpreter's last steps
"""


@pytest.mark.slow
def test_two_processes_score_as_one(tmp_path: Path) -> None:
    options = ShapesOptions(parts=("scenes",), classes=30, scenes=2, val_scenes=7, scene_size=96)
    build_shapes(tmp_path / "shapes", options)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for name, ranks in (("one", 1), ("two", 2)):
        command = [sys.executable, str(script), str(tmp_path), str(tmp_path / name)]
        started = [
            subprocess.Popen([*command, str(rank), str(ranks)], env=environment, stderr=subprocess.PIPE, text=True)
            for rank in range(ranks)
        ]
        for process in started:
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
    files = [path.name for path in sorted((tmp_path / "two/predictions").iterdir())]
    assert files == ["manifest.json", "rank_00000.jsonl", "rank_00001.jsonl"]
    results = "lvis_instances_results.json"
    assert (tmp_path / "one" / results).read_bytes() == (tmp_path / "two" / results).read_bytes()
    numbers = [read_metrics(tmp_path / name / "metrics.json") for name in ("one", "two")]
    assert 0 < numbers[0]["shapes_lvis_val/box_AP"] < 100
    assert {key: value for key, value in numbers[0].items() if key != "_run"} == {
        key: value for key, value in numbers[1].items() if key != "_run"
    }
