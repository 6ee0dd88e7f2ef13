"""Class matrices as open_clip and Detic make and read them; one body for the command and its twin in tools."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file

from prompt_core import TextClassifier, load_clip

Call = Callable[..., tuple[int, str, str]]
NAMES = ["red star", "blue disc", "old oak"]
TEMPLATES = ["a photo of a {}.", "a {}"]


@pytest.fixture
def options(tiny_model: tuple[Path, Path]) -> list[str]:
    config, weights = map(str, tiny_model)
    given = ["--words", ",".join(NAMES), "--clip", config, "--pretrained", weights]
    return given + [word for template in TEMPLATES for word in ("--template", template)]


def test_the_matrix_is_the_one_of_open_clips_builder(
    call_export: Call, options: list[str], tiny_model: tuple[Path, Path], tmp_path: Path
) -> None:
    clip = load_clip(*tiny_model)
    calls = [lambda name, text=text: text.replace("{}", name) for text in TEMPLATES]
    expected = open_clip.build_zero_shot_classifier(clip.model, clip.tokenizer, NAMES, calls, device="cpu")  # (E, N)
    for output in ("words.pt", "words.safetensors"):
        code, _, error = call_export(*options, "--format", "open_clip", "--output", output)
        assert code == 0, error
    held = torch.load(tmp_path / "words.pt", weights_only=True)
    assert held["classnames"] == NAMES
    torch.testing.assert_close(held["weight"], expected, atol=1e-6, rtol=0)
    assert torch.equal(load_file(tmp_path / "words.safetensors")["weight"], held["weight"])


def test_a_detic_matrix_is_read_as_detic_reads_it(call_export: Call, options: list[str], tmp_path: Path) -> None:
    assert call_export(*options, "--output", "words.npy")[0] == 0
    matrix = np.load(tmp_path / "words.npy", allow_pickle=False)
    assert (matrix.shape, matrix.dtype) == ((3, 24), np.float32)
    assert json.loads((tmp_path / "words.names.json").read_text())["names"] == NAMES
    # detic/modeling/roi_heads/zero_shot_classifier.py: transposed, a column of zeros appended, normalised
    columns = torch.tensor(matrix, dtype=torch.float32).permute(1, 0).contiguous()
    columns = torch.cat([columns, columns.new_zeros((24, 1))], dim=1)
    columns = torch.nn.functional.normalize(columns, p=2, dim=0)
    torch.testing.assert_close(columns[:, :3].T, TextClassifier.load(tmp_path / "words.npy").weight)


def test_the_tool_is_the_same(call_export: Call, call_tool: Call, options: list[str], tmp_path: Path) -> None:
    assert call_export(*options, "--negatives", "fog", "--output", "one.safetensors")[0] == 0
    assert call_tool("build_classifier", *options, "--negatives", "fog", "--output", "two.safetensors")[0] == 0
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()
    background = TextClassifier.load(tmp_path / "one.safetensors").background
    assert background is not None
    assert background.names == ["fog"]


def test_mini_and_its_template_are_what_is_taken_unasked(call_export: Call, tmp_path: Path) -> None:
    assert call_export("--words", "cat,dog", "--output", "words.safetensors")[0] == 0
    metadata = TextClassifier.load(tmp_path / "words.safetensors").metadata
    assert (metadata["clip"], metadata["templates"]) == ("mini", ["a photo of a {}."])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --output FILE"),
        (["--output", "x.npy"], "give --words for a class matrix, or --image-side for a model"),
        (["--words", "cat", "--output", "x.txt"], "a file ending in .safetensors or .npy is expected"),
        (["--words", "cat", "--format", "open_clip", "--output", "x.npy"], "is written to .pt or .safetensors"),
        (["--words", "cat", "--background", "coco", "--output", "x.pt"], "has no room for --background"),
        (["--words", "cat", "--model", "mini/detector", "--output", "x.npy"], "are for --image-side"),
        (["--image-side", "onnx", "--output", "x.pt2"], "a file ending in .onnx"),
        (["--image-side", "onnx", "--format", "detic", "--output", "x.onnx"], "--format is for class matrices"),
        (["--image-side", "onnx", "--model", "mini/detector", "--clip", "mini", "--output", "x.onnx"], "for a CLIP"),
        (["--image-side", "onnx", "--model", "mini/detectr", "--output", "x.onnx"], "nearest: 'mini/detector'"),
    ],
)
def test_what_does_not_go_together_is_one_line(
    call_export: Call, arguments: list[str], message: str, tmp_path: Path
) -> None:
    code, out, error = call_export(*arguments)
    assert (code, out, len(error.splitlines())) == (2, "", 1)
    assert message in error
    assert list(tmp_path.iterdir()) == []


def test_general_words_are_pooled_from_their_kinds(
    call_export: Call, options: list[str], tiny_model: tuple[Path, Path], tmp_path: Path
) -> None:
    words = ["--words", "dog,red star", *options[2:], "--kinds", "pug,granite,beagle"]
    code, out, error = call_export(*words, "--output", "pooled.safetensors")
    assert code == 0, error
    assert "2 classes of dog,red star, 24 dimensions, pooled from 2 kinds" in out
    pooled, clip = TextClassifier.load(tmp_path / "pooled.safetensors"), load_clip(*tiny_model)
    bare = TextClassifier.build(clip, ["pug", "beagle"], "{}").weight
    expected = torch.stack([bare.mean(dim=0), TextClassifier.build(clip, ["red star"], TEMPLATES).weight[0]])
    torch.testing.assert_close(pooled.weight, torch.nn.functional.normalize(expected, dim=1))
    assert pooled.metadata["kinds"] == "the given names"
    code, _, error = call_export(*words, "--background", "pug", "--output", "both.safetensors")
    assert (code, "leave out --background or --kinds" in error) == (2, True)
