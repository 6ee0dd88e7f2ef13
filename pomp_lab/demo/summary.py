"""The result of a demo, and its page: findings, scores, examples, learning, protocols, and what to try next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pomp_lab.demo.scores import ATTRIBUTES, BASELINE, Column, Example, PromptRow
from pomp_lab.report.page import Cell, Code, Figure, Page, Section, Table
from prompt_core.prompt import SoftPrompt


@dataclass(frozen=True)
class DemoResult:
    """The result of a demo.

    Attributes:
        folder: where everything lies.
        columns: the protocols: whose images, among which names.
        rows: the prompts that were compared, the learned one last.
        metrics: ``"column/metric of prompt"`` to percent.
        examples: some validation images with the answers to them.
        history: loss and accuracy of each epoch.
        seconds: how long each phase took.
    """

    folder: Path
    columns: list[Column]
    rows: list[PromptRow]
    metrics: dict[str, float]
    examples: list[Example]
    history: list[dict[str, float]]
    seconds: dict[str, float]

    @property
    def prompt(self) -> SoftPrompt:
        """The learned one."""
        prompt = self.rows[-1].subject
        assert isinstance(prompt, SoftPrompt)
        return prompt

    @property
    def lines(self) -> list[tuple[str, str]]:
        """Key and label of each line of a table: chance, and the prompts."""
        return [("chance", "chance"), *((row.key, row.label) for row in self.rows)]


def demo_page(result: DemoResult, run: Mapping[str, Any], protocol: Mapping[str, Any]) -> Page:
    """The page with all results.

    Args:
        run: the ``_run`` object of ``metrics.json``.
        protocol: its ``_protocol`` object.
    """
    about = result.prompt.metadata
    names = f"{protocol[result.columns[-1].key]['candidates']:,} names"
    base, novel = (protocol[f"shapes_{group}_of_own"]["candidates"] for group in ("base", "novel"))
    introduction = (
        f"A frozen vision-language model reads class names with a prompt. Here {about['training']['images']} drawn "
        f"images of {base} base classes taught it a prompt of {result.prompt.n_ctx} vectors; nothing else changed. "
        "It is then tested on images that it did not learn from, of base classes and of "
        f"{novel} novel ones: combinations of colour, pattern and shape that no training image showed."
    )
    verdicts = [finding(column, result.metrics) for column in result.columns]
    doubt = (
        "“Not clearly different” means that the 95 % interval of the difference over these images includes zero. It "
        "says nothing about other seeds, images or models."
    )
    curve = f"Means over each epoch's training batches, each image among {about['K'] or 'all'} sampled names of "
    curve += f"{about['vocabulary']['size']:,}. Loss from {result.history[0]['loss']:.2f} to "
    curve += f"{result.history[-1]['loss']:.2f} nats."
    sections = [
        Section("What came out", [*verdicts, doubt]),
        Section("All numbers", [score_table(result), _picture(result, "accuracy.png", "Top-1 of this table")]),
        Section("Which part of the name is right?", [_attributes(result, names)]),
        Section("Before and after", _before_and_after(result, names)),
        Section("Learning", [_picture(result, "learning.png", "Training", curve)]),
        Section("Protocol of each number", [_protocols(result, protocol)]),
        Section("This run", [_facts(result, run)]),
        Section("The whole configuration", [Code(str(run["config"]))], folded=True),
        Section("What next", [*_next_commands(result.folder), _FILES.format(names=names)]),
    ]
    return Page(f"A learned prompt on {names}", [introduction], sections)


_FILES = (
    "Next to this page: metrics.json with every number, classifier.safetensors with the class features of {names}, "
    "prompt/prompt.safetensors, the drawn images in shapes."
)


def finding(column: Column, metrics: Mapping[str, float]) -> str:
    """One sentence: the learned prompt against the hand-written one, and whether the difference is significant."""
    gain, margin = metrics[f"{column.key}/top1_gain"], metrics[f"{column.key}/top1_gain_margin"]
    verdict = "better" if gain > margin else "worse" if gain < -margin else "not clearly different"
    before, after, chance = (metrics[f"{column.key}/top1_{key}"] for key in (BASELINE, "learned", "chance"))
    return (
        f"{column.group.capitalize()} images among {column.among}: {before:.1f} % right with “a photo of a {{}}.”, "
        f"{after:.1f} % with the learned prompt (chance {chance:.2f} %). The learned prompt is {verdict}."
    )


def score_table(result: DemoResult) -> Table:
    """Top-1 with top-5 in parentheses of each prompt under each protocol, and the gain of the learned prompt."""
    headings = ["prompt"]
    for column in result.columns:
        images, names = len(column.test_set.labels), len(column.test_set.candidates)
        headings.append(f"{column.group}: {images:,} images, {names:,} names")
    rows: list[list[Cell | str]] = []
    for key, label in result.lines:
        numbers = [[result.metrics[f"{c.key}/top{top}_{key}"] for top in (1, 5)] for c in result.columns]
        rows.append([label, *(Cell(f"{top1:.1f} ({top5:.1f})", top1, key == "learned") for top1, top5 in numbers)])
    gains = [[result.metrics[f"{c.key}/top1_{key}"] for key in ("gain", "gain_margin")] for c in result.columns]
    cells = [Cell(f"{gain:+.1f} ± {margin:.1f}", gain) for gain, margin in gains]
    rows.append(["learned − “a photo of a {}.”, top-1", *cells])
    return Table(headings, rows, "Validation images right, in %: top-1 (top-5). The nearest name in cosine wins.")


def _attributes(result: DemoResult, names: str) -> Table:
    widest = [column for column in result.columns if column.key.endswith("_of_all")]
    headings = ["prompt", *(f"{attribute}, {column.group}" for column in widest for attribute in ATTRIBUTES)]
    rows: list[list[Cell | str]] = []
    for key, label in result.lines:
        shares = [result.metrics[f"{c.key}/{attribute}_{key}"] for c in widest for attribute in ATTRIBUTES]
        rows.append([label, *(Cell(f"{share:.1f}", share) for share in shares)])
    caption = f"Answers with the right colour, pattern and shape, in %, among all {names}. An answer can be wrong and "
    return Table(headings, rows, f"{caption}still near: “red striped star” for a red dotted star.")


def _before_and_after(result: DemoResult, names: str) -> list[str | Table | Figure]:
    rows = [
        (e.name, e.group, *(f"{'✓' if answer == e.name else '✗'} {answer}" for answer in (e.before, e.after)))
        for e in result.examples
    ]
    table = Table(("image", "classes", "hand-written", "learned"), rows, "✓ is right, ✗ is wrong.", numeric=False)
    text = f"{len(rows)} validation images, drawn at random whatever the answers were, with all {names} to choose from."
    return [_picture(result, "examples.png", "Images and answers", text), table]


def _protocols(result: DemoResult, protocol: Mapping[str, Any]) -> Table:
    keys = ("split", "images_of", "images", "candidate_names", "metric", "images_sha256", "vocabulary_sha256")
    words = {column.key: protocol[column.key] for column in result.columns}
    rows = [(name, *(str(words[name][key])[: 12 if "sha" in key else None] for key in keys)) for name in words]
    headings = ("data set in metrics.json", *(key.replace("_", " ") for key in keys))
    caption = (
        "Top-5 counts an image as right when its name is among the five nearest. Settings were chosen on images and "
        "classes drawn with another seed than the ones reported here."
    )
    return Table(headings, rows, caption, numeric=False)


def _facts(result: DemoResult, run: Mapping[str, Any]) -> Table:
    about = result.prompt.metadata
    training = about["training"]
    seen = f"K = {about['K']}" if about["K"] else "all names in every step"
    prompt = f"{about['method']}, {result.prompt.n_ctx} vectors, {seen}, correction {about['correction'] or 'none'}, "
    prompt += f"{training['epochs']} epochs, learning rate {training['learning_rate']}, seed {run['seed']}"
    rows = [
        ("command", run["command"]),
        ("model", f"{run['clip']['name']}, weights {run['clip']['sha256'][:12]}, on {run['device']}"),
        ("prompt", prompt),
        ("time", "; ".join(f"{name}: {seconds:.0f} s" for name, seconds in run["seconds"].items())),
        ("versions", ", ".join(f"{name} {version}" for name, version in run["versions"].items())),
    ]
    return Table(("what", "value"), rows, numeric=False)


def _picture(result: DemoResult, name: str, title: str, caption: str = "") -> Figure:
    return Figure((result.folder / name).read_bytes(), "png", title, caption)


def _next_commands(folder: Path) -> list[str | Code]:
    """What to try next, with its command."""
    prompt, shapes = folder / "prompt" / "prompt.safetensors", folder / "shapes"
    images = f"--datasets folder:{shapes / 'classification'} --vocabulary {shapes / 'class_names.txt'}"
    return [
        "Change the words: score a sentence of your own on the same images.",
        Code(f'python tools/evaluate_prompt.py --clip mini --template "a picture of a {{}}" {images}'),
        "Change the names: a classifier for your own list, one name per line.",
        Code(f"python tools/build_classifier.py --vocabulary names.txt --prompt {prompt} --output names.safetensors"),
        "Evaluate on your photos: a folder with one subfolder per class, named after it.",
        Code(f"python tools/evaluate_prompt.py --prompt {prompt} --datasets folder:photos"),
        "Learn from your photos: subfolders train and val, with one folder per class in each.",
        Code(
            "python tools/pretrain_prompt.py --config configs/prompt/mini_shapes.yaml --output runs/my_photos "
            'DATA.TRAIN folder:photos DATA.VOCABULARY ""'
        ),
        "Change the settings: for instance all names in every step, in another folder.",
        Code("pomp demo --shapes --output runs/demo_full LOSS.NUM_CLASSES 0"),
    ]
