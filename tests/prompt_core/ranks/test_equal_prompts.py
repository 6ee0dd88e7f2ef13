"""The prompt of one, two and three ranks: the same after 50 steps, whichever the method and the loss."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from prompt_core import UserError, Vocabulary
from prompt_core.methods.templates import TemplateFeatures
from prompt_core.ranks.ranks import ALONE, Ranks
from prompt_core.training.anchor import Anchor
from prompt_core.training.loop import LearningState
from prompt_core.training.step import LearningSettings

from ...support.learned_in_ranks import NAMES, learned
from ...support.ranks import in_ranks

Make = Callable[..., Any]

SAMPLED = LearningSettings(num_classes=5, epochs=17, batch=8, views=2, learning_rate=0.02, hard_refresh=2, group=2)
PER_GROUP = dataclasses.replace(SAMPLED, draws="per_group")
FULL = dataclasses.replace(SAMPLED, num_classes=0)
ONE_VIEW = {"views": 1}
HELD = Anchor(4.0, Vocabulary(["oven", "tree frog", "spoon"]), 2, TemplateFeatures(["a photo of a {}."]))
CASES: dict[str, tuple[str, LearningSettings, dict[str, Any]]] = {
    "sampled": ("coop", SAMPLED, {}),
    "sampled, namesakes by id, chunks": ("coop", dataclasses.replace(SAMPLED, reject="id", chunk_size=2), {}),
    "per group": ("coop", PER_GROUP, {}),
    "full softmax": ("coop", FULL, {}),
    "full softmax in chunks": ("coop", dataclasses.replace(FULL, chunk_size=2), {}),
    "hard": ("coop", SAMPLED, {"hard": True}),
    "hard, per group": ("coop", PER_GROUP, {"hard": True}),
    "anchor": ("coop", SAMPLED, {"anchor": HELD}),
    "a context for each class": ("pomp", SAMPLED, {"names": NAMES}),
    "a context for each class, full": ("pomp", FULL, {"names": NAMES}),
    "conditional": ("cocoop", SAMPLED, {}),
    "conditional, per group": ("cocoop", PER_GROUP, {}),
    "conditional, full": ("cocoop", FULL, {}),
    "image side": ("maple", SAMPLED, {}),
    "image side, full": ("maple", FULL, {}),
    "image side, hard": ("maple", SAMPLED, {"hard": True}),
    "image side alone, full": ("vpt", FULL, {}),
    "image side alone": ("vpt", PER_GROUP, {}),
    "regulariser": ("lasp", SAMPLED, {}),
    "regulariser, full": ("lasp", FULL, {}),
    "linear probe": ("linear_probe", SAMPLED, {"names": NAMES}),
}


@pytest.fixture(scope="module")
def exact_clip(make_clip: Make) -> Any:
    return make_clip(torch.float64)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_ranks_learn_what_one_does(exact_clip: Any, make_method: Make, case: str) -> None:
    name, settings, options = CASES[case]

    def work(ranks: Ranks) -> dict[str, torch.Tensor]:
        return learned(name, settings, ranks, exact_clip, make_method, steps=50, **options)

    expected = work(ALONE)
    untouched = learned(name, settings, ALONE, exact_clip, make_method, steps=0, **options)
    assert any(not torch.equal(expected[key], untouched[key]) for key in expected)
    for size in (2, 3):
        for found in in_ranks(size, work):
            for key, value in expected.items():
                torch.testing.assert_close(found[key], value, atol=1e-6, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["hard, per group", "full softmax", "image side"])
def test_another_number_of_ranks_goes_on(exact_clip: Any, make_method: Make, case: str) -> None:
    name, settings, options = CASES[case]

    def until(steps: int) -> Callable[[Ranks], Any]:
        def work(ranks: Ranks) -> Any:
            state = LearningState()
            found = learned(name, settings, ranks, exact_clip, make_method, steps=steps, state=state, **options)
            state.settle()
            return found, {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}

        return work

    expected, _ = until(50)(ALONE)
    start, values = in_ranks(2, until(20))[0]

    def go_on(ranks: Ranks) -> Any:
        state = LearningState(**copy.deepcopy(values))
        return learned(name, settings, ranks, exact_clip, make_method, steps=30, state=state, start=start, **options)

    for found in (go_on(ALONE), *in_ranks(3, go_on)):
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, atol=1e-6, rtol=0)


@pytest.mark.slow
def test_more_ranks_than_images_or_classes(exact_clip: Any, make_method: Make) -> None:
    """Cached features: ranks without an image encode their share; photos: refused by all in one way."""
    small = dataclasses.replace(SAMPLED, batch=2, num_classes=3, views=1)
    for settings in (small, dataclasses.replace(small, num_classes=0)):

        def work(ranks: Ranks, settings: LearningSettings = settings) -> dict[str, torch.Tensor]:
            return learned("coop", settings, ranks, exact_clip, make_method, steps=20)

        for found in in_ranks(6, work):
            for key, value in work(ALONE).items():
                torch.testing.assert_close(found[key], value, atol=1e-9, rtol=0)

    def refused(ranks: Ranks) -> str:
        with pytest.raises(UserError) as error:
            learned("maple", small, ranks, exact_clip, make_method, steps=1)
        return str(error.value)

    assert (
        in_ranks(3, refused)
        == [
            "3 processes share the 2 images of a step, and method maple needs one in each "
            "(a LOSS.GROUP with LOSS.DRAWS per_group); raise OPTIM.BATCH or start fewer"
        ]
        * 3
    )
