"""CoOp's linear probe: scikit-learn's logistic regression (L-BFGS, L2), with C searched on a few validation images.

Upstream: ``lpclip/linear_probe.py`` of CoOp: C from 1e6 down to 1e-6 in steps of 100, then a binary search around the
best; up to 4 validation images of each class decide.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from prompt_core.errors import UserError
from prompt_core.methods.base import LearnedBy, Method
from prompt_core.methods.linear_probe import LinearProbe

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode

    from prompt_core.clip import Clip
    from prompt_core.vocabulary import Vocabulary

COARSE = (1e6, 1e4, 1e2, 1.0, 1e-2, 1e-4, 1e-6)


@dataclass(frozen=True)
class Search:
    """How C is searched; the fitted method does not depend on it.

    Attributes:
        split: the split whose images decide.
        halvings: steps of the binary search; each fits both ends of the remaining interval.
        iterations: maximum for L-BFGS.
    """

    split: str = "val"
    halvings: int = 8
    iterations: int = 1000


class LogisticRegression(LinearProbe):
    """A linear probe that is fitted at once."""

    learned_by: ClassVar[LearnedBy] = "fit"
    search: Search

    def __init__(self, clip: Clip, name: str = "logistic_regression", **options: Any) -> None:
        super().__init__(clip, name, **options)
        self.search = Search()

    @classmethod
    def from_config(cls, cfg: CfgNode, clip: Clip, name: str, vocabulary: Vocabulary | None, **more: Any) -> Method:
        method = super().from_config(cfg, clip, name, vocabulary)
        assert isinstance(method, LogisticRegression)
        node = cfg.METHOD.LOGISTIC_REGRESSION
        method.search = Search(node.VAL_SPLIT, node.HALVINGS, node.ITERATIONS)
        return method

    @property
    def validation_split(self) -> str:
        return self.search.split

    def fit(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        validation_features: np.ndarray,
        validation_labels: np.ndarray,
        report: Callable[[str], None] = print,
    ) -> dict[str, Any]:
        """Search C, fit, and put the result into the layer.

        Args:
            features: (n, E) before the L2 norm.
            labels: (n,) rows of the method's classes.
            validation_features: (m, E).
            validation_labels: (m,).
            report: called with a line on each C and its accuracy.

        Returns:
            ``C``, its ``validation_accuracy`` and ``tried``, a list of pairs.

        Raises:
            UserError: scikit-learn is absent, fewer than two classes have images, or there are no validation images.
        """
        present = np.unique(labels)
        if len(present) < 2:
            raise UserError(f"logistic regression needs images of 2 classes at least, given {len(present)}")
        if len(validation_labels) == 0:
            raise UserError(
                "logistic regression needs validation images to choose C by; see METHOD.LOGISTIC_REGRESSION"
            )
        fitted: dict[float, Any] = {}
        tried: list[tuple[float, float]] = []

        def accuracy(strength: float) -> float:
            if strength not in fitted:
                fitted[strength] = _fit(features, labels, strength, self.search.iterations, self.options.seed)
                share = float((fitted[strength].predict(validation_features) == validation_labels).mean())
                tried.append((strength, share))
                report(f"C {strength:.3g}: {100 * share:.1f} % of the validation images")
            return dict(tried)[strength]

        best = search_strength(accuracy, self.search.halvings)
        self._take(fitted[best], present)
        return {"C": best, "validation_accuracy": dict(tried)[best], "tried": tried}

    def _take(self, model: Any, present: np.ndarray) -> None:
        """Coefficients into the layer; classes without images are never chosen."""
        weight, bias = np.asarray(model.coef_), np.asarray(model.intercept_)
        if len(present) == 2:  # scikit-learn keeps one row for two classes: the log odds of the second
            weight, bias = np.concatenate([-weight / 2, weight / 2]), np.concatenate([-bias / 2, bias / 2])
        with torch.no_grad():
            self.layer.weight.zero_()
            self.layer.bias.fill_(torch.finfo(self.layer.bias.dtype).min / 2)
            rows = torch.from_numpy(present).to(self.layer.weight.device)
            self.layer.weight[rows] = torch.from_numpy(weight).to(self.layer.weight)
            self.layer.bias[rows] = torch.from_numpy(bias).to(self.layer.bias)


def search_strength(accuracy: Callable[[float], float], halvings: int) -> float:
    """The inverse regularisation C of the best accuracy: a coarse list, then a binary search on its logarithm.

    The interval extends one power of ten to both sides of the coarse best. The end with the lower accuracy moves to the
    middle; on a tie the larger C does. The best C tried is returned, the first of equals.
    """
    tried = {strength: accuracy(strength) for strength in COARSE}
    peak = max(COARSE, key=lambda strength: tried[strength])
    low, high = math.log10(peak) - 1, math.log10(peak) + 1
    for _ in range(halvings):
        ends = tuple(10**end for end in (low, high))
        for end in ends:
            if end not in tried:
                tried[end] = accuracy(end)
        middle = (low + high) / 2
        low, high = (middle, high) if tried[ends[0]] < tried[ends[1]] else (low, middle)
    return max(tried, key=lambda strength: tried[strength])


def _fit(features: np.ndarray, labels: np.ndarray, strength: float, iterations: int, seed: int) -> Any:
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression as Solver
    except ImportError as error:
        raise UserError(
            "logistic regression needs scikit-learn, which is not installed; run: pip install scikit-learn"
        ) from error
    with warnings.catch_warnings():
        # Weak regularisation does not converge in 1000 iterations; the search uses the result as it is, as published.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return Solver(solver="lbfgs", max_iter=iterations, C=strength, random_state=seed).fit(features, labels)
