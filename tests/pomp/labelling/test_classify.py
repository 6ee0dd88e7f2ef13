"""A folder of photos and words in, a row for each photo out, as people run it."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pomp.labelling.labelled_records import words_of_answer
from pomp.labelling.photo_answers import PhotoAnswers, table_row
from pomp.models.photo_classifier import PhotoClassifier

Call = Callable[..., tuple[int, str, str]]
WORDS = "bus,car,pedestrian,tree"


def rows(folder: str = "out") -> list[dict[str, str]]:
    with open(f"{folder}/results.csv", encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def lines(folder: str = "out") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(folder, "results.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_row_for_each_photo(street_photos: Path, call_pomp: Call, mini_classifier: PhotoClassifier) -> None:
    Path("photos/2.jpg").write_text("no photo")
    mini_classifier.threshold = 0.01
    try:
        code, out, error = call_pomp(
            mini_classifier, "classify", "photos", "--words", WORDS, "--output", "out", "--format", "csv", "--gallery"
        )
        alone = [mini_classifier.describe(f"photos/{number}.jpg") for number in (0, 1, 3, 4, 5)]
    finally:
        mini_classifier.threshold = 0.5
    assert code == 0
    assert error.splitlines()[-2:] == [
        "left out: photo photos/2.jpg cannot be read: no image of a known format",
        "1 of 6 photos were left out",
    ]
    assert [line["file_name"] for line in lines()] == [f"photos/{number}.jpg" for number in (0, 1, 3, 4, 5)]
    for line, expected, row in zip(lines(), alone, rows(), strict=True):
        assert line["word"] == expected["word"]
        assert line["own_share"] == pytest.approx(expected["own_share"], abs=1e-4)  # photos of a batch, and alone
        assert [entry["word"] for entry in line["best"]] == [entry["word"] for entry in expected["best"]]
        assert row["word"] == (line["word"] or ("none of these" if line["none_of_these"] >= 0.5 else "unsure"))
        assert float(row["own_share"]) == pytest.approx(line["own_share"], abs=1e-4)
        assert (row["word_1"], row["word_4"]) == (line["best"][0]["word"], line["best"][3]["word"])
    assert {line["word"] for line in lines()} - {None}  # some photo has a word
    with Image.open("out/contact_sheet_001.jpg") as sheet:
        assert sheet.width > sheet.height / 2 > 90
    assert {path.name for path in Path("out").iterdir()} == {
        "results.csv",
        "results.jsonl",
        "contact_sheet_001.jpg",
        "csv",
        "index.html",
        "gallery",
    }
    assert "written to out" in out
    assert call_pomp(None, "classify", "photos", "--words", WORDS, "--output", "out", "--strict")[0] == 1


def test_unsure_is_not_none_of_these() -> None:
    record = {"word": None, "own_share": 0.4, "none_of_these": 0.2, "best": [{"word": "bus", "own_share": 0.4}]}
    assert table_row("a.jpg", record, 1) == ["a.jpg", "unsure", "0.4000", "0.2000", "bus", "0.4000"]
    assert words_of_answer(record) == (None, ())
    record["none_of_these"] = 0.6
    assert table_row("a.jpg", record, 1)[1] == "none of these"
    assert words_of_answer(record) == ((), ())


def test_a_table_without_output(street_photos: Path, call_pomp: Call, mini_classifier: PhotoClassifier) -> None:
    code, out, error = call_pomp(mini_classifier, "classify", "photos", "--words", WORDS, "--negatives", "road")
    assert (code, error) == (0, "")
    assert sum("photos/" in line and "%" in line for line in out.splitlines()) == 6
    assert "none of these" in out
    assert {path.name for path in street_photos.iterdir()} == {"photos"}


def test_one_photo_after_the_other(street_photos: Path, mini_classifier: PhotoClassifier) -> None:
    mini_classifier.words(WORDS.split(","), "road,sky")
    asked: list[str] = []

    def names() -> Iterator[str]:
        for name in ("photos/0.jpg", "photos/5.jpg"):
            asked.append(name)
            yield name

    found = mini_classifier.predict_many(names())
    assert asked == []
    assert len(next(found)) == len(mini_classifier.predict("photos/0.jpg"))
    assert asked == ["photos/0.jpg"]


def test_a_stopped_run_goes_on(
    street_photos: Path, call_pomp: Call, mini_classifier: PhotoClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PhotoAnswers, "batch", 2)
    command = [mini_classifier, "classify", "photos", "--words", WORDS]
    assert call_pomp(*command, "--output", "whole")[0] == 0
    predict, batches = PhotoAnswers.predict_batch, []

    def stopping(self: PhotoAnswers, prepared: Any) -> Any:
        if len(batches) == 2:
            raise KeyboardInterrupt
        batches.append(len(prepared))
        return predict(self, prepared)

    with monkeypatch.context() as patched:
        patched.setattr(PhotoAnswers, "predict_batch", stopping)
        assert call_pomp(*command, "--output", "out")[0] == 130
    assert not Path("out/results.csv").exists()
    code, _, error = call_pomp(mini_classifier, "classify", "photos", "--words", "bus", "--output", "out")
    assert (code, "with other settings (classifier, threshold, words)" in error) == (2, True)
    counted: list[int] = []
    monkeypatch.setattr(
        PhotoAnswers, "predict_batch", lambda self, some: counted.append(len(some)) or predict(self, some)
    )
    assert call_pomp(*command, "--output", "out")[0] == 0
    assert counted == [2]
    for name in ("results.csv", "results.jsonl", "contact_sheet_001.jpg"):
        assert Path("out", name).read_bytes() == Path("whole", name).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["photos"], "--words is missing"),
        (["photos", "--words", "cat,cat"], "occur more than once"),
        (["photos", "--words", "cat", "--threshold", "2"], "--threshold: a number, 0 to 1"),
        (["photos", "--words", "cat", "--format", "csv"], "--format and --shard need --output"),
        (["none", "--words", "cat"], "photo none does not exist"),
        (["photos", "--words", "cat", "--every", "0"], "frames such as 30"),
        (["photos", "--words", "cat", "--output", "out", "--format", "cocoa"], "format 'cocoa' is not one of"),
    ],
)
def test_mistakes_get_one_line(
    street_photos: Path, call_pomp: Call, mini_classifier: PhotoClassifier, arguments: list[str], message: str
) -> None:
    code, _, error = call_pomp(mini_classifier, "classify", *arguments)
    assert code == 2
    (line,) = error.strip().splitlines()
    assert line.startswith("error: ")
    assert message in line


@pytest.mark.slow
def test_without_detectron2(street_photos: Path) -> None:
    code = (
        "import sys\nfor name in ('detectron2', 'pycocotools', 'supervision', 'cv2'): sys.modules[name] = None\n"
        "from pomp.console import dispatch\n"
        f"sys.exit(dispatch(['classify', 'photos', '--words', {WORDS!r}, '--output', 'out']))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    assert len(lines()) == 6
