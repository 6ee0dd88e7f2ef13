"""Names that are not learned on are held at their untuned text: the term, its gradient, its draw, its limits."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from prompt_core import UniformSampler, UserError, Vocabulary
from prompt_core.clip import Clip
from prompt_core.config import load_config
from prompt_core.losses import anchor_distance
from prompt_core.methods.base import Method
from prompt_core.methods.lasp import LASP
from prompt_core.methods.templates import TemplateFeatures
from prompt_core.training.anchor import Anchor, make_anchor, names_outside
from prompt_core.training.recipe import what_decides
from prompt_core.training.step import LearningSettings, method_step

OTHERS = ["tree frog", "gown", "old_shoe", "crane fly", "bell pepper", "ax", "sundial"]
TEMPLATE = "a photo of a {}."
Make = Callable[..., Any]


def anchor(weight: float = 2.0, count: int = 4) -> Anchor:
    return Anchor(weight, Vocabulary(OTHERS), count, TemplateFeatures([TEMPLATE]))


def data(vocabulary: Vocabulary, labels: list[int]) -> Any:
    """The part of training data that an anchor looks at."""
    return SimpleNamespace(vocabulary=vocabulary, labels=np.array(labels))


def step(method: Method, batches: Any, held: Anchor | None, **settings: Any) -> tuple[torch.Tensor, torch.Tensor]:
    chosen = np.arange(8)
    inputs, labels = batches.batch(chosen, 0, torch.Generator())
    vocabulary = Vocabulary(["cat", "red fox", "old_oak", "crane", "cap (headwear)", "crane"], ids=list(range(6)))
    options = LearningSettings(**{"num_classes": 4, "reject": "id", **settings})
    generator = torch.Generator().manual_seed(5)
    return method_step(method, vocabulary, inputs, labels, options, UniformSampler(6), generator, anchor=held)


@pytest.mark.parametrize(("name", "num_classes"), [("coop", 4), ("coop", 0), ("maple", 4), ("lasp", 4)])
def test_the_term_is_the_mean_distance_written_out(
    make_clip: Make, make_method: Make, batches_for: Make, name: str, num_classes: int
) -> None:
    """In float64 against whole prompts of 77 tokens, for sampled classes and the full softmax."""
    method: Method = make_method(name, make_clip(torch.float64), **({"text_weight": 0.0} if name == "lasp" else {}))
    if isinstance(method, LASP):
        method.shift.data += 5  # it starts from the template
    batches = batches_for(method)
    free, _ = step(method, batches, None, num_classes=num_classes)
    held, _ = step(method, batches, anchor(), num_classes=num_classes)
    generator = torch.Generator().manual_seed(5)
    if num_classes:
        UniformSampler(6)(num_classes - 1, generator)  # the draw of classes comes first
    names = [OTHERS[row] for row in torch.randperm(len(OTHERS), generator=generator)[:4].tolist()]
    learned = method.class_features(names, reference=True).detach()
    untuned = method.encoder.encode_texts([TEMPLATE.format(name.replace("_", " ")) for name in names])
    expected = sum(2.0 * (1 - float(one @ other)) / 4 for one, other in zip(learned, untuned, strict=True))
    assert expected > 0.01
    assert float((held - free).detach()) == pytest.approx(expected, abs=1e-10)


def test_only_what_is_learned_gets_a_gradient(make_clip: Make, make_method: Make) -> None:
    method: Method = make_method("coop", make_clip(torch.float64))
    held = anchor()
    held.term(method, torch.Generator().manual_seed(1)).backward()
    assert float(method.prompt.context.grad.norm()) > 1e-3
    assert all(parameter.grad is None for parameter in method.clip.model.parameters())
    assert not held.untuned(method.encoder, held.names).requires_grad
    with torch.no_grad():
        before = float(held.term(method, torch.Generator().manual_seed(1)))
        method.prompt.context -= 0.01 * method.prompt.context.grad
        assert float(held.term(method, torch.Generator().manual_seed(1))) < before


@pytest.mark.parametrize("chunk", [1, 3])
def test_chunks_give_the_same_gradient(make_clip: Make, make_method: Make, chunk: int) -> None:
    method: Method = make_method("coop", make_clip(torch.float64))
    gradients = []
    for size in (None, chunk):
        term = anchor().term(method, torch.Generator().manual_seed(1), size)
        gradients.append(torch.autograd.grad(term, method.prompt.context)[0])
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-12, rtol=0)


def test_a_name_that_did_not_move_has_no_distance() -> None:
    features = torch.nn.functional.normalize(torch.randn(3, 5, dtype=torch.float64), dim=1)
    assert float(anchor_distance(features, features)) == pytest.approx(0, abs=1e-12)
    assert float(anchor_distance(features, -features)) == pytest.approx(2, abs=1e-12)
    for other in (features[:2], features[0]):
        with pytest.raises(UserError, match="the same names twice"):
            anchor_distance(features, other)
    with pytest.raises(UserError, match="the same names twice"):
        anchor_distance(features[:0], features[:0])


def test_names_outside_share_neither_id_nor_name() -> None:
    wide = Vocabulary(["crane", "cat", "Old Oak", "dog", "crane"], ids=["n1", "n2", "n3", "n4", "n5"])
    outside = names_outside(wide, Vocabulary(["wild cat", "old_oak"], ids=["n2", "x"]))
    assert (outside.names, outside.ids) == (["crane", "dog", "crane"], ["n1", "n4", "n5"])
    assert names_outside(Vocabulary(["a", "b"]), Vocabulary(["B"])).names == ["a"]


def test_an_anchor_is_built_from_settings(clip: Clip, make_method: Make, tmp_path: Any) -> None:
    method: Method = make_method("coop", clip)
    words = tmp_path / "words.txt"
    words.write_text("cat\ndog\ngown\n")
    chosen = ["LOSS.ANCHOR", "3", "LOSS.ANCHOR_VOCABULARY", str(words), "LOSS.ANCHOR_TEMPLATE", "this is {}"]
    learned = data(Vocabulary(["dog", "cat", "gown"]), [1, 1])  # names without images may be held
    held = make_anchor(load_config(None, chosen), method, learned)
    assert held is not None
    assert (held.weight, held.names.names, held.count) == (3.0, ["dog", "gown"], 2)
    assert held.describe()["template"] == "this is {}"
    assert make_anchor(load_config(None, []), method, learned) is None


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("cocoop", (), "another text for each image"),
        ("vpt", (), "method vpt learns no text"),
        ("linear_probe", (), "knows only the classes that it learns on"),
        ("pomp", (), "knows only the classes that it learns on"),  # a context for each class
        ("coop", ("LOSS.ANCHOR_TEMPLATE", "a photo"), "LOSS.ANCHOR_TEMPLATE is 'a photo'; expected a text with {}"),
        ("coop", ("LOSS.ANCHOR_VOCABULARY", "imagenet22k"), "nearest: 'imagenet21k'"),
        ("coop", ("LOSS.ANCHOR_VOCABULARY", "cats.txt"), "no name besides the training classes"),
    ],
)
def test_what_cannot_be_held_is_refused(
    clip: Clip, make_method: Make, tmp_path: Any, monkeypatch: Any, name: str, changes: tuple[str, ...], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cats.txt").write_text("cat\n")
    cfg = load_config(None, ["LOSS.ANCHOR", "1", *changes])
    with pytest.raises(UserError) as refused:
        make_anchor(cfg, make_method(name, clip), data(Vocabulary(["cat", "dog"]), [0]))
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_anchor_belongs_to_the_identity_of_a_run(clip: Clip, make_method: Make, vocabulary: Vocabulary) -> None:
    learned = SimpleNamespace(vocabulary=vocabulary, batches=[0] * 5, stored_views=1)
    cfg, method, options = load_config(None, []), make_method("coop", clip), LearningSettings()
    without = what_decides(options, cfg, method, learned, None)  # type: ignore[arg-type]
    held = what_decides(options, cfg, method, learned, anchor())  # type: ignore[arg-type]
    assert "anchor" not in without, "older states have no such key"
    assert held["anchor"] == anchor().describe()
    assert held["anchor"] != anchor(weight=1.0).describe()
