"""The names of the contract, their signatures, and an import without side effects."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import prompt_core

# Name: parameters that callers may give by position, in this order.
CONTRACT = {
    "load_clip": ["name", "pretrained", "device"],
    "Clip": ["model"],
    "Vocabulary": ["names"],
    "SoftPrompt": ["context", "position"],
    "PromptedTextEncoder": ["clip"],
    "local_contrast_logits": [
        "image_features",
        "positive_features",
        "negative_features",
        "labels",
        "negative_ids",
        "num_classes",
        "logit_scale",
        "correction",
    ],
    "TextClassifier": ["weight", "names", "metadata"],
    "alignment": ["image_features", "class_features"],
    "uniformity": ["class_features"],
}
ADDITIONS = {
    "HardSampler",
    "UniformSampler",
    "UserError",
    "WeightedSampler",
    "correction_margin",
    "full_softmax_logits",
}


def test_public_names_are_the_contract_and_the_known_additions() -> None:
    assert set(prompt_core.__all__) == set(CONTRACT) | ADDITIONS
    assert prompt_core.__all__ == sorted(prompt_core.__all__)
    assert set(prompt_core.__all__) <= set(dir(prompt_core))


@pytest.mark.parametrize("name", prompt_core.__all__)
def test_public_names_are_their_modules_own_and_documented(name: str) -> None:
    value = getattr(prompt_core, name)
    assert value.__name__ == name
    assert value.__module__.startswith("prompt_core.")
    assert getattr(importlib.import_module(value.__module__), name) is value
    assert inspect.getdoc(value)


@pytest.mark.parametrize(("name", "expected"), CONTRACT.items())
def test_signatures(name: str, expected: list[str]) -> None:
    parameters = inspect.signature(getattr(prompt_core, name)).parameters
    assert list(parameters)[: len(expected)] == expected
    extra = list(parameters.values())[len(expected) :]
    if name != "Clip":
        assert all(parameter.default is not inspect.Parameter.empty for parameter in extra), "additions have defaults"


def test_defaults_of_the_contract() -> None:
    def default(function: object, name: str) -> object:
        return inspect.signature(function).parameters[name].default  # type: ignore[arg-type]

    assert default(prompt_core.load_clip, "pretrained") is None
    assert default(prompt_core.load_clip, "device") == "cpu"
    assert default(prompt_core.SoftPrompt, "position") == "end"
    assert default(prompt_core.local_contrast_logits, "correction") == "log10"
    for name, methods in {
        "Vocabulary": ("load", "save", "__len__", "__getitem__", "sha256"),
        "SoftPrompt": ("load", "save"),
        "TextClassifier": ("build", "load", "save"),
        "Clip": ("encode_image", "preprocess", "logit_scale"),
    }.items():
        assert all(hasattr(getattr(prompt_core, name), method) for method in methods)


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        prompt_core.nonsense  # noqa: B018
    with pytest.raises(ImportError):
        exec("from prompt_core import nonsense")


def test_import_is_light_and_silent(tmp_path: Path) -> None:
    script = """
import logging, os, sys
before = os.environ.copy()
import prompt_core
from prompt_core import UserError
heavy = {"torch", "torchvision", "open_clip", "timm", "numpy", "PIL", "detectron2", "safetensors"} & set(sys.modules)
assert not heavy, heavy
assert not logging.getLogger().handlers
assert os.environ.copy() == before
assert prompt_core.__version__
dir(prompt_core)
assert "torch" not in sys.modules
prompt_core.Vocabulary
assert "torch" not in sys.modules, "a vocabulary needs no torch"
from prompt_core import *
assert callable(local_contrast_logits) and "torch" in sys.modules
assert not logging.getLogger().handlers, "importing sets up logging"
import torch
assert not torch.cuda.is_initialized()
"""
    command = [sys.executable, "-W", "error::UserWarning", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert done.stderr == ""
