"""Words scored by two kinds of knowledge: what a detection network knows of its classes, and a CLIP of all words."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pomp_det.heads.zero_shot import ZeroShotClassifier
from prompt_core.background.own_share import background_total


class Closeness(NamedTuple):
    """How far a word is one of the seen classes, by the cosine of their text features.

    Attributes:
        none: up to this cosine to the closest class, not at all.
        whole: from this cosine on, entirely.
        sharpness: factor of the cosines in the softmax that shares a word among the classes.
    """

    none: float = 0.75
    whole: float = 0.85
    sharpness: float = 30.0


def seen_shares(
    text: Tensor, names: Tensor, classes: Tensor, num_seen: int, closeness: Closeness
) -> tuple[Tensor, Tensor]:
    """What of each word is answered by the seen classes.

    Args:
        text: (C, E) unit-norm text features of the words.
        names: (N, E) unit-norm text features of the seen classes' names, of which a class may have several.
        classes: (N,) the class of each name, below S.
        num_seen: S.

    Returns:
        the part (C,) of each word, in 0..1, and how it is shared among the classes (C, S), rows that add up to 1.
    """
    closest = text.new_full((len(text), num_seen), -1.0)
    cosine = closest.scatter_reduce(1, classes.expand(len(text), -1), text @ names.T, "amax")  # (C, S)
    part = (cosine.max(dim=1).values - closeness.none) / (closeness.whole - closeness.none)
    return part.clamp(0, 1), (closeness.sharpness * cosine).softmax(dim=1)


def seen_evidence(logits: Tensor) -> Tensor:
    """Logits (R, S) of ``p ** 2 / o`` for the seen classes' probabilities p and the highest of them, o.

    A detection's score is the geometric mean of the word's probability and the proposal's, which is o. With this
    evidence the score of a seen class is p, as the detection network gave it.
    """
    log_p = F.logsigmoid(logits)
    log_ratio = 2 * log_p - log_p.max(dim=1, keepdim=True).values  # at most log o, which is below 0
    return log_ratio - torch.log(-torch.expm1(log_ratio.clamp(max=-1e-6)))


class SeenWordsClassifier(ZeroShotClassifier):
    """A word's logit is ``(1 - part) * (temperature * cosine + bias) + part * evidence of its seen classes``.

    With a background the bias is one of each region: ``share_bias`` less the log-sum-exp of the scaled cosines with all
    words and background names, so that what is not seen goes by the logarithm of its own share
    (:mod:`prompt_core.background.own_share`).

    Features of a region are (E + S,): its unit-norm embedding in CLIP's space, then the evidence of
    :func:`seen_evidence`. ViLD-ensemble (arXiv 2104.13921) and F-VLM (arXiv 2209.15639) weigh two such experts by a
    list of base classes; here the words' own text features say which they are, so that "sofa" is answered by what is
    known of "couch", and "tiger" by CLIP alone.

    Attributes:
        seen_words: (N, E) unit-norm text features of the seen classes' names; a buffer of the state dict.
        seen_classes: (N,) the class of each name; a buffer of the state dict.
        unseen_bias: added to the scaled cosine of what is not seen, without a background.
        share_bias: added to the logarithm of its own share.
        untuned: (C, E) unit-norm text features of the words in the template of ``seen_words``, by which words behind a
            learned prompt are compared with them; None for ``zs_weight``.
    """

    seen_words: Tensor
    seen_classes: Tensor
    untuned: Tensor | None = None

    def __init__(
        self,
        class_matrix: Tensor,
        num_seen: int,
        num_names: int,
        temperature: float,
        unseen_bias: float,
        share_bias: float = 4.0,
        closeness: Closeness | None = None,
        source: str = "random",
    ) -> None:
        """
        Args:
            class_matrix: (C, E) class features in rows, of any norm.
            num_seen: S.
            num_names: N.
        """
        super().__init__(class_matrix.shape[1], class_matrix, temperature, source=source)
        nn.init.eye_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.unseen_bias, self.share_bias = unseen_bias, share_bias
        self.closeness = closeness or Closeness()
        self.num_seen = num_seen
        self.register_buffer("seen_words", torch.zeros(num_names, class_matrix.shape[1]))
        self.register_buffer("seen_classes", torch.arange(num_names) % num_seen)
        self._known: tuple[list[tuple[Tensor, int]], Tensor] | None = None

    def set_class_matrix(self, class_matrix: Tensor, source: str) -> None:
        """As :meth:`ZeroShotClassifier.set_class_matrix`; words are compared with the seen classes by these rows."""
        super().set_class_matrix(class_matrix, source)
        self.untuned = None

    def set_untuned(self, text: Tensor | None) -> None:
        """Compare the words with the seen classes by other features (C, E), unit-norm; None for their own."""
        self.untuned = None if text is None else text.to(self.zs_weight)

    @property
    def _width(self) -> int:
        return self.linear.in_features

    def embed(self, features: Tensor) -> Tensor:
        """Region features (R, E + S) as unit-norm embeddings (R, E) in the classes' space."""
        return F.normalize(self.linear(features[:, : self._width]), dim=1)

    def project(self, features: Tensor) -> Tensor:
        """Region features (R, E + S) as (R, E + S + 1), ready for the product with :meth:`columns`."""
        return self._project(features, self.columns())

    def _project(self, features: Tensor, weight: Tensor) -> Tensor:
        """For the product with columns; where all words are wholly seen, none of them takes the bias."""
        embedding = self.embed(features)
        bias = self._bias(embedding)[:, None] if bool(weight[-1].any()) else embedding.new_zeros(len(embedding), 1)
        return torch.cat((self.temperature * embedding, features[:, self._width :], bias), dim=1)

    def _bias(self, embedding: Tensor) -> Tensor:
        """What (R,) is added to the scaled cosines of unit-norm embeddings (R, E)."""
        if self.other_names is None:
            return embedding.new_full((len(embedding),), self.unseen_bias)
        both = (background_total(embedding, names, self.temperature) for names in (self._words, self.other_names))
        return self.share_bias - torch.logaddexp(*both)

    def shares(self, features: Tensor) -> None:
        """None: own shares are part of the logits here, for they say nothing of what is seen."""
        return

    @property
    def _words(self) -> Tensor:
        return self.zs_weight[:, :-1].T  # (C, E)

    def columns(self) -> Tensor:
        """(E + S + 1, C + 1): weights of the embedding, of the evidence, and the biases; zeros for the background."""
        # Tensors made in inference mode cannot change, and do not count their versions.
        given = self.zs_weight if self.untuned is None else self.untuned
        parts = [
            (part, 0 if part.is_inference() else part._version)
            for part in (self.zs_weight, self.seen_words, self.seen_classes, given)
        ]
        if self._known is not None:
            before, columns = self._known
            if all(now is old and seen == version for (now, seen), (old, version) in zip(parts, before, strict=True)):
                return columns
        # Kept from an evaluation, they may be used in a training, which takes no tensors of inference mode.
        with torch.inference_mode(False), torch.no_grad():
            columns = self._columns_of(self._words, self._words if self.untuned is None else self.untuned)
        self._known = parts, columns
        return columns

    def _columns_of(self, text: Tensor, compared: Tensor) -> Tensor:
        part, shares = seen_shares(compared, self.seen_words, self.seen_classes, self.num_seen, self.closeness)
        rows = torch.cat(
            ((1 - part[:, None]) * text, part[:, None] * shares, 1 - part[:, None]), dim=1
        )  # (C, E + S + 1)
        return F.pad(rows.T, (0, 1))  # (E + S + 1, C + 1)

    def forward(self, features: Tensor, classifier: Tensor | None = None, classes: Tensor | None = None) -> Tensor:
        """Logits (R, C + 1), or of other or fewer classes; see :meth:`ZeroShotClassifier.forward`.

        Rows given as ``classifier`` get no background.
        """
        if classifier is not None:
            rows = F.normalize(classifier, dim=1)
            weight = self._columns_of(rows, rows)[:, :-1]
        elif classes is not None:
            weight = self.columns()[:, torch.cat((classes, classes.new_tensor([self.num_classes])))]
        else:
            weight = self.columns()
        return self._project(features, weight) @ weight
