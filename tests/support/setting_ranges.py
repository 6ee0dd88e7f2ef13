"""What a configuration does with numbers that make no sense."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from prompt_core.config import flatten, merge_settings
from prompt_core.errors import UserError
from prompt_core.ranges import check_ranges

HOSTILE = (
    -math.inf,
    math.inf,
    math.nan,
    -1e300,
    1e300,
    -(10**23),
    10**23,
    10**400,
    -3,
    -1,
    0,
    1,
    0.5,
    1.5,
    True,
    "x",
    "",
)
LARGEST = 2**32  # nothing that is counted, measured or weighed here is larger


def numeric_keys(cfg: Any) -> list[str]:
    """Keys whose default is a number, or a list of numbers that is not empty."""
    return [key for key, value in flatten(cfg) if _numbers(value)]


def keys_without_range(cfg: Any, ranges: Mapping[str, Any], refused: Collection[str]) -> list[str]:
    """Numeric keys that are neither in a table of ranges nor below a key that is refused where it is set."""
    keys = [key for key in numeric_keys(cfg) if key not in ranges]
    return [key for key in keys if not any(f"{key}.".startswith(f"{section}.") for section in refused)]


def accepted(cfg: Any, ranges: Mapping[str, Any], values: Iterable[Any] = HOSTILE) -> dict[str, list[Any]]:
    """The hostile values that each numeric key of a table takes; the others have to be refused by the key's name."""
    taken: dict[str, list[Any]] = {}
    for key in (key for key in numeric_keys(cfg) if key in ranges):
        default = dict(flatten(cfg))[key]
        for value in values:
            many = tuple(value for _ in default) if isinstance(default, (list, tuple)) else value
            reason = refusal(lambda: _put(cfg, ranges, key, many))  # noqa: B023 (called at once)
            if reason is None:
                taken.setdefault(key, []).append(dict(flatten(cfg))[key])
            else:
                assert reason.startswith(f"{key} is "), f"{key} {value!r}: {reason}"
                assert len(reason) < 300
            merge_settings(cfg, [(key, default)], "a test")
    return taken


def assert_sound(taken: Mapping[str, list[Any]]) -> None:
    """Values that were accepted are plain numbers of a sensible size."""
    for key, values in taken.items():
        for number in (number for value in values for number in _flat(value)):
            assert type(number) in (int, float), key
            assert math.isfinite(number), key
            assert abs(number) <= LARGEST, key


def refuses(load: Callable[..., Any], key: str, value: Any, expected: str) -> None:
    """Check that a setting is refused in one line that names the key and what is expected."""
    reason = refusal(lambda: load(None, {key: value})) or "accepted"
    assert reason.startswith(f"{key} is ")
    assert expected in reason


def refusal(act: Callable[[], Any]) -> str | None:
    """The line of the :class:`UserError` that something raises; None when it raises none."""
    try:
        act()
    except UserError as error:
        return str(error)
    return None


def _put(cfg: Any, ranges: Mapping[str, Any], key: str, value: Any) -> None:
    merge_settings(cfg, [(key, value)], "a test")
    check_ranges(cfg, ranges)


def _flat(value: Any) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        return [value]
    return [number for item in value for number in _flat(item)]


def _numbers(value: Any) -> bool:
    return bool(_flat(value)) and all(type(number) in (int, float) for number in _flat(value))
