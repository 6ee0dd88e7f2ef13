"""Hand-written templates that published segmenters average over."""

from __future__ import annotations

# ViLD's list as ZSSeg uses it (``modeling/clip_adapter/utils.py``): with and without full stops as given there.
_SIZES = ("small", "medium", "large")
VILD_TEMPLATES = (
    "a photo of a {}.",
    "This is a photo of a {}",
    "There is a {} in the scene",
    "There is the {} in the scene",
    "a photo of a {} in the scene",
    *(f"a photo of a {size} {{}}." for size in _SIZES),
    *(f"This is a photo of a {size} {{}}." for size in _SIZES),
    *(f"There is a {size} {{}} in the scene." for size in _SIZES),
)
