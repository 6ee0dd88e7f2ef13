"""The command: corrections in, a prompt and what it is worth out."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pomp.console import dispatch
from prompt_core import SoftPrompt, UserError, load_clip
from prompt_core.files import read_safetensors

WORDS = ("red", "green", "blue", "grey")
SMALL = ["LOSS.NUM_CLASSES", "4", "LOSS.ANCHOR_NAMES", "2", "OPTIM.EPOCHS", "2"]


@pytest.fixture(scope="module")
def corrected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A COCO file: photos of one colour, each with a box."""
    folder = tmp_path_factory.mktemp("corrected")
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(20):
        pixels = rng.integers(0, 60, (32, 40, 3), dtype=np.uint8)
        word = number % 4
        pixels[..., [0, 1, 2] if word == 3 else [word]] += 120
        Image.fromarray(pixels).save(folder / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 40, "height": 32})
        box = {"id": number, "image_id": number, "category_id": word + 1, "bbox": [4, 4, 20, 20], "area": 400}
        annotations.append({**box, "iscrowd": 0})
    Image.fromarray(rng.integers(0, 255, (32, 40, 3), dtype=np.uint8)).save(folder / "free.png")
    images.append({"id": 20, "file_name": "free.png", "width": 40, "height": 32, "words": []})
    categories = [{"id": place + 1, "name": word} for place, word in enumerate(WORDS)]
    (folder / "names.txt").write_text("table\nchair\nlamp\nsky\nriver\nhouse\n")
    document = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "corrections.json").write_text(json.dumps(document))
    return folder / "corrections.json"


def arguments(corrected: Path, model: tuple[Path, Path], output: Path) -> list[str]:
    names = str(corrected.parent / "names.txt")
    return [
        *("learn", str(corrected), "--output", str(output), "--model", f"{model[0]}:{model[1]}"),
        *(*SMALL, "DATA.VOCABULARY", names, "LOSS.ANCHOR_VOCABULARY", names),
    ]


def test_a_prompt_says_what_it_is_worth(
    corrected: Path, tiny_model: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "my.safetensors"
    assert dispatch(arguments(corrected, tiny_model, output)) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "20 boxes of 20 photos, 4 words" in said
    assert "3-fold cross-validation" in said
    assert "learned on the other half of the words" in said
    assert "photos of none of the words that get none" in said
    assert re.search(r"other names: \d+ % of 20 images keep their best of \d names", said)
    assert "template" in said.rpartition("is kept")[2]
    prompt = SoftPrompt.load(output)
    assert prompt.n_ctx == 4
    learned = prompt.metadata["learned_from"]
    assert learned["corrected_photos"] == 20
    assert set(learned["comparisons"]) == {"corrected words", "words without corrections"}
    assert prompt.metadata["clip_sha256"] == load_clip(*tiny_model).fingerprint
    assert list(tmp_path.iterdir()) == [output]
    # The same command gives the same prompt.
    again = tmp_path / "again.safetensors"
    dispatch(arguments(corrected, tiny_model, again))
    assert np.array_equal(*(read_safetensors(file)[0]["context"].numpy() for file in (output, again)))


def test_other_methods_and_refusals(
    corrected: Path, tiny_model: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "my.safetensors"
    given = arguments(corrected, tiny_model, output)
    assert dispatch([*given, "--method", "cocoop", "--held-out", "0", "LOSS.ANCHOR", "0"]) == 0
    assert "words without corrections" in capsys.readouterr().out
    assert read_safetensors(output)[1]["method"] == "cocoop"
    with pytest.raises(UserError, match="method maple does not learn text on a frozen image tower"):
        dispatch([*given, "--method", "maple"])
    with pytest.raises(UserError, match=r"a prompt is a \.safetensors file"):
        dispatch([*given, "--output", str(tmp_path / "my.json")])
