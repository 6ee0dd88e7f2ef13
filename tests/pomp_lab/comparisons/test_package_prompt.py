"""The prompt of the package: what it is learned on, and a table of it on a tiny data root."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pomp_lab.comparisons.package_prompt import Places, photos_target, row_name
from pomp_lab.tables.data_folders import PHOTOS
from pomp_lab.tables.scoring import score_target
from prompt_core import PromptedTextEncoder, SoftPrompt, load_clip
from prompt_core.config import load_config
from prompt_core.methods.soft_prompt import SoftPromptMethod

ROOT = Path(__file__).resolve().parents[3]
CONFIG = ROOT / "configs/mini/prompt.yaml"


def test_the_configuration_and_the_table_learn_on_the_same_images() -> None:
    cfg = load_config(CONFIG)
    assert Places(Path("datasets")).train == cfg.DATA.TRAIN
    classes = (ROOT / cfg.DATA.CLASSES).read_text(encoding="utf-8").splitlines()
    assert len(set(classes)) == len(classes)
    assert sum(name.startswith("n0") or name.startswith("n1") for name in classes) == 160
    assert not {"pizza", "umbrella", "keyboard"} & set(classes), "novel classes of Tiny-ImageNet"


@pytest.mark.slow
def test_the_prompt_of_the_package_gives_what_the_table_says(shared: Path, tmp_path: Path) -> None:
    """On photos of the ImageNet classes, of the half that the table reports."""
    with tarfile.open(shared / "data/imagenet_samples.tar") as pack:
        pack.extractall(tmp_path, filter="data")
    prompt = SoftPrompt.load("mini")
    method = SoftPromptMethod.around(PromptedTextEncoder(load_clip("mini")), prompt)
    target = photos_target(Places(tmp_path).folders, "report")
    measured = score_target(method, target, True, tmp_path / "cache").numbers[f"{PHOTOS}/top1"]
    training = prompt.metadata["training"]
    row = f"{row_name(training.get('anchor', {}).get('weight', 0))}/seed {training['seed']}"
    results = json.loads((ROOT / "docs/results/mini_prompt.json").read_text(encoding="utf-8"))["runs"]
    assert results[row]["_run"]["settings"]["clip_sha256"] == prompt.metadata["clip_sha256"]
    assert measured == pytest.approx(results[row][f"{PHOTOS}/top1"], abs=0.5)


@pytest.mark.slow
def test_a_table_of_tiny_images(
    call_tool: Callable[..., tuple[int, str, str]], tiny_root: Path, tiny_model: tuple[Path, Path], tmp_path: Path
) -> None:
    """Hand prompts, and two weights of the anchor with two seeds; boxes are scored among all categories."""
    photos = tiny_root / "imagenet_samples"
    rows = (photos / "labels.csv").read_text().splitlines()[1:]
    real = {"n00000004": "n01440764", "n00000005": "n01443537", "n00000006": "n01484850", "n00000007": "n01491361"}
    table = [
        "file,wnid,class_name",
        *(",".join([row.split(",")[0], real[row.split(",")[1]], "x" + row.split(",")[1]]) for row in rows),
    ]
    (photos / "labels.csv").write_text("\n".join(table) + "\n")
    files = sorted(path.name for path in photos.glob("*.png"))
    for part, folder in (("train", "train2007"), ("val", "val2007")):
        shutil.copytree(photos, tiny_root / "voc_boxes" / folder)
        document = {
            "images": [{"id": number, "file_name": name} for number, name in enumerate(files)],
            "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "cat"}, {"id": 3, "name": "bus"}],
            "annotations": [
                {"id": number, "image_id": number, "category_id": 1 + number % 2, "bbox": [1, 1, 14, 12]}
                for number in range(len(files))
            ],
        }
        (tiny_root / "voc_boxes/annotations").mkdir(exist_ok=True)
        (tiny_root / f"voc_boxes/annotations/boxes_{part}.json").write_text(json.dumps(document))
        (tiny_root / "coco_small").mkdir(exist_ok=True)
        for photo in document["images"]:
            photo["file_name"] = f"imagenet_samples/{photo['file_name']}"  # type: ignore[index]
        (tiny_root / f"coco_small/instances_{part}.json").write_text(json.dumps(document))
    (tmp_path / "classes.txt").write_text("n00000001\nn00000002\nperson\n")
    (tmp_path / "words.txt").write_text("cat\ndog\nperson\ngown\nfrog\n")
    model = ["MODEL.NAME", tiny_model[0], "MODEL.PRETRAINED", tiny_model[1], "DATA.CACHE", "cache", "PROMPT.INIT", ""]
    budget = ["OPTIM.EPOCHS", "1", "DATA.CLASSES", "classes.txt", "DATA.VOCABULARY", "words.txt", "PROMPT.N_CTX", "2"]
    held = ["LOSS.ANCHOR_VOCABULARY", "words.txt", "LOSS.NUM_CLASSES", "3", "OPTIM.BATCH", "4"]
    options = ["--data", tiny_root, "--output", "out", "--seeds", "0,1", "--anchors", "0,4"]
    code, _, error = call_tool("measure_mini_prompt", *options, *model, *budget, *held)
    assert code == 0, error
    text = (tmp_path / "out/mini_prompt.json").read_text()
    assert str(tmp_path) not in text, "folders of the machine are private"
    runs = json.loads(text)["runs"]
    hand = ['"{}"', '"a photo of a {}."', "80 templates"]
    learned = [f"POMP K=500{more}/seed {seed}" for more in ("", ", anchor 4") for seed in (0, 1)]
    assert sorted(runs) == sorted([*hand, *learned])
    assert runs[learned[2]]["_run"]["settings"]["LOSS.ANCHOR"] == 4.0
    lines = [line.strip("|\n ").split(" | ") for line in (tmp_path / "out/mini_prompt.md").read_text().splitlines()]
    columns = ["Tiny-ImageNet / 5", "base / 5", "novel / 5", "novel / 1", "photos / 1,000", "COCO boxes / 80"]
    assert lines[0] == ["prompt", "runs", *columns, "VOC boxes / 3"]
    assert [line[0] for line in lines[2:]] == [*hand, "POMP K=500", "POMP K=500, anchor 4"]
