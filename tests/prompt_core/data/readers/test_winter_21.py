"""ImageNet-21K in each form: the same classes, keys and few shots; damage is counted, and costs nothing else."""

from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_core.data.images import ImageSet, UnreadableImage
from prompt_core.data.readers import class_tars
from prompt_core.data.readers.class_tars import processed_wnids
from prompt_core.data.readers.folder import wordnet_names
from prompt_core.data.readers.winter_21 import VAL_PHOTOS, imagenet21k
from prompt_core.data.sources import open_images
from prompt_core.data.splits import few_shot
from prompt_core.data.write_shards import ShardOptions, prepare_shards
from prompt_core.errors import UserError
from prompt_core.vocabulary import Vocabulary

from ....support import class_tars as made
from ....support import hostile
from ....support.class_tars import PROCESSED, SMALL, UNKNOWN

COUNTS = dict(zip(PROCESSED, (57, 52, 75), strict=True))


def shots_of(source: str, seed: int = 1) -> ImageSet:
    return few_shot(open_images(source, "train"), 16, seed)


def test_names_ids_and_their_number_come_from_the_packaged_vocabulary() -> None:
    vocabulary = Vocabulary.load("imagenet21k")
    assert len(vocabulary) == 21_843
    assert list(vocabulary.ids or ()) == sorted(map(str, vocabulary.ids or ()))
    wnids = processed_wnids()
    assert len(wnids) == 10_450
    assert list(wnids) == sorted(set(wnids) & set(map(str, vocabulary.ids or ())))
    name_of = dict(zip(vocabulary.ids or (), vocabulary.names, strict=True))
    assert wordnet_names(wnids) == {wnid: name_of[wnid] for wnid in wnids}
    assert wordnet_names(["n04399382", "n99999999"]) == {"n04399382": "teddy"}, "only ImageNet-1K has it"
    assert set(PROCESSED) < set(wnids)
    assert SMALL not in wnids
    assert VAL_PHOTOS == made.VAL


def test_every_form_gives_the_same_photos_and_shots(tmp_path: Path) -> None:
    photos = made.photos_of(COUNTS)
    forms = {
        "folders": f"imagenet21k:{made.write_folders(tmp_path / 'folders', photos)}",
        "whole": f"imagenet21k:{made.write_whole(tmp_path / 'winter21_whole.tar', photos)}",
        "in another order": f"imagenet21k:{made.write_whole(tmp_path / 'other/whole.tar', photos, seed=9)}",
        "class tars": f"imagenet21k:{made.write_class_tars(tmp_path / 'tars', photos)}",
        "shards": f"imagenet21k:{made.write_shards(tmp_path / 'shards', photos)}",
    }
    prepare_shards(
        str(tmp_path / "winter21_whole.tar"), tmp_path / "prepared", ShardOptions(seed=1, shard_bytes=30_720)
    )
    assert len(list((tmp_path / "prepared").glob("*.tar"))) > 1
    train, val = ({name: open_images(text, split) for name, text in forms.items()} for split in ("train", "val"))
    for name, images in train.items():
        assert images.ids == list(PROCESSED), name
        assert dict(zip(images.ids, images.names, strict=True)) == wordnet_names(PROCESSED), name
        assert np.bincount(images.labels).tolist() == [7, 2, 25], name
        assert images.fingerprint() == train["folders"].fingerprint(), name
        assert val[name].fingerprint() == val["folders"].fingerprint(), name
        assert val[name].read(0).size == (4, 4)
    shots = {name: shots_of(text) for name, text in forms.items()}
    shots["prepared"] = shots_of(f"imagenet21k:{tmp_path / 'prepared'}")
    assert len({images.fingerprint() for images in shots.values()}) == 1
    assert shots["prepared"].keys == shots["folders"].keys
    for images in shots.values():
        assert images.read_bytes(3) == photos[images.ids[images.labels[3]]][images.keys[3].rpartition("/")[2]]
    assert shots_of(forms["whole"], seed=2).keys != shots["whole"].keys


def test_bare_paths_are_recognised(tmp_path: Path) -> None:
    photos = made.photos_of({PROCESSED[0]: 53})
    whole = made.write_whole(tmp_path / "a/winter21_whole.tar", photos)
    sources = [whole, whole.parent, made.write_class_tars(tmp_path / "b", photos)]
    assert {open_images(source, "train").keys[0] for source in sources} == {
        f"imagenet21k_train/{PROCESSED[0]}/{sorted(photos[PROCESSED[0]])[50]}"
    }
    assert open_images("imagenet21k", "val", root=tmp_path / "a").ids == [PROCESSED[0]]
    (tmp_path / "link.tar").symlink_to(whole)
    assert imagenet21k(tmp_path / "link.tar", "val").ids == [PROCESSED[0]]
    assert (tmp_path / "link.tar.index").is_dir(), "beside the link, where its archive's folder cannot be written"


def test_shards_in_several_folders(tmp_path: Path) -> None:
    photos = made.photos_of(COUNTS)
    pattern = Path(made.write_shards(tmp_path / "a", photos, 2))
    (tmp_path / "b").mkdir()
    (tmp_path / "a/w21-0001.tar").rename(tmp_path / "b/w21-0001.tar")
    images = imagenet21k(tmp_path / "{a/w21-0000,b/w21-0001}.tar", "train")
    assert images.shards == ("a/w21-0000.tar", "b/w21-0001.tar")
    whole = imagenet21k(made.write_whole(tmp_path / "whole.tar", photos), "train")
    assert images.fingerprint() == whole.fingerprint()
    assert {images.read(index).size for index in range(len(images))} == {(4, 4)}
    with pytest.raises(UserError, match=r"w21-0001.tar: no such file"):
        imagenet21k(pattern, "train")


def test_small_classes_are_apart_and_a_tree_names_classes(tmp_path: Path) -> None:
    import torch

    photos = made.photos_of({PROCESSED[0]: 53, SMALL: 5})
    whole = made.write_whole(tmp_path / "winter21_whole.tar", photos)
    images = imagenet21k(whole, "train")
    assert images.ids == [PROCESSED[0]]
    assert "1 classes beyond the processed release left out" in images.source
    small = open_images(f"imagenet21k:{whole}#small", "train")
    assert (small.ids, small.names, len(small)) == ([SMALL], ["organism"], 5)
    folders = made.write_folders(tmp_path / "folders", {PROCESSED[0]: photos[PROCESSED[0]]})
    for name, content in photos[SMALL].items():
        path = folders / "imagenet21k_small_classes" / SMALL / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert imagenet21k(f"{folders}#small", "val").fingerprint() == small.fingerprint()
    torch.save({"class_description": {PROCESSED[0]: "a being"}}, tmp_path / "imagenet21k_miil_tree.pth")
    assert imagenet21k(whole, "val").names == ["a being"]


def test_damage_is_counted_and_listed_and_costs_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = made.photos_of(COUNTS)
    tars = made.class_tars(photos)
    first, second, third = (f"{wnid}.tar" for wnid in PROCESSED)
    name = made.shuffled(photos[PROCESSED[0]])[3][0]
    photos[PROCESSED[0]][name] = photos[PROCESSED[0]][name][:30]
    of_first = photos[PROCESSED[0]]
    tars[first] = made.tar_bytes([*of_first.items(), ("notes.txt", b"text"), (name, of_first[name])])
    tars[second] = tars[second][:-11_000]
    tars[f"{UNKNOWN}.tar"] = made.tar_bytes([(f"{UNKNOWN}_1.JPEG", b"x")])
    members = [(f"w/{name}", content) for name, content in tars.items()]
    whole = tmp_path / "winter21_whole.tar"
    members += [("w/README", b"text"), ("w/stray_1.JPEG", b"x"), (f"w/{third}", tars[third])]
    whole.write_bytes(made.tar_bytes(members))
    images = imagenet21k(whole, "train")
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "6 faults in" in error
    assert "6 faults in the archives" in images.source
    assert images.ids == list(PROCESSED)
    assert np.bincount(images.labels).tolist()[::2] == [7, 25]
    unreadable = []
    everything = {split: imagenet21k(whole, split) for split in ("train", "val")}
    for of_split in everything.values():
        for index in range(len(of_split)):
            try:
                of_split.read(index)
            except UnreadableImage as problem:
                unreadable.append(problem.key.rpartition("/")[2])
    assert unreadable == [name]
    index = tmp_path / "winter21_whole.tar.index/index.json"
    text = index.read_text()
    for part in (
        f"{first}: notes.txt is no photo; left out",
        f"{PROCESSED[0]}: 1 photos are there twice; of each the last is taken",
        f"{PROCESSED[2]}: 75 photos are there twice",
        f"{UNKNOWN}.tar: {UNKNOWN}: no synset of ImageNet-21K; left out",
        "w/stray_1.JPEG is in no class tar; left out",
        f"{second} in {whole} ",
        " photos before that are used",
    ):
        assert part in text
    kept = sum(int(np.bincount(of_split.labels)[1]) for of_split in everything.values())
    assert 0 < kept < COUNTS[PROCESSED[1]]
    assert f"; {kept} photos before that are used" in text


@pytest.mark.parametrize("missing", [20_000, 700])
def test_a_truncated_outer_archive_keeps_what_is_whole(
    tmp_path: Path, missing: int, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = made.photos_of(COUNTS)
    whole = made.write_whole(tmp_path / "winter21_whole.tar", photos)
    content = whole.read_bytes()
    end = content.rstrip(b"\0")
    whole.write_bytes(content[: len(end) - missing])
    images = imagenet21k(whole, "train")
    assert len(images.ids) == 2
    assert "winter21_whole.tar is truncated inside winter21_whole/n" in capsys.readouterr().err
    whole.write_bytes(content)
    assert imagenet21k(whole, "train").ids == list(PROCESSED), "the whole one is noticed"
    assert "built anew" in capsys.readouterr().err


def test_damage_between_members_is_never_silent(tmp_path: Path) -> None:
    photos = made.photos_of({PROCESSED[0]: 60})
    inner = bytearray(made.class_tars(photos)[f"{PROCESSED[0]}.tar"])
    block = len(inner) // 1024 * 512
    damaged = {"zeros": bytes(512 * 8), "noise": b"\x07" * 512 * 8}
    for kind, noise in damaged.items():
        inner[block : block + len(noise)] = noise
        whole = tmp_path / kind / "winter21_whole.tar"
        whole.parent.mkdir()
        whole.write_bytes(made.tar_bytes([(f"w/{PROCESSED[0]}.tar", bytes(inner))]))
        assert "1 faults in the archives" in imagenet21k(whole, "val").source, kind


def test_a_disk_that_fails_is_no_damage_of_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = made.photos_of(COUNTS)
    whole, read = made.write_whole(tmp_path / "winter21_whole.tar", photos), class_tars.tar_members

    def failing(path: Path, what: str = "archive", start: int = 0, size: int | None = None) -> Any:
        if PROCESSED[1] in what:
            raise UserError(f"cannot read {what} {path}: Input/output error") from OSError(5, "Input/output error")
        return read(path, what, start, size)

    with monkeypatch.context() as patched:
        patched.setattr(class_tars, "tar_members", failing)
        with pytest.raises(UserError, match="Input/output error"):
            imagenet21k(whole, "train")
    images = imagenet21k(whole, "train")
    assert images.ids == list(PROCESSED)
    assert "faults" not in images.source


@given(content=hostile.tar_files(), nested=st.booleans())
@settings(max_examples=10, deadline=None)
def test_any_bytes_are_photos_or_a_line(content: bytes, nested: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("whole")
    whole = made.tar_bytes([(f"w/{PROCESSED[0]}.tar", content)]) if nested else content
    (folder / "winter21_whole.tar").write_bytes(whole)
    images = hostile.success_or_one_line(lambda: imagenet21k(folder / "winter21_whole.tar", "val"))
    for index in range(len(images) if images is not None else 0):
        hostile.success_or_one_line(lambda index=index: images.read(index))  # type: ignore[misc]


@pytest.mark.parametrize("place", [(7, 0, 9), (0, -5, 9), (0, 1 << 60, 9), (0, 0, 1 << 50), (0, 0, -3)])
def test_an_index_that_leads_nowhere_is_an_unreadable_photo(tmp_path: Path, place: tuple[int, int, int]) -> None:
    whole = made.write_whole(tmp_path / "winter21_whole.tar", made.photos_of({PROCESSED[0]: 52}))
    imagenet21k(whole, "val")
    places = np.load(tmp_path / "winter21_whole.tar.index/places.npy")
    places[3] = place
    np.save(tmp_path / "winter21_whole.tar.index/places.npy", places)
    images = imagenet21k(whole, "val")
    assert images.read(2).size == (4, 4)
    with pytest.raises(UnreadableImage, match=images.keys[3]):
        images.read(3)


def test_a_compressed_archive_says_what_to_do(tmp_path: Path) -> None:
    photos = made.photos_of({PROCESSED[0]: 53})
    whole = made.write_whole(tmp_path / "winter21_whole.tar", photos)
    packed = tmp_path / "packed" / "winter21_whole.tar.gz"
    packed.parent.mkdir()
    packed.write_bytes(gzip.compress(whole.read_bytes()))
    for source in (packed, packed.parent, f"imagenet21k:{packed}"):
        with pytest.raises(UserError, match=r"compressed by gzip.*gzip -dc FILE > FILE.tar") as caught:
            open_images(source, "train")
        assert len(str(caught.value).splitlines()) == 1
    plain = packed.with_name("plain.tar.gz")
    shutil.copy(whole, plain)
    packed.unlink()
    assert len(imagenet21k(plain, "train")) == 3, "what is called so may not be compressed"


def test_names_that_are_no_text_and_folders_that_look_like_patterns(tmp_path: Path) -> None:
    photos = made.photos_of({PROCESSED[0]: 53})
    inner = made.class_tars(photos)[f"{PROCESSED[0]}.tar"]
    whole = tmp_path / "[a]{b}" / os.fsdecode(b"w\xff.tar")
    whole.parent.mkdir()
    whole.write_bytes(made.tar_bytes([("w/\udcff.tar", inner)]))
    for _ in range(2):  # built, then read
        assert len(imagenet21k(whole, "train")) == 3
    prepare_shards(str(whole), whole.parent / "prepared", ShardOptions(seed=1))
    assert len(imagenet21k(whole.parent / "prepared", "train")) == 3


def test_a_pattern_may_be_longer_than_a_name_of_a_file(tmp_path: Path) -> None:
    shard = Path(made.write_shards(tmp_path, made.photos_of({PROCESSED[0]: 53}), 1))
    first = next(iter(shard.parent.glob("*.tar")))
    names = [f"a_long_name_of_a_shard_{number}" for number in range(12)]
    for name in names:
        shutil.copy(first, tmp_path / f"{name}.tar")
    assert len(imagenet21k(tmp_path / f"{{{','.join(names)}}}.tar", "train")) == 3


def test_sources_without_photos_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="expected an image folder at"):
        imagenet21k(tmp_path / "empty", "train")
    only_small = made.write_whole(tmp_path / "small.tar", made.photos_of({SMALL: 3}))
    with pytest.raises(UserError, match=f"none of the classes that are asked for, but {SMALL}"):
        imagenet21k(only_small, "train")
    few = made.write_whole(tmp_path / "few.tar", made.photos_of({PROCESSED[0]: 3}))
    with pytest.raises(UserError, match="has no photos for imagenet21k_train: at most 50 of each class"):
        imagenet21k(few, "train")
    (tmp_path / "noise.tar").write_bytes(b"noise" * 300)
    with pytest.raises(UserError, match=r"cannot read archive .*noise.tar"):
        imagenet21k(tmp_path / "noise.tar", "train")
