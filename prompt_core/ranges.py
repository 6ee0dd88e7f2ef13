"""Ranges of settings: what a number of a configuration may be, and the table of prompt learning's keys.

Detectors and segmenters have their own tables (:mod:`pomp_engine.ranges`). They are checked once a configuration is
complete, so that a run does not fail, or go on for ever, hours later.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from prompt_core.errors import UserError
from prompt_core.visible import shortened

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode

LARGEST = 2**31 - 1  # of counts and sizes: what compiled code keeps in 32 bits
LARGEST_SEED = 2**32 - 1  # NumPy's


@dataclasses.dataclass(frozen=True)
class Range:
    """Finite numbers between two bounds; of a list, each of its numbers.

    Args:
        low: the smallest allowed number.
        high: the largest.
        above: ``low`` itself is excluded.
        below: ``high`` itself is excluded.
        also: another number that is allowed, usually with a meaning of its own, such as -1 for all.
        length: of a list, if it is fixed.
    """

    low: float = -LARGEST
    high: float = LARGEST
    above: bool = False
    below: bool = False
    also: float | None = None
    length: int | None = None

    def holds(self, value: Any) -> bool:
        """Whether ``value`` is a number of this range, or a list, nested or not, of such numbers."""
        if isinstance(value, (list, tuple)):
            each = dataclasses.replace(self, length=None)
            return self.length in (None, len(value)) and all(each.holds(item) for item in value)
        if self.length is not None or isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        if value == self.also:
            return True
        inside = self.low <= value <= self.high  # not so for NaN
        return inside and not (self.above and value == self.low) and not (self.below and value == self.high)

    def __str__(self) -> str:
        low, high = _plain(self.low), _plain(self.high)
        if self.high == LARGEST:
            text = "a finite number" if self.low == -LARGEST else f"above {low}" if self.above else f"{low} or more"
            text += f", at most {high}"
        else:
            ends = [f"above {low}" if self.above else low, f"below {high}" if self.below else high]
            text = " to ".join(ends)
        if self.also is not None:
            text = f"{_plain(self.also)}, or {text}"
        return text if self.length is None else f"{self.length} numbers are expected, each {text}"


def _plain(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"


@dataclasses.dataclass(frozen=True)
class Filled:
    """Texts that are not empty."""

    def holds(self, value: Any) -> bool:
        """Whether ``value`` is a text with something in it."""
        return isinstance(value, str) and bool(value.strip())

    def __str__(self) -> str:
        return "a text that is not empty"


ANY = Range()
NOT_NEGATIVE = Range(0)
POSITIVE = Range(0, above=True)
COUNT = Range(1)
COUNT_OR_ALL = Range(1, also=-1)
SHARE = Range(0, 1)
SEED = Range(0, LARGEST_SEED)
FILLED = Filled()


def table(groups: Mapping[Range | Filled, str]) -> dict[str, Range | Filled]:
    """The range of each key, from the keys of each range in one text."""
    return {key: allowed for allowed, keys in groups.items() for key in keys.split()}


def check_ranges(cfg: CfgNode, ranges: Mapping[str, Range | Filled]) -> None:
    """Check the settings of a complete configuration.

    Args:
        ranges: by dotted keys, see :func:`table`; keys that the configuration lacks are left out.

    Raises:
        UserError: the first that is out of its range.
    """
    for key, allowed in ranges.items():
        value: Any = cfg
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None and not allowed.holds(value):
            raise UserError(f"{key} is {_shown(value)}; expected {allowed}")


def _shown(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return {math.inf: "infinite", -math.inf: "infinite and negative"}.get(value, "not a number")
    return shortened(value)


PROMPT_RANGES = table(
    {
        SEED: "SEED",
        COUNT: """
            DATA.ENCODE_BATCH AUGMENT.VIEWS PROMPT.N_CTX LOSS.GROUP LOSS.HARD_REFRESH LOSS.ANCHOR_NAMES OPTIM.EPOCHS
            OPTIM.BATCH METHOD.COCOOP.REDUCTION METHOD.MAPLE.N_CTX METHOD.IVLP.N_CTX METHOD.VPT.TOKENS
            METHOD.LASP.TEMPLATES METHOD.LOGISTIC_REGRESSION.ITERATIONS
        """,
        COUNT_OR_ALL: "DATA.SHOTS SELECT.SHOTS",
        Range(-1): "DATA.WORKERS",
        Range(2, also=0): "LOSS.NUM_CLASSES",
        NOT_NEGATIVE: """
            AUGMENT.STORED_VIEWS LOSS.CHUNK LOSS.ANCHOR OPTIM.LR OPTIM.WEIGHT_DECAY OPTIM.WARMUP_EPOCHS OPTIM.WARMUP_LR
            OPTIM.CLIP_GRAD_NORM LOG.CHECKPOINT_MINUTES METHOD.MAPLE.DEPTH METHOD.IVLP.DEPTH METHOD.IVLP.TOKENS
            METHOD.IVLP.VISION_DEPTH METHOD.VPT.DEPTH METHOD.LASP.TEXT_WEIGHT METHOD.LASP.NOISE METHOD.LASP.NORM_RATE
            METHOD.LOGISTIC_REGRESSION.HALVINGS
        """,
        POSITIVE: "RANKS.TIMEOUT_MINUTES",
        SHARE: "OPTIM.MOMENTUM METHOD.LASP.NOISE_PROBABILITY",
        Range(0, 1, above=True, length=2): "AUGMENT.SCALE",
        FILLED: """
            DEVICE MODEL.NAME METHOD.NAME DATA.SPLIT DATA.CACHE EVAL.SPLIT LOSS.ANCHOR_VOCABULARY LOSS.ANCHOR_TEMPLATE
        """,
    }
)
