"""Exported models answer as the models do, and nothing is left of those that do not."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pomp.exporting.image_graph import image_graph
from pomp.exporting.model_graph import Graph
from pomp.exporting.program_file import write_program
from prompt_core.background.own_share import own_shares
from prompt_core.classifier import TextClassifier
from prompt_core.clip import load_clip
from prompt_core.errors import UserError
from prompt_core.files import sha256_of_file

ROOT = Path(__file__).resolve().parents[3]
Call = Callable[..., tuple[int, str, str]]


class Doubled(nn.Module):
    """Twice the input, shifted by ``off`` when it has more than ``rows`` rows."""

    def __init__(self, off: float = 0.0) -> None:
        super().__init__()
        self.off = off

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (2 * x + self.off,)


def graph_of(module: nn.Module, unordered: str = "") -> Graph:
    x = torch.arange(6.0).view(3, 2)
    return Graph(module, {"x": x}, {"x": torch.rand(5, 2)}, {"x": (0,)}, ["y"], unordered, {"task": "double"})


def test_the_graph_of_a_clip_is_the_clip(tiny_model: tuple[Path, Path]) -> None:
    clip = load_clip(*tiny_model)
    graph = image_graph(clip, own_share=True)
    answers = graph.expected(graph.others)
    features = clip.encode_image(graph.others["images"])
    torch.testing.assert_close(answers["image_features"], features)
    words, background = graph.others["class_features"], graph.others["background"]
    torch.testing.assert_close(answers["probabilities"], (features @ words.T).softmax(dim=1))
    torch.testing.assert_close(answers["own_share"], own_shares(features, words, background, 1.0))


def test_a_program_is_reloaded_and_described(tiny_model: tuple[Path, Path], tmp_path: Path) -> None:
    graph = image_graph(load_clip(*tiny_model))
    notes = write_program(graph, tmp_path / "tiny.pt2")
    assert notes["largest_difference"] <= 1e-6
    assert notes == json.loads((tmp_path / "tiny.pt2.json").read_text())
    assert notes["sha256"] == sha256_of_file(tmp_path / "tiny.pt2")
    assert notes["inputs"]["images"] == ["number_of_images", 3, 32, 32]
    assert not any("text" in key or "token" in key for key in torch.export.load(tmp_path / "tiny.pt2").state_dict)


def test_a_file_that_answers_otherwise_is_not_left(tmp_path: Path) -> None:
    traced = graph_of(Doubled(0.002)).traced()

    class Wrong(Graph):
        def traced(self) -> torch.export.ExportedProgram:
            return traced

    right = graph_of(Doubled())
    wrong = Wrong(*(getattr(right, name) for name in right.__dataclass_fields__))
    with pytest.raises(UserError, match=r"differs from the model by 0\.0002 \(0\.0001 at most\)"):
        write_program(wrong, tmp_path / "wrong.pt2")
    assert list(tmp_path.iterdir()) == []
    close = replace(right, module=Doubled(0.0009))  # of a largest value of 10
    assert close.check({"y": 2 * right.inputs["x"]}, right.inputs, "it") == pytest.approx(9e-5, rel=0.1)


def test_rows_may_come_in_another_order_but_none_may_lack(tmp_path: Path) -> None:
    graph = graph_of(Doubled(), unordered="y")
    answer = 2 * graph.inputs["x"]
    assert graph.check({"y": answer.flip(0)}, graph.inputs, "it") == 0
    with pytest.raises(UserError, match="2 y where the model finds 3"):
        graph.check({"y": answer[:2]}, graph.inputs, "it")
    with pytest.raises(UserError, match="differs"):
        graph.check({"y": answer[[0, 0, 0]]}, graph.inputs, "it")
    with pytest.raises(UserError, match="differs"):
        graph_of(Doubled()).check({"y": answer * torch.nan}, graph.inputs, "it")


def test_packages_that_are_absent_are_told_with_what_installs_them(
    call_export: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    code, _, error = call_export("--image-side", "onnx", "--output", "mini.onnx")
    assert code == 2
    assert 'the package onnxscript is needed, and it is not installed; run: pip install -e ".[export]"' in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_documented_program_answers_as_the_classifier(call_export: Call, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="the extra export")
    page = (ROOT / "docs/export.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^pomp export (--image-side onnx --own-share .*)$", page, re.M)
    words = ["bus", "street", "dog"]
    assert call_export(*command.replace('"', "").split())[0] == 0
    (program,) = re.findall(r"```python\n(.*?)```", page, re.S)
    (tmp_path / "classify.py").write_text(program)
    photo = ROOT / "docs/images/street.jpg"
    blocked = "import sys; sys.modules.update(dict.fromkeys(('torch', 'prompt_core', 'pomp'))); "
    run = blocked + f"sys.argv = ['classify.py', 'mini.onnx', {str(photo)!r}]; exec(open('classify.py').read())"
    done = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    given = dict(line.rsplit(" ", 1) for line in done.stdout.splitlines())
    clip = load_clip("mini")
    classifier = TextClassifier.build(clip, words, "a photo of a {}.", background="imagenet21k")
    from PIL import Image

    features = clip.encode_image(clip.preprocess(Image.open(photo))[None])
    (expected,) = classifier.own_share(features)
    assert [float(given[word]) for word in words] == pytest.approx(expected.tolist(), abs=6e-4)
    assert float(given["none of these"]) == pytest.approx(1 - float(expected.sum()), abs=6e-4)


@pytest.mark.slow
def test_onnx_says_what_it_takes(tiny_model: tuple[Path, Path], tmp_path: Path) -> None:
    onnx: Any = pytest.importorskip("onnx", reason="the extra export")
    from pomp.exporting.onnx_file import write_onnx

    notes = write_onnx(image_graph(load_clip(*tiny_model)), tmp_path / "tiny.onnx")
    model = onnx.load(str(tmp_path / "tiny.onnx"))
    properties = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert properties["images"]["mean"] == notes["images"]["mean"]
    assert properties["opset"] == notes["opset"] == {"ai.onnx": model.opset_import[0].version}
    sizes = {
        value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in model.graph.input
    }
    assert sizes == notes["inputs"]


@pytest.mark.slow
def test_the_exported_detector_finds_what_detectron2s_finds(mini_detector: Any, tmp_path: Path) -> None:
    runtime: Any = pytest.importorskip("onnxruntime", reason="the extra export")
    from PIL import Image

    from pomp.exporting.detector_graph import detector_graph
    from pomp.exporting.onnx_file import write_onnx
    from pomp_det.heads.inference import classwise_nms

    predictor = mini_detector.words(["bus", "person", "tiger", "scooter"]).predictor
    graph = detector_graph(predictor)
    write_onnx(graph, tmp_path / "detector.onnx")
    side = graph.notes["photo"]["size"]
    pixels = np.asarray(Image.open(ROOT / "docs/images/street.jpg").convert("RGB").resize((side, side)))
    expected = predictor.detect(pixels)
    scorer = predictor.model.roi_heads.last_predictor
    inputs = {
        "photo": pixels.transpose(2, 0, 1)[None].astype(np.float32),
        "class_features": scorer.cls_score.zs_weight[:, :-1].T.contiguous().numpy(),
        "background": scorer.cls_score.other_names.numpy(),
    }
    answers = runtime.InferenceSession(str(tmp_path / "detector.onnx")).run(list(graph.outputs), inputs)
    boxes, scores, masks = map(torch.from_numpy, answers)
    regions, classes = (scores > scorer.test_score_thresh).nonzero(as_tuple=True)
    keep = classwise_nms(boxes[regions], scores[regions, classes], classes, scorer.test_nms_thresh)
    keep = keep[: scorer.test_topk_per_image]
    regions, classes = regions[keep], classes[keep]
    assert torch.equal(classes, expected.pred_classes)
    torch.testing.assert_close(scores[regions, classes], expected.scores, atol=1e-4, rtol=0)
    torch.testing.assert_close(boxes[regions], expected.pred_boxes.tensor, atol=0.05, rtol=0)
    torch.testing.assert_close(masks[regions], expected.box_masks, atol=1e-3, rtol=0)


@pytest.mark.slow
def test_the_exported_segmenter_gives_its_scores(mini_segmenter: Any, tmp_path: Path) -> None:
    from PIL import Image

    from pomp.exporting.segmenter_graph import segmenter_graph, segmenter_matrices

    predictor = mini_segmenter.words(["bus", "road", "sky", "building"]).predictor
    graph = segmenter_graph(predictor)
    write_program(graph, tmp_path / "segmenter.pt2")
    side = graph.notes["photo"]["size"]
    pixels = np.asarray(Image.open(ROOT / "docs/images/street.jpg").convert("RGB").resize((side, side)))
    photo = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    names, features, background = segmenter_matrices(predictor)
    assert names == ["bus", "road", "sky", "building"]
    others = () if background is None else (background,)
    (scores,) = torch.export.load(tmp_path / "segmenter.pt2").module()(photo[None].float(), features, *others)
    with torch.no_grad():
        expected = predictor.model([{"image": photo}])[0]["sem_seg"]
    torch.testing.assert_close(scores, expected, atol=1e-4, rtol=0)
