"""The shards of a list of photos that are one process's, each to a Parquet part; what is done already is left out.

::

    output/shards.json           what was asked: the same for all processes
    output/part-00000.parquet    a finished shard
    output/unfinished/00001/     photos of a shard that is worked on, for the run that goes on after a kill
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pomp.labelling.outputs import Outputs
from pomp.models.photo_model import Model
from pomp.shards.parquet_parts import part_name, write_part
from pomp.shards.part_rows import arrow, part_rows
from pomp.shards.shares import Share
from prompt_core.errors import UserError
from prompt_core.files import make_output_folder, read_sealed_json, sha256_of_json, write_sealed_json
from prompt_core.photos.archive_photos import ARCHIVE_ENDINGS
from prompt_core.photos.photo_list import NamedFile, NamedPhoto, photos_in
from prompt_core.photos.photo_loop import predicted_photos
from prompt_core.photos.progress import showing_progress
from prompt_core.photos.video_frames import VIDEO_ENDINGS, Every
from prompt_core.visible import say, visible_path

PLAN, UNFINISHED = "shards.json", "unfinished"
SHARD_SIZE = 500  # photos: minutes of work, and some 100 kB to 100 MB a part


@dataclass(frozen=True)
class Shard:
    """Files that become one part.

    Attributes:
        number: of the part, from 0.
        files: photos; or one archive, or one video.
    """

    number: int
    files: tuple[NamedFile, ...]


def cut_in_shards(files: Sequence[NamedFile], size: int = SHARD_SIZE) -> list[Shard]:
    """``size`` photos for each shard, in their order; each archive and each video is a shard of its own."""
    groups: list[list[NamedFile]] = []
    room = 0
    for file in files:
        if file.path.suffix.lower() in (*ARCHIVE_ENDINGS, *VIDEO_ENDINGS):
            groups.append([file])
            room = 0
        elif room:
            groups[-1].append(file)
            room -= 1
        else:
            groups.append([file])
            room = size - 1
    return [Shard(number, tuple(group)) for number, group in enumerate(groups)]


def label_shards(
    load: Callable[[], Model],
    shards: Sequence[Shard],
    share: Share,
    output: Path,
    asked: Mapping[str, str],
    every: Every | None = None,
) -> int:
    """Label the shards of a share; returns how many photos were left out.

    Args:
        load: gives the model with its words set; called where anything is left to do.
        asked: what else tells a run from another, by names that a person understands.
        every: which frames of videos.

    Raises:
        UserError: without pyarrow; when the folder holds parts of other photos, words or a model of other weights; when
            another process works on the same share.
    """
    arrow()
    make_output_folder(output)
    mine = [shard for shard in share.of(shards) if not _is_done(shard, output)]
    plan = {"photos": _photos(shards, every), "request": dict(asked)}
    _agree(output / PLAN, plan)
    say(f"{len(mine)} of {len(shards)} shards are left for process {share.index + 1} of {share.count}")
    if not mine:
        return 0
    model = load()
    task = model.photo_task(Outputs(pictures=False))
    _agree(output / PLAN, plan | {"model": task.identity()})
    left_out = 0
    for shard in mine:
        began, folder = time.monotonic(), _unfinished(shard, output)
        photos, unreadable = _photos_of(shard, every)
        with (
            showing_progress(part_name(shard.number)) as progress,
            predicted_photos(task, [] if unreadable else photos, folder, progress) as (records, skipped),
        ):
            skipped |= unreadable
            rows = part_rows(model.task, photos, records, skipped, model.asked, folder)
            write_part(output / part_name(shard.number), model.task, rows)
        _is_done(shard, output)
        for reason in skipped.values():
            say(f"left out: {reason}", error=True)
        left_out += len(skipped)
        rate = len(photos) / (time.monotonic() - began)
        say(f"{part_name(shard.number)}: {len(photos)} photos, {len(skipped)} left out, {rate:.1f} per second")
    return left_out


def _unfinished(shard: Shard, output: Path) -> Path:
    return output / UNFINISHED / f"{shard.number:05d}"


def _is_done(shard: Shard, output: Path) -> bool:
    """Whether the part is there; then what was kept to go on with is removed."""
    done = (output / part_name(shard.number)).is_file()
    if done:
        shutil.rmtree(_unfinished(shard, output), ignore_errors=True)
        with contextlib.suppress(OSError):  # not empty: other shards are worked on
            (output / UNFINISHED).rmdir()
    return done


def _photos_of(shard: Shard, every: Every | None) -> tuple[list[NamedPhoto], dict[NamedPhoto, str]]:
    """The photos of a shard; where its video or archive cannot be read, that file in their place, with the reason."""
    try:
        return photos_in(shard.files, every), {}
    except UserError as error:
        file = NamedPhoto(1, shard.files[0].path, shard.files[0].name)
        return [file], {file: str(error)}


def _photos(shards: Sequence[Shard], every: Every | None) -> dict[str, Any]:
    names = [[file.name for file in shard.files] for shard in shards]
    frames = every or Every()
    return {"shards": len(shards), "names": sha256_of_json(names), "every": [frames.frames, frames.seconds]}


def _agree(plan: Path, asked: dict[str, Any]) -> None:
    """Write down what is asked where nothing is; several processes may, and write the same.

    Raises:
        UserError: when something else was.
    """
    known = read_sealed_json(plan) if plan.is_file() else {}
    for name, value in asked.items():
        if name in known and known[name] != value:
            before = known[name] if isinstance(known[name], dict) else {}
            changed = sorted(key for key in {**before, **value} if before.get(key) != value.get(key))
            raise UserError(
                f"{visible_path(plan.parent)} holds parts of a run with other {name} ({', '.join(changed)}); give the "
                "same photos, words and options, or choose another --output"
            )
    if any(name not in known for name in asked):
        write_sealed_json(plan, {**known, **asked})
