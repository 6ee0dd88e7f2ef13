"""The one opener: bounds before decoding, and the same pixels for every task."""

from __future__ import annotations

import io
import os
import re
import resource
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from PIL import Image

from prompt_core.data.images import ImageSet
from prompt_core.data.open_photo import UnreadableImage, open_photo, opened_image, upright_size
from prompt_core.errors import UserError

from ...support import hostile

ROOT = Path(__file__).resolve().parents[3]


def corners(width: int = 6, height: int = 4) -> np.ndarray:
    """A photo in which no turn looks like another."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[: height // 2, : width // 2] = (200, 0, 0)
    pixels[height // 2 :, : width // 2] = (0, 200, 0)
    return pixels


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((60_000, 60_000), r"(a size|60000 x 60000 pixels) of more than 150,000,000; set .* POMP_MAX_PIXELS"),
        ((14_000, 11_000), "14000 x 11000 pixels of more than 150,000,000; set .* POMP_MAX_PIXELS to read it"),
        ((1, 100_000), "sides of 1 and 100000 pixels, an aspect of more than 500; set .* POMP_MAX_ASPECT"),
    ],
)
def test_a_photo_beyond_its_bounds_is_not_decoded(size: tuple[int, int], message: str, tmp_path: Path) -> None:
    path = tmp_path / "big.png"
    path.write_bytes(hostile.claimed_png(*size))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for read in (open_photo, upright_size):
        with pytest.raises(UnreadableImage, match=f"cannot read image .*big.png: it has {message}"):
            read(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # kB


def test_bounds_can_be_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "strip.png", Image.new("L", (1, 600)))
    with pytest.raises(UnreadableImage, match="aspect of more than 500"):
        open_photo(path)
    monkeypatch.setenv("POMP_MAX_ASPECT", "600")
    assert open_photo(path).size == (1, 600)
    monkeypatch.setenv("POMP_MAX_PIXELS", "599")
    with pytest.raises(UnreadableImage, match="1 x 600 pixels of more than 599"):
        open_photo(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow's own bound gives way to the one that is set
    monkeypatch.setenv("POMP_MAX_PIXELS", "1000")
    assert open_photo(path).size == (1, 600)
    monkeypatch.setenv("POMP_MAX_PIXELS", "many")
    with pytest.raises(UserError, match="POMP_MAX_PIXELS is 'many'; a whole number above 0"):
        open_photo(path)


def test_files_that_are_no_photos(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "run.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nquit\n")
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    whole = saved(tmp_path / "cut.jpg", Image.fromarray(noise)).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    for name, reason in {
        "pipe.jpg": "a pipe or a device", "empty.jpg": "the file is empty", "run.eps": "no image of a known format",
        "cut.jpg": "truncated|broken", "none.jpg": "no such file", "a\0b.jpg": "null byte|no such file",
    }.items():  # fmt: skip
        with pytest.raises(UnreadableImage, match=reason) as caught:
            open_photo(tmp_path / name)
        assert "\0" not in str(caught.value)


@pytest.mark.parametrize("turned", range(1, 9))
def test_photos_are_turned_as_their_exif_orientation_says(turned: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = turned
    path = saved(tmp_path / "turned.png", Image.fromarray(corners()), exif=exif)
    upright = corners()
    # Where the first row and the first column of the file are to be seen (Exif 2.3, 4.6.4 A).
    expected = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, -1), 7: upright[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(upright),
    }[turned]  # fmt: skip
    assert np.array_equal(np.asarray(open_photo(path)), expected)
    assert upright_size(path) == expected.shape[1::-1]
    images = ImageSet(["a"], ["a"], np.array([0]), [path.name], "test", tmp_path)
    assert np.array_equal(np.asarray(images.read(0)), expected)


def test_damaged_exif_data_leaves_the_pixels(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", Image.new("RGB", (6, 4), (9, 9, 9)), exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert open_photo(path).size == (6, 4)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bits_are_scaled(ending: str, tmp_path: Path) -> None:
    values = np.array([[0, 256, 32768], [257, 65280, 65535]], dtype=np.uint16)
    path = saved(tmp_path / f"a.{ending}", Image.fromarray(values))
    expected = np.round(values / 257).astype(np.uint8)  # 65535 = 255 x 257
    assert np.array_equal(np.asarray(open_photo(path)), np.repeat(expected[..., None], 3, axis=2))


def test_values_beyond_sixteen_bits_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.tif", Image.fromarray(np.array([[-1, 70_000]], dtype=np.int32)))
    with pytest.raises(UnreadableImage, match=r"grey values -1..70000, where 16 bits are expected"):
        open_photo(path)


def test_colours_do_not_depend_on_how_they_are_stored(tmp_path: Path) -> None:
    pixels = corners()
    rgb = Image.fromarray(pixels)
    clear = rgb.copy()
    clear.putalpha(Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6)))
    palette = rgb.quantize(4)
    for name, image, options in (
        ("rgba.png", clear, {}),
        ("palette.png", palette, {}),
        ("see_through.png", palette, {"transparency": bytes([0, 128, 255, 9])}),
        ("palette.gif", palette, {"transparency": 0}),
        ("rgb.webp", rgb, {"lossless": True}),
        ("rgb.tif", rgb, {}),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert np.array_equal(np.asarray(open_photo(saved(tmp_path / name, image, **options))), pixels), name
    grey = np.array([[0, 100], [200, 255]], dtype=np.uint8)
    faint = Image.merge("LA", [Image.fromarray(grey), Image.fromarray(grey[::-1].copy())])
    assert np.array_equal(np.asarray(open_photo(saved(tmp_path / "la.png", faint)))[..., 1], grey)


@pytest.mark.parametrize("ending", ["gif", "png", "webp", "tif"])
def test_the_first_frame_is_taken(ending: str, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((250, 0, 0), (0, 250, 0))]
    options = {"lossless": True} if ending == "webp" else {}
    path = saved(tmp_path / f"a.{ending}", frames[0], save_all=True, append_images=frames[1:], **options)
    assert open_photo(path).getpixel((1, 1)) == (250, 0, 0)


@given(content=hostile.photos())
@settings(max_examples=80, deadline=None)
def test_any_bytes_are_a_photo_or_a_line(content: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        photo = hostile.success_or_one_line(lambda: open_photo(content, "a.png"))
    if photo is not None:
        assert photo.mode == "RGB"
        assert photo.size == upright_size(content)
        with opened_image(content) as image:
            assert image.format
        photo.save(io.BytesIO(), "PNG")


def test_photos_are_opened_in_one_place() -> None:
    folders = ("prompt_core", "pomp_engine", "pomp_det", "pomp_seg", "pomp_lab", "pomp", "tools", "datasets")
    opens = re.compile(r"Image\.open\(|read_image\(|\bcv2\b|imread\(")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    found = [str(path.relative_to(ROOT)) for path in files if opens.search(path.read_text(encoding="utf-8"))]
    # frames of videos are no files of photos
    assert sorted(found) == ["prompt_core/data/open_photo.py", "prompt_core/photos/video_frames.py"]
