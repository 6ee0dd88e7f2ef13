"""The demo's page: one HTML file that needs nothing else, neither a network nor the files beside it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pomp_lab.demo.scores import ATTRIBUTES, BASELINE, Column, Example

if TYPE_CHECKING:
    from pomp_lab.demo.run import DemoResult


def render_page(result: DemoResult, run: Mapping[str, Any], protocol: Mapping[str, Any]) -> str:
    """The page as text: every number carries its key in ``metrics.json`` and its full value.

    Args:
        run: the ``_run`` object of ``metrics.json``.
        protocol: its ``_protocol`` object.
    """
    from jinja2 import Environment, StrictUndefined

    source = resources.files("pomp_lab") / "assets" / "templates" / "demo.html.j2"
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["picture"] = data_address
    notes = result.rows[-1].subject.metadata  # type: ignore[union-attr]
    own = {column.group: len(column.rows) for column in result.columns if column.key.endswith("_of_own")}
    lines = [("chance", "chance"), *((row.key, row.label) for row in result.rows)]
    return environment.from_string(source.read_text(encoding="utf-8")).render(
        result=result,
        run=run,
        protocol=protocol,
        lines=lines,
        widest=[column for column in result.columns if column.key.endswith("_of_all")],
        attributes=ATTRIBUTES,
        examples=[_card(example) for example in result.examples],
        findings=[finding(column, result.metrics) for column in result.columns],
        prompt=notes,
        base_count=own["base"],
        novel_count=own["novel"],
        seen="all" if not notes["K"] else f"{notes['K']:,}",
        pair_titles=("among their own names", "among the pictured names", "among all names"),
        commands=next_commands(result.folder),
    )


def finding(column: Column, metrics: Mapping[str, float]) -> dict[str, Any]:
    """One sentence's worth: the learned prompt against the hand-written one, and whether the images decide."""
    gain, margin = metrics[f"{column.key}/top1_gain"], metrics[f"{column.key}/top1_gain_margin"]
    verdict = "better" if gain > margin else "worse" if gain < -margin else "not clearly different"
    return {"column": column, "verdict": verdict, "before": f"{column.key}/top1_{BASELINE}"}


def data_address(file: str | Path) -> str:
    """A PNG file as an address that holds it."""
    return "data:image/png;base64," + base64.b64encode(Path(file).read_bytes()).decode("ascii")


def next_commands(folder: Path) -> list[tuple[str, str]]:
    """What to try next, with the command for it."""
    prompt, shapes = folder / "prompt" / "prompt.safetensors", folder / "shapes"
    images = f"folder:{shapes / 'classification'}"
    words = f"--vocabulary {shapes / 'class_names.txt'}"
    return [
        (
            "Change the words: score a sentence of your own on the same images.",
            f'python tools/evaluate_prompt.py --clip mini --template "a picture of a {{}}" --datasets {images} {words}',
        ),
        (
            "Change the names: a classifier for your own list, one name a line.",
            f"python tools/build_classifier.py --vocabulary names.txt --prompt {prompt} --output my_names.safetensors",
        ),
        (
            "Evaluate on your photos: a folder with one subfolder per class, called by its name.",
            f"python tools/evaluate_prompt.py --prompt {prompt} --datasets folder:photos",
        ),
        (
            "Learn from your photos: subfolders train and val, with one folder per class in each.",
            "python tools/pretrain_prompt.py --config configs/prompt/mini_shapes.yaml --output runs/my_photos "
            'DATA.TRAIN folder:photos DATA.VOCABULARY ""',
        ),
        (
            "Change the settings: for instance all names in every step, in another folder.",
            "python tools/demo.py --output runs/demo_full LOSS.NUM_CLASSES 0",
        ),
    ]


def _card(example: Example) -> dict[str, Any]:
    """An example, its answers split into words that are right and words that are not."""
    true = example.name.split()
    return {
        "example": example,
        "answers": [
            {
                "who": who,
                "said": said,
                "right": said == example.name,
                "words": [(word, word in true) for word in said.split()],
            }
            for who, said in (("hand-written", example.before), ("learned", example.after))
        ],
    }
