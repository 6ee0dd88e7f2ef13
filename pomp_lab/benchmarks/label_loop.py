"""The loop measured: correct some photos, learn a prompt, and look at others, before and after.

Photos with boxes of a COCO data set stand for the corrections of a person.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pomp.formats.labelled import LabelledObject, LabelledPhoto
from pomp.learning.before_after import BeforeAfter
from pomp.learning.encoded import EncodedExamples, encode_examples
from pomp.learning.examples import Task, examples_of
from pomp.learning.held_out import right_words
from pomp.learning.learn_prompt import LearnedMethod, Learner
from pomp.learning.prompt_settings import TEMPLATE, learning_config
from prompt_core.background.background import Background
from prompt_core.background.own_share import own_shares
from prompt_core.background.photo_words import THRESHOLD
from prompt_core.classifier import TextClassifier
from prompt_core.documents.json_files import read_json
from prompt_core.errors import UserError
from prompt_core.methods.templates import TemplateMethod
from prompt_core.vocabulary import Vocabulary

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode

    from prompt_core.clip import Clip
    from prompt_core.methods.base import Method

BOXES, PHOTOS, NONE = "boxes", "photos", "none of these"


@dataclass(frozen=True)
class LoopPlan:
    """What is measured.

    Attributes:
        root: with ``annotations/boxes_{train,val}.json`` and the folders ``train2007`` and ``val2007``.
        corrected, others: photos to learn from, of the training part, and to look at, of the validation part.
        few: words of the part on "none of these"; photos of the other words show none of them.
        seeds: of the photos that are corrected, the words that are few, and the learning.
        cache: folder of image features.
        settings: ``KEY=VALUE`` of learning.
    """

    root: Path
    corrected: int
    others: int
    few: int
    seeds: Sequence[int]
    cache: Path
    settings: Sequence[str] = ()


def labelled_photos(root: Path, part: str) -> tuple[list[LabelledPhoto], Vocabulary]:
    """Photos of a part with their boxes, which are not difficult ones, and with the words of these, the largest first.

    Raises:
        UserError: an absent or malformed file.
    """
    document: Any = read_json(root / "annotations" / f"boxes_{part}.json")
    try:
        names = {row["id"]: row["name"] for row in document["categories"]}
        boxes: dict[int, list[LabelledObject]] = {row["id"]: [] for row in document["images"]}
        for row in document["annotations"]:
            if not row.get("ignore") and not row.get("iscrowd"):
                boxes[row["image_id"]].append(LabelledObject(names[row["category_id"]], tuple(row["bbox"])))
        photos = [
            _labelled(row, tuple(boxes[row["id"]]), root / f"{part}2007" / row["file_name"])
            for row in document["images"]
        ]
    except (KeyError, TypeError) as error:
        raise UserError(f"boxes_{part}.json of {root} is no COCO document of boxes: {error!r}") from error
    return photos, Vocabulary([names[key] for key in sorted(names)], source=root.name)


def _labelled(row: dict[str, Any], things: tuple[LabelledObject, ...], path: Path) -> LabelledPhoto:
    largest_first = sorted(things, key=lambda thing: -thing.box[2] * thing.box[3])
    words = tuple(dict.fromkeys(thing.word for thing in largest_first))
    return LabelledPhoto(row["file_name"], row["width"], row["height"], things, words or None, path=path)


def drawn(photos: Sequence[LabelledPhoto], number: int, seed: int) -> list[LabelledPhoto]:
    """Some photos with boxes, in their order."""
    boxed = [photo for photo in photos if photo.objects]
    chosen = np.random.default_rng(seed).permutation(len(boxed))[:number]
    return [boxed[place] for place in sorted(chosen.tolist())]


def with_few_words(photos: Sequence[LabelledPhoto], few: Sequence[str]) -> list[LabelledPhoto]:
    """Whole photos with those of their words that are among ``few``; without one, they show none of these."""
    return [
        LabelledPhoto(
            photo.name, photo.width, photo.height, (), tuple(w for w in photo.words or () if w in few), path=photo.path
        )
        for photo in photos
    ]


@dataclass(frozen=True, eq=False)
class Turn:
    """A seed's prompt for boxes, and what all its prompts are worth, in percent by measure."""

    seed: int
    boxes: LearnedMethod
    numbers: dict[str, dict[str, Any]]


class Loop:
    """Measures one seed after the other; the validation photos are encoded once."""

    def __init__(self, plan: LoopPlan, clip: Clip, say: Callable[[str], None] = lambda line: None) -> None:
        self.plan, self.clip, self.say = plan, clip, say
        self.train, self.words = labelled_photos(plan.root, "train")
        self.others = drawn(labelled_photos(plan.root, "val")[0], plan.others, 0)

    def turn(self, seed: int) -> Turn:
        """Correct, learn, and look at other photos."""
        plan, clip = self.plan, self.clip
        cfg = learning_config("pomp", ("mini", ""), seed, plan.settings)
        corrected = drawn(self.train, plan.corrected, seed)
        numbers: dict[str, dict[str, Any]] = {}
        learned: dict[str, LearnedMethod] = {}
        tasks: dict[str, Task] = {BOXES: "detect", PHOTOS: "classify"}
        for name, task in tasks.items():
            learned[name] = self._learn(cfg, corrected, task, self.words)
            others = self._encode(cfg, self.others, task, self.words)
            rows = np.arange(len(others.labels))
            methods = (TemplateMethod(clip, templates=[TEMPLATE]), learned[name].method)
            before, after = (right_words(method, others, rows) for method in methods)
            compared = BeforeAfter(name, before, after, others.photo, f"{len(others.words)} words")
            each = [_per_word(right, others.labels) for right in (before, after)]
            numbers[name] = {
                **compared.describe(),
                "before_per_word": each[0],
                "after_per_word": each[1],
                "epoch": learned[name].epoch,
            }
            self.say(f"seed {seed}, {name}: {100 * before.mean():.1f} before, {100 * after.mean():.1f} after")
        numbers[NONE] = self._none(cfg, corrected, seed)
        return Turn(seed, learned[BOXES], numbers)

    def _encode(
        self, cfg: CfgNode, photos: Sequence[LabelledPhoto], task: Task, words: Vocabulary, views: int = 1
    ) -> EncodedExamples:
        cfg = cfg.clone()
        cfg.defrost()
        cfg.AUGMENT.STORED_VIEWS = views
        return encode_examples(self.clip, examples_of(photos, self.plan.root, task, words), cfg, self.plan.cache)

    def _learn(self, cfg: CfgNode, photos: Sequence[LabelledPhoto], task: Task, words: Vocabulary) -> LearnedMethod:
        encoded = self._encode(cfg, photos, task, words, cfg.AUGMENT.STORED_VIEWS)
        classifier = TextClassifier.build(self.clip, words, [TEMPLATE], background=cfg.DATA.VOCABULARY)
        assert classifier.background is not None
        names = Vocabulary([*words.names, *classifier.background.names], source="words and background")
        return Learner.of(cfg, self.clip, encoded, names).learn()

    def _none(self, cfg: CfgNode, corrected: Sequence[LabelledPhoto], seed: int) -> dict[str, Any]:
        """Answers with few words: right, wrong, and none of these."""
        chosen = np.random.default_rng([seed, 3]).permutation(len(self.words))[: self.plan.few]
        few = self.words[np.sort(chosen)]
        learned = self._learn(cfg, with_few_words(corrected, few.names), "classify", few)
        others = self._encode(cfg, with_few_words(self.others, few.names), "classify", few)
        classifier = TextClassifier.build(self.clip, few, [TEMPLATE], background=cfg.DATA.VOCABULARY)
        assert classifier.background is not None
        numbers = {}
        template = TemplateMethod(self.clip, templates=[TEMPLATE])
        for key, method in (("before", template), ("after", learned.method)):
            with torch.no_grad():
                background = classifier.background.encoded_by(partial(_features, method))
            numbers[key] = none_of_these(method, others, background)
        self.say(f"seed {seed}, none of these: {numbers}")
        return {"words": few.names, **numbers}


def _features(method: Method, names: Vocabulary) -> torch.Tensor:
    return method.class_features(names).cpu()


def none_of_these(method: Method, others: EncodedExamples, background: Background) -> dict[str, float]:
    """Shares in percent of photos of the words and of photos that show none of them.

    Returns:
        ``precision``: right answers among all words that are given; ``answered``: photos of the words that get one;
        ``refused``: other photos that get none; ``none_right``: other photos among all that get none.
    """
    with torch.no_grad():
        words = method.class_features(others.words).cpu()
        both = torch.from_numpy(np.concatenate((others.plain, others.nothing)))
        shares = own_shares(both, words, background.weight, background.logit_scale, kinds=background.kinds)
        share, best = shares.max(dim=1)
    answered, inside = (share > THRESHOLD).numpy(), len(others.plain)
    right = others.right[np.arange(inside), best[:inside].numpy()] & answered[:inside]
    none_inside, none_outside = int((~answered[:inside]).sum()), int((~answered[inside:]).sum())
    return {
        "precision": 100 * float(right.sum()) / max(int(answered.sum()), 1),
        "answered": 100 * float(answered[:inside].mean()),
        "refused": 100 * none_outside / max(len(both) - inside, 1),
        "none_right": 100 * none_outside / max(none_inside + none_outside, 1),
    }


def _per_word(right: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the words of the share that is right, in percent."""
    return 100 * float(np.mean([right[labels == word].mean() for word in np.unique(labels)]))
