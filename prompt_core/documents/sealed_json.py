"""JSON documents with a seal: a hash of all that they hold, so that a flipped bit is noticed.

The seal is one more key, ``_sha256``. A document without one, of an older version or a person, is read as it is.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from typing import Any

from prompt_core.documents.sealed_tensors import KIND, canonical
from prompt_core.errors import UserError
from prompt_core.visible import visible_path

SEAL = "_sha256"
_STATED = re.compile(KIND + "[0-9a-f]{64}")


def sealed(document: Mapping[str, Any], key: str = "") -> dict[str, Any]:
    """A document with its seal as the last key.

    Args:
        key: of a document within another, so that it is not read under another one.
    """
    content = without_seal(document)
    return {**content, SEAL: _seal_of(content, key)}


def opened(document: Any, path: str | os.PathLike[str]) -> Any:
    """A document that was read, checked and without its seal.

    Args:
        path: the file, for the message.

    Raises:
        UserError: when it is not what its seal says.
    """
    if fits_seal(document):
        return without_seal(document)
    raise UserError(
        f"{visible_path(path)} is damaged: its content does not fit its checksum; make it again, or remove {SEAL!r} if "
        "you changed it on purpose"
    )


def fits_seal(document: Any, key: str = "") -> bool:
    """Whether a document is what its seal says, or has none.

    Args:
        key: see :func:`sealed`.
    """
    seals = _seals(document)
    return not seals or (seals == [SEAL] and document[SEAL] == _seal_of(without_seal(document), key))


def without_seal(document: Any) -> Any:
    """What a document holds."""
    seals = _seals(document)
    return {key: value for key, value in document.items() if key not in seals} if seals else document


def _seal_of(content: Any, key: str) -> str:
    """The seal of what a document holds, whatever its layout and the order of its keys."""
    plain = json.loads(json.dumps(content))
    return KIND + hashlib.sha256(canonical([key, plain] if key else plain)).hexdigest()


def _seals(document: Any) -> list[str]:
    # A bit that is flipped within the key, or within the value, leaves the other.
    items = document.items() if isinstance(document, dict) else ()
    return [key for key, value in items if key == SEAL or (isinstance(value, str) and _STATED.fullmatch(value))]
