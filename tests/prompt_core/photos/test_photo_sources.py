"""What people name as photos besides files: lists, videos, archives, photos of phones."""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prompt_core.data import open_photo
from prompt_core.data.open_photo import read_photo
from prompt_core.errors import UserError
from prompt_core.photos.photo_list import NamedPhoto, list_photos_to_predict
from prompt_core.photos.video_frames import Every


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three photos, each of one grey, in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for grey in (10, 20, 30):
        Image.new("RGB", (16, 8), (grey,) * 3).save(tmp_path / f"photos/{grey}.png")
    return tmp_path


def photos(*given: str, every: str = "1") -> list[NamedPhoto]:
    return list_photos_to_predict(given, Path("out"), Every.parse(every))


def greys(found: list[NamedPhoto]) -> list[int]:
    return [round(float(photo.read().mean())) for photo in found]


def test_lists_in_files_and_on_standard_input(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("list.txt").write_text("photos/30.png\r\n\nphotos/1*.png\n")
    assert [photo.name for photo in photos("@list.txt")] == ["photos/30.png", "photos/10.png"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"photos/20.png\nphotos/20.png\n")))
    assert [photo.name for photo in photos("-")] == ["photos/20.png"]
    Path("@odd.png").write_bytes(Path("photos/10.png").read_bytes())
    assert [photo.name for photo in photos("@odd.png")] == ["@odd.png"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n \n", "list.txt lists no photo"),
        (b"a\0b.png\n", "holds zero bytes"),
        (b"none.png", "none.png does not exist"),
    ],
)
def test_lists_of_nothing(here: Path, content: bytes, message: str) -> None:
    Path("list.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        photos("@list.txt")
    with pytest.raises(UserError, match=r"list of photos other\.txt does not exist"):
        photos("@other.txt")


def test_photos_of_an_archive_are_those_that_went_in(here: Path) -> None:
    with tarfile.open("shard.tar", "w") as archive:
        archive.add("photos")
        archive.add("photos/10.png", "notes.txt")
        broken = tarfile.TarInfo("photos/40.png")
        broken.size = 8
        archive.addfile(broken, io.BytesIO(b"no photo"))
    found = photos("shard.tar", "photos/30.png")
    # members in the order in which they were packed
    by_name = {photo.name: photo for photo in found}
    assert set(by_name) == {f"shard.tar/photos/{grey}.png" for grey in (10, 20, 30, 40)} | {"photos/30.png"}
    assert [photo.number for photo in found] == [1, 2, 3, 4, 5]
    for grey in (10, 20, 30):
        assert np.array_equal(by_name[f"shard.tar/photos/{grey}.png"].read(), read_photo(f"photos/{grey}.png"))
    bad = by_name["shard.tar/photos/40.png"]
    with pytest.raises(UserError, match=r"photo shard\.tar/photos/40\.png cannot be read: no image of a known format"):
        bad.read()
    assert bad.picture == f"{bad.number:04d}_40.png"
    with tarfile.open("empty.tar", "w") as archive:
        archive.add("photos/10.png", "notes.txt")
    with pytest.raises(UserError, match=r"archive empty\.tar holds no photo"):
        photos("empty.tar")


def video(name: str, frames: int, rate: float = 5.0) -> None:
    cv2 = pytest.importorskip("cv2")
    writer = cv2.VideoWriter(name, cv2.VideoWriter_fourcc(*"MJPG"), rate, (64, 48))
    for number in range(frames):
        writer.write(np.full((48, 64, 3), 10 * number, dtype=np.uint8))
    writer.release()


def test_frames_of_a_video_in_their_order(here: Path) -> None:
    video("clip.avi", 12)
    found = photos("clip.avi", "photos/10.png")
    assert [photo.name for photo in found] == [*(f"clip.avi#{frame:06d}" for frame in range(12)), "photos/10.png"]
    assert greys(found[:12]) == pytest.approx([10 * number for number in range(12)], abs=2)
    assert found[0].read().shape == (48, 64, 3)
    every = photos("clip.avi", every="0.8s")
    assert [photo.name[-2:] for photo in every] == ["00", "04", "08"]
    assert greys(every) == pytest.approx([0, 40, 80], abs=2)
    assert greys(every[::-1]) == pytest.approx([80, 40, 0], abs=2)  # going back is possible, and slow
    assert every[1].picture == "0002_clip_000004.png"
    Path("broken.mp4").write_bytes(b"no video")
    with pytest.raises(UserError, match=r"video broken\.mp4 cannot be read"):
        photos("broken.mp4")


def test_a_video_that_claims_more_frames_than_it_has(here: Path) -> None:
    video("clip.avi", 12)
    whole = Path("clip.avi").read_bytes()
    Path("cut.avi").write_bytes(whole[: len(whole) * 4 // 5])
    found = photos("cut.avi")
    assert 3 < len(found) < 12
    assert greys(found[:-1]) == pytest.approx([10 * number for number in range(len(found) - 1)], abs=2)


def test_videos_and_archives_are_not_looked_for_in_folders(here: Path) -> None:
    video("photos/clip.avi", 2)
    with tarfile.open("photos/a.tar", "w") as archive:
        archive.add("photos/10.png")
    assert [photo.name for photo in photos("photos")] == [f"photos/{grey}.png" for grey in (10, 20, 30)]
    assert [photo.name for photo in photos("photos/*.avi", "**/*.tar")] == [
        "photos/clip.avi#000000",
        "photos/clip.avi#000001",
        "photos/a.tar/photos/10.png",
    ]


@pytest.mark.parametrize("text", ["", "0", "0s", "-1", "2 s", "1e3", "0.0001s", "s", "9" * 12])
def test_every_is_frames_or_seconds(text: str) -> None:
    with pytest.raises(UserError, match="frames such as 30"):
        Every.parse(text)


def test_photos_of_phones(here: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((64, 128, 3), dtype=np.uint8)
    pixels[:, :64] = 200
    Image.fromarray(pixels).save("photos/5.HEIC", exif=exif.tobytes(), quality=95)
    (found,) = (photo for photo in photos("photos") if photo.name == "photos/5.HEIC")
    upright = found.read()
    assert upright.shape == (128, 64, 3)
    assert abs(int(upright[:50].mean()) - 200) < 5
    assert upright[80:].mean() < 5


def test_without_their_library_a_line_says_what_to_install(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_photo, "_known_formats", lambda: ("PNG", "JPEG"))
    Path("photos/5.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (found,) = (photo for photo in photos("photos") if photo.name == "photos/5.heic")
    with pytest.raises(UserError, match=r"5\.heic cannot be read: HEIC needs pillow-heif \(pip install pillow-heif\)"):
        found.read()


def test_sixteen_bits_and_tiff(here: Path) -> None:
    Image.fromarray(np.full((8, 16), 257 * 99, dtype=np.uint16)).save("photos/40.TIFF")
    assert greys([photo for photo in photos("photos") if photo.name == "photos/40.TIFF"]) == [99]
