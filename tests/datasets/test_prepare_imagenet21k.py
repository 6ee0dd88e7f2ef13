"""``datasets/prepare.py imagenet21k`` and ``datasets/check.py imagenet21k`` as users run them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from prompt_core.config import default_config
from prompt_core.data import write_shards
from prompt_core.data.readers.winter_21 import imagenet21k
from prompt_core.data.sources import open_images
from prompt_core.data.splits import few_shot
from prompt_core.data.write_shards import ShardOptions, prepare_shards

from ..support import class_tars as made
from ..support.class_tars import PROCESSED

Run = Callable[..., tuple[int, str, str]]
LIMIT = 30_720


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    photos = made.photos_of(dict(zip(PROCESSED, (57, 52, 75), strict=True)))
    first = sorted(photos[PROCESSED[1]])[50]
    photos[PROCESSED[1]][first] = photos[PROCESSED[1]][first][:40]  # it cannot be decoded
    return made.write_whole(tmp_path / "winter21_whole.tar", photos)


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.tar"))}


def test_shards_are_bounded_the_same_again_and_read_by_both_kinds(run: Run, whole: Path, tmp_path: Path) -> None:
    output = tmp_path / "shards"
    command = ["imagenet21k", "--from", whole, "--output", output, "--shard-bytes", LIMIT]
    code, out, error = run("prepare", *command)
    assert code == 0, error
    assert "25 photos of 3 classes in " in out
    assert "2 classes have fewer than 16 photos, the first is n00005787" in out
    assert "1 photos cannot be decoded; they are there as they are, and training leaves them out: " in out
    files = sorted(output.glob("imagenet21k_train-*.tar"))
    assert len(files) > 1
    assert max(path.stat().st_size for path in files) <= LIMIT
    expected = few_shot(imagenet21k(whole, "train"), 16, default_config().SEED)
    assert open_images(output, "train").fingerprint() == expected.fingerprint(), "recognised, and the same"
    plain = open_images(f"webdataset:{output}/imagenet21k_train-*.tar")
    assert (plain.ids, plain.names) == (expected.ids, expected.names)
    assert plain.labels.tolist() == expected.labels.tolist()
    before = hashes(output)
    code, out, _ = run("prepare", *command, "--workers", "1")
    assert (code, out.count("nothing to do")) == (0, len(files))
    run("prepare", *command[:4], tmp_path / "again", *command[5:])
    assert hashes(tmp_path / "again") == before


def test_a_stopped_run_goes_on_and_nothing_looks_whole_before(
    run: Run, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, options = tmp_path / "shards", ShardOptions(shard_bytes=LIMIT)
    prepare_shards(str(whole), tmp_path / "whole", options)
    write, written = write_shards._write_shard, []

    def stopped(path: Path, *arguments: object) -> list[str]:
        if written:
            raise KeyboardInterrupt
        written.append(path.name)
        return write(path, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(write_shards, "_write_shard", stopped)
        with pytest.raises(KeyboardInterrupt):
            prepare_shards(str(whole), output, options)
    code, _, error = run("check", f"imagenet21k:{output}")
    assert code == 2
    assert "shards in" in error
    assert "are missing or not whole, the first is imagenet21k_train-00001.tar; run the same" in error
    made_now, notes = prepare_shards(str(whole), output, options)
    assert [path.name for path, outcome in made_now.items() if outcome == "nothing to do"] == written
    assert hashes(output) == hashes(tmp_path / "whole")
    assert any("1 photos cannot be decoded" in note for note in notes), "also when its shard was there"


def test_other_photos_are_not_mixed_with_those_there(run: Run, whole: Path, tmp_path: Path) -> None:
    command = ["imagenet21k", "--from", whole, "--output", tmp_path / "shards"]
    assert run("prepare", *command)[0] == 0
    code, _, error = run("prepare", *command, "--seed", "7")
    assert code == 2
    assert "holds 25 other photos (16 shots, seed 42) or shards of another size; choose another --output" in error
    assert run("prepare", *command, "--seed", "7", "--shots", "1", "--overwrite")[0] == 0
    assert len(open_images(tmp_path / "shards", "train")) == 3
    assert run("prepare", *command, "--split", "val", "--shots", "-1")[0] == 0
    assert open_images(tmp_path / "shards", "val").fingerprint() == imagenet21k(whole, "val").fingerprint()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: --from, --output"),
        (["--from", "nothing.tar", "--output", "out"], "expected an image folder at nothing.tar/imagenet21k_train"),
        (["--from", "x", "--output", "y", "--shots", "0"], "argument --shots: "),
    ],
)
def test_bad_arguments_are_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, error = run("prepare", "imagenet21k", *arguments)
    assert code == 2
    assert error.startswith(f"error: {message}")
    assert len(error.splitlines()) == 1
    assert not any(tmp_path.iterdir())


def checked(run: Run, *arguments: str | Path) -> tuple[int, str, str]:
    """``datasets/check.py``, with what its table writes over several lines in one."""
    code, out, error = run("check", *arguments)
    return code, " ".join(out.split()), error


def test_check_says_what_is_there_and_what_is_missing(run: Run, whole: Path, tmp_path: Path) -> None:
    (tmp_path / "imagenet21k").mkdir()
    whole.rename(tmp_path / "imagenet21k" / whole.name)
    code, out, error = checked(run, "imagenet21k", "--root", tmp_path)
    assert code == 1, error
    assert "3 archives; 3 of 10,450 classes of the processed release; 10,447 missing: " in out
    assert "not indexed yet: datasets/check.py imagenet21k:" in out
    assert not list((tmp_path / "imagenet21k").glob("*.index")), "nothing is written"
    code, out, error = checked(run, f"imagenet21k:{tmp_path}/imagenet21k")
    assert code == 1, error
    assert "184 photos of 3 classes; 3 of 10,450 classes" in out
    assert "train: 3 classes, 34 photos, 33 of them read; 1 cannot be read: imagenet21k_train/n01440764/" in out
    code, out, error = checked(run, "imagenet21k", "--root", tmp_path)
    assert "184 photos of 3 classes" in out
    assert "test: 3 classes, 150 photos, 4 of them read; expected 10,450 (literature) classes" in out
    run("prepare", "imagenet21k", "--from", tmp_path / "imagenet21k", "--output", tmp_path / "imagenet21k_resized")
    code, out, error = checked(run, "imagenet21k", "--root", tmp_path)
    assert code == 1, error
    assert "1 shards, 25 photos, 16 shots of seed 42; 3 of 10,450 classes" in out
    assert "1 photos cannot be decoded: imagenet21k_train/n01440764/" in out
    next((tmp_path / "imagenet21k_resized").glob("*.tar")).unlink()
    code, out, error = checked(run, "imagenet21k", "--root", tmp_path)
    assert code == 1, error
    assert "1 shards missing or not whole: imagenet21k_train-00000.tar" in out


def test_check_counts_the_folders_of_the_processed_release(run: Run, tmp_path: Path) -> None:
    folder = made.write_folders(tmp_path / "imagenet21k_resized", made.photos_of({PROCESSED[0]: 51, PROCESSED[1]: 50}))
    code, out, error = checked(run, "imagenet21k", "--root", tmp_path)
    assert code == 1, error
    assert "1 of 10,450 classes of the processed release; 10,449 missing: n00006484, " in out
    assert "2 of 10,450 classes of the processed release; 10,448 missing: n00006484, " in out
    (folder / "imagenet21k_train" / made.UNKNOWN).mkdir()
    assert f"; 1 unknown: {made.UNKNOWN}" in checked(run, "imagenet21k", "--root", tmp_path)[1]
