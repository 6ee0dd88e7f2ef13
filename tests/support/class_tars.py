"""ImageNet-21K in small, in each form that it is distributed in: folders, the tar of class tars, class tars, shards."""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from PIL import Image

# Of the processed release; of the small classes; of nothing.
PROCESSED = ("n00005787", "n01440764", "n02084071")
SMALL, UNKNOWN = "n00004475", "n99999999"
VAL = 50

Photos = Mapping[str, Mapping[str, bytes]]


def photos_of(counts: Mapping[str, int]) -> dict[str, dict[str, bytes]]:
    """Photos of each class, all different; numbers of several digits, so that their order as texts is not theirs."""
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), (200, 10, 10)).save(stream, "JPEG")
    picture = stream.getvalue()
    return {
        wnid: {
            f"{wnid}_{number * 17}.JPEG": picture + b"%d" % number * (number % 5) + wnid.encode()
            for number in range(count)
        }
        for wnid, count in counts.items()
    }


def tar_bytes(members: Iterable[tuple[str, bytes]]) -> bytes:
    """An archive."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def shuffled(members: Mapping[str, bytes], seed: int = 0) -> list[tuple[str, bytes]]:
    """The members in another order than that of their names."""
    pairs = list(members.items())
    random.Random(seed).shuffle(pairs)
    return pairs


def class_tars(photos: Photos, seed: int = 0) -> dict[str, bytes]:
    """``n01440764.tar`` and so on, photos in no order."""
    return {f"{wnid}.tar": tar_bytes(shuffled(of_class, seed)) for wnid, of_class in photos.items()}


def write_whole(path: Path, photos: Photos, seed: int = 0) -> Path:
    """The tar of class tars, as ``winter21_whole.tar``."""
    members = {f"winter21_whole/{name}": content for name, content in class_tars(photos, seed).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar_bytes(shuffled(members, seed)))
    return path


def write_class_tars(folder: Path, photos: Photos) -> Path:
    """A folder of class tars."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in class_tars(photos, 3).items():
        (folder / name).write_bytes(content)
    return folder


def write_shards(folder: Path, photos: Photos, count: int = 3) -> str:
    """Shards of mixed classes with labels of their own, photos called .jpg; returns their pattern."""
    folder.mkdir(parents=True, exist_ok=True)
    everything = shuffled({name: content for of_class in photos.values() for name, content in of_class.items()}, 5)
    for number in range(count):
        members = []
        for name, content in everything[number::count]:
            key = name.partition(".")[0]
            members += [(f"{key}.jpg", content), (f"{key}.cls", b"0"), (f"{key}.json", b"{}")]
        (folder / f"w21-{number:04d}.tar").write_bytes(tar_bytes(members))
    return f"{folder}/w21-{{0000..{count - 1:04d}}}.tar"


def write_folders(folder: Path, photos: Photos) -> Path:
    """The processed release: the first 50 photos of each class, by name, are val."""
    for wnid, of_class in photos.items():
        for place, name in enumerate(sorted(of_class)):
            path = folder / ("imagenet21k_val" if place < VAL else "imagenet21k_train") / wnid / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(of_class[name])
    return folder
