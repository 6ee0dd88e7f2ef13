"""The table of costs: :mod:`pomp_lab.benchmarks.methods` once per machine, all rows in turns."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch

from pomp_lab.benchmarks.methods import Job, load_names, measure_rows
from pomp_lab.runs import Document, Run, RunStore, plain_command
from pomp_lab.tables.plan import Table
from prompt_core.evaluation.protocol import processor_name, run_description

REPEATS = 3
CHUNK = "256"  # names per pass of the full softmax
_FULL = {"LOSS.NUM_CLASSES": "0", "LOSS.CHUNK": CHUNK}
_WORDS = {"PROMPT.N_CTX": "4", "PROMPT.INIT": "a photo of a"}
_PROTOCOL = {"training_step": {"measured": "one training step on cached features, each in a fresh process"}}


def cost_jobs(table: Table, device: str, threads: int) -> dict[str, Job]:
    """Rows by name: CoOp and CoCoOp over all names, POMP with each K, and the full softmax over the wide list."""
    options: dict[str, Any] = dict(table.measured)

    def job(method: str, images: int, settings: dict[str, str], vocabulary: str) -> Job:
        return Job(options["clip"], vocabulary, None, method, images, settings, False, device, threads)

    names = options["vocabulary"]
    jobs = {"CoOp": job("coop", 32, _FULL, names), "CoCoOp": job("cocoop", 1, {**_FULL, **_WORDS}, names)}
    for number in options["numbers"]:
        jobs[f"POMP, K = {number}"] = job("pomp", 32, {"LOSS.NUM_CLASSES": str(number)}, names)
    if "wide" in options:
        jobs["POMP, K = 1000, wide vocabulary"] = job("pomp", 32, {"LOSS.NUM_CLASSES": "1000"}, options["wide"])
        jobs["full softmax, wide vocabulary"] = job("coop", 32, _FULL, options["wide"])
    return jobs


def cost_runs(jobs: Mapping[str, Job], device: str) -> list[Run]:
    """A run for each row, identified by all rows, since they are measured in turns, and by the machine."""
    gpu = torch.cuda.get_device_name(device) if device.startswith("cuda") else None
    machine = {"device": device, "gpu": gpu, "cpu": processor_name(), "cores": os.cpu_count()}
    rows = {name: {**asdict(job), "sha256": load_names(job.vocabulary, job.names).sha256} for name, job in jobs.items()}
    return [Run(name, None, {"row": name, "rows": rows, "machine": machine, "repeats": REPEATS}) for name in jobs]


def measured(store: RunStore, jobs: Mapping[str, Job], runs: list[Run]) -> dict[str, Document]:
    """The measurements by row, made unless all of them exist."""
    with store.claim("cost", wait=True):
        if any(store.document(run) is None for run in runs):
            rows = {row["row"]: row for row in measure_rows(jobs, REPEATS)}
            for run in runs:
                about = {**run_description(device=run.identity["machine"]["device"]), **run.identity["machine"]}
                about |= {"command": plain_command(), "repeats": REPEATS, "measurement": rows[run.row]}
                numbers = _numbers(rows[run.row])
                if "not_measured" in rows[run.row]:
                    about["skipped"] = {"training_step": rows[run.row]["not_measured"]}
                protocol = _PROTOCOL if numbers else {}
                store.keep(run, {**numbers, "_run": about, "_protocol": protocol})
    return {run.row: document for run in runs if (document := store.document(run)) is not None}


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    if "not_measured" in row:
        return {}
    numbers = {key: row[key] for key in ("names", "classes_in_step", "images", "learned_parameters")}
    numbers |= {key: row[key]["median"] for key in ("seconds", "extra_bytes")}
    return {f"training_step/{key}": value for key, value in numbers.items()}


def cost_rows(documents: Mapping[str, Document]) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Headings and cells."""
    headings = ("row", "names", "classes in a step", "images", "learned", "s per step", "extra MiB")
    rows = []
    for name, document in documents.items():
        row = {key.rpartition("/")[2]: value for key, value in document.items() if "/" in key}
        if not row:
            images = str(document["_run"]["measurement"]["images"])
            reason = document["_run"]["skipped"]["training_step"]
            rows.append((name, "", "", images, "", "not measured", reason))
            continue
        counts = (f"{row['names']:,}", f"{row['classes_in_step']:,}", str(row["images"]))
        memory = f"{row['extra_bytes'] / 2**20:.0f}"
        rows.append((name, *counts, f"{row['learned_parameters']:,}", f"{row['seconds']:.3g}", memory))
    return headings, tuple(rows)
