"""The classifier of a box head: region features against a frozen matrix of class features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pomp_det.heads.region_shares import RegionShares
from prompt_core.errors import UserError


class ZeroShotClassifier(nn.Module):
    """Linear projection, then the scaled cosine with each class feature (Detic, arXiv 2201.02605).

    The background has a column of zeros, so its logit is 0, or a learned one (ViLD-text: Gu et al., arXiv 2104.13921).
    Parameter and buffer names are the published ones; ``background`` is this project's.

    Attributes:
        linear: from region features (R, D) to the classes' space (R, E).
        zs_weight: (E, C + 1) class features in columns, unit-norm unless ``normalise`` is off, and zeros for the
            background; a buffer.
        background: (E,) learned, of any norm; None for the column of zeros. Other classes leave it as it is.
        source: where ``zs_weight`` came from, for messages; ``"random"`` when nothing real was configured.
        other_names: (B, E) unit-norm features of what a region may show besides the classes, for :meth:`shares`; a
            buffer outside the state dict, None without.
    """

    zs_weight: Tensor
    other_names: Tensor | None

    def __init__(
        self,
        input_size: int,
        class_matrix: Tensor,
        temperature: float = 50.0,
        normalise: bool = True,
        bias: float = 0.0,
        source: str = "random",
        learned_background: bool = False,
    ) -> None:
        """
        Args:
            class_matrix: (C, E) class features in rows, of any norm.
            normalise: compare by cosine times ``temperature``; off, both sides are used as they are.
            bias: the start of a learned scalar that is added to every column; 0 for none.
            learned_background: the background's column is learned, for a softmax over classes and background.
        """
        super().__init__()
        self.temperature = temperature
        self.normalise = normalise
        self.linear = nn.Linear(input_size, class_matrix.shape[1])
        self.register_buffer("zs_weight", torch.empty(0))
        self.register_buffer("other_names", None, persistent=False)
        self.set_class_matrix(class_matrix, source)
        self.cls_bias = nn.Parameter(torch.full((1,), float(bias))) if bias != 0 else None
        self.background = None
        if learned_background:
            self.background = nn.Parameter(F.normalize(torch.randn(class_matrix.shape[1]), dim=0))

    @property
    def num_classes(self) -> int:
        """C, without the background."""
        return self.zs_weight.shape[1] - 1

    def set_class_matrix(self, class_matrix: Tensor, source: str) -> None:
        """Take other classes, (C, E) of any norm.

        Raises:
            UserError: when the width E is not the projection's, or there are no classes.
        """
        if class_matrix.dim() != 2 or len(class_matrix) == 0 or class_matrix.shape[1] != self.linear.out_features:
            raise UserError(
                f"class matrix {tuple(class_matrix.shape)} from {source}: the detector needs (classes, "
                f"{self.linear.out_features}); use features of the CLIP it was trained with, or set "
                "MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_DIM and train again"
            )
        weight = class_matrix.to(device=self.zs_weight.device, dtype=self.linear.weight.dtype).T  # (E, C)
        weight = torch.cat((weight, weight.new_zeros(len(weight), 1)), dim=1)  # (E, C + 1)
        self.zs_weight = F.normalize(weight, dim=0) if self.normalise else weight.contiguous()
        self.source = source

    def set_background(self, names: Tensor | None) -> None:
        """Multiply probabilities by own shares against ``names`` (B, E), unit-norm; None leaves them as they are."""
        self.other_names = None if names is None else names.to(self.zs_weight)

    def shares(self, features: Tensor) -> RegionShares | None:
        """Own shares of the classes in region features (R, D), at the temperature; None without a background."""
        if self.other_names is None:
            return None
        words = self.zs_weight[:, :-1]
        words = words if self.normalise else F.normalize(words, dim=0)
        return RegionShares.of(self.embed(features), words, self.other_names, self.temperature)

    def embed(self, features: Tensor) -> Tensor:
        """Region features (R, D) as unit-norm embeddings (R, E) in the classes' space."""
        return F.normalize(self.linear(features), dim=1)

    def columns(self) -> Tensor:
        """``zs_weight`` (E, C + 1) with the learned background in its last column, where there is one."""
        if self.background is None:
            return self.zs_weight
        background = F.normalize(self.background, dim=0) if self.normalise else self.background
        return torch.cat((self.zs_weight[:, :-1], background[:, None]), dim=1)

    def project(self, features: Tensor) -> Tensor:
        """Region features (R, D) in the classes' space, (R, E), ready for the product with :meth:`columns`."""
        return self.temperature * self.embed(features) if self.normalise else self.linear(features)

    def forward(self, features: Tensor, classifier: Tensor | None = None, classes: Tensor | None = None) -> Tensor:
        """Logits (R, C + 1), or of other or fewer classes.

        Args:
            classifier: (C', E) other rows to score against, of any norm. They are used as they are given: add a row
                of zeros where a background is wanted.
            classes: (S,) ids of the only classes to score; logits are (R, S + 1).
        """
        if classifier is not None:
            weight = F.normalize(classifier.T, dim=0) if self.normalise else classifier.T
        elif classes is not None:
            weight = self.columns()[:, torch.cat((classes, classes.new_tensor([self.num_classes])))]
        else:
            weight = self.columns()
        logits = self.project(features) @ weight
        return logits if self.cls_bias is None else logits + self.cls_bias


def same_classes(first: Tensor, second: Tensor) -> bool:
    """Whether two matrices (E, C + 1) hold the same class directions, up to the precision of half floats."""
    if first.shape != second.shape:
        return False
    cosine = F.cosine_similarity(first[:, :-1].float(), second[:, :-1].to(first.device).float(), dim=0)
    return bool((cosine > 1 - 1e-5).all())
