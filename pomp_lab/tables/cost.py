"""The table of costs: :mod:`pomp_lab.benchmarks.methods` once per machine, all rows in turns."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pomp_lab.benchmarks.methods import Job, load_names, measure_rows
from pomp_lab.tables.plan import Table
from pomp_lab.tables.store import Store, read_object
from prompt_core.evaluation.protocol import package_versions, processor_name
from prompt_core.files import sha256_of_json, write_json

REPEATS = 3
CHUNK = "256"  # names per pass of the full softmax
_FULL = {"LOSS.NUM_CLASSES": "0", "LOSS.CHUNK": CHUNK}
_WORDS = {"PROMPT.N_CTX": "4", "PROMPT.INIT": "a photo of a"}


def cost_jobs(table: Table, device: str, threads: int, chosen: Sequence[str] | None = None) -> dict[str, Job]:
    """Rows by name: CoOp and CoCoOp over all names, POMP with each K, and the full softmax over the wide list."""
    options: dict[str, Any] = dict(table.measured)

    def job(method: str, images: int, settings: dict[str, str], vocabulary: str) -> Job:
        return Job(options["clip"], vocabulary, None, method, images, settings, False, device, threads)

    own = options["vocabulary"]
    jobs = {
        "CoOp": job("coop", 32, _FULL, own),
        "CoCoOp": job("cocoop", 1, {**_FULL, **_WORDS}, own),
    }
    for number in options["numbers"]:
        jobs[f"POMP, K = {number}"] = job("pomp", 32, {"LOSS.NUM_CLASSES": str(number)}, own)
    if "wide" in options:
        jobs["POMP, K = 1000, wide vocabulary"] = job("pomp", 32, {"LOSS.NUM_CLASSES": "1000"}, options["wide"])
        jobs["full softmax, wide vocabulary"] = job("coop", 32, _FULL, options["wide"])
    return jobs if chosen is None else {name: jobs[name] for name in chosen}


def machine_facts(device: str) -> dict[str, Any]:
    """What decides times."""
    gpu = torch.cuda.get_device_name(device) if device.startswith("cuda") else None
    return {"device": device, "gpu": gpu, "cpu": processor_name(), "cores": os.cpu_count()}


def cost_key(jobs: dict[str, Job], device: str, repeats: int) -> str:
    """Hash of what is measured, and on what."""
    from dataclasses import asdict

    described = {name: {**asdict(job), "sha256": _names_hash(job)} for name, job in jobs.items()}
    return sha256_of_json([described, machine_facts(device), repeats])[:16]


def _names_hash(job: Job) -> str:
    return load_names(job.vocabulary, job.names).sha256


def measured(
    table: Table, store: Store, jobs: dict[str, Job], device: str, command: str, repeats: int
) -> dict[str, Any]:
    """The measurement, made unless it is there and whole."""
    key = cost_key(jobs, device, repeats)
    path = store.results / f"cost_{key}.json"
    with store.claim(key, wait=True):
        if finished(path) is None:
            if path.is_file():
                print(f"{path} is damaged: it is measured again")
            rows = measure_rows(jobs, repeats)
            set_up = {**machine_facts(device), "repeats": repeats, "versions": package_versions(), "command": command}
            protocol = {"cost": {"measured": "one training step on cached features, each in a fresh process"}}
            write_json(path, {"table": table.name, "set_up": set_up, "rows": rows, "_protocol": protocol})
        document = finished(path)
        assert document is not None
        return document


def finished(path: Path) -> dict[str, Any] | None:
    """A measurement that is there and whole."""
    document, reason = read_object(path)
    rows, set_up = document.get("rows"), document.get("set_up")
    whole = isinstance(rows, list) and rows and all(isinstance(row, dict) and _is_row(row) for row in rows)
    whole = whole and isinstance(set_up, dict) and {"gpu", "cpu", "versions"} <= set_up.keys()
    return document if whole and not reason else None


def _is_row(row: dict[str, Any]) -> bool:
    if "not_measured" in row:
        return {"row", "images"} <= row.keys()
    numbers = (row.get("names"), row.get("classes_in_step"), row.get("images"), row.get("learned_parameters"))
    medians = [row[key].get("median") if isinstance(row.get(key), dict) else None for key in ("seconds", "extra_bytes")]
    return "row" in row and all(isinstance(number, (int, float)) for number in (*numbers, *medians))


def cost_rows(document: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells."""
    headings = ["row", "names", "classes in a step", "images", "learned", "s per step", "extra MiB"]
    rows = []
    for row in document["rows"]:
        if "not_measured" in row:
            rows.append([row["row"], "", "", str(row["images"]), "", "not measured", row["not_measured"]])
            continue
        times, memory = row["seconds"], row["extra_bytes"]
        cells = [row["row"], f"{row['names']:,}", f"{row['classes_in_step']:,}", str(row["images"])]
        rows.append(
            [*cells, f"{row['learned_parameters']:,}", f"{times['median']:.3g}", f"{memory['median'] / 2**20:.0f}"]
        )
    return headings, rows
