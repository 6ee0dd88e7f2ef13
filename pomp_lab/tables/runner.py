"""Learn and score what is missing, and store the numbers, without knowing any method by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pomp_lab.runs import Document, Run, RunStore, learn, part_of, plain_command, run_missing
from pomp_lab.tables.jobs import Inputs, Job, deciding_settings
from pomp_lab.tables.plan import Table
from pomp_lab.tables.scored_sets import Question, Target
from pomp_lab.tables.scoring import score_target
from prompt_core.command_line import counting
from prompt_core.errors import UserError
from prompt_core.evaluation.protocol import run_description, selection_text
from prompt_core.files import read_json, sha256_of_file, sha256_of_json
from prompt_core.methods.base import Method
from prompt_core.methods.registry import build_method, load_method, method_class
from prompt_core.training.artifacts import METHOD_FILE, METRICS_FILE, STATE_FILE, unusable
from prompt_core.training.selection import TEST, open_selection, overlap
from prompt_core.vocabulary import vocabulary_of


class TableRunner:
    """The runs of a table.

    Args:
        store: of the numbers; a run is identified by its learned method, whichever table needs it.
        learned: folder of the learned methods, each as written by :func:`prompt_core.training.recipe.pretrain`.
        report: called with a line about each finished piece of work.
    """

    def __init__(
        self, table: Table, inputs: Inputs, store: RunStore, learned: Path, report: Callable[[str], None] = print
    ) -> None:
        self.table, self.inputs, self.store, self.learned, self.report = table, inputs, store, learned, report
        self._runs: dict[Job, Run] = {}

    def run(self, jobs: Sequence[Job], targets: Sequence[str]) -> None:
        """Do the missing runs.

        Raises:
            UserError: see :meth:`check_selection`.
            KeyboardInterrupt: on Ctrl-C; the same call continues.
        """
        self.check_selection(jobs, targets)
        possible = {self.run_of(job): job for job in jobs if self.missing(job, targets) and not self.impossible(job)}
        run_missing(self.store, list(possible), lambda run: self._do(possible[run], targets))

    def check_selection(self, jobs: Sequence[Job], targets: Sequence[str]) -> None:
        """Refuse to report images that chose the epoch, unless ``SELECT_ON_TEST`` allows it and labels the numbers.

        Raises:
            UserError: naming the first target that holds such images.
        """
        for job in jobs:
            selection = open_selection(job.cfg, False) if job.learns else None
            if selection is None or selection.on == TEST:
                continue
            for name in targets:
                if overlap(selection.images, self.inputs.target(name).images):
                    raise UserError(
                        f"SELECT.ON {selection.on}: images that choose the epoch of {job.label} are reported as "
                        f"{name}; give SELECT.ON held_out or last, leave the set out by --datasets, or give "
                        "--select-on-test, the published habit, which labels the numbers"
                    )

    def impossible(self, job: Job) -> str | None:
        """Why the method of a row does not fit the model, or None."""
        if method_class(job.cfg.METHOD.NAME).reads != "images":
            return None
        try:
            build_method(job.cfg, self.inputs.clip(job.cfg))
        except UserError as error:
            return str(error)
        return None

    def run_of(self, job: Job) -> Run:
        """The run of a row and seed, identified by configuration, images with their labels, class names and weights."""
        if job not in self._runs:
            self._runs[job] = Run(job.row.name, job.seed, self._identity(job))
        return self._runs[job]

    def document(self, job: Job, targets: Sequence[str]) -> Document | None:
        """The available numbers of a row on some targets; None where there are none."""
        document = self.store.document(self.run_of(job))
        missing = self.missing(job, targets)
        done = {name: self._scored(job, name) for name in targets if name not in missing}
        if document is None or not done:
            return None
        columns = [question.dataset for name in done for question in self.inputs.target(name).questions]
        part = part_of(document, columns)
        return {**part, "_run": {**part["_run"], "row": job.row.name, "targets": done}}

    def missing(self, job: Job, targets: Sequence[str]) -> list[str]:
        """Names of the targets that a row has no numbers on yet."""
        document = self.store.document(self.run_of(job)) or {"_run": {}}
        done = document["_run"].get("targets", {})
        return [name for name in targets if done.get(name) != self._scored(job, name)]

    def _identity(self, job: Job) -> dict[str, Any]:
        cfg, clip = job.cfg, self.inputs.clip(job.cfg)
        if not job.learns:
            return {"method": build_method(cfg, clip).sha256(), "clip": clip.fingerprint}
        images = self.inputs.few_shot(cfg)
        identity = {
            "config": deciding_settings(cfg),
            "seed": job.seed,
            "images": images.fingerprint(),
            "vocabulary": vocabulary_of(images, cfg.DATA.VOCABULARY)[0].sha256,
            "clip": clip.fingerprint,
        }
        if selection := open_selection(cfg, False):
            identity["selection"] = selection.describe()
        return identity

    def _scored(self, job: Job, target: str) -> str:
        """Hash of a learned method, of what it is scored on, and of the rule for namesakes."""
        identity = {
            "learned": self.run_of(job).id,
            "target": self.inputs.target(target).identity,
            "namesakes": job.cfg.EVAL.NAMESAKES,
            "most_texts": self.table.most_texts if method_class(job.cfg.METHOD.NAME).conditional else None,
        }
        return sha256_of_json(identity)[:16]

    def _do(self, job: Job, targets: Sequence[str]) -> None:
        missing = self.missing(job, targets)
        method = self._method(job) if missing else None
        for name in missing:
            assert method is not None
            self._score(job, method, name)

    def _method(self, job: Job) -> Method:
        clip = self.inputs.clip(job.cfg)
        if not job.learns:
            return build_method(job.cfg, clip)
        folder = self.learned / self.run_of(job).id
        # Its metrics.json is written last.
        if unusable(folder, METRICS_FILE) or unusable(folder, METHOD_FILE):
            self._learn(job, folder)
        return load_method(folder / METHOD_FILE, clip)

    def _learn(self, job: Job, folder: Path) -> None:
        for name in (METHOD_FILE, METRICS_FILE, STATE_FILE):
            if (folder / name).is_file() and (reason := unusable(folder, name)):
                self.store.report(f"{folder / name} cannot be used ({reason}): {job.label} is learned again")
                (folder / name).unlink()
        self.report(f"learning {job.label}")
        if not (folder / STATE_FILE).exists():
            # Left by a killed run that is fitted at once.
            (folder / METHOD_FILE).unlink(missing_ok=True)
        learn(job.cfg, folder)

    def _score(self, job: Job, method: Method, name: str) -> None:
        run, target, cfg = self.run_of(job), self.inputs.target(name), job.cfg
        merge = cfg.EVAL.NAMESAKES == "merged"
        with counting(f"encoding {name}") as progress:
            scores = score_target(method, target, merge, cfg.DATA.CACHE, self.table.most_texts, progress)
        columns = {question.dataset: question for question in target.questions}
        protocol = {
            dataset: entries | self._selection(job, target, columns[dataset])
            for dataset, entries in scores.protocol.items()
        }
        before = self.store.document(run) or {"_run": {}, "_protocol": {}}
        known = {*before["_protocol"], *before["_run"].get("skipped", {})}
        others = part_of(before, known - columns.keys())
        about = {
            **self._description(job, method),
            # Several tables may show a run; it keeps its first name.
            "row": before["_run"].get("row", job.row.name),
            "targets": {**before["_run"].get("targets", {}), name: self._scored(job, name)},
        }
        if skipped := {**others["_run"].get("skipped", {}), **scores.skipped}:
            about["skipped"] = skipped
        self.store.keep(
            run, {**others, **scores.numbers, "_run": about, "_protocol": {**others["_protocol"], **protocol}}
        )
        shown = [f"{key.removesuffix('/top1')} {v:.1f}" for key, v in scores.numbers.items() if key.endswith("/top1")]
        self.report(f"{job.label} on {name}: {'  '.join(shown) or 'no number'}")

    def _selection(self, job: Job, target: Target, question: Question) -> dict[str, str]:
        """How the epoch was chosen, for the protocol of a column; empty for the last epoch."""
        if not job.learns:
            return {}
        file = self.learned / self.run_of(job).id / METHOD_FILE
        text = selection_text(file, target.images_of(question), job.row.train)
        return {"selection": text} if text else {}

    def _description(self, job: Job, method: Method) -> dict[str, Any]:
        """``_run`` of the numbers."""
        clip, cfg = method.clip, job.cfg
        run = run_description(None, job.seed, str(method.device), method=method.name, clip=clip.name)
        run["command"], run["config"] = plain_command(), job.row.config
        if job.as_configured:
            run["config_file"] = f"configs/prompt/{job.row.config}"
        run["pretrained"] = plain_command(str(clip.pretrained)) if clip.pretrained else None
        settings: dict[str, Any] = {"method": method.name, "clip": clip.name, "clip_sha256": clip.fingerprint}
        folder = self.learned / self.run_of(job).id
        if not job.learns:
            options = {"options_sha256": sha256_of_json(dataclasses.asdict(method.options))}
            return {**run, "settings": {**settings, **options}, "hand_prompt": True}
        settings |= {key: value for key, value in deciding_settings(cfg).items() if key != "METHOD.NAME"}
        settings |= {"K": cfg.LOSS.NUM_CLASSES, "correction": cfg.LOSS.CORRECTION}
        run["settings"] = {**settings, "negatives": "wide vocabulary" if job.row.wide else "own classes"}
        run["learned_sha256"] = sha256_of_file(folder / METHOD_FILE)
        metrics = read_json(folder / METRICS_FILE)
        run["training"] = {key: value for key, value in metrics.items() if not key.startswith("_")}
        run["training"]["images"] = metrics["_run"].get("images")
        return {**run, "history": metrics["_run"].get("history") or []}
