"""Who encodes which classes: even in tokens, namesakes together, and nothing changes for one process."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from prompt_core import Vocabulary
from prompt_core.clip import Clip
from prompt_core.methods.soft_prompt import SoftPromptMethod
from prompt_core.ranks.ranks import ALONE, Ranks
from prompt_core.ranks.shared_classes import class_shares, own_class_features


class OneOfFour(Ranks):
    """What a rank knows of itself; nothing is sent."""

    size = 4

    def __init__(self, rank: int) -> None:
        self.rank = rank


def test_shares_are_even_in_tokens_and_make_up_all_features(tiny_clip: Clip) -> None:
    names = Vocabulary.load("imagenet21k").names[:200]
    vocabulary = Vocabulary([*names, names[3], names[7].upper(), "old man of the woods, which has many tokens"])
    method = SoftPromptMethod(tiny_clip, n_ctx=2)
    rows = torch.randperm(len(vocabulary), generator=torch.Generator().manual_seed(0))[:120].sort().values
    rows = torch.unique(torch.cat([rows, torch.tensor([3, 7, 200, 201])]))
    shares = class_shares(method, vocabulary, rows, OneOfFour(0))
    assert sorted(torch.cat(shares).tolist()) == list(range(len(rows)))
    tokens = method.encoder.tokenizer.prompts([vocabulary.names[row] for row in rows.tolist()], 2).lengths
    groups: Any = vocabulary.name_groups[rows.numpy()]
    loads = []
    for share in shares:
        _, first = np.unique(groups[share.numpy()], return_index=True)
        loads.append(int((tokens[share.numpy()][first] - 3).sum()))  # without the start and the context
    assert max(loads) - min(loads) <= tokens.max()
    owner = {int(row): rank for rank, share in enumerate(shares) for row in rows[share]}
    assert owner[3] == owner[200]
    assert owner[7] == owner[201]

    whole = method.class_features(vocabulary, rows).detach()
    for rank, share in enumerate(shares):
        own = own_class_features(method, vocabulary, rows, shares, None, OneOfFour(rank))
        assert own.requires_grad
        torch.testing.assert_close(own.detach(), whole[share])
    nothing = [torch.arange(len(rows)), *[torch.arange(0)] * 3]
    empty = own_class_features(method, vocabulary, rows, nothing, None, OneOfFour(2))
    assert (tuple(empty.shape), empty.requires_grad) == ((0, 24), True)
    assert torch.equal(class_shares(method, vocabulary, None, ALONE)[0], torch.arange(len(vocabulary)))
