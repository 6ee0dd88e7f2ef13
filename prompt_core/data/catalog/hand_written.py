"""Hand-written templates: CLIP's default, and two ensembles. A data set's own template is in its entry.

``{}`` stands for the class name, whose underscores become spaces when it is filled in. Sources: CoOp's template for
each data set and the seven selected ones, as POMP (arXiv 2304.04704) uses both; the 80 of CLIP (arXiv 2103.00020).
"""

from __future__ import annotations

PHOTO = "a photo of a {}."

SELECTED_TEMPLATES = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)


def selected_templates(template: str | None = None) -> list[str]:
    """The seven selected templates, followed by that of a data set; a new list on each call.

    Args:
        template: None for the ImageNet family, whose published ensemble has only the seven.
    """
    return [*SELECTED_TEMPLATES] if template is None else [*SELECTED_TEMPLATES, template]


def imagenet_templates() -> list[str]:
    """CLIP's 80 templates for ImageNet, from open_clip."""
    from open_clip import OPENAI_IMAGENET_TEMPLATES

    return [template("{}") for template in OPENAI_IMAGENET_TEMPLATES]
