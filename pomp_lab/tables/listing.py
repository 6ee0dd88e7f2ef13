"""``--dry-run``: what is done and what is missing, which images are absent and how to get them, what the rest costs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pomp_lab.tables.estimate import expected_seconds, job_work, rough_work, seconds_per_unit
from pomp_lab.tables.jobs import Job
from pomp_lab.tables.runner import Runner, is_learned
from pomp_lab.tables.settings import machine
from pomp_lab.tables.show import Block
from pomp_lab.tables.sources import find_source
from pomp_lab.tables.targets import source_of
from pomp_lab.tables.work import Work
from prompt_core.errors import UserError


@dataclass(frozen=True)
class Listed:
    """A run with its state and what is left of it."""

    job: Job
    state: str
    work: Work


def list_jobs(runner: Runner, jobs: Sequence[Job], targets: Sequence[str], absent: Sequence[str]) -> list[Listed]:
    """The state of each run; work is counted on the data, and by the catalogue where data or weights are absent.

    Args:
        absent: names of sources that are not there.
    """
    present = [name for name in targets if find_source(source_of(name)).name not in absent]
    gone = [name for name in targets if name not in present]
    return [_listed(runner, job, present, gone, absent) for job in jobs]


def _listed(runner: Runner, job: Job, present: Sequence[str], gone: Sequence[str], absent: Sequence[str]) -> Listed:
    everything = [*present, *gone]
    if job.row.train in absent:
        return Listed(job, f"data set {job.row.train} is absent", rough_work(job, everything))
    if not present and not job.learns:
        return Listed(job, f"all {len(gone)} image sets are absent", rough_work(job, everything))
    try:
        if reason := runner.impossible(job):
            return Listed(job, f"not possible: {reason}", Work())
        missing = runner.missing(job, present)
        work = job_work(runner, job, present)
        learned = not job.learns or is_learned(runner.store.learned(runner.learned_key(job)))
    except UserError as error:
        # Without the weights nothing can be told from what is done.
        return Listed(job, str(error), rough_work(job, everything))
    done = len(present) - len(missing)
    if not gone:
        return Listed(job, f"{done} of {len(everything)} image sets done" if missing else "done", work)
    # Learning is counted with the sets that are there, unless all of those are done.
    work += rough_work(job, gone, learning=not missing and not learned)
    return Listed(job, f"{done} of {len(everything)} image sets done, {len(gone)} absent", work)


@contextlib.contextmanager
def without_downloads() -> Iterator[None]:
    """Weights that are not on this machine stay away: listing writes nothing."""
    import huggingface_hub.constants as constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def listing_blocks(runner: Runner, listed: Sequence[Listed], absent_lines: Sequence[str]) -> list[Block]:
    """Runs, totals, what is absent."""
    rows = [
        (
            each.job.label,
            each.state,
            _number(sum(each.work.images.values()), each.work),
            _number(each.work.steps, each.work),
            _number(each.work.texts, each.work),
            _number(each.work.tokens, each.work),
            _number(each.work.scored_tokens, each.work),
        )
        for each in listed
    ]
    total = sum((each.work for each in listed), Work())
    notes = [f"Images to encode that several runs share are counted once: {total.image_passes:,} in all."]
    if total.step_images:
        notes.append(f"Methods that learn inside the image tower pass {total.step_images:,} images with a gradient.")
    if total.rough:
        notes.append("≈: by the counts of the catalogue and names of ImageNet-21K, since data or weights are absent.")
    notes.append(
        "Texts of sampled steps are at most K - 1 draws and the images' own classes; tokens are those that the "
        "shared-prefix encoder computes."
    )
    notes.append(_time(runner, listed))
    headings = ("run", "state", "images to encode", "steps", "texts, learning", "tokens, learning", "tokens, scoring")
    sum_row = (
        "all",
        f"{sum(each.state == 'done' for each in listed)} of {len(listed)} done",
        _number(total.image_passes, total),
        _number(total.steps, total),
        _number(total.texts, total),
        _number(total.tokens, total),
        _number(total.scored_tokens, total),
    )
    blocks = [Block(f"{runner.table.title}: what is left", tuple(notes), headings, (*rows, sum_row))]
    if absent_lines:
        blocks.append(Block("Absent data sets", tuple(absent_lines)))
    return blocks


def _number(value: int, work: Work) -> str:
    return f"{'≈ ' if work.rough else ''}{value:,}" if value else "0"


def _time(runner: Runner, listed: Sequence[Listed]) -> str:
    left = [each for each in listed if not (each.state == "done" or each.state.startswith("not possible"))]
    if not left:
        return "Nothing is left to run."
    by_model: dict[tuple[str, str, str], list[Listed]] = {}
    for each in left:
        cfg = each.job.cfg
        by_model.setdefault((cfg.MODEL.NAME, cfg.MODEL.PRETRAINED, cfg.DEVICE), []).append(each)
    finished, seconds, where = runner.store.all(), 0.0, ""
    for some in by_model.values():
        try:
            clip = runner.opened.clip(some[0].job.cfg)
        except UserError:
            return "No time is told: the weights are absent."
        where = machine(clip.device)
        rates = seconds_per_unit(finished, where, clip.name)
        expected = expected_seconds([each.work for each in some], rates)
        if expected is None:
            return (
                f"No time is told: no finished runs of {clip.name} on this machine say how long each kind of work "
                "takes."
            )
        seconds += expected
    time = f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"
    units = "per image, per token of learning and per token of scoring"
    if any(each.work.step_images for each in left):
        units += ", and per image of a step inside the image tower"
    return f"About {time}, as finished runs of the same model took on this machine ({where}) {units}."
