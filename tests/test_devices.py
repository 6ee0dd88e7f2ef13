"""Device placement without a GPU: what can be read from the source, and what runs on a stand-in for one."""

from __future__ import annotations

import ast
import json
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
    ("prompt_core/methods/base.py", "find"),
    ("prompt_core/methods/base.py", "random_vectors"),
    ("prompt_core/methods/lasp.py", "regulariser"),
    ("prompt_core/methods/templates.py", "__init__"),
    ("prompt_core/training/step.py", "image_groups"),
    ("prompt_core/training/step.py", "image_places"),
    ("prompt_core/text/workspace.py", "lend"),
    ("pomp_det/heads/box_predictor.py", "__init__"),
    ("pomp_det/heads/class_counts.py", "_read"),
    ("pomp_det/heads/class_counts.py", "read"),
    ("pomp_det/heads/class_hierarchy.py", "__init__"),
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


# Lines of ours at which the host waits for a GPU, and why; inside of Detectron2 there are more. In a step of learning a
# prompt there is none.
EACH_STEP = {
    "pomp_engine/loop.py stop_if_not_finite: item": "a loss that is not finite must change nothing",
    "pomp_engine/loop.py _record: read": "the log has the losses of each step, in one copy",
}
# What is chosen by values has a size that the host must know before it goes on.
PROPOSALS = {
    "pomp_det/proposals/decode.py level_candidates: nonzero": "the cells above the threshold",
    "pomp_det/proposals/decode.py select_proposals: nms": "the boxes that stand",
}
PROPOSAL_LOSSES = {
    "pomp_det/proposals/targets.py _own_cells: mask": "the cells of boxes, of all levels and images",
    "pomp_det/proposals/centernet.py CenterNet.losses: nonzero": "the cells that regress a box",
}
ONCE = {
    "prompt_core/text/tower.py TextTower.is_causal: item": "when its tower is met",
    "prompt_core/text/tower.py TextTower.is_causal: write": "when its tower is met",
    "pomp_seg/prompts/prompt_learner.py ContextPrompt.connect: write": "when its tower is met",
}
LABELS = {"pomp_seg/best_classes.py best_classes: read": "labels and scores of the pixels"}
WAITS: dict[str, dict[str, dict[str, str]]] = {
    "detector": {
        "step": EACH_STEP
        | PROPOSALS
        | PROPOSAL_LOSSES
        | {
            "pomp_det/heads/class_losses.py federated_classes: _unique2": "the classes of the batch",
            "pomp_det/heads/class_losses.py federated_classes: item": "how many others can be drawn",
            "pomp_det/heads/class_losses.py federated_classes: multinomial": "torch checks the weights",
            "pomp_det/heads/class_losses.py ClassChoice.classes: mask": "the classes that take part",
            "pomp_det/heads/class_losses.py sigmoid_loss: mask": "the classes that take part",
        },
        "image labels": PROPOSALS | PROPOSAL_LOSSES,
        "photo": PROPOSALS
        | {
            "pomp_det/heads/inference.py SharedClasses.__call__.<genexpr>: equal": "once for a class matrix",
            "pomp_det/heads/inference.py _usable_rows: nonzero": "the regions without numbers that are not finite",
            "pomp_det/heads/inference.py _pairs_above: nonzero": "the pairs that can be among the best",
            "pomp_det/heads/inference.py best_pairs: nonzero": "the pairs above the threshold",
            "pomp_det/heads/inference.py classwise_nms: nms": "the boxes that stand",
            "pomp_det/heads/weak_heads.py WeakHeads.forward_with_given_boxes.<genexpr>: unique_dim": "boxes of masks",
        },
    },
    "segmenter": {
        "step": EACH_STEP | ONCE | {"pomp_seg/losses.py match: read": "SciPy matches on the CPU, layer by layer"},
        "photo": ONCE
        | LABELS
        | {
            "pomp_seg/regions/encode.py RegionEncoder.__call__: item": "whether there is a region at all",
            "pomp_seg/regions/encode.py RegionEncoder.__call__: mask": "the regions that are not empty",
            "pomp_seg/regions/crops.py distinct_masks: read": "which regions are equal",
            "pomp_seg/regions/crops.py masked_crops: read": "the sides of all crops",
            "pomp_seg/models/mask_former.py ZeroShotMaskFormer.scores: mask": "the regions that are not empty",
        },
    },
    "per_pixel": {"step": EACH_STEP | ONCE, "photo": ONCE | LABELS},
}


def stand_in(*works: str) -> dict[str, dict[str, dict[str, int]]]:
    """What ``tests/support/stand_in_gpu.py`` found the same as on the CPU, with the places at which the host waited."""
    command = [sys.executable, "-m", "tests.support.stand_in_gpu", *works]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stdout.splitlines() if line.startswith('["')]
    return dict(json.loads(line) for line in lines)


def test_learning_on_a_stand_in_for_a_gpu() -> None:
    """It gives what the CPU gives, mixes no devices, and waits nowhere between two readings of its loss."""
    works = ("rules", "learning")
    assert stand_in(*works) == {work: {} for work in works}


@pytest.mark.slow
def test_learning_by_every_method_on_a_stand_in_for_a_gpu() -> None:
    assert stand_in("towers", "methods") == {"towers": {}, "methods": {}}


@pytest.mark.slow
@pytest.mark.parametrize("work", WAITS)
def test_heads_on_a_stand_in_for_a_gpu(work: str) -> None:
    """Training, a checkpoint, an evaluation and a photo as on the CPU; where the host waits is known, and why."""
    pytest.importorskip("detectron2")
    places = {what: {place for place in found if " via " not in place} for what, found in stand_in(work)[work].items()}
    assert places == {what: set(reasons) for what, reasons in WAITS[work].items()}
