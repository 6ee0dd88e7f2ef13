"""A stand-in for a GPU, where there is none: tensors with shapes, types and a device of their own, but without values.

Run as a program, since a device stays registered for the whole process. Torch's fake tensors refuse an operation that
mixes devices, as a GPU does, and one whose result the host must know, where a GPU would make it wait. Their device is
not CUDA, whose autograd aborts where torch is built without it, but one that is registered for this.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import open_clip
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from prompt_core import PromptedTextEncoder, SoftPrompt, UniformSampler, Vocabulary
from prompt_core.clip import Clip
from prompt_core.methods.soft_prompt import SoftPromptMethod
from prompt_core.training.loop import LearningState
from prompt_core.training.step import LearningSettings, method_step

NAME = "stand_in"
NAMES = ["cat", "dog", "red fox", "crane", "crane", "oak tree", "old man of the woods", "cap"]


class StandIn(TorchDispatchMode):
    """Within it, tensors on the stand-in are fake; those on the CPU are real."""

    def __init__(self) -> None:
        super().__init__()
        self.fake = FakeTensorMode()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        there = any(
            isinstance(leaf, FakeTensor) or (isinstance(leaf, torch.device) and leaf.type == NAME)
            for leaf in tree_leaves((args, kwargs))
        )
        if not there:
            return func(*args, **(kwargs or {}))
        args, kwargs = tree_map(self._without_values, (args, kwargs or {}))
        with self.fake:
            return func(*args, **kwargs)

    def _without_values(self, leaf: Any) -> Any:
        return self.fake.from_tensor(leaf) if isinstance(leaf, Tensor) and not isinstance(leaf, FakeTensor) else leaf


def move(module: nn.Module) -> None:
    """Put what a module holds on the stand-in, in place; ``Module.to`` cannot swap fake tensors for real ones."""
    for part in module.modules():
        for table in (part._parameters, part._buffers):
            for name, value in table.items():
                if value is not None:
                    fake = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=NAME)
                    learned = value.requires_grad
                    table[name] = nn.Parameter(fake, learned) if isinstance(value, nn.Parameter) else fake


def refused(work: Callable[[], Any], error: type[Exception]) -> bool:
    """Whether work raises an error."""
    try:
        work()
    except error:
        return True
    return False


def step() -> None:
    """Steps of learning over sampled classes and over all, after which nobody has read a value."""
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 3}
    vision = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
    clip = Clip(open_clip.CLIP(24, vision, text, quick_gelu=True), "tiny", None, {}, open_clip.SimpleTokenizer())
    vocabulary = Vocabulary(NAMES, ids=list(range(len(NAMES))))
    for packed in (0.0, float("inf")):
        encoder, prompt = PromptedTextEncoder(clip), SoftPrompt.random(32, 4)
        assert encoder.tower.sharing_obstacle is None  # looks at values, before the model is on its device
        method = SoftPromptMethod.around(encoder, prompt)
        with (
            StandIn(),
            patch("prompt_core.text.encoder.PACKED_MINIMUM_WORK", packed),
            patch.object(Clip, "logit_scale", 14.3),  # read once from a GPU
        ):
            move(clip.model)
            move(prompt)
            images = torch.randn(6, 24, device=NAME)
            optimizer, state = torch.optim.SGD(prompt.parameters(), lr=0.1, momentum=0.9), LearningState()
            for settings in (
                LearningSettings(num_classes=4),
                LearningSettings(num_classes=4, correction="ln", draws="per_group", group=3, chunk_size=2),
                LearningSettings(num_classes=0, chunk_size=3),
            ):
                # Labels and draws stay on the CPU with their values: they say which names are encoded.
                labels, generator = torch.tensor([0, 1, 2, 3, 4, 7]), torch.Generator().manual_seed(0)
                loss, right = method_step(
                    method, vocabulary, images, labels, settings, UniformSampler(len(NAMES)), generator
                )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                state.count(loss, right.sum(), len(labels))
                assert loss.device.type == prompt.context.grad.device.type == NAME
            assert refused(state.settle, DataDependentOutputException)
        clip.model = open_clip.CLIP(24, vision, text, quick_gelu=True).eval().requires_grad_(False)


def towers() -> None:
    """Image features, and texts at full length."""
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 3}
    vision = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
    clip = Clip(open_clip.CLIP(24, vision, text, quick_gelu=True), "tiny", None, {}, open_clip.SimpleTokenizer())
    encoder, prompt = PromptedTextEncoder(clip), SoftPrompt.random(32, 4)
    assert encoder.slow_because is None
    with StandIn():
        move(clip.model)
        move(prompt)
        assert clip.encode_image(torch.zeros(2, 3, 32, 32)).device.type == NAME
        features: Tensor = encoder(prompt, NAMES, reference=True)
        features.sum().backward()
        assert features.device.type == NAME


def detector() -> None:
    """The backbone and the proposal head of a detector; which boxes follow depends on values."""
    from detector import TINY  # beside this program

    from pomp_det import build_detector, load_config

    model = build_detector(load_config(None, TINY | {"MODEL.DEVICE": "cpu"}))
    with StandIn():
        move(model)
        features = model.backbone(torch.randn(1, 3, 128, 128, device=NAME))
        generator = model.proposal_generator
        results = generator.centernet_head([features[name] for name in generator.levels.features])
        assert {tensor.device.type for tensor in tree_leaves((features, results))} == {NAME}


def segmenter() -> None:
    """The backbone of a segmenter and its mask proposals; which regions follow depends on values."""
    from segmenter import TINY  # beside this program

    from pomp_seg import build_segmenter, load_config

    model = build_segmenter(load_config(None, TINY))
    with StandIn():
        move(model)
        results = model.sem_seg_head(model.backbone(torch.randn(1, 3, 64, 64, device=NAME)))
        values = [value for result in results for value in vars(result).values()]
        assert {value.device.type for value in values if isinstance(value, Tensor)} == {NAME}


def refusals() -> None:
    """What the stand-in is for."""
    with StandIn():
        there, here = torch.zeros(3, device=NAME), torch.zeros(3)
        assert refused(lambda: there + here, RuntimeError)
        assert refused(lambda: bool(there.sum() > 0), DataDependentOutputException)


if __name__ == "__main__":
    torch.utils.backend_registration._setup_privateuseone_for_python_backend(NAME)
    for work in (refusals, towers, step, detector, segmenter):
        work()
        print(work.__name__)
    sys.exit(0)
