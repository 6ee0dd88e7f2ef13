"""The text tower of the embedded model: its prefixes, its forward pass, its loss, and two steps of training."""

from __future__ import annotations

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor

from pomp_lab.mini_clip.architecture import EMBED_DIM, SOT, WIDTH, bpe_tokenizer
from pomp_lab.mini_clip.domains import DOMAINS
from pomp_lab.mini_clip.names import Corpus, text_targets
from pomp_lab.mini_clip.prefixes import DOMAIN_UNIT, Prefixes
from pomp_lab.mini_clip.text_tower import encode, new_tower, pad_suffixes, suffix_tokens
from pomp_lab.mini_clip.training import BatchSampler, tower_loss, train_tower
from pomp_lab.mini_clip.visual_space import VisualSpace


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def unit(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(random(*shape, seed=seed), dim=-1)


def test_prefixes_draw_what_they_promise() -> None:
    prefixes = Prefixes(bpe_tokenizer(), 24, torch.Generator().manual_seed(0))
    seen = set()
    for length in range(17):
        for _ in range(20):
            prefix = prefixes.draw(length)
            assert len(prefix.ids) == length
            assert prefix.is_word.shape == (length,)
            assert prefix.noise.shape == (length, 24)
            assert prefix.domain.shape == (len(DOMAINS),)
            seen |= {"vectors"} if (prefix.is_word == 0).any() else {"words"}
            seen |= {"moved"} if ((prefix.is_word == 1) & prefix.noise.any(1)).any() else set()
            if not prefix.noise.any():
                assert set(prefix.domain.tolist()) <= {0.0, 0.5}
            elif not (prefix.is_word == 1).any():
                pushed = prefix.noise.sum(0) @ prefixes.directions / (DOMAIN_UNIT * length**0.5)
                torch.testing.assert_close(prefix.domain, torch.tanh(pushed))
    assert seen == {"vectors", "words", "moved"}


def test_shared_prefix_forward_equals_open_clip() -> None:
    tower = new_tower(0, torch.randn(100, 384)).eval()
    names = ["cat", "Egyptian cat", "jack-o'-lantern", "a very long name of a thing"]
    suffix, last = pad_suffixes([suffix_tokens(f"{name}.") for name in names] * 2, groups=2)
    prefixes = ["a photo of a", "this is the old"]
    start = torch.tensor([[SOT, *bpe_tokenizer().encode(prefix)] for prefix in prefixes])
    with torch.no_grad():
        got = encode(tower, tower.token_embedding(start), suffix, last)
        for row, prefix in enumerate(prefixes):
            expected = tower(open_clip.tokenize([f"{prefix} {name}." for name in names]))
            torch.testing.assert_close(got[row], expected, rtol=1e-4, atol=1e-5)


def training_inputs() -> tuple[VisualSpace, Corpus, Tensor]:
    targets, bias = unit(20, EMBED_DIM - 1), random(20, seed=1)
    shifts = random(EMBED_DIM - 1, len(DOMAINS), seed=2)
    space = VisualSpace(torch.empty(0), torch.empty(0), targets, bias, shifts)
    names = [f"{first} {second}" for first in ("red", "old", "big", "odd") for second in "abcde"]
    return space, Corpus(names, targets, bias, torch.full((20,), 0.05)), torch.arange(20)


def test_loss_is_lowest_at_the_wanted_features() -> None:
    space, corpus, known = training_inputs()
    batch = BatchSampler(corpus, torch.Generator().manual_seed(0)).draw()
    wanted = text_targets(corpus.targets[batch.chosen], corpus.bias[batch.chosen], space.shifts, batch.domain)
    moved = F.normalize(wanted + 0.05 * random(*wanted.shape), dim=-1)
    best, near, swapped = (
        tower_loss(features, batch, corpus, space, known) for features in (wanted, moved, wanted.roll(1, dims=1))
    )
    assert best[0] < near[0] < swapped[0]
    torch.testing.assert_close(best[1], torch.tensor(1.0))


def test_training_is_deterministic_and_follows_the_seed() -> None:
    space, corpus, known = training_inputs()
    start = torch.randn(100, 384)

    def trained(seed: int) -> Tensor:
        tower = new_tower(0, start)
        train_tower(tower, corpus, space, known, steps=2, seed=seed)
        projection = tower.text_projection
        assert isinstance(projection, Tensor)
        assert projection.shape == (WIDTH, EMBED_DIM)
        return projection.detach()

    first = trained(1)
    assert torch.equal(first, trained(1))
    assert not torch.equal(first, trained(2))
