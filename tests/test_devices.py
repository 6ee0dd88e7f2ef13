"""Device placement without a GPU: what can be read from the source, and steps on a device that has no values."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Code that runs inside a model or a step.
ROOMS = (
    "prompt_core/text",
    "prompt_core/methods",
    "prompt_core/losses.py",
    "prompt_core/training/step.py",
    "pomp_det/heads",
    "pomp_det/proposals",
    "pomp_seg/models",
    "pomp_seg/heads",
    "pomp_seg/regions",
)
MAKERS = {
    "arange",
    "as_tensor",
    "empty",
    "eye",
    "from_numpy",
    "full",
    "linspace",
    "ones",
    "rand",
    "randint",
    "randn",
    "randperm",
    "scalar_tensor",
    "tensor",
    "tril_indices",
    "triu_indices",
    "zeros",
}
# What takes a tensor along when a module moves, and what copies it at once.
CARRIERS = {"register_buffer", "Parameter", "to", "upload"}
# Tensors of the CPU by intent, as file and function: names, draws, counts and given regions come from there.
ON_THE_CPU = {
    ("prompt_core/losses.py", "correction_margin"),
    ("prompt_core/methods/base.py", "random_vectors"),
    ("prompt_core/methods/lasp.py", "regulariser"),
    ("prompt_core/methods/linear_probe.py", "_places"),
    ("prompt_core/methods/templates.py", "__init__"),
    ("prompt_core/training/step.py", "image_groups"),
    ("prompt_core/training/step.py", "image_places"),
    ("prompt_core/text/workspace.py", "lend"),
    ("pomp_det/heads/box_predictor.py", "__init__"),
    ("pomp_det/heads/class_counts.py", "_read"),
    ("pomp_det/heads/class_counts.py", "read"),
    ("pomp_det/heads/sampled_classes.py", "sample"),
    ("pomp_det/heads/weak_batches.py", "zero_mask_loss"),  # a number, which goes with any device
    ("pomp_det/proposals/given.py", "given_proposals"),
    ("pomp_seg/regions/crops.py", "distinct_masks"),
}


def made_without_a_device(source: str) -> Iterator[tuple[str, int]]:
    """Function and line of each tensor that is made where torch puts it by default, and stays there."""
    tree = ast.parse(source)
    carried: set[ast.AST] = set()
    owner: dict[ast.AST, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            owner |= dict.fromkeys(ast.walk(node), node.name)  # the innermost comes last
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in CARRIERS:
                parts = [*node.args, *(node.func.value for _ in "x" if isinstance(node.func, ast.Attribute))]
                carried |= {inner for part in parts for inner in ast.walk(part)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or node in carried:
            continue
        of_torch = isinstance(node.func.value, ast.Name) and node.func.value.id == "torch"
        if of_torch and node.func.attr in MAKERS and "device" not in {keyword.arg for keyword in node.keywords}:
            yield owner.get(node, ""), node.lineno


def test_the_search_finds_what_it_should() -> None:
    source = """
def forward(self, x, device):
    a = torch.zeros(3, device=device) + torch.arange(3).to(device) + upload(torch.ones(3), device)
    self.register_buffer("b", torch.zeros(3).view(1, 3))
    return x[torch.arange(2)], x.new_zeros(3), torch.zeros_like(x)
"""
    assert list(made_without_a_device(source)) == [("forward", 5)]


def test_models_make_tensors_on_their_device() -> None:
    found = []
    for room in ROOMS:
        path = ROOT / room
        for file in [path] if path.suffix else sorted(path.rglob("*.py")):
            name = str(file.relative_to(ROOT))
            made = made_without_a_device(file.read_text(encoding="utf-8"))
            found += [f"{name}:{line} in {function}" for function, line in made if (name, function) not in ON_THE_CPU]
    assert found == []


@pytest.mark.slow
def test_a_step_on_a_device_without_values() -> None:
    """Neither mixes devices nor asks for a value, at which the host would wait for a GPU."""
    program = ROOT / "tests/support/stand_in_gpu.py"
    result = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["refusals", "towers", "step", "detector", "segmenter"]
