"""Names that the pixel decoder's weights had in older files.

The first releases of MaskFormer kept the pixel decoder directly in the head. The published code renames such keys
whenever a file carries no version, also those of newer files, whose decoder then stays random without a word
(zsseg.baseline, thread 13). Here a key is renamed for what it is.
"""

from __future__ import annotations

import re
from typing import Any

_DIRECT = re.compile(r"(adapter_\d+|layer_\d+|mask_features)\.")
_TWICE = "pixel_decoder.pixel_decoder."


def rename_old_keys(state: dict[str, Any], prefix: str, *unused: Any) -> None:
    """Give the pixel decoder's weights below ``prefix`` their present names, in place: a hook of loading."""
    for key in [key for key in state if key.startswith(prefix)]:
        name = key.removeprefix(prefix)
        if _DIRECT.match(name):
            name = f"pixel_decoder.{name}"
        elif name.startswith(_TWICE):  # what the published hook leaves in a file that is saved again
            name = name.removeprefix("pixel_decoder.")
        if prefix + name != key and prefix + name not in state:
            state[prefix + name] = state.pop(key)
