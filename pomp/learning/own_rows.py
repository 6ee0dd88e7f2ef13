"""Words of one's own in the embedded detector: the class of its detection network that each learns."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor

from pomp_det.heads.seen_words import Closeness, seen_shares

CELLS = "backbone.detection.cells."
SEEN_WORDS, SEEN_CLASSES = "cls_score.seen_words", "cls_score.seen_classes"
UNKNOWN = -3.0  # added to the logits of a word that the network has seen nothing of


@dataclass(frozen=True)
class OwnRows:
    """The class of the detection network that each word learns.

    Attributes:
        rows: (C,) classes; those from the network's own number on are new.
        new: words with a new class, as rows of the words.
        state: the weights with the new classes.
        names: of seen classes now, with those of new words.
    """

    rows: list[int]
    new: list[int]
    state: dict[str, Tensor]
    names: int


def own_rows(state: dict[str, Tensor], text: Tensor, num_classes: int, closeness: Closeness) -> OwnRows:
    """Give each word a class of the detection network.

    A word that means one of the network's classes, and is the only one to do so, goes on with that class. Any other
    gets a new class that starts as a mixture of those that its text is near to; names of seen classes that mean the
    same as such a word no longer answer for it.

    Args:
        state: of the embedded detector.
        text: (C, E) unit-norm features of the words, in the template of the seen classes' names.
        num_classes: S, classes of the network.
    """
    words_key = next(key for key in state if key.endswith(SEEN_WORDS))
    classes_key = next(key for key in state if key.endswith(SEEN_CLASSES))
    names, classes = state[words_key].float(), state[classes_key]
    part, shares = seen_shares(text, names, classes, num_classes, closeness)
    nearest = shares.argmax(dim=1).tolist()
    whole = (part >= 1).tolist()
    wanted = Counter(row for row, is_whole in zip(nearest, whole, strict=True) if is_whole)
    new = [word for word in range(len(text)) if not (whole[word] and wanted[nearest[word]] == 1)]
    place = {word: num_classes + number for number, word in enumerate(new)}
    rows = [place.get(word, nearest[word]) for word in range(len(text))]
    if not new:
        return OwnRows(rows, new, dict(state), len(names))
    changed = dict(state)
    mixture, bias = shares[new], UNKNOWN * (1 - part[new])
    for key in [key for key in state if key.startswith(CELLS)]:
        before = state[key].float()
        added = torch.tensordot(mixture, before[:num_classes], dims=1)  # (new, …)
        added = added + bias if before.dim() == 1 else added
        changed[key] = torch.cat((before[:num_classes], added, before[num_classes:]))
    kept = (names @ text[new].T).amax(dim=1) < closeness.whole
    changed[words_key] = torch.cat((names[kept], text[new]))
    changed[classes_key] = torch.cat((classes[kept], classes.new_tensor([place[word] for word in new])))
    return OwnRows(rows, new, changed, len(changed[words_key]))
