"""The table of costs: :mod:`pomp_lab.benchmarks.methods` once per machine, all rows in turns."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch

from pomp_lab.arguments import chosen
from pomp_lab.benchmarks.method_rows import FULL, WORDS
from pomp_lab.benchmarks.methods import MethodStep, load_names, measure_rows
from pomp_lab.runs import Document, Run, RunStore, plain_command
from pomp_lab.tables.plan import Cost, Table
from pomp_lab.tables.show import Block, listing, published_blocks
from prompt_core.evaluation.protocol import processor_name, run_description

REPEATS = 3
HEADINGS = ("row", "names", "classes in a step", "images", "learned", "s per step", "extra MiB")
_PROTOCOL = {"training_step": {"measured": "one training step on cached features, each in a fresh process"}}


def cost_blocks(table: Table, cost: Cost, rows: str | None, store: RunStore, dry_run: bool) -> list[Block]:
    """Measure the chosen rows unless all of them are done; with ``dry_run`` list them.

    Args:
        rows: names joined by ``;``, None for all.

    Raises:
        UserError: an unknown row.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    known = cost_steps(cost, device, torch.get_num_threads())
    steps = {row: known[row] for row in chosen(rows, known, "row")}
    runs = cost_runs(steps, device)
    if dry_run:
        return [listing(table, {run.label: "missing" if store.document(run) is None else "done" for run in runs})]
    documents = measured(store, steps, runs)
    store.write_results({"title": table.title, "note": table.note}, documents)
    about = next(iter(documents.values()))["_run"]
    where = f"Median of {REPEATS} runs on {about['gpu'] or about['cpu']}, torch {about['versions']['torch']}."
    cells = tuple(_cells(row, document) for row, document in documents.items())
    return [Block(table.title, (table.note, where), HEADINGS, cells), *published_blocks(table)]


def cost_steps(cost: Cost, device: str, threads: int) -> dict[str, MethodStep]:
    """Rows by name: CoOp and CoCoOp over all names, POMP with each K, and the full softmax over the wide list."""

    def step(method: str, images: int, settings: dict[str, str], vocabulary: str = cost.vocabulary) -> MethodStep:
        return MethodStep(cost.clip, vocabulary, None, method, images, settings, device=device, threads=threads)

    steps = {"CoOp": step("coop", 32, FULL), "CoCoOp": step("cocoop", 1, {**FULL, **WORDS})}
    for number in cost.sampled:
        steps[f"POMP, K = {number}"] = step("pomp", 32, {"LOSS.NUM_CLASSES": str(number)})
    if cost.wide:
        steps["POMP, K = 1000, wide vocabulary"] = step("pomp", 32, {"LOSS.NUM_CLASSES": "1000"}, cost.wide)
        steps["full softmax, wide vocabulary"] = step("coop", 32, FULL, cost.wide)
    return steps


def cost_runs(steps: Mapping[str, MethodStep], device: str) -> list[Run]:
    """A run for each row, identified by all rows, since they are measured in turns, and by the machine."""
    gpu = torch.cuda.get_device_name(device) if device == "cuda" else None
    machine = {"device": device, "gpu": gpu, "cpu": processor_name(), "cores": os.cpu_count()}
    rows = {
        name: {**asdict(step), "sha256": load_names(step.vocabulary, step.names).sha256} for name, step in steps.items()
    }
    return [Run(name, None, {"row": name, "rows": rows, "machine": machine, "repeats": REPEATS}) for name in steps]


def measured(store: RunStore, steps: Mapping[str, MethodStep], runs: list[Run]) -> dict[str, Document]:
    """The measurements by row, made unless all of them exist."""
    with store.claim("cost", wait=True):
        if any(store.document(run) is None for run in runs):
            rows = {row["row"]: row for row in measure_rows(steps, REPEATS)}
            for run in runs:
                _keep(store, run, rows[run.row])
    return {run.row: document for run in runs if (document := store.document(run)) is not None}


def _keep(store: RunStore, run: Run, row: Mapping[str, Any]) -> None:
    machine = run.identity["machine"]
    about = {**run_description(device=machine["device"]), **machine}
    about |= {"command": plain_command(), "repeats": REPEATS, "measurement": row}
    if "not_measured" in row:
        about["skipped"] = {"training_step": row["not_measured"]}
        store.keep(run, {"_run": about, "_protocol": {}})
        return
    numbers = {key: row[key] for key in ("names", "classes_in_step", "images", "learned_parameters")}
    numbers |= {key: row[key]["median"] for key in ("seconds", "extra_bytes")}
    flat = {f"training_step/{key}": value for key, value in numbers.items()}
    store.keep(run, {**flat, "_run": about, "_protocol": _PROTOCOL})


def _cells(name: str, document: Document) -> tuple[str, ...]:
    about, prefix = document["_run"], "training_step/"
    if reason := about.get("skipped", {}).get("training_step"):
        return (name, "", "", str(about["measurement"]["images"]), "", "not measured", reason)
    row = {key.removeprefix(prefix): value for key, value in document.items() if key.startswith(prefix)}
    counts = (f"{row['names']:,}", f"{row['classes_in_step']:,}", str(row["images"]), f"{row['learned_parameters']:,}")
    return (name, *counts, f"{row['seconds']:.3g}", f"{row['extra_bytes'] / 2**20:.0f}")
