"""A Parquet part for each shard: the same as one process writes, restartable, of one request."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow")

from pomp.labelling.photo_answers import PhotoAnswers
from pomp.models.photo_classifier import PhotoClassifier
from pomp.models.photo_model import Model
from pomp.shards.parquet_parts import labelled_parts, read_parts
from pomp.shards.predict_shard import ShardPredictor, predict_shard
from pomp.shards.shard_runs import cut_in_shards
from prompt_core.errors import UserError
from prompt_core.photos.photo_list import NamedFile

Call = Callable[..., tuple[int, str, str]]
WORDS = ["--words", "bus,car,pedestrian"]
ROOT = Path(__file__).resolve().parents[3]


def parts(folder: str = "parts") -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


@pytest.mark.parametrize(
    ("names", "shards"),
    [
        ("a.jpg b.jpg c.jpg d.jpg e.jpg", ["a.jpg b.jpg", "c.jpg d.jpg", "e.jpg"]),
        ("a.jpg b.tar c.jpg d.jpg e.mp4 f.tar", ["a.jpg", "b.tar", "c.jpg d.jpg", "e.mp4", "f.tar"]),
    ],
)
def test_archives_and_videos_are_shards_of_their_own(names: str, shards: list[str]) -> None:
    cut = cut_in_shards([NamedFile(Path(name), name) for name in names.split()], 2)
    assert [" ".join(file.name for file in shard.files) for shard in cut] == shards
    assert [shard.number for shard in cut] == list(range(len(shards)))


def test_two_processes_write_what_one_does(
    street_photos: Path, call_pomp: Call, mini_classifier: PhotoClassifier
) -> None:
    with tarfile.open("packed.tar", "w") as archive:
        archive.add("photos/0.jpg")
    Path("cut.tar").write_bytes(Path("packed.tar").read_bytes()[:2000])
    Path("photos/1.jpg").write_text("no photo")
    base = [mini_classifier, "classify", "photos", "packed.tar", "cut.tar", *WORDS, "--shard-size", "4"]
    assert call_pomp(*base, "--output", "parts", "--shard", "2/2")[0] == 0
    assert parts() == ["part-00001.parquet", "part-00003.parquet", "shards.json"]
    assert call_pomp(*base, "--output", "parts", "--shard", "1/2", "--strict")[0] == 1
    rows = list(read_parts("parts"))
    names = [*(f"photos/{number}.jpg" for number in range(6)), "packed.tar/photos/0.jpg", "cut.tar"]
    assert [row["file_name"] for row in rows] == names
    assert rows[1]["error"] == "photo photos/1.jpg cannot be read: no image of a known format"
    assert "archive cut.tar is truncated" in rows[-1]["error"]
    assert call_pomp(*base, "--output", "out")[0] == 2  # a request for one document is told of it before
    assert call_pomp(mini_classifier, "classify", "photos", *WORDS, "--output", "out")[0] == 0
    lines = [json.loads(line) for line in Path("out/results.jsonl").read_text().splitlines()]
    assert [row for row in rows[:6] if row["error"] is None] == [{"error": None, **line} for line in lines]
    assert rows[6]["best"] == rows[0]["best"]
    told = {photo.name: photo.scores for photo in labelled_parts("parts")}
    assert set(told) == set(names) - {"photos/1.jpg", "cut.tar"}


def test_finished_shards_are_left_out_and_a_half_one_goes_on(
    street_photos: Path, call_pomp: Call, mini_classifier: PhotoClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PhotoAnswers, "batch", 1)
    base = [mini_classifier, "classify", "photos", *WORDS, "--shard-size", "3", "--output", "parts", "--shard", "1/1"]
    predict, predicted = PhotoAnswers.predict_batch, []

    def stopping(self: PhotoAnswers, prepared: Any) -> Any:
        if len(predicted) == 5:
            raise KeyboardInterrupt
        predicted.append(1)
        return predict(self, prepared)

    with monkeypatch.context() as patched:
        patched.setattr(PhotoAnswers, "predict_batch", stopping)
        assert call_pomp(*base)[0] == 130
    assert parts() == ["part-00000.parquet", "shards.json", "unfinished"]
    before = Path("parts/part-00000.parquet").stat()
    again: list[int] = []
    monkeypatch.setattr(PhotoAnswers, "predict_batch", lambda self, some: again.append(1) or predict(self, some))
    code, out, _ = call_pomp(*base)
    assert (code, len(again)) == (0, 1)
    assert "1 of 2 shards are left for process 1 of 1" in out
    assert parts() == ["part-00000.parquet", "part-00001.parquet", "shards.json"]
    assert Path("parts/part-00000.parquet").stat().st_mtime_ns == before.st_mtime_ns
    assert len(list(read_parts("parts"))) == 6


def test_parts_of_another_request_are_not_mixed(
    street_photos: Path, call_pomp: Call, mini_classifier: PhotoClassifier
) -> None:
    base = [mini_classifier, "classify", "--output", "parts", "--shard", "1/1", "photos"]
    assert call_pomp(*base, *WORDS)[0] == 0
    for changed, what in (
        (["--words", "bus"], "other request (words)"),
        ([*WORDS, "--negatives", "van"], "other request (negatives)"),
        ([*WORDS, "--shard-size", "2"], "other photos (names, shards)"),
    ):
        code, _, error = call_pomp(*base, *changed)
        assert (code, what in error) == (2, True), error
    Path("parts/part-00000.parquet").unlink()
    mini_classifier.threshold = 0.9
    try:
        code, _, error = call_pomp(*base, *WORDS)
    finally:
        mini_classifier.threshold = 0.5
    assert (code, "other model (threshold)" in error) == (2, True)


def test_parts_have_no_files_of_other_tools(street_photos: Path, call_pomp: Call, mini_classifier: Model) -> None:
    base = [mini_classifier, "classify", "photos", *WORDS, "--output", "parts", "--shard", "1/1"]
    code, _, error = call_pomp(*base, "--format", "csv")
    assert (code, "Parquet parts, no --format" in error) == (2, True)
    with pytest.raises(UserError, match=r"parts holds no part-00000\.parquet"):
        list(read_parts("parts"))


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> Callable[[Model], None]:
    """Lets a model that is loaded be what is loaded."""
    return lambda model: monkeypatch.setattr("pomp.shards.predict_shard.load", lambda *given, **options: model)


def test_a_batch_of_paths_is_a_table(
    street_photos: Path, loaded: Callable[[Model], None], mini_detector: Model, mini_segmenter: Model
) -> None:
    loaded(mini_detector)
    detected = ShardPredictor(words=["bus", "car"])({"path": ["photos/0.jpg", "none.jpg"]})
    found, missing = detected.to_pylist()
    described = mini_detector.describe("photos/0.jpg")["detections"]
    assert [(row["word"], row["score"], row["area"], row["mask"]) for row in found["detections"]] == [
        (row["word"], row["score"], row["area"], row["segmentation"]) for row in described
    ]
    assert missing["error"] == "photo none.jpg cannot be read: no such file"
    assert missing["detections"] is None
    loaded(mini_segmenter)
    (row,) = predict_shard(["photos/0.jpg"], task="segment", words=["bus", "road"], negatives=["sky"]).to_pylist()
    assert {entry["word"] for entry in row["words"] if not entry["negative"]} <= {"bus", "road"}
    assert row["label_map"].startswith(b"\x89PNG")
    with pytest.raises(UserError, match="a shard without photos"):
        predict_shard([])


@pytest.mark.slow
def test_under_torchrun(street_photos: Path) -> None:
    """Two processes, killed once, end with the parts of one."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = ["-m", "pomp", "classify", "photos", *WORDS, "--shard-size", "2"]
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *command]
    subprocess.run([*run, "--output", "parts"], env=environment, check=True, timeout=300, capture_output=True)
    assert parts() == [*(f"part-{number:05d}.parquet" for number in range(3)), "shards.json"]
    Path("parts/part-00001.parquet").unlink()
    done = subprocess.run(
        [*run, "--output", "parts"], env=environment, check=True, timeout=300, capture_output=True, text=True
    )
    assert "1 of 3 shards are left for process 2 of 2" in done.stdout
    assert "0 of 3 shards are left for process 1 of 2" in done.stdout
    single = [sys.executable, *command, "--output", "single", "--shard", "1/1"]
    subprocess.run(single, env=environment, check=True, timeout=300, capture_output=True)
    assert list(read_parts("parts")) == list(read_parts("single"))
