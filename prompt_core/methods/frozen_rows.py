"""A class matrix as a method, so that its rows are scored on photos like any other class features.

What ``tools/build_classifier.py`` writes, the mean over prompts of regions, Detic's ``.npy`` with names beside it:
nothing is encoded and nothing is learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from prompt_core.errors import UserError
from prompt_core.methods.base import LearnedBy, Method, NamedRows, selected_names
from prompt_core.towers.placement import upload

if TYPE_CHECKING:
    from prompt_core.classifier import TextClassifier
    from prompt_core.clip import Clip
    from prompt_core.vocabulary import Vocabulary


class FrozenRows(Method):
    """The rows of a classifier, found by the names of its classes; of several namesakes the first.

    Args:
        clip: whose image tower the rows are compared with.
        classifier: (N, E).

    Raises:
        UserError: rows of another width than the image features, or of other weights, where the file says of which.
    """

    learned_by: ClassVar[LearnedBy] = "nothing"
    weight: Tensor

    def __init__(self, clip: Clip, classifier: TextClassifier) -> None:
        super().__init__(clip, "frozen_rows")
        if classifier.weight.shape[1] != clip.embed_dim:
            raise UserError(
                f"the classifier has width {classifier.weight.shape[1]}, the image features of {clip.name} have "
                f"{clip.embed_dim}; give the CLIP that made it with --clip"
            )
        if classifier.metadata.get("clip_sha256", clip.fingerprint) != clip.fingerprint:
            raise UserError(
                f"the classifier was made with the weights {classifier.metadata.get('clip')}, "
                f"{classifier.metadata.get('pretrained')}, which are not those of {clip.name}, {clip.pretrained}; give "
                "the same with --clip and --pretrained"
            )
        self.register_buffer("weight", classifier.weight.to(clip.device))
        self._rows = NamedRows(classifier.names)

    def class_features(
        self,
        vocabulary: Vocabulary | Sequence[str],
        rows: Tensor | None = None,
        image_features: Tensor | None = None,
        chunk_size: int | None = None,
        reference: bool = False,
    ) -> Tensor:
        """(n, E) unit-norm.

        Raises:
            UserError: a class that the classifier does not have.
        """
        places = self._rows.find(selected_names(vocabulary, rows), "the classifier is")
        return self.weight[upload(places, self.weight.device)]
