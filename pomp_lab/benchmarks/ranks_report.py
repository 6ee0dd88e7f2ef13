"""What several processes gain: the measured parts, and what they say on paper about more of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pomp_lab.benchmarks.harness import spread, target
from pomp_lab.benchmarks.ranks_speed import WIDTH, RanksWork, measure_in_ranks
from pomp_lab.benchmarks.text import CONTEXTS
from prompt_core.visible import say

WANTED = 1.8  # times as fast with two processes
FORMULA = (
    "seconds(R) = tokens x c / R + f + transfer(R); transfer(R) = (R - 1) / R x (3 n E + 2 P) x 4 bytes / bandwidth + "
    "4 x log2(R) x latency: the features (n, E) are gathered, their gradient and that of the prompt (P numbers) are "
    "all-reduced by a ring, and one flag is agreed on"
)


@dataclass(frozen=True)
class Machines:
    """What processes run on, for an estimate.

    Attributes:
        name: shown.
        seconds_per_token: c, forward and backward to the prompt.
        fixed: f, seconds of a step that more processes do not share.
        bandwidth: bytes a second between two of them.
        latency: seconds of a message.
        source: what is measured and what is assumed.
    """

    name: str
    seconds_per_token: float
    fixed: float
    bandwidth: float
    latency: float
    source: str


def measure_part(job: RanksWork, sizes: Sequence[int], repeats: int) -> dict[str, Any]:
    """Measure a job by each number of processes, in turns.

    Returns:
        for each number the spreads of ``seconds`` (the fastest call of each turn) and ``cpu_seconds``; for each but the
        first how many times as fast it is, and how many times less of the processor a process takes.
    """
    turns: dict[int, list[dict[str, Any]]] = {size: [] for size in sizes}
    for turn in range(repeats):
        for size in sizes:
            measured = measure_in_ranks(job, size)
            turns[size].append(measured)
            say(f"  {job.work}, {size} processes, {turn + 1} of {repeats}: {measured['fastest']:.3g} s", error=True)
    sides = {
        str(size): {
            "seconds": spread([one["fastest"] for one in measured]),
            "cpu_seconds": spread([one["cpu_seconds"] for one in measured]),
        }
        for size, measured in turns.items()
    }
    first, facts = sides[str(sizes[0])], turns[sizes[0]][0]["facts"]
    ratios = {
        size: {
            "speed_up": first["seconds"]["min"] / sides[size]["seconds"]["min"],
            "processor_ratio": first["cpu_seconds"]["min"] / sides[size]["cpu_seconds"]["min"],
        }
        for size in list(sides)[1:]
    }
    return {"settings": asdict(job), "facts": facts, "processes": sides, "ratios": ratios}


def check_speed(parts: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What two processes gain in each part against what is wanted: in time, and in work of a processor's core."""
    return [
        {"part": name, "value": value, "meaning": meaning, **target(part["ratios"]["2"][value], WANTED)}
        for name, part in parts.items()
        if "2" in part["ratios"] and part["settings"]["work"] != "reductions"
        for value, meaning in (
            ("speed_up", "times as fast with two processes"),
            ("processor_ratio", "times less of a processor's time in each of two processes"),
        )
    ]


def step_seconds(machines: Machines, ranks: int, tokens: float, names: float) -> dict[str, float]:
    """Seconds of a step by several ranks on paper (:data:`FORMULA`), as parts and in all.

    Args:
        tokens: of the distinct names of the whole step.
        names: n, how many these are.
    """
    sent = 4 * (3 * names * WIDTH + 2 * WIDTH * CONTEXTS) * (ranks - 1) / ranks
    text = tokens * machines.seconds_per_token / ranks
    transfer = sent / machines.bandwidth + 4 * max(0, (ranks - 1).bit_length()) * machines.latency
    return {"text": text, "fixed": machines.fixed, "transfer": transfer, "all": text + machines.fixed + transfer}


def distinct_names(draws: int, drawn: int, total: int) -> float:
    """Expected number of distinct classes in ``draws`` independent draws of ``drawn`` out of ``total``."""
    return float(total * (1 - (1 - drawn / total) ** draws))


def estimates(
    machines: Sequence[Machines], tokens: int, names: int, total: int, sizes: Sequence[int]
) -> list[dict[str, Any]]:
    """Steps on paper: one draw for all, the full softmax, and a draw for each rank as published.

    Args:
        tokens: of ``names`` names, the K of one draw.
        total: N, classes of the vocabulary.
        sizes: numbers of ranks.
    """
    rows = []
    for machine in machines:
        for size in sizes:
            union = distinct_names(size, names, total)
            for step, count in (("one draw", float(names)), ("full softmax", float(total)), ("a draw each", union)):
                cost = step_seconds(machine, size, tokens * count / names, count)
                alone = step_seconds(machine, 1, tokens * count / names, count)
                own = step_seconds(machine, 1, tokens, names)["text"]
                row = {"machines": machine.name, "ranks": size, "step": step, "names": count, **cost}
                row["speed_up"] = alone["all"] / cost["all"]
                if step == "a draw each":  # against ranks that each encode their own draw, and send only gradients
                    row["names_of_a_rank"], row["text_spared"] = count / size, own / cost["text"]
                rows.append(row)
    return rows
