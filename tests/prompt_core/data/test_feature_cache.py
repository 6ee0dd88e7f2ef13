"""The feature cache: right numbers, computed once, never half-written, keyed by everything that matters."""

from __future__ import annotations

import json
import multiprocessing
import random
import shutil
import threading
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from prompt_core.data import encode_photos, feature_cache, feature_workshop
from prompt_core.data.augment import TrainTransform, view_generator
from prompt_core.data.feature_cache import cache_key, cached_features
from prompt_core.data.images import ImageSet
from prompt_core.errors import UserError
from prompt_core.runs.lock import LOCK_FILE

from ...support.full_disk import largest_file
from ...support.held_folder import held

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


class FakeClip:
    """A frozen random projection that counts its calls and images."""

    def __init__(self, seed: int = 0, embed_dim: int = 6) -> None:
        self.embed_dim, self.image_size, self.image_mean, self.image_std = embed_dim, 8, MEAN, STD
        self.image_fingerprint = f"fake {seed} {embed_dim}"
        self.weight = torch.randn(embed_dim, 3 * 8 * 8, generator=torch.Generator().manual_seed(seed))
        self.calls: list[int] = []

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        pixels = np.asarray(image.convert("RGB").resize((8, 8), Image.Resampling.BICUBIC), dtype=np.float32) / 255
        return torch.from_numpy((pixels - 0.5) / 0.25).permute(2, 0, 1)

    def encode_image(self, images: torch.Tensor) -> torch.Tensor:
        self.calls.append(len(images))
        # float64 row by row: the result cannot depend on what else is in the batch
        rows = [self.weight.double() @ image.double().flatten() for image in images]
        return torch.nn.functional.normalize(torch.stack(rows), dim=-1).float()


def make_set(root: Path, count: int = 10, broken: tuple[int, ...] = ()) -> ImageSet:
    generator = np.random.default_rng(3)
    root.mkdir(parents=True, exist_ok=True)
    keys = [f"{index:03d}.png" for index in range(count)]
    for index, key in enumerate(keys):
        Image.fromarray(generator.integers(0, 256, (9, 11, 3), dtype=np.uint8)).save(root / key)
        if index in broken:
            (root / key).write_bytes((root / key).read_bytes()[:60])
    return ImageSet(["a", "b", "c"], ["a", "b", "c"], np.arange(count) % 3, keys, "test set", root)


TRANSFORM = TrainTransform(8, MEAN, STD)


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_features_are_those_of_each_view(tmp_path: Path) -> None:
    clip, images = FakeClip(), make_set(tmp_path / "data")
    cached = cached_features(clip, images, 3, TRANSFORM, 7, tmp_path / "cache", batch_size=7)
    assert isinstance(cached.features, np.memmap)
    assert cached.features.dtype == np.float16
    assert cached.features.shape == (10, 3, 6)
    np.testing.assert_allclose(np.linalg.norm(cached.features.astype(np.float32), axis=-1), 1, atol=1e-3)
    for index, key in enumerate(images.keys):
        for view in range(3):
            tensor = TRANSFORM(images.read(index), view_generator(7, key, view))
            expected = clip.encode_image(tensor[None])[0].numpy().astype(np.float16)
            np.testing.assert_array_equal(cached.features[index, view], expected)
    assert cached.labels.tolist() == images.labels.tolist()
    assert cached.keys == images.keys
    assert cached.unreadable == []
    assert len(cached) == 10
    assert not cached.features.flags.writeable
    assert max(clip.calls) <= 7


@pytest.mark.parametrize(("views", "transform"), [(0, TRANSFORM), (4, None), (0, None), (1, None)])
def test_without_views_the_own_preprocessing_is_used(tmp_path: Path, views: int, transform: object) -> None:
    clip, images = FakeClip(), make_set(tmp_path / "data")
    cached = cached_features(clip, images, views, transform, 7, tmp_path / "cache", batch_size=4)  # type: ignore[arg-type]
    assert clip.calls == [4, 4, 2]
    expected = torch.cat([clip.encode_image(clip.preprocess(images.read(index))[None]) for index in range(10)])
    np.testing.assert_array_equal(cached.features[:, 0], expected.numpy().astype(np.float16))
    assert cached.features.shape == (10, 1, 6)
    assert cache_key(clip, images, 0, None, 1) == cache_key(clip, images, views, transform, 2)  # type: ignore[arg-type]


def test_second_call_reads_neither_images_nor_tower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = make_set(tmp_path / "data", 200, broken=(3,))
    first = cached_features(FakeClip(), images, 2, TRANSFORM, 0, tmp_path / "cache")
    again = FakeClip()

    def refuse(self: ImageSet, index: int) -> None:
        raise AssertionError("an image was read")

    monkeypatch.setattr(ImageSet, "read", refuse)
    second = cached_features(again, images, 2, TRANSFORM, 0, tmp_path / "cache")
    assert again.calls == []
    np.testing.assert_array_equal(first.features, second.features)
    assert (second.keys, second.unreadable) == (first.keys, first.unreadable)
    assert leftovers(tmp_path / "cache") == [second.folder.name]


def test_the_key_follows_every_ingredient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip, images = FakeClip(), make_set(tmp_path / "data")
    other = make_set(tmp_path / "other", 11)
    keys = [
        cache_key(clip, images, 2, TRANSFORM, 0),
        cache_key(clip, other, 2, TRANSFORM, 0),
        cache_key(clip, images.subset(range(9)), 2, TRANSFORM, 0),
        cache_key(FakeClip(seed=1), images, 2, TRANSFORM, 0),
        cache_key(clip, images, 3, TRANSFORM, 0),
        cache_key(clip, images, 2, TrainTransform(8, MEAN, STD, rand_augment=False), 0),
        cache_key(clip, images, 2, TRANSFORM, 1),
        cache_key(clip, images, 0, None, 0),
    ]
    monkeypatch.setattr(feature_cache, "FORMAT_VERSION", 999)
    keys.append(cache_key(clip, images, 2, TRANSFORM, 0))
    assert len(set(keys)) == len(keys)


def test_results_do_not_depend_on_workers(tmp_path: Path) -> None:
    images = make_set(tmp_path / "data", 101, broken=(50,))
    results = [
        cached_features(FakeClip(), images, 2, TRANSFORM, 0, tmp_path / str(workers), batch_size=8, workers=workers)
        for workers in (0, 1, 5)
    ]
    for result in results[1:]:
        np.testing.assert_array_equal(result.features, results[0].features)
        assert result.keys == results[0].keys


@pytest.mark.parametrize("broken", [0, 57, 99])
def test_an_unreadable_image_is_left_out_and_listed(tmp_path: Path, broken: int) -> None:
    images = make_set(tmp_path / "data", 100, broken=(broken,))
    clip = FakeClip()
    cached = cached_features(clip, images, 1, TRANSFORM, 0, tmp_path / "cache", batch_size=16)
    assert cached.unreadable == [images.keys[broken]]
    assert cached.features.shape == (99, 1, 6)
    rest = [index for index in range(100) if index != broken]
    assert cached.indices.tolist() == rest
    assert cached.keys == [images.keys[index] for index in rest]
    assert cached.labels.tolist() == [index % 3 for index in rest]
    clean = cached_features(clip, images.subset(rest), 1, TRANSFORM, 0, tmp_path / "cache")
    np.testing.assert_array_equal(cached.features, clean.features)


def test_more_than_one_percent_unreadable_is_an_error_and_keeps_nothing(tmp_path: Path) -> None:
    images = make_set(tmp_path / "data", 100, broken=(4, 60))
    clip = FakeClip()
    with pytest.raises(UserError, match=r"^2 of 100 images of test set .* 1 %: 004\.png, 060\.png") as caught:
        cached_features(clip, images, 2, TRANSFORM, 0, tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert leftovers(tmp_path / "cache") == []
    few = make_set(tmp_path / "few", 20, broken=(7,))
    with pytest.raises(UserError, match="1 of 20 images"):
        cached_features(clip, few, 0, None, 0, tmp_path / "cache")


def test_nothing_is_encoded_past_the_limit_but_all_is_counted(tmp_path: Path) -> None:
    images = make_set(tmp_path / "data", 60, broken=tuple(range(30)))
    clip = FakeClip()
    with pytest.raises(UserError, match=r"30 of 60 images .*: 000\.png, 001\.png, 002\.png, …"):
        cached_features(clip, images, 2, TRANSFORM, 0, tmp_path / "cache")
    assert clip.calls == []


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 4 views."""
    monkeypatch.setattr(encode_photos, "BLOCK_VIEWS", 4)


def interrupted_at(photos: int) -> Callable[[int, int], None]:
    """Progress that ends in Ctrl-C when so many photos are done."""

    def interrupt(done: int, total: int) -> None:
        if done == photos:
            raise KeyboardInterrupt

    return interrupt


def content(folder: Path) -> dict[str, bytes]:
    """The files of an entry, but for its date."""
    index = json.loads((folder / "index.json").read_text())
    del index["created"], index["index_sha256"]
    return {"index": json.dumps(index).encode(), "features": (folder / "features.npy").read_bytes()}


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("photos", [1, 2, 3, 7, 39, 100, 101])
def test_an_interrupted_run_goes_on_to_the_same_entry(
    tmp_path: Path, photos: int, capsys: pytest.CaptureFixture[str]
) -> None:
    images = make_set(tmp_path / "data", 101, broken=(50,))
    whole = cached_features(FakeClip(), images, 2, TRANSFORM, 0, tmp_path / "whole", batch_size=3)
    options = {"batch_size": 3, "progress": interrupted_at(photos)}
    with pytest.raises(KeyboardInterrupt):
        cached_features(FakeClip(), images, 2, TRANSFORM, 0, tmp_path / "cache", **options)  # type: ignore[arg-type]
    kept = 2 * ((photos - 1) // 2)  # whole blocks before the photo whose count was told
    assert leftovers(tmp_path / "cache") == ([f"{whole.folder.name}.part"] if kept else [])
    clip, seen = FakeClip(), []
    cached = cached_features(
        clip, images, 2, TRANSFORM, 0, tmp_path / "cache", batch_size=3, progress=lambda done, all_: seen.append(done)
    )
    assert sum(clip.calls) == 2 * (101 - kept - (kept <= 50))
    assert seen == list(range(kept + 1, 102))
    words = f"{kept} of 101 photos are encoded already; going on with the others"
    assert (words in capsys.readouterr().err) == (kept > 0)
    assert content(cached.folder) == content(whole.folder)
    assert leftovers(tmp_path / "cache") == [whole.folder.name]


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("name", ["entry/features.npy", "blocks.jsonl"])
def test_a_damaged_block_is_encoded_anew_and_no_other(tmp_path: Path, name: str) -> None:
    images, folder = make_set(tmp_path / "data", 101, broken=(7,)), tmp_path / "cache"
    whole = cached_features(FakeClip(), images, 2, TRANSFORM, 0, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        cached_features(FakeClip(), images, 2, TRANSFORM, 0, folder, progress=interrupted_at(101))
    (part,) = folder.iterdir()
    shutil.copytree(part, tmp_path / "part")
    places, anew = random.Random(name), []
    for _ in range(12):
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / "part", part)
        damaged = bytearray((part / name).read_bytes())
        damaged[places.randrange(len(damaged))] ^= 1 << places.randrange(8)
        (part / name).write_bytes(damaged)
        clip = FakeClip()
        cached = cached_features(clip, images, 2, TRANSFORM, 0, folder)
        assert content(cached.folder) == content(whole.folder)
        assert leftovers(folder) == [whole.folder.name]
        anew.append(sum(clip.calls))
    # one block of two photos, and the last, which was not finished; where a line's end was hit, also the next line's
    assert {*anew} <= {2, 4, 6, 8, 10}
    assert sum(calls > 2 for calls in anew) > 6


@pytest.mark.usefixtures("small_blocks")
def test_a_photo_that_can_be_read_again_moves_the_rows_of_later_blocks(tmp_path: Path) -> None:
    images, folder = make_set(tmp_path / "data", 101), tmp_path / "cache"
    whole = cached_features(FakeClip(), images, 2, TRANSFORM, 0, tmp_path / "whole")
    photo = tmp_path / "data/004.png"
    readable = photo.read_bytes()
    photo.write_bytes(b" " * len(readable))
    with pytest.raises(KeyboardInterrupt):
        cached_features(FakeClip(), images, 2, TRANSFORM, 0, folder, progress=interrupted_at(61))
    photo.write_bytes(readable)
    (part,) = folder.iterdir()
    lines = (part / "blocks.jsonl").read_text().split("\n\n")
    (part / "blocks.jsonl").write_text("\n\n".join(line for line in lines if not line.strip().startswith("[2,")))
    cached = cached_features(FakeClip(), images, 2, TRANSFORM, 0, folder)
    assert content(cached.folder) == content(whole.folder)


@pytest.mark.usefixtures("small_blocks")
def test_a_killed_run_is_not_disturbed_before_and_gone_on_with_after(tmp_path: Path) -> None:
    images, folder = make_set(tmp_path / "data"), tmp_path / "cache"
    entry = folder / cache_key(FakeClip(), images, 0, None, 0)
    fork = multiprocessing.get_context("fork")
    written = fork.Event()

    class Hanging(FakeClip):
        def encode_image(self, images: torch.Tensor) -> torch.Tensor:
            if self.calls:
                written.set()
                time.sleep(60)
            return super().encode_image(images)

    arguments = (Hanging(), images, 0, None, 0, folder)
    process = fork.Process(target=cached_features, args=arguments, kwargs={"batch_size": 4, "workers": 0})
    process.start()
    assert written.wait(60)
    part = f"{entry.name}.part"
    assert leftovers(folder) == [part]
    with pytest.raises(KeyboardInterrupt):  # another run encodes by itself, and leaves nothing
        cached_features(FakeClip(), images, 0, None, 0, folder, progress=interrupted_at(9))
    assert leftovers(folder) == [part], "the other run still writes there"
    process.kill()
    process.join()
    clip = FakeClip()
    cached = cached_features(clip, images, 0, None, 0, folder)
    assert (sum(clip.calls), len(cached)) == (6, 10)
    assert leftovers(folder) == [entry.name]


@pytest.mark.usefixtures("small_blocks")
def test_a_run_that_was_killed_behind_its_last_step_is_tidied(tmp_path: Path) -> None:
    images, folder = make_set(tmp_path / "data"), tmp_path / "cache"
    first = cached_features(FakeClip(), images, 0, None, 0, folder)
    left = folder / f"{first.folder.name}.part"
    left.mkdir()
    (left / "blocks.jsonl").touch()
    with held(left):  # by a run that is slower and still at it
        assert len(cached_features(FakeClip(), images, 0, None, 0, folder)) == 10
        assert leftovers(folder) == [first.folder.name, left.name]
    assert len(cached_features(FakeClip(), images, 0, None, 0, folder)) == 10
    assert leftovers(folder) == [first.folder.name]


@pytest.mark.parametrize("damage", ["no index", "half index", "cut features", "other shape", "no features", "position"])
def test_a_damaged_entry_is_made_anew(tmp_path: Path, damage: str) -> None:
    images, folder = make_set(tmp_path / "data"), tmp_path / "cache"
    first = cached_features(FakeClip(), images, 0, None, 0, folder)
    expected = np.array(first.features)
    index, features = first.folder / "index.json", first.folder / "features.npy"
    if damage == "no index":
        index.unlink()
    elif damage == "half index":
        index.write_text(index.read_text()[:50])
    elif damage == "cut features":
        shutil.copy(features, tmp_path / "copy.npy")
        features.unlink()
        features.write_bytes((tmp_path / "copy.npy").read_bytes()[:150])
    elif damage == "other shape":
        np.save(features, np.zeros((9, 1, 6), np.float16))
    elif damage == "no features":
        features.unlink()
    else:
        index.write_text(json.dumps({**json.loads(index.read_text()), "unreadable": [10]}))
    clip = FakeClip()
    again = cached_features(clip, images, 0, None, 0, folder)
    assert sum(clip.calls) == 10
    np.testing.assert_array_equal(again.features, expected)
    assert leftovers(folder) == [first.folder.name]
    assert len(cached_features(FakeClip(), images, 0, None, 0, folder)) == 10


@pytest.mark.parametrize("name", ["features.npy", "index.json"])
def test_a_flipped_bit_is_never_another_feature(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    images, folder = make_set(tmp_path / "data"), tmp_path / "cache"
    first = cached_features(FakeClip(), images, 2, TRANSFORM, 5, folder)
    expected, file, places = np.array(first.features), first.folder / name, random.Random(name)
    whole, anew = file.read_bytes(), 0
    for _ in range(20):
        damaged = bytearray(whole)
        damaged[places.randrange(len(whole))] ^= 1 << places.randrange(8)
        file.unlink()  # the earlier map may still be open
        file.write_bytes(damaged)
        clip = FakeClip()
        again = cached_features(clip, images, 2, TRANSFORM, 5, folder)
        np.testing.assert_array_equal(again.features, expected)
        assert again.unreadable == first.unreadable
        warned = capsys.readouterr().err.count("is damaged; it is made anew")
        assert warned == (1 if clip.calls else 0)
        anew += warned
    assert anew > 10


def test_an_entry_of_before_there_were_hashes_is_read(tmp_path: Path) -> None:
    images = make_set(tmp_path / "data")
    first = cached_features(FakeClip(), images, 2, TRANSFORM, 5, tmp_path / "cache")
    index = first.folder / "index.json"
    document = json.loads(index.read_text())
    del document["features_sha256"], document["index_sha256"]
    index.write_text(json.dumps(document))
    clip = FakeClip()
    cached_features(clip, images, 2, TRANSFORM, 5, tmp_path / "cache")
    assert clip.calls == []


def test_two_runs_that_fill_one_entry_at_once_agree(tmp_path: Path) -> None:
    images, folder = make_set(tmp_path / "data"), tmp_path / "cache"
    barrier = threading.Barrier(3)
    results: list[feature_cache.CachedFeatures] = []
    calls: list[int] = []

    class Waiting(FakeClip):
        def encode_image(self, images: torch.Tensor) -> torch.Tensor:
            calls.append(barrier.wait(timeout=30))
            return super().encode_image(images)

    def fill() -> None:
        results.append(cached_features(Waiting(), images, 2, TRANSFORM, 0, folder, batch_size=1000, workers=1))

    threads = [threading.Thread(target=fill) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(calls) == len(results) == 3
    for result in results:
        np.testing.assert_array_equal(result.features, results[0].features)
    assert leftovers(folder) == [results[0].folder.name]


def test_what_another_run_is_at_stays_where_there_is_no_room_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, folder = make_set(tmp_path / "data"), tmp_path / "cache"
    part = folder / f"{cache_key(FakeClip(), images, 0, None, 0)}.part"

    def refuse(target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(feature_workshop, "new_temporary_folder", refuse)
    with held(part):
        with pytest.raises(UserError, match=r"cannot write the feature cache .*: No space left on device; free space"):
            cached_features(FakeClip(), images, 0, None, 0, folder)
        assert (part / LOCK_FILE).exists()


def test_progress_counts_every_image(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    images = make_set(tmp_path / "data")
    cached_features(FakeClip(), images, 2, TRANSFORM, 0, tmp_path / "cache", progress=lambda *done: seen.append(done))
    assert seen == [(done, 10) for done in range(1, 11)]


def test_bad_arguments_are_refused(tmp_path: Path) -> None:
    images = make_set(tmp_path / "data")
    with pytest.raises(UserError, match="views = -1"):
        cached_features(FakeClip(), images, -1, TRANSFORM, 0, tmp_path / "cache")
    with pytest.raises(UserError, match="batch_size = 0"):
        cached_features(FakeClip(), images, 1, TRANSFORM, 0, tmp_path / "cache", batch_size=0)
    with pytest.raises(UserError, match="test set: no images to encode"):
        cached_features(FakeClip(), images.subset([]), 1, TRANSFORM, 0, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(("factor", "message"), [(float("nan"), "non-finite"), (float("inf"), "non-finite")])
def test_non_finite_features_are_refused(tmp_path: Path, factor: float, message: str) -> None:
    class Broken(FakeClip):
        def encode_image(self, images: torch.Tensor) -> torch.Tensor:
            return super().encode_image(images) * factor

    with pytest.raises(UserError, match=message):
        cached_features(Broken(), make_set(tmp_path / "data"), 0, None, 0, tmp_path / "cache")
    assert leftovers(tmp_path / "cache") == []


def test_an_unwritable_cache_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        cached_features(FakeClip(), make_set(tmp_path / "data"), 0, None, 0, tmp_path / "file" / "cache")


def test_too_little_space_is_found_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(encode_photos.shutil, "disk_usage", lambda path: usage(100, 0, 100))
    clip = FakeClip()
    with pytest.raises(UserError, match="needs 120 bytes, 100 are free"):
        cached_features(clip, make_set(tmp_path / "data"), 0, None, 0, tmp_path / "cache")
    assert clip.calls == []
    assert leftovers(tmp_path / "cache") == []


@pytest.mark.usefixtures("small_blocks")
def test_a_disk_that_fills_up_is_a_user_error_and_the_next_run_goes_on(tmp_path: Path) -> None:
    images, clip = make_set(tmp_path / "data", 40), FakeClip(embed_dim=512)
    with largest_file(20_000), pytest.raises(UserError, match=r"cannot write the feature cache .*File too large"):
        cached_features(clip, images, 0, None, 0, tmp_path / "cache", batch_size=4, workers=0)
    assert sum(clip.calls) == 20  # 16 of them fit
    clip = FakeClip(embed_dim=512)
    cached = cached_features(clip, images, 0, None, 0, tmp_path / "cache", batch_size=4, workers=0)
    assert sum(clip.calls) == 24
    assert leftovers(tmp_path / "cache") == [cached.folder.name]


def test_an_entry_with_another_header_is_read(tmp_path: Path) -> None:
    images = make_set(tmp_path / "data")
    first = cached_features(FakeClip(), images, 2, TRANSFORM, 5, tmp_path / "cache")
    header = b"\x93NUMPY\x01\x00\x76\x00" + repr({"descr": "<f2", "fortran_order": False, "shape": (10, 2, 6)}).encode()
    file = first.folder / "features.npy"
    expected, content = np.array(first.features), file.read_bytes()
    file.write_bytes(header.ljust(127) + b"\n" + content[128:])
    assert file.read_bytes() != content
    clip = FakeClip()
    again = cached_features(clip, images, 2, TRANSFORM, 5, tmp_path / "cache")
    assert clip.calls == []
    np.testing.assert_array_equal(again.features, expected)


def test_the_entry_is_a_plain_npy_file(tmp_path: Path) -> None:
    images = make_set(tmp_path / "data")
    cached = cached_features(FakeClip(), images, 2, TRANSFORM, 5, tmp_path / "cache")
    np.testing.assert_array_equal(np.load(cached.folder / "features.npy"), cached.features)
    index = json.loads((cached.folder / "index.json").read_text())
    assert (index["images"], index["views"], index["embedding"], index["seed"]) == (10, 2, 6, 5)
    assert index["transform"] == TRANSFORM.fingerprint
    assert (cached.folder.stat().st_mode & 0o700) == 0o700


def test_with_a_real_image_tower(tmp_path: Path) -> None:
    from prompt_core.clip import load_clip

    config = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 64, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1},
    }
    (tmp_path / "tiny.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="weights are random"):
        clip = load_clip(str(tmp_path / "tiny.json"))
    images = make_set(tmp_path / "data")
    transform = TrainTransform(clip.image_size, clip.image_mean, clip.image_std)
    unaugmented = cached_features(clip, images, 0, None, 0, tmp_path / "cache", batch_size=3)
    views = cached_features(clip, images, 2, transform, 0, tmp_path / "cache", batch_size=3)
    expected = clip.encode_image(torch.stack([clip.preprocess(images.read(index)) for index in range(10)]))
    # float16 keeps 11 bits: 2^-11 relative for values up to 1
    np.testing.assert_allclose(unaugmented.features[:, 0].astype(np.float32), expected.numpy(), atol=5e-4)
    assert views.features.shape == (10, 2, clip.embed_dim) == (10, 2, 8)
    np.testing.assert_allclose(np.linalg.norm(views.features.astype(np.float32), axis=-1), 1, atol=1e-3)
