"""How much work is left, and the time that follows from finished runs on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pomp_lab.tables.jobs import Job
from pomp_lab.tables.runner import Runner, is_learned
from pomp_lab.tables.targets import source_of
from pomp_lab.tables.work import Work, learning_work, scoring_work
from prompt_core.data.augment import train_transform
from prompt_core.data.catalog.lookup import find_entry
from prompt_core.data.feature_cache import cache_key
from prompt_core.methods.image_towers import tower_for
from prompt_core.methods.registry import METHODS, method_class
from prompt_core.training.data import training_vocabulary
from prompt_core.vocabulary import Vocabulary

# Classes that are learned from, for estimates without the data.
TRAINING_CLASSES = {"tiny_imagenet": 160, "shapes": 160, "imagenet": 1_000, "imagenet21k": 10_450}


def job_work(runner: Runner, job: Job, targets: Sequence[str]) -> Work:
    """What is left of a row, with its data and its model at hand."""
    missing = runner.missing(job, targets)
    if not missing or runner.impossible(job):
        return Work()
    cfg, clip, opened = job.cfg, runner.opened.clip(job.cfg), runner.opened
    kind = method_class(cfg.METHOD.NAME)
    work = Work()
    if job.learns and not is_learned(runner.store.learned(runner.learned_key(job))):
        images = runner.training_images(job)
        names = training_vocabulary(images, cfg.DATA.VOCABULARY)[0].names
        work = learning_work(cfg, list(names), len(images))
        if kind.reads != "images":
            augment, views, transform = cfg.AUGMENT, cfg.AUGMENT.STORED_VIEWS, None
            if views > 0:
                transform = train_transform(
                    clip.image_size, clip.image_mean, clip.image_std, augment.RAND_AUGMENT, tuple(augment.SCALE)
                )
            key = cache_key(tower_for(kind.reads, clip), images, max(1, views), transform, cfg.SEED)
            if not (Path(cfg.DATA.CACHE) / key).exists():
                work += Work({key: len(images) * max(1, views)})
    for name in missing:
        target = opened.target(name)
        tower = tower_for(kind.reads, clip)
        key = cache_key(tower, target.images, 1, None, 0)
        if kind.reads == "images":
            key = f"{runner.learned_key(job)} {key}"
        if not (Path(cfg.DATA.CACHE) / key).exists():
            work += Work({key: len(target.images)})
        work += runner.scoring(job, name)
    return work


def rough_work(job: Job, targets: Sequence[str], learning: bool = True) -> Work:
    """A row from nothing, by the counts of the catalogue; names of ImageNet-21K stand in for those of other sets.

    Args:
        learning: whether learning is left too, not scoring alone.
    """
    cfg, row = job.cfg, job.row
    kind = method_class(cfg.METHOD.NAME)
    names = _stand_in_names()
    work = Work(rough=True)
    if learning and row.train and job.learns:
        classes = TRAINING_CLASSES[row.train]
        images = classes * max(0, cfg.DATA.SHOTS)
        wide = row.wide and row.train == "tiny_imagenet"
        work += learning_work(cfg, names if wide else names[:classes], images)
        if kind.reads != "images":
            views = max(1, cfg.AUGMENT.STORED_VIEWS)
            seed = job.seed if cfg.DATA.SHOTS > 0 else None
            work += Work({f"{cfg.MODEL.NAME} {kind.reads} {row.train} {views} {seed}": images * views})
    for name in targets:
        entry = find_entry(source_of(name))
        if entry is None:
            continue
        of = f"{row.name} {job.seed}" if kind.reads == "images" else kind.reads
        count = entry.classes.number
        work += Work({f"{cfg.MODEL.NAME} {of} {name}": entry.test.number})
        work += scoring_work(cfg, names[:count], [(entry.test.number, count)])
    return work


@cache
def _stand_in_names() -> list[str]:
    return list(Vocabulary.load("imagenet21k").names)


def seconds_per_unit(results: Sequence[dict[str, Any]], where: str, clip: str) -> dict[str, float]:
    """Of finished runs of one model on one machine: seconds of each unit of work, whatever table they were made for.

    Units: an image pass, a token in learning, a token in scoring, and for methods that learn inside the image tower an
    image of a learning step, with what else the step does. Runs that were resumed, or found their features in the
    cache, do not say how long it takes; units of which no run says it are not in the result.

    Args:
        where: :func:`pomp_lab.tables.settings.machine`.
        clip: name of the model.
    """
    sums: dict[str, list[float]] = {}

    def note(unit: str, seconds: Any, amount: Any) -> None:
        if isinstance(seconds, (int, float)) and isinstance(amount, (int, float)) and seconds and amount:
            total = sums.setdefault(unit, [0.0, 0.0])
            total[0] += seconds
            total[1] += amount

    seen = set()
    for each in results:
        run = _object(each, "_run")
        if (run.get("machine"), run.get("clip")) != (where, clip):
            continue
        scoring, learning = _object(run, "scoring"), _object(run, "learning")
        seconds = _object(scoring, "seconds")
        note("image", seconds.get("encode"), scoring.get("image_passes"))
        note("scored_token", seconds.get("score"), scoring.get("tokens"))
        learned = str(run.get("learned"))
        if learned not in seen:
            seen.add(learned)
            seconds = _object(learning, "seconds")
            note("image", seconds.get("encode"), learning.get("image_passes"))
            if _learns_inside(run):
                note("step_image", seconds.get("learn"), learning.get("step_images"))
            else:
                note("token", seconds.get("learn"), learning.get("tokens"))
    return {unit: seconds / amount for unit, (seconds, amount) in sums.items()}


def _object(document: dict[str, Any], key: str) -> dict[str, Any]:
    value = document.get(key)
    return value if isinstance(value, dict) else {}


def _learns_inside(run: dict[str, Any]) -> bool:
    """Whether images passed the tower with a gradient; files of before do not count these."""
    name = run.get("method")
    return name in METHODS and METHODS[name].reads == "images"


def expected_seconds(works: Sequence[Work], rates: dict[str, float]) -> float | None:
    """The time of runs of one model that follows from finished ones; None where they do not say all that is needed."""
    total = sum(works, Work())
    needed = {
        "image": total.image_passes,
        "step_image": total.step_images,
        # Those of a step with images are in the time of these.
        "token": sum(work.tokens for work in works if not work.step_images),
        "scored_token": total.scored_tokens,
    }
    if any(amount and unit not in rates for unit, amount in needed.items()):
        return None
    return sum(amount * rates[unit] for unit, amount in needed.items() if amount)
