"""Models and configurations by name.

    pomp models                  # the embedded models, then the configurations
    pomp models mini/detector    # one of them: weights, numbers, sources, licence, limits
    pomp models lvis             # those with this word in their name, and the CLIPs of open_clip with it
    pomp models --clips SigLIP   # CLIPs alone, as prompt_core.doctor --towers lists them

Nothing is built or fetched. The names are what --model and pomp.load() take; CLIPs are taken as NAME:PRETRAINED.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prompt_core.command_line import ArgumentParser
from prompt_core.errors import UserError, nearest
from prompt_core.visible import say

if TYPE_CHECKING:
    from pomp.models.known_models import KnownModel

TASKS = ("classify", "detect", "segment")


def main() -> None:
    """Parse, list or describe."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", default="", metavar="NAME", help="a model, or a word that names have")
    parser.add_argument("--clips", action="store_true", help="architectures of open_clip, those with NAME in the name")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    if options.clips:
        show_clips(options.name, options.json)
        return
    from pomp.models.known_models import known_models

    models, plain = known_models(), options.name.removeprefix("configs/").removesuffix(".yaml")
    if plain in models:
        show_one(plain, options.json)
        return
    found = [model for name, model in models.items() if model.runnable and plain.lower() in name.lower()]
    if options.json:
        print(json.dumps([model.as_json() for model in found], indent=2, ensure_ascii=False))
        return
    clips = clips_with(plain) if plain else []
    if not found and not clips:
        raise UserError(f"no model, configuration or CLIP has {options.name!r} in its name{nearest(plain, models)}")
    if found:
        say("\n".join(listed(found)))
    if clips:
        say(f"\nCLIPs of open_clip (pomp models --clips {plain} says what each can do)\n  " + "\n  ".join(clips))
    if not plain:
        say("\npomp models NAME tells more; pomp models --clips lists the CLIPs of open_clip.")


def listed(models: Sequence[KnownModel]) -> list[str]:
    """Lines of a list: the embedded ones, then each task's."""
    width = max(len(model.name) for model in models)
    groups = {"embedded, nothing to fetch": [model for model in models if model.card]}
    groups |= {f"to {task}": [m for m in models if m.task == task and not m.card] for task in TASKS}
    lines = []
    for title, members in groups.items():
        if members:
            lines += ["", title, *(f"  {model.name.ljust(width)}  {model.about}{_mark(model)}" for model in members)]
    return lines[1:]


def _mark(model: KnownModel) -> str:
    return " [measured]" if model.measured else " [published numbers]" if model.published else ""


def clips_with(word: str) -> list[str]:
    """Names of open_clip's architectures that have a word in them."""
    import open_clip

    return [name for name in open_clip.list_models() if word.lower() in name.lower()]


def show_clips(word: str, as_json: bool) -> None:
    """As ``python -m prompt_core.doctor --towers``."""
    from prompt_core.towers import listing

    towers = listing.list_towers(word)
    if as_json:
        print(json.dumps(listing.as_json(towers), indent=2))
    else:
        say(listing.render(towers))


def show_one(name: str, as_json: bool) -> None:
    """Everything that is known of a model."""
    from pomp.models.known_models import card_sections, known_model

    model = known_model(name)
    values, sections = model.as_json(), card_sections(model)
    if as_json:
        print(json.dumps({**values, "card_sections": sections}, indent=2, ensure_ascii=False))
        return
    lines = [f"{model.name}: to {model.task}", f"  {model.about}", f"  weights: {values['weights']}"]
    lines += [f"  {key}: {values[key]}" for key in ("file", "card") if values[key]]
    lines += [f"  {text}" for text in (*model.measured, *model.published)] or ["  not yet measured"]
    for title, text in sections.items():
        lines += ["", title, *(f"  {line}" if line else "" for line in text.splitlines())]
    say("\n".join(lines))
