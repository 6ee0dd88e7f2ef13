"""Learn what is missing, score what is missing, keep the numbers. It is told what to learn and knows no method."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pomp_lab.tables.jobs import Job, Opened
from pomp_lab.tables.plan import Table
from pomp_lab.tables.scoring import score_target
from pomp_lab.tables.settings import deciding_settings, machine, plain_command, shown_settings
from pomp_lab.tables.store import Store, read_object
from pomp_lab.tables.targets import Question, Target
from pomp_lab.tables.work import Work, learning_work, scoring_work
from prompt_core.command_line import counting
from prompt_core.errors import UserError
from prompt_core.evaluation.protocol import run_description
from prompt_core.files import read_json, sha256_of_file, write_json
from prompt_core.methods.base import Method
from prompt_core.methods.registry import build_method, load_method, method_class
from prompt_core.training.artifacts import METHOD_FILE, METRICS_FILE, STATE_FILE, unusable
from prompt_core.training.data import load_training_data, training_vocabulary
from prompt_core.training.selection import TEST, open_selection, overlap, selection_words

if TYPE_CHECKING:
    from prompt_core.data.images import ImageSet

WORK_FILE = "work.json"


class Runner:
    """The runs of a table.

    Args:
        say: where a line for each finished piece of work goes.
    """

    def __init__(self, table: Table, store: Store, opened: Opened, say: Callable[[str], None] = print) -> None:
        self.table, self.store, self.opened, self.say = table, store, opened, say

    def run(self, jobs: Sequence[Job], targets: Sequence[str]) -> None:
        """Do what is not done. Work that another process is at comes last.

        Raises:
            UserError: see :meth:`check_selection`.
            KeyboardInterrupt: when Ctrl-C stopped it; the same call goes on.
        """
        self.check_selection(jobs, targets)
        postponed = [job for job in jobs if not self._one(job, targets, False)]
        for job in postponed:
            self.say(f"waiting for another process: {job.label}")
            self._one(job, targets, True)

    def missing(self, job: Job, targets: Sequence[str]) -> list[str]:
        """Names of the targets that a row has no numbers on yet; damaged files are told, and count as none."""
        left = [name for name in targets if self.store.read(self.result_key(job, name)) is None]
        for path, reason in self.store.damaged.items():
            self._tell(f"{path} is damaged ({reason}): it counts as missing and is done again")
        return left

    def check_selection(self, jobs: Sequence[Job], targets: Sequence[str]) -> None:
        """Numbers are not of the images that chose the epoch, unless ``SELECT_ON_TEST`` asks for it and labels them.

        Raises:
            UserError: naming the first target that holds images which choose.
        """
        for job in jobs:
            selection = open_selection(job.cfg, False) if job.learns else None
            if selection is None or selection.on == TEST:
                continue
            for name in targets:
                if overlap(selection.images, self.opened.target(name).images):
                    raise UserError(
                        f"SELECT.ON {selection.on}: images that choose the epoch of {job.label} are reported as "
                        f"{name}; give SELECT.ON held_out or last, leave the set out by --datasets, or give "
                        "--select-on-test, the published habit, which labels the numbers"
                    )

    def impossible(self, job: Job) -> str | None:
        """Why the method of a row does not go with the model, or None."""
        if method_class(job.cfg.METHOD.NAME).reads != "images":
            return None
        try:
            build_method(job.cfg, self.opened.clip(job.cfg))
        except UserError as error:
            return str(error)
        return None

    def identity(self, job: Job) -> dict[str, Any]:
        """What decides a learned method: configuration, images with their labels, class names, weights."""
        cfg, clip = job.cfg, self.opened.clip(job.cfg)
        if not job.learns:
            return {"method": build_method(cfg, clip).sha256(), "clip": clip.fingerprint}
        images = self.training_images(job)
        identity = {
            "config": deciding_settings(cfg),
            "seed": job.seed,
            "images": images.fingerprint(),
            "vocabulary": training_vocabulary(images, cfg.DATA.VOCABULARY)[0].sha256,
            "clip": clip.fingerprint,
        }
        if selection := open_selection(cfg, False):
            identity["selection"] = selection.describe()
        return identity

    def training_images(self, job: Job) -> ImageSet:
        """The few-shot subset that a run learns from."""
        return self.opened.few_shot(job.cfg)

    def learned_key(self, job: Job) -> str:
        """Hash of :meth:`identity`."""
        return self._remembered(("learned", id(job)), lambda: self.store.key(self.identity(job)))

    def result_key(self, job: Job, target: str) -> str:
        """Hash of a learned method, of what it is scored on, and of the rule for namesakes."""
        return self._remembered(
            ("result", id(job), target),
            lambda: self.store.key(
                {
                    "learned": self.learned_key(job),
                    "target": self.opened.target(target).identity,
                    "namesakes": job.cfg.EVAL.NAMESAKES,
                    "most_texts": self.table.most_texts if method_class(job.cfg.METHOD.NAME).conditional else None,
                }
            ),
        )

    @cached_property
    def _keys(self) -> dict[Any, str]:
        return {}

    @cached_property
    def _told(self) -> set[str]:
        return set()

    def _tell(self, line: str) -> None:
        """Once."""
        if line not in self._told:
            self._told.add(line)
            self.say(line)

    def _remembered(self, key: Any, make: Callable[[], str]) -> str:
        if key not in self._keys:
            self._keys[key] = make()
        return self._keys[key]

    def _one(self, job: Job, targets: Sequence[str], wait: bool) -> bool:
        if not self.missing(job, targets) or self.impossible(job):
            return True
        with self.store.claim(self.learned_key(job), wait) as mine:
            if not mine:
                return False
            missing = self.missing(job, targets)
            method = self._method(job) if missing else None
            for name in missing:
                assert method is not None
                self._score(job, method, name)
        return True

    def _method(self, job: Job) -> Method:
        clip = self.opened.clip(job.cfg)
        if not job.learns:
            return build_method(job.cfg, clip)
        folder = self.store.learned(self.learned_key(job))
        if not is_learned(folder):
            self._learn(job, folder)
        return load_method(folder / METHOD_FILE, clip)

    def _learn(self, job: Job, folder: Path) -> None:
        """Encode, then learn or go on; each is timed."""
        from prompt_core.training.recipe import pretrain

        kind = method_class(job.cfg.METHOD.NAME)
        for name in (METHOD_FILE, METRICS_FILE, STATE_FILE):
            if (folder / name).is_file() and (reason := unusable(folder, name)):
                self._tell(f"{folder / name} is no use ({reason}): {job.label} is learned anew")
                (folder / name).unlink()
        self.say(f"learning {job.label}")
        started, passes = time.perf_counter(), 0
        if kind.reads != "images":
            before = _entries(job.cfg.DATA.CACHE)
            with counting("encoding training images") as progress:
                data = load_training_data(job.cfg, self.opened.clip(job.cfg), progress, kind.reads)
            passes = len(data.batches) * data.stored_views if _entries(job.cfg.DATA.CACHE) != before else 0
        encode = time.perf_counter() - started
        resume = kind.learned_by == "steps" and (folder / STATE_FILE).exists()
        if not resume:
            # What a run that is fitted at once left when it was killed.
            (folder / METHOD_FILE).unlink(missing_ok=True)
        started = time.perf_counter()
        if pretrain(job.cfg, folder, resume=resume):
            raise KeyboardInterrupt
        seconds = {"learn": time.perf_counter() - started}
        if passes:
            seconds["encode"] = encode
        images = self.training_images(job)
        names = training_vocabulary(images, job.cfg.DATA.VOCABULARY)[0].names
        work = learning_work(job.cfg, names, len(images))
        counts = {"steps": work.steps, "texts": work.texts, "tokens": work.tokens, "image_passes": passes}
        counts["step_images"] = work.step_images
        # A run that was resumed does not know how long it took.
        write_json(folder / WORK_FILE, {"seconds": {} if resume else seconds, **counts})

    def _score(self, job: Job, method: Method, name: str) -> None:
        target, cfg = self.opened.target(name), job.cfg
        merge = cfg.EVAL.NAMESAKES == "merged"
        with counting(f"encoding {name}") as progress:
            scores = score_target(method, target, merge, cfg.DATA.CACHE, self.table.most_texts, progress)
        about = self._about(job, method, name)
        tokens = self.scoring(job, name).scored_tokens
        about["scoring"] = {"seconds": scores.seconds, "image_passes": scores.image_passes, "tokens": tokens}
        if scores.skipped:
            about["skipped"] = scores.skipped
        protocol = {
            question.dataset: scores.protocol[question.dataset] | self._selection(job, target, question)
            for question in target.questions
            if question.dataset in scores.protocol
        }
        self.store.write(
            self.result_key(job, name),
            scores.numbers,
            table=self.table.name,
            scale=self.table.scale,
            row=job.row.name,
            seed=job.seed,
            settings=shown_settings(job, method),
            _run=about,
            _protocol=protocol,
        )
        shown = [f"{key.removesuffix('/top1')} {v:.1f}" for key, v in scores.numbers.items() if key.endswith("/top1")]
        self.say(f"{job.label} on {name}: {'  '.join(shown) or 'no number'}")

    def _selection(self, job: Job, target: Target, question: Question) -> dict[str, str]:
        """How the epoch was chosen, as the protocol of a column says it; nothing for the last epoch."""
        if not job.learns:
            return {}
        file = self.store.learned(self.learned_key(job)) / METHOD_FILE
        words = selection_words(file, target.images_of(question), job.row.train)
        return {"selection": words} if words else {}

    def scoring(self, job: Job, name: str) -> Work:
        """Texts and tokens of scoring a row on a target."""
        target, most = self.opened.target(name), self.table.most_texts
        asked = np.unique(np.concatenate([question.candidates for question in target.questions]))
        columns = [(n, c) for n, c in target.counts().values() if most is None or n * c <= most]
        return scoring_work(job.cfg, target.names[asked].names, columns)

    def _about(self, job: Job, method: Method, target: str) -> dict[str, Any]:
        run = run_description(None, job.seed, str(method.device), method=method.name, machine=machine(method.device))
        run["command"] = plain_command(run["command"])
        run["config"] = job.row.config
        run["learned"] = self.learned_key(job)
        run["target"] = target
        clip = method.clip
        run["clip"], run["pretrained"] = clip.name, plain_command(str(clip.pretrained)) if clip.pretrained else None
        folder = self.store.learned(self.learned_key(job))
        if job.learns and (folder / METHOD_FILE).is_file():
            run["learned_sha256"] = sha256_of_file(folder / METHOD_FILE)
            metrics = read_json(folder / METRICS_FILE)
            run["training"] = {key: value for key, value in metrics.items() if not key.startswith("_")}
            run["training"]["images"] = metrics["_run"].get("images")
            run["history"] = metrics["_run"].get("history") or []
            if (work := read_object(folder / WORK_FILE)[0]).keys() >= {"seconds"}:
                run["learning"] = work
        return run


def is_learned(folder: Path) -> bool:
    """Whether a run is done: its ``metrics.json`` is written last, and both of its files can be read."""
    return not (unusable(folder, METRICS_FILE) or unusable(folder, METHOD_FILE))


def _entries(cache: str | Path) -> set[str]:
    return {path.name for path in Path(cache).glob("[0-9a-f]*")}
