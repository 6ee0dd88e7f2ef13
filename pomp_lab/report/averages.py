"""The averages over data sets that published tables print, of runs that have a number on each of the sets."""

from __future__ import annotations

import dataclasses
from typing import Any

from pomp_lab.report.formats import Part, Run
from pomp_lab.report.protocol import protocol_key
from pomp_lab.report.published import PublishedColumn, load_published
from prompt_core.evaluation.protocol import ON_REPORTED
from prompt_core.files import sha256_of_json


def with_averages(run: Run) -> Run:
    """The run with a part for each published average that all members of are there once.

    The average follows the protocols of all its members, so that averages of different protocols share no column.
    """
    averages = []
    for table in load_published():
        for column in table.columns:
            if column.means:
                members = [_parts(run, table.columns[place]) for place in column.means]
                if all(len(found) == 1 for found in members):
                    averages.append(_average(column, [found[0] for found in members]))
    return dataclasses.replace(run, parts=[*run.parts, *averages]) if averages else run


def _parts(run: Run, column: PublishedColumn) -> list[Part]:
    return [part for part in run.parts if column.metric in part.numbers and column.is_of(part.dataset)]


def _average(column: PublishedColumn, parts: list[Part]) -> Part:
    metrics = {part.protocol.get("metric") for part in parts}
    followed = {part.dataset: protocol_key(part.protocol) for part in parts}
    protocol: dict[str, Any] = {"mean_of": len(parts), "protocols_sha256": sha256_of_json(followed)}
    if len(metrics) == 1 and None not in metrics:
        protocol["metric"] = metrics.pop()
    if any(ON_REPORTED in part.protocol.values() for part in parts):
        protocol["selection"] = ON_REPORTED
    mean = sum(part.numbers[column.metric] for part in parts) / len(parts)
    return Part(column.name, protocol, {column.metric: mean})
