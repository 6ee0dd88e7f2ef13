"""Hand-written templates: those that the text tower is trained on, and those held out to test it."""

from __future__ import annotations

# Never trained on, in any variant of article or possessive: they measure how the tower handles unknown templates.
HELD_OUT_WORDS = ("itap", "rendition", "sculpture", "video game", "hard to see", "embroidered")
UNSEEN_TEMPLATES = (
    "itap of a {}.", "a rendition of the {}.", "a sculpture of a {}.", "a {} in a video game.",
    "a photo of a hard to see {}.", "the embroidered {}.", "there is a {} in the scene.",
    "look at this lovely {}!", "my neighbour's favourite {}.", "one of those things called {}.",
)  # fmt: skip
PLAIN_TEMPLATES = (
    "{}", "{}.", "a {}.", "an {}.", "the {}.", "this is a {}.", "a picture of a {}.", "a picture of the {}.",
    "an image of a {}.", "image of {}.", "a snapshot of a {}.", "photo of {}.", "a photo of {}.", "a photo of a {}",
    "a centered photo of a {}.", "a photo containing a {}.", "an example of a {}.", "a thing that is a {}.",
    "a photograph of one {} outdoors.", "we can see the {} here.", "a photo of a {}, seen from the side.",
)  # fmt: skip


def training_templates() -> list[str]:
    """The trained templates: plain ones and CLIP's ImageNet list (arXiv 2103.00020) without the held-out words."""
    from open_clip import OPENAI_IMAGENET_TEMPLATES

    known = [template("{}") for template in OPENAI_IMAGENET_TEMPLATES]
    return [*PLAIN_TEMPLATES, *(text for text in known if not any(word in text for word in HELD_OUT_WORDS))]
