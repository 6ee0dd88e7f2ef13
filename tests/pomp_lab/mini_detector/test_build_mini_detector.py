"""The embedded detector's build: its weights are put together from what they should come from, and masks are kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("detectron2")

from detectron2.data import DatasetCatalog, MetadataCatalog

from pomp_det import load_config
from pomp_det.predictor import OpenVocabularyPredictor
from pomp_engine.backbones.nanodet import NanoDet
from pomp_lab.mini_detector import package
from pomp_lab.mini_detector.convert import IMAGE_SIDE
from pomp_lab.mini_detector.seen_names import OTHER_NAMES, seen_names
from pomp_lab.mini_detector.weights import LEARNED, finished_weights, start_weights, write_weights
from prompt_core.clip import load_clip
from prompt_core.errors import UserError
from prompt_core.files import sha256_of_file
from prompt_core.vocabulary import read_vocabulary

from ...support.detector_run import make_data
from ...support.graph_models import NanoDetWriter
from ...support.tools import call_tool

__all__ = ["call_tool"]

CONFIG = Path(__file__).resolve().parents[3] / "configs/mini/detector.yaml"
CHANNELS = [4, 8, 16, 32]
TINY = {"MODEL.DEVICE": "cpu", "MODEL.WEIGHTS": "", "MODEL.WORDS.CHANNELS": CHANNELS, "MODEL.WORDS.SIZE": 64}


def network(classes: int = 80) -> NanoDet:
    """Random, of numbers in half precision."""
    torch.manual_seed(1)
    result = NanoDet(classes, tuple(CHANNELS)).eval()
    for value in result.parameters():
        value.requires_grad_(False).copy_(value.half().float())
    return result


def test_names_of_the_seen_classes() -> None:
    coco = read_vocabulary("coco").names
    names, classes = seen_names(coco)
    assert names[:80] == coco
    assert classes[:80] == list(range(80))
    assert len(names) == len(classes) == load_config(CONFIG).MODEL.WORDS.SEEN_NAMES
    assert len(set(names)) == len(names)
    assert OTHER_NAMES.keys() <= set(coco)
    assert {coco[number] for name, number in zip(names, classes, strict=True) if name in ("sofa", "bike")} == {
        "couch",
        "bicycle",
    }


@pytest.fixture(scope="module")
def start() -> dict[str, torch.Tensor]:
    return start_weights(load_config(CONFIG, TINY), network())


def test_the_start_is_the_two_networks(start: dict[str, torch.Tensor]) -> None:
    for name, value in network().state_dict().items():
        assert torch.equal(start[f"backbone.detection.{name}"], value), name
    clip: Any = load_clip("mini")
    tower = clip.model.visual
    for name, value in tower.trunk.state_dict().items():
        if "num_batches" not in name:
            assert torch.equal(start[f"backbone.image_tower.{name}"], value.float()), name
    assert torch.equal(start["backbone.projection.bias"], tower.head.proj.bias.float())
    seen = start["roi_heads.box_predictor.0.cls_score.seen_words"]
    torch.testing.assert_close(seen.norm(dim=1), torch.ones(151))
    # The first names are those of the configured words.
    words = start["roi_heads.box_predictor.0.cls_score.zs_weight"]
    torch.testing.assert_close(seen[:80], words[:, :-1].T, atol=1e-5, rtol=0)


def test_finished_weights_keep_what_was_learned(start: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """Only that: whatever else a training changed is as it was at the start."""
    cfg = load_config(CONFIG, TINY)
    write_weights(start, tmp_path / "start.safetensors", {"source": "a test"})
    trained = {key: value + 1 if value.is_floating_point() else value for key, value in start.items()}
    torch.save({"model": trained}, tmp_path / "trained.pth")
    finished = finished_weights(cfg, tmp_path / "start.safetensors", tmp_path / "trained.pth")
    assert finished.keys() == start.keys()
    for name, value in finished.items():
        expected = trained[name] if name.startswith(LEARNED) else start[name]
        if value.is_floating_point():
            assert value.dtype == torch.float16
            torch.testing.assert_close(value, expected.half(), msg=name)
        else:
            assert torch.equal(value, expected), name


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"MODEL.WORDS.SEEN_NAMES": 150}, "MODEL.WORDS.SEEN_NAMES is 150; coco has 151"),
        ({"MODEL.WORDS.SEEN_CLASSES": 79}, "MODEL.WORDS.SEEN_CLASSES is 79; coco has 80"),
    ],
)
def test_other_numbers_of_classes_and_names(changed: dict[str, Any], message: str) -> None:
    cfg = load_config(CONFIG, TINY | changed)
    with pytest.raises(UserError) as caught:
        start_weights(cfg, network(cfg.MODEL.WORDS.SEEN_CLASSES))
    assert str(caught.value) == message


def test_finish_needs_a_start(call_tool: Callable[..., Any], tmp_path: Path) -> None:
    code, _, error = call_tool("build_mini_detector", "--output", tmp_path / "out", "--finish", "model_final.pth")
    assert code == 2
    assert error.endswith("start.safetensors does not exist; run this command without --finish first\n")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    """Photos whose annotations have all classes of COCO."""
    path = make_data(tmp_path)
    document = json.loads(path.read_text())
    categories = [{"id": number, "name": name} for number, name in enumerate(read_vocabulary("coco").names, start=1)]
    path.write_text(json.dumps({**document, "categories": categories}))
    yield tmp_path
    DatasetCatalog.pop("tiny", None)
    MetadataCatalog.pop("tiny", None)


@pytest.mark.slow
def test_the_whole_build(data: Path, call_tool: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """From a package's graph to a file that finds things, by the commands of the tool's own docstring."""
    config = data / "detector.yaml"
    words = f"{{CHANNELS: {CHANNELS}, SIZE: 64}}"
    config.write_text(f"_BASE_: {CONFIG}\nMODEL:\n  DEVICE: cpu\n  WORDS: {words}\n")
    made = data / "made"
    made.mkdir()
    files = NanoDetWriter(network(), IMAGE_SIDE).write(made, "nanodet")
    monkeypatch.setattr(package, "FILES", {file.name: sha256_of_file(file) for file in files})

    code, out, error = call_tool("build_mini_detector", "--config", config, "--output", made)
    assert (code, error) == (0, ""), error
    assert "start.safetensors: written; train its masks next" in out
    steps = ["SOLVER.MAX_ITER", "3", "SOLVER.WARMUP_ITERS", "1", "SOLVER.IMS_PER_BATCH", "2"]
    sets = ["DATASETS.FILES", str([["tiny", str(data / "boxes.json"), str(data)]]), "DATASETS.TRAIN", "('tiny',)"]
    weights = ["MODEL.WEIGHTS", str(made / "start.safetensors"), "OUTPUT_DIR", str(made / "masks")]
    options = ["--config", str(config), "--num-gpus", "0", *weights, *sets, "DATASETS.TEST", "('tiny',)", *steps]
    code, out, error = call_tool("train_net", *options)
    assert code == 0, error
    code, out, error = call_tool(
        "build_mini_detector", "--config", config, "--output", made, "--finish", made / "masks/model_final.pth"
    )
    assert code == 0, error

    finished, start = load_file(made / "detector.safetensors"), load_file(made / "start.safetensors")
    trained = torch.load(made / "masks/model_final.pth", weights_only=True)["model"]
    assert finished.keys() == start.keys()
    learned = [name for name in finished if name.startswith(LEARNED)]
    assert any(not torch.equal(finished[name], start[name].half()) for name in learned)
    for name in learned:
        assert torch.equal(finished[name], trained[name].half())
    cfg = load_config(config, {"MODEL.WEIGHTS": str(made / "detector.safetensors")})
    predictor = OpenVocabularyPredictor.load(cfg, "cat,house")
    photo = torch.zeros(48, 64, 3, dtype=torch.uint8).numpy()
    assert set(predictor(photo).pred_classes.tolist()) <= {0, 1}
