"""Detectors and segmenters see the pixels that classification sees, from files and from archives."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("detectron2")

from pomp_engine.data.photos import read_record_photo
from pomp_engine.data.tar_images import image_size, index_tar
from prompt_core.data.images import ImageSet
from prompt_core.data.open_photo import UnreadableImage, read_photo
from prompt_core.errors import UserError

from ..support import hostile


def photos(folder: Path) -> list[str]:
    """One photo of each mode and format, some turned."""
    names = []
    noise = np.random.default_rng(0).integers(0, 255, (7, 9, 3), dtype=np.uint8)
    for number, (mode, kind) in enumerate(hostile.PHOTO_KINDS):
        image = Image.fromarray(noise)
        if mode in ("I;16", "I", "F"):
            values = noise[..., 0].astype(np.uint16) * 257
            image = Image.fromarray(values.astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]))
        elif mode == "LA":
            image = image.convert("L")
            image.putalpha(Image.fromarray(noise[..., 1]))
        else:
            image = image.convert(mode)
        exif = Image.Exif()
        exif[0x0112] = 1 + number % 8
        options = {"exif": exif} if kind in ("JPEG", "PNG", "WEBP") else {}
        names.append(f"{number}.{kind.lower()}")
        image.save(folder / names[-1], kind, **options)
    return names


def test_all_tasks_see_the_same_pixels(tmp_path: Path) -> None:
    names = photos(tmp_path)
    images = ImageSet(["a"], ["a"], np.zeros(len(names), dtype=np.int64), names, "test", tmp_path)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in names:
            member = tarfile.TarInfo(f"{Path(name).stem}.jpg")
            content = (tmp_path / name).read_bytes()
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    places = {member: (str(tmp_path / "a.tar"), offset, size) for member, offset, size in index_tar(tmp_path / "a.tar")}
    assert len(places) == len(names)
    for number, name in enumerate(names):
        expected = np.asarray(images.read(number))
        record: dict[str, object] = {"file_name": str(tmp_path / name)}
        assert np.array_equal(read_photo(tmp_path / name), expected), name
        assert np.array_equal(read_record_photo(record, "BGR")[..., ::-1], expected), name
        assert (record["width"], record["height"]) == expected.shape[1::-1] == image_size(tmp_path / name)
        packed = {"file_name": name, "tar": places[f"{Path(name).stem}.jpg"]}
        assert np.array_equal(read_record_photo(packed, "RGB"), expected), name


def test_bounds_hold_for_every_task(tmp_path: Path) -> None:
    path = tmp_path / "strip.png"
    path.write_bytes(hostile.claimed_png(1, 100_000))
    with pytest.raises(UserError, match=r"photo .*strip.png cannot be read: it has sides of 1 and 100000 pixels"):
        read_photo(path)
    with pytest.raises(UnreadableImage, match="POMP_MAX_ASPECT"):
        read_record_photo({"file_name": str(path)}, "RGB")
