"""Flipped bits at seeded places of each kind of file that is read back: the same result or one line, never another."""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from prompt_core import SoftPrompt, TextClassifier, UserError
from prompt_core.evaluation.protocol import read_metrics, write_metrics
from prompt_core.files import read_safetensors
from prompt_core.safe_load import load_restricted, read_state_dict
from prompt_core.training.artifacts import load_state, save_state
from prompt_core.training.loop import LearningState

FLIPS = [60, pytest.param(1000, marks=pytest.mark.slow)]


def tensors_of(value: Any) -> Any:
    """Comparable: tensors as bytes."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.detach().numpy().tobytes()
    if isinstance(value, dict):
        return {key: tensors_of(part) for key, part in value.items()}
    return [tensors_of(part) for part in value] if isinstance(value, (list, tuple)) else value


def write_prompt(path: Path) -> None:
    SoftPrompt.random(32, 4).save(path, training={"rate": 0.002, "source": "a, b"}, metrics={"loss": 1.5})


def write_state(path: Path) -> None:
    prompt = SoftPrompt.random(32, 4)
    optimizer = torch.optim.SGD(prompt.parameters(), lr=0.1, momentum=0.9)
    prompt.context.sum().backward()
    optimizer.step()
    state = LearningState(epoch=2, step=3, loss_sum=1.25, optimizer=optimizer.state_dict())
    save_state(path, state, prompt, {"seed": 3}, {"OPTIM.LR": 0.1})


def read_state(path: Path) -> Any:
    prompt = SoftPrompt.random(32, 4)
    return vars(load_state(path, prompt, {"seed": 3}, {"OPTIM.LR": 0.1})) | dict(prompt.state_dict())


def write_checkpoint(path: Path) -> None:
    torch.save({"model": {"a": torch.randn(40), "b": torch.randn(3, 4)}, "iteration": 7}, path)


def write_numbers(path: Path) -> None:
    numbers = {"voc/mIoU": 47.062109375, "voc/pACC": None, "grün/top1": 1e-7}
    run = {"command": "train_net.py", "seed": 3, "weights": None, "history": [{"loss": 0.1}, {"loss": 1 / 3}]}
    write_metrics(path, numbers, run, {"voc": {"metric": "mIoU", "images": 5}, "grün": {}})


def write_classifier(path: Path) -> None:
    matrix = path.parent / "classifier.npy"
    TextClassifier(torch.randn(4, 6), ["cat", "sky", "Käfer", "road"], {"templates": ["a {}"]}).save(matrix)


def read_classifier(path: Path) -> Any:
    classifier = TextClassifier.load(path.parent / "classifier.npy")
    return classifier.weight, classifier.names, classifier.metadata


@pytest.mark.parametrize("flips", FLIPS)
@pytest.mark.parametrize(
    ("name", "write", "read"),
    [
        ("prompt.safetensors", write_prompt, read_safetensors),
        ("state.pt", write_state, read_state),
        ("model_last.pth", write_checkpoint, load_restricted),
        ("metrics.json", write_numbers, read_metrics),
        ("classifier.npy", write_classifier, read_classifier),
        ("classifier.names.json", write_classifier, read_classifier),
        ("weights.pt", lambda path: torch.save({"a": torch.randn(40)}, path), read_state_dict),
    ],
)
def test_a_flipped_bit_is_never_another_result(
    tmp_path: Path, name: str, write: Callable[[Path], None], read: Callable[[Path], Any], flips: int
) -> None:
    torch.manual_seed(0)
    path, places = tmp_path / name, random.Random(name)
    write(path)
    whole, expected = path.read_bytes(), tensors_of(read(path))
    refused = 0
    for _ in range(flips):
        damaged = bytearray(whole)
        damaged[places.randrange(len(whole))] ^= 1 << places.randrange(8)
        path.write_bytes(damaged)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result = tensors_of(read(path))
        except UserError as error:
            refused += path.stem.split(".")[0] in str(error)
        else:
            assert result == expected
    assert refused > flips // 4


def test_every_bit_of_an_archives_directory_is_checked(tmp_path: Path) -> None:
    """Torch believes more of it than Python's reader: what is marked as a folder is not read into its memory."""
    path = tmp_path / "model_last.pth"
    torch.manual_seed(0)
    write_checkpoint(path)
    whole, expected = path.read_bytes(), tensors_of(load_restricted(path))
    start = whole.index(b"PK\x01\x02", whole.rindex(b"data/0"))
    refused = 0
    for place in range(8 * start, 8 * (start + 46)):  # of one member
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            assert tensors_of(load_restricted(path)) == expected
        except UserError:
            refused += 1
    assert refused > 100


def test_the_seal_holds_for_every_bit_and_others_ignore_it(tmp_path: Path) -> None:
    path = tmp_path / "prompt.safetensors"
    SoftPrompt.random(2, 1).save(path)
    whole = path.read_bytes()
    for place in range(len(whole) * 8):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="could not be read"):
            read_safetensors(path)
    path.write_bytes(whole)
    assert load_file(path).keys() == {"context"}
    assert "content_sha256" not in SoftPrompt.load(path).metadata


def test_files_without_a_seal_are_read(tmp_path: Path) -> None:
    save_file({"context": torch.ones(2, 3)}, tmp_path / "a.safetensors", {"position": json.dumps("end")})
    assert torch.equal(SoftPrompt.load(tmp_path / "a.safetensors").context, torch.ones(2, 3))


def test_what_older_versions_and_people_wrote_is_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    write_numbers(path)
    document = json.loads(path.read_text(encoding="utf-8"))
    assert list(document)[-1] == "_sha256"
    numbers = read_metrics(path)
    assert "_sha256" not in numbers
    changed = {**numbers, "voc/mIoU": 1.0}
    path.write_text(json.dumps(changed), encoding="utf-8")
    assert read_metrics(path) == changed
    path.write_text(json.dumps({**changed, "_sha256": document["_sha256"]}), encoding="utf-8")
    with pytest.raises(UserError, match=r"metrics.json is damaged: .* remove '_sha256' if you changed it on purpose"):
        read_metrics(path)
    # any layout and order of keys
    path.write_text(json.dumps(dict(sorted(document.items()))), encoding="utf-8")
    assert read_metrics(path) == numbers


def test_a_matrix_is_not_read_with_the_names_of_another(tmp_path: Path) -> None:
    matrix, names = tmp_path / "classifier.npy", tmp_path / "classifier.names.json"
    write_classifier(matrix)
    stored = json.loads(names.read_text(encoding="utf-8"))
    np.save(matrix, np.eye(4, 6, dtype=np.float32))
    with pytest.raises(UserError, match=r"classifier.npy is damaged: classifier.names.json is of a matrix of other"):
        TextClassifier.load(matrix)
    names.write_text(json.dumps({"names": stored["names"]}), encoding="utf-8")  # of an older version
    assert TextClassifier.load(matrix).names == stored["names"]
    names.unlink()
    assert len(TextClassifier.load(matrix)) == 4


def test_equal_files_are_equal_bytes(tmp_path: Path) -> None:
    for name, order in (("a", 1), ("b", -1)):
        notes = {f"note {number}": np.float32(number) for number in range(20)[::order]}
        SoftPrompt(torch.ones(2, 3)).save(tmp_path / name, **notes)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
