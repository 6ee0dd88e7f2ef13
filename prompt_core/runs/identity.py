"""The identity of a run: what must be the same when it is resumed, so that its result is that of one configuration.

Everything in the configuration belongs to it but a list of what changes no result, and so does the content of the
training data. Files are not told apart by their places where their content is part of the identity.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from prompt_core.config import flatten
from prompt_core.errors import UserError
from prompt_core.files import plain_value


def identity_of(settings: Mapping[str, Any], free: Iterable[str], **content: Any) -> dict[str, Any]:
    """The identity as plain values.

    Args:
        settings: the configuration, nested.
        free: keys that may change; one that ends with a dot is a section.
        content: hashes of files whose keys are free.
    """
    kept = {key: value for key, value in flatten(settings) if not is_free(key, free)}
    plain: dict[str, Any] = json.loads(json.dumps(kept | content, default=plain_value))
    return plain


def is_free(key: str, free: Iterable[str]) -> bool:
    """Whether a key is in a list of keys and sections."""
    return any(key == entry or (entry.endswith(".") and key.startswith(entry)) for entry in free)


def refuse_other_run(
    where: Path,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    allowed: Callable[[str, Any, Any], bool] = lambda key, was, now: False,
) -> None:
    """Refuse to go on with a run of another identity.

    Args:
        where: the file that holds the old one, for the message.
        old: keys that it lacks are of a later version and are not compared.
        allowed: called with a key, its old and its new value; whether that change goes.

    Raises:
        UserError: naming what differs, and the old and the new value of the first.
    """
    changed = sorted(key for key in old if key in new and old[key] != new[key])
    changed = [key for key in changed if not allowed(key, old[key], new[key])]
    if changed:
        first = changed[0]
        raise UserError(
            f"{where} belongs to a run with other settings ({', '.join(changed)}; {first} was {old[first]!r}, now "
            f"{new[first]!r}); give the same ones or another --output"
        )
