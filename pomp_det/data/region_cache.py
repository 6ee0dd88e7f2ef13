"""Embeddings of regions of photos, computed once: what ViLD distils from, and what region prompts learn on.

::

    FOLDER/regions.json               which image tower and which regions; of each shard the photos and their counts
    FOLDER/boxes_00000.npy            (R, 5) float32: x0, y0, x1, y1 in pixels of the photo, and the region's score
    FOLDER/embeddings_00000.npy       (R, E) float16, unit-norm

A shard has the regions of :data:`PHOTOS` photos, in the order of the data set, of each photo by falling score. It is
there once ``shard_00000.json`` is, so that a command that was stopped goes on where it was. Reading maps the arrays: a
photo costs memory for its own regions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np
import torch
from torch import Tensor

from pomp_engine.data.photos import read_record_photo
from pomp_engine.data.proposal_files import GivenRegions
from prompt_core.documents.schema import Count, Int64, check
from prompt_core.errors import UserError
from prompt_core.files import atomic_path, make_output_folder, read_sealed_json, write_sealed_json
from prompt_core.visible import visible_path

INDEX = "regions.json"
PHOTOS = 256
# Gives unit-norm embeddings (R, E) of boxes (R_i, 4) in photos (3, H_i, W_i), RGB in 0..255.
Embed = Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]


class Proposals(Protocol):
    """Such as :class:`pomp_engine.data.proposal_files.ProposalFile`."""

    def regions(self, photo: Mapping[str, Any], height: int, width: int) -> GivenRegions | None:
        """The regions of a photo of that size; None for a photo that is not there."""


class Shard(msgspec.Struct):
    """The photos of a shard and how many regions each has."""

    image_ids: list[Int64]
    counts: list[Count]


class Index(msgspec.Struct):
    """The document ``regions.json``; ``made`` says from what, as plain texts and numbers."""

    made: dict[str, Any]
    shards: list[Shard]


class CachedRegions(NamedTuple):
    """The regions of a photo.

    Attributes:
        boxes: (R, 4) float32 in pixels of the photo.
        scores: (R,) float32 in 0..1.
        embeddings: (R, E) float32, unit-norm up to the precision of half floats.
    """

    boxes: Tensor
    scores: Tensor
    embeddings: Tensor


class RegionCache:
    """Regions by photo.

    Attributes:
        made: what they were made from.
        nothing: no regions, of the same width.

    Raises:
        UserError: when the folder is absent, unfinished or damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        path = self._folder / INDEX
        if not path.is_file():
            raise UserError(
                f"{visible_path(folder)} holds no {INDEX}: no embeddings of regions, or unfinished ones; "
                "tools/embed_regions.py makes them"
            )
        index: Index = check(read_sealed_json(path), Index, path)
        self.made = index.made
        self._places: dict[int, tuple[int, int, int]] = {}
        for number, shard in enumerate(index.shards):
            if len(shard.image_ids) != len(shard.counts):
                raise UserError(f"{visible_path(path)} is damaged: shard {number} has other photos than counts")
            starts = np.concatenate([[0], np.cumsum(shard.counts)]).tolist()
            for image_id, start, stop in zip(shard.image_ids, starts[:-1], starts[1:], strict=True):
                self._places[image_id] = number, start, stop
            self._check(number, starts[-1])
        width = self._array("embeddings", 0).shape[1] if self._places else 0
        self.nothing = CachedRegions(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, width))

    @property
    def image_ids(self) -> list[int]:
        """Of all photos, in their order."""
        return list(self._places)

    @property
    def width(self) -> int:
        """E; 0 of a cache without photos."""
        return self.nothing.embeddings.shape[1]

    def regions(self, image_id: int) -> CachedRegions | None:
        """Those of a photo; None for a photo that is not there."""
        if image_id not in self._places:
            return None
        number, start, stop = self._places[image_id]
        boxes = torch.from_numpy(np.array(self._array("boxes", number)[start:stop], np.float32))
        embeddings = np.array(self._array("embeddings", number)[start:stop], np.float32)
        return CachedRegions(boxes[:, :4], boxes[:, 4], torch.from_numpy(embeddings))

    def _array(self, kind: str, number: int) -> np.ndarray:
        path = self._folder / f"{kind}_{number:05d}.npy"
        try:
            array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{visible_path(path)} cannot be read ({error}); make the embeddings again") from error
        return array

    def _check(self, number: int, total: int) -> None:
        boxes, embeddings = self._array("boxes", number), self._array("embeddings", number)
        if boxes.shape != (total, 5) or embeddings.ndim != 2 or len(embeddings) != total:
            raise UserError(
                f"shard {number} of {visible_path(self._folder)} has arrays of shapes {boxes.shape} and "
                f"{embeddings.shape}, its photos have {total} regions; make the embeddings again"
            )


def write_region_cache(
    folder: Path,
    records: Sequence[Mapping[str, Any]],
    proposals: Proposals,
    embed: Embed,
    made: Mapping[str, Any],
    progress: Callable[[int, int], None] | None = None,
    device: str = "cpu",
) -> int:
    """Embed the regions of each photo, but for shards that are there.

    Args:
        records: of a data set, each with ``image_id`` and ``file_name``.
        proposals: the regions; photos without an entry have none.
        embed: such as :class:`pomp_det.clip_towers.RegionEmbedder`.
        made: what is written down about it; a folder with something else is refused.
        progress: is told how many photos are done, of how many, after each shard.

    Returns:
        regions in all.

    Raises:
        UserError: a photo that cannot be read, regions that cannot be used, or a folder of something else.
    """
    make_output_folder(folder)
    shards: list[Shard] = []
    for number, start in enumerate(range(0, len(records), PHOTOS)):
        path, photos = folder / f"shard_{number:05d}.json", records[start : start + PHOTOS]
        if path.is_file():
            known = read_sealed_json(path)
            if known.get("made") != dict(made):
                raise UserError(
                    f"{visible_path(folder)} holds embeddings of {known.get('made')}, asked for are {dict(made)}; "
                    "choose another folder"
                )
            shard: Shard = check(known["shard"], Shard, path)
            if shard.image_ids != [int(photo["image_id"]) for photo in photos]:
                raise UserError(
                    f"{visible_path(path)} is of other photos: the data set has changed since; choose another folder"
                )
        else:
            shard = _write_shard(folder, number, photos, proposals, embed, device)
            write_sealed_json(path, {"made": dict(made), "shard": msgspec.to_builtins(shard)})
        shards.append(shard)
        if progress is not None:
            progress(min(start + PHOTOS, len(records)), len(records))
    write_sealed_json(folder / INDEX, {"made": dict(made), "shards": [msgspec.to_builtins(shard) for shard in shards]})
    return sum(sum(shard.counts) for shard in shards)


def _write_shard(
    folder: Path,
    number: int,
    records: Sequence[Mapping[str, Any]],
    proposals: Proposals,
    embed: Embed,
    device: str,
) -> Shard:
    counts: list[int] = []
    boxes: list[np.ndarray] = []
    embeddings: list[Tensor] = []
    for record in records:
        pixels = read_record_photo(dict(record), "RGB")
        regions = proposals.regions(record, *pixels.shape[:2])
        count = 0 if regions is None else len(regions.boxes)
        counts.append(count)
        photo = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).to(device)
        if regions is None or count == 0:
            embeddings.append(embed([photo], [torch.zeros(0, 4, device=device)]).half().cpu())
            continue
        boxes.append(np.concatenate([regions.boxes, regions.scores[:, None]], axis=1))
        embeddings.append(embed([photo], [torch.from_numpy(regions.boxes).to(device)]).half().cpu())
    table = np.concatenate([np.zeros((0, 5), np.float32), *boxes])
    for kind, array in (("boxes", table), ("embeddings", torch.cat(embeddings).numpy())):
        with atomic_path(folder / f"{kind}_{number:05d}.npy") as temporary, open(temporary, "wb") as stream:
            np.save(stream, array, allow_pickle=False)
    return Shard([int(record["image_id"]) for record in records], counts)
