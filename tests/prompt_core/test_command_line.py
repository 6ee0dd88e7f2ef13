"""Which CLIP a command uses: the one given, else that of the prompt or method; and numbers on a command line."""

from __future__ import annotations

import argparse
import ast
from pathlib import Path
from typing import Any

import pytest
import torch

from prompt_core import SoftPrompt
from prompt_core.command_line import ArgumentParser, real_number, resolve_method, resolve_subject, whole_number
from prompt_core.errors import UserError
from prompt_core.ranges import COUNT, COUNT_OR_ALL, SEED, SHARE

DEFAULT = ("ViT-B-16-quickgelu", "")


def options(prompt: Path | None, **given: Any) -> argparse.Namespace:
    usual = {"template": [] if prompt else ["a {}"], "ensemble": "", "clip": None, "pretrained": None, "config": None}
    return argparse.Namespace(**usual | {"prompt": str(prompt) if prompt else None, "overrides": []} | given)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    context = torch.randn(4, 512)
    SoftPrompt(context, metadata={"clip": "RN50-quickgelu", "pretrained": "openai"}).save(tmp_path / "a.safetensors")
    SoftPrompt(context, metadata={"clip": "RN50", "pretrained": "my.pt"}).save(tmp_path / "b.safetensors")
    for name in ("vit_b32_ep20_randaug2_seed42.pth.tar", "unknown.pth.tar"):
        torch.save({"state_dict": {"ctx": context}}, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("resolve", [resolve_subject, resolve_method])
@pytest.mark.parametrize(
    ("file", "given", "expected"),
    [
        (None, {}, DEFAULT),
        ("a.safetensors", {}, ("RN50-quickgelu", "openai")),
        ("a.safetensors", {"pretrained": "my.pt"}, ("RN50-quickgelu", "my.pt")),
        ("a.safetensors", {"clip": "ViT-B-32"}, ("ViT-B-32", "")),
        ("a.safetensors", {"overrides": ["MODEL.PRETRAINED", "yfcc15m"]}, ("RN50-quickgelu", "yfcc15m")),
        ("b.safetensors", {}, ("RN50", "")),  # a file of weights has to be given again
        ("vit_b32_ep20_randaug2_seed42.pth.tar", {}, ("ViT-B-32-quickgelu", "openai")),
        ("vit_b32_ep20_randaug2_seed42.pth.tar", {"clip": "mini"}, ("mini", "")),
        ("unknown.pth.tar", {}, DEFAULT),
    ],
)
def test_the_clip_of_a_prompt(
    prompts: Path, resolve: Any, file: str | None, given: dict[str, Any], expected: tuple[str, str]
) -> None:
    cfg, _ = resolve(options(prompts / file if file else None, **given))
    assert expected == (cfg.MODEL.NAME, cfg.MODEL.PRETRAINED)


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        (whole_number(COUNT), "3", 3),
        (
            whole_number(COUNT),
            "0",
            "a whole number, 1 or more, at most 2147483647, is expected, given '0'",
        ),
        (whole_number(COUNT), "1.5", "given '1.5'"),
        (whole_number(COUNT), "", "given ''"),
        (whole_number(COUNT), "9" * 5000, "given '999"),
        (whole_number(COUNT_OR_ALL), "-1", -1),
        (whole_number(SEED), "1" + "0" * 22, "a whole number, 0 to 4294967295, is expected"),
        (real_number(SHARE), "0.5", 0.5),
        (real_number(SHARE), "nan", "a number, 0 to 1, is expected, given 'nan'"),
        (real_number(SHARE), "-0.1", "given '-0.1'"),
    ],
)
def test_numbers_of_a_command_line_have_ranges(kind: Any, text: str, expected: float | str) -> None:
    parser = ArgumentParser(prog="tool")
    parser.add_argument("--n", type=kind)
    if not isinstance(expected, str):
        assert parser.parse_args([f"--n={text}"]).n == expected
        return
    with pytest.raises(UserError) as caught:
        parser.parse_args([f"--n={text}"])
    assert expected in str(caught.value)
    assert len(str(caught.value)) < 250


def test_no_command_takes_any_number() -> None:
    root = Path(__file__).resolve().parent.parent.parent
    files = [*root.glob("tools/*.py"), *root.glob("datasets/*.py"), *root.glob("p*_*/**/*.py")]
    assert len(files) > 100
    texts = {file: file.read_text(encoding="utf-8") for file in files}
    for file, text in texts.items():
        for call in ast.walk(ast.parse(text)) if "add_argument(" in text or "add_option(" in text else ():
            if isinstance(call, ast.Call) and ast.unparse(call.func).endswith(("add_argument", "add_option", "add")):
                values = {ast.unparse(value) for value in [*call.args, *(word.value for word in call.keywords)]}
                assert not values & {"int", "float"}, f"{file}, line {call.lineno}: a number without a range"
