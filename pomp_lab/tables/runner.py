"""Learn and score what is missing, and store the numbers, without knowing any method by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pomp_lab.runs import Document, RunStore, learn, part_of, plain_command, run_missing
from pomp_lab.tables.jobs import Job, deciding_settings
from pomp_lab.tables.scored_sets import Question, Target
from pomp_lab.tables.scoring import score_target
from prompt_core.command_line import counting
from prompt_core.errors import UserError
from prompt_core.evaluation.protocol import run_description, selection_text
from prompt_core.files import read_sealed_json, sha256_of_file, sha256_of_json
from prompt_core.methods.base import Method
from prompt_core.methods.registry import load_method, method_class
from prompt_core.runs.lock import alone_in
from prompt_core.training.artifacts import METHOD_FILE, METRICS_FILE, STATE_FILE, unusable
from prompt_core.training.selection import TEST, open_selection, overlap


@dataclass(frozen=True)
class Runner:
    """The runs of a table.

    Attributes:
        store: of the numbers; a run is identified by its learned method, whichever table needs it.
        learned: folder of the learned methods, each as written by :func:`prompt_core.training.recipe.pretrain`.
        most_texts: see :class:`pomp_lab.tables.plan.Table`.
    """

    store: RunStore
    learned: Path
    most_texts: int | None = None

    def run(self, jobs: Sequence[Job], targets: Sequence[Target]) -> dict[str, Document]:
        """Do the missing runs.

        Returns:
            the numbers on these targets, by :attr:`pomp_lab.runs.Run.key`; runs without numbers are left out.

        Raises:
            UserError: see :func:`check_selection`.
            KeyboardInterrupt: on Ctrl-C; the same call continues.
        """
        check_selection(jobs, targets)
        missing = {job.run: job for job in jobs if not job.impossible and self.missing(job, targets)}
        run_missing(self.store, list(missing), lambda run: self._do(missing[run], targets))
        numbers = {job.run.key: self._numbers(job, targets) for job in jobs}
        return {key: document for key, document in numbers.items() if document is not None}

    def missing(self, job: Job, targets: Sequence[Target]) -> list[Target]:
        """The targets that a row has no numbers on yet."""
        document = self.store.document(job.run) or {"_run": {}}
        done = document["_run"].get("targets", {})
        return [target for target in targets if done.get(target.name) != self._scored(job, target)]

    def _numbers(self, job: Job, targets: Sequence[Target]) -> Document | None:
        document, missing = self.store.document(job.run), self.missing(job, targets)
        done = {target.name: self._scored(job, target) for target in targets if target not in missing}
        if document is None or not done:
            return None
        columns = [question.dataset for target in targets if target.name in done for question in target.questions]
        part = part_of(document, columns)
        return {**part, "_run": {**part["_run"], "row": job.row.name, "targets": done}}

    def _scored(self, job: Job, target: Target) -> str:
        """Hash of a learned method, of what it is scored on, and of the rule for namesakes."""
        identity = {
            "learned": job.run.id,
            "target": target.identity,
            "namesakes": job.cfg.EVAL.NAMESAKES,
            "most_texts": self.most_texts if method_class(job.cfg.METHOD.NAME).conditional else None,
        }
        return sha256_of_json(identity)[:16]

    def _do(self, job: Job, targets: Sequence[Target]) -> None:
        # Another process may have done some of it in the meantime.
        if missing := self.missing(job, targets):
            method = self._learned(job) if job.learns else job.method()
            for target in missing:
                self._score(job, method, target)

    def _learned(self, job: Job) -> Method:
        """The learned method of a row; learned unless it is there."""
        folder = self.learned / job.run.id
        with alone_in(folder):  # which also takes over what a killed run left
            # Its metrics.json is written last.
            if unusable(folder, METRICS_FILE) or unusable(folder, METHOD_FILE):
                for name in (METHOD_FILE, METRICS_FILE, STATE_FILE):
                    if (folder / name).is_file() and (reason := unusable(folder, name)):
                        self.store.report(f"{folder / name} cannot be used ({reason}): {job.label} is learned again")
                        (folder / name).unlink()
                self.store.report(f"learning {job.label}")
                if not (folder / STATE_FILE).exists():
                    # Left by a killed run that is fitted at once.
                    (folder / METHOD_FILE).unlink(missing_ok=True)
                learn(job.cfg, folder)
        return load_method(folder / METHOD_FILE, job.inputs.clip(job.cfg))

    def _score(self, job: Job, method: Method, target: Target) -> None:
        cfg = job.cfg
        merge = cfg.EVAL.NAMESAKES == "merged"
        with counting(f"encoding {target.name}") as progress:
            scores = score_target(method, target, merge, cfg.DATA.CACHE, self.most_texts, progress)
        for question in target.questions:
            if question.dataset in scores.protocol and (words := self._selection(job, target, question)):
                scores.protocol[question.dataset]["selection"] = words
        before = self.store.document(job.run) or {"_run": {}, "_protocol": {}}
        known = {*before["_protocol"], *before["_run"].get("skipped", {})}
        others = part_of(before, known - {question.dataset for question in target.questions})
        about = {
            **self._description(job, method),
            # Several tables may show a run; it keeps its first name.
            "row": before["_run"].get("row", job.row.name),
            "targets": {**before["_run"].get("targets", {}), target.name: self._scored(job, target)},
        }
        if skipped := {**others["_run"].get("skipped", {}), **scores.skipped}:
            about["skipped"] = skipped
        document = {**others, **scores.numbers, "_run": about, "_protocol": {**others["_protocol"], **scores.protocol}}
        self.store.keep(job.run, document)
        shown = [f"{key.removesuffix('/top1')} {v:.1f}" for key, v in scores.numbers.items() if key.endswith("/top1")]
        self.store.report(f"{job.label} on {target.name}: {'  '.join(shown) or 'no number'}")

    def _selection(self, job: Job, target: Target, question: Question) -> str:
        """How the epoch was chosen, for the protocol of a column; empty for the last epoch."""
        file = self.learned / job.run.id / METHOD_FILE
        return selection_text(file, target.images_of(question), job.row.train) if job.learns else ""

    def _description(self, job: Job, method: Method) -> dict[str, Any]:
        """``_run`` of the numbers."""
        clip, cfg = method.clip, job.cfg
        run = run_description(job.row.config, job.seed, str(method.device), method=method.name, clip=clip.name)
        run["command"] = plain_command()
        if job.as_configured:
            run["config_file"] = f"configs/prompt/{job.row.config}"
        run["pretrained"] = plain_command(str(clip.pretrained)) if clip.pretrained else None
        settings: dict[str, Any] = {"method": method.name, "clip": clip.name, "clip_sha256": clip.fingerprint}
        if not job.learns:
            options = {"options_sha256": sha256_of_json(dataclasses.asdict(method.options))}
            return {**run, "settings": {**settings, **options}, "hand_prompt": True}
        settings |= {key: value for key, value in deciding_settings(cfg).items() if key != "METHOD.NAME"}
        settings |= {"K": cfg.LOSS.NUM_CLASSES, "correction": cfg.LOSS.CORRECTION}
        run["settings"] = {**settings, "negatives": "wide vocabulary" if job.row.wide else "own classes"}
        folder = self.learned / job.run.id
        run["learned_sha256"] = sha256_of_file(folder / METHOD_FILE)
        metrics = read_sealed_json(folder / METRICS_FILE)
        run["training"] = {key: value for key, value in metrics.items() if not key.startswith("_")}
        run["training"]["images"] = metrics["_run"].get("images")
        return {**run, "history": metrics["_run"].get("history") or []}


def check_selection(jobs: Sequence[Job], targets: Sequence[Target]) -> None:
    """Refuse to report images that chose the epoch, unless ``SELECT_ON_TEST`` allows it and labels the numbers.

    Raises:
        UserError: naming the first target that holds such images.
    """
    for job in jobs:
        selection = open_selection(job.cfg, False) if job.learns else None
        if selection is None or selection.on == TEST:
            continue
        for target in targets:
            if overlap(selection.images, target.images):
                raise UserError(
                    f"SELECT.ON {selection.on}: images that choose the epoch of {job.label} are reported as "
                    f"{target.name}; give SELECT.ON held_out or last, leave the set out by --datasets, or give "
                    "--select-on-test, the published habit, which labels the numbers"
                )
