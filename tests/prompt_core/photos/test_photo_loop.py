"""Many photos, one after the other: bad ones are left out, stopped runs go on, memory holds one photo."""

from __future__ import annotations

import json
import random
import weakref
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from prompt_core.errors import UserError
from prompt_core.files import write_json
from prompt_core.photos.json_lists import write_json_lists
from prompt_core.photos.photo_list import NamedPhoto, list_photos_to_predict
from prompt_core.photos.photo_loop import Outcome, predict_photos, remove_parts
from prompt_core.photos.photo_task import PhotoTask, Records

# As Python, torch on the CPU, torch on a GPU and CUDA's libraries say it, by the height of a photo.
OUT_OF_MEMORY = {
    14: MemoryError(),
    15: RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 48000000000 bytes. Error code 12 (Cannot allocate memory)"
    ),
    16: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 44.70 GiB."),
    17: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
}


class Brightness(PhotoTask):
    """The mean of each photo, as a task; ``stop_after`` photos the process ends."""

    document = "brightness.json"

    def __init__(self, scale: float = 1.0, stop_after: int = 1000) -> None:
        self.scale, self.left = scale, stop_after
        self.predicted = 0
        self.living: list[int] = []  # photos in memory at each prediction, besides its own
        self._seen: list[weakref.ref[np.ndarray]] = []

    def identity(self) -> dict[str, Any]:
        return {"scale": self.scale}

    def predict(self, pixels: np.ndarray) -> float:
        if self.left == 0:
            raise KeyboardInterrupt
        if pixels.shape[0] == 13:
            raise UserError("13 rows bring bad luck")
        if pixels.shape[0] in OUT_OF_MEMORY:
            raise OUT_OF_MEMORY[pixels.shape[0]]
        self.living.append(sum(seen() is not None for seen in self._seen))
        self._seen.append(weakref.ref(pixels))
        self.left -= 1
        self.predicted += 1
        return self.scale * float(pixels.mean())

    def write(self, photo: NamedPhoto, pixels: np.ndarray, prediction: float, folder: Path) -> dict[str, Any]:
        if pixels.shape[0] == 18:
            raise MemoryError
        return {"mean": prediction, "size": list(pixels.shape[:2])}

    def lists(self, records: Records) -> Mapping[str, Iterable[Any]]:
        return {"photos": ({"id": photo.number, "file_name": photo.name, **record} for photo, record in records())}

    def summary(self, records: Records) -> str:
        return f"{sum(1 for _ in records())} means"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    random = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for number in range(6):
        Image.fromarray(random.integers(0, 256, (8, 9, 3), dtype=np.uint8)).save(tmp_path / f"photos/{number}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def loop(task: Brightness, output: str = "out") -> Outcome:
    Path(output).mkdir(exist_ok=True)
    return predict_photos(task, list_photos_to_predict(["photos"], Path(output)), Path(output))


def content(output: str) -> bytes:
    return Path(output, "brightness.json").read_bytes()


def test_bad_photos_are_left_out_and_told(here: Path) -> None:
    whole = Path("photos/0.png").read_bytes()
    Path("photos/1.png").write_bytes(whole[: len(whole) // 2])
    Path("photos/2.png").write_text("no photo")
    Image.new("RGB", (9, 13)).save("photos/3.png")
    Image.new("RGB", (9, 14)).save("photos/4.png")
    outcome = loop(Brightness())
    assert [path.name for path in outcome.skipped] == ["1.png", "2.png", "3.png", "4.png"]
    reasons = list(outcome.skipped.values())
    assert reasons[1] == "photo photos/2.png cannot be read: no image of a known format"
    assert reasons[2] == "photo photos/3.png: 13 rows bring bad luck"
    assert "photo photos/4.png: out of memory" in reasons[3]
    assert all(len(reason.splitlines()) == 1 for reason in reasons)
    assert [entry["id"] for entry in json.loads(content("out"))["photos"]] == [1, 6]
    assert outcome.line == "2 means in 2 photos, written to out"


def test_photos_for_which_memory_is_lacking_are_left_out(here: Path) -> None:
    for number, height in enumerate((*OUT_OF_MEMORY, 18)):
        Image.new("RGB", (9, height)).save(f"photos/{number}.png")
    outcome = loop(Brightness())
    assert len(outcome.skipped) == 5
    for path, reason in outcome.skipped.items():
        assert reason.startswith(f"photo {path}: out of memory (")
        assert len(reason.splitlines()) == 1
    assert outcome.line == "1 means in 1 photos, written to out"


def test_other_errors_of_a_library_are_no_fault_of_a_photo(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OUT_OF_MEMORY, 8, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1"):
        loop(Brightness())


def test_lines_are_on_the_disk_now_and_then_and_at_the_end(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    flushed: list[int] = []
    part = Path("out/brightness.json.part")
    monkeypatch.setattr("prompt_core.photos.part_file.time.monotonic", lambda: clock[0])
    monkeypatch.setattr(
        "prompt_core.photos.part_file.flush_to_disk", lambda path: flushed.append(path.read_bytes().count(b"\n"))
    )

    class Slow(Brightness):
        def predict(self, pixels: np.ndarray) -> float:
            clock[0] += 2.0
            return super().predict(pixels)

    loop(Slow())
    assert flushed == [2, 5, 7]  # lines with the header, at 2, 8 and 12 seconds
    assert part.read_bytes().count(b"\n") == 7


@pytest.mark.parametrize("flips", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_flipped_bit_in_a_stopped_run_is_never_another_result(here: Path, flips: int) -> None:
    loop(Brightness(), "whole")
    with pytest.raises(KeyboardInterrupt):
        loop(Brightness(stop_after=4))
    part, places, anew = Path("out/brightness.json.part"), random.Random(0), 0
    whole = part.read_bytes()
    for _ in range(flips):
        damaged = bytearray(whole)
        damaged[places.randrange(len(whole))] ^= 1 << places.randrange(8)
        part.write_bytes(damaged)
        task = Brightness()
        try:
            loop(task)
        except UserError as error:
            assert str(part) in str(error)  # noqa: PT017 - either of two ends
            continue
        assert content("out") == content("whole")
        anew += task.predicted > 2
    assert anew > flips / 2


@pytest.mark.parametrize("torn", [b"", b'{"number": 4, "file_na', b"\x00\xff\n"])
def test_a_stopped_run_goes_on_and_ends_with_the_same_bytes(here: Path, torn: bytes) -> None:
    remove_parts([loop(Brightness(), "whole")])
    with pytest.raises(KeyboardInterrupt):
        loop(Brightness(stop_after=3))
    part = Path("out/brightness.json.part")
    with part.open("ab") as stream:
        stream.write(torn)
    assert not Path("out/brightness.json").exists()
    task = Brightness()
    outcome = loop(task)
    assert task.predicted == 3
    assert content("out") == content("whole")
    remove_parts([outcome])
    assert [path.name for path in Path("out").iterdir()] == ["brightness.json"]


def test_photos_that_changed_are_predicted_anew(here: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        loop(Brightness(stop_after=4))
    Image.new("RGB", (5, 5), "white").save("photos/1.png")
    Image.new("RGB", (5, 5), "black").save("photos/7.png")
    Path("photos/3.png").unlink()  # those behind it have other numbers
    task = Brightness()
    loop(task)
    assert task.predicted == 4
    loop(Brightness(), "whole")
    assert content("out") == content("whole")


def test_an_unfinished_run_of_another_identity_is_kept(here: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        loop(Brightness(stop_after=1))
    part = Path("out/brightness.json.part")
    before = part.read_bytes()
    with pytest.raises(
        UserError, match=r"out/brightness\.json\.part holds .* other settings \(scale\); finish that run"
    ):
        loop(Brightness(scale=2.0))
    assert part.read_bytes() == before


def test_nothing_that_can_be_read_is_an_error_and_leaves_nothing(here: Path) -> None:
    for path in Path("photos").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"none of 6 photos can be read; photo photos/0\.png cannot be read: .* empty"):
        loop(Brightness())
    assert list(Path("out").iterdir()) == []


def test_numbers_that_are_not_finite_are_refused(here: Path) -> None:
    with pytest.raises(UserError, match=r"photo photos/0\.png got a number that is not finite"):
        loop(Brightness(scale=float("nan")))


def test_memory_holds_one_photo(here: Path) -> None:
    task = Brightness()
    loop(task)
    assert task.living == [0] * 6


class InBatches(Brightness):
    """The same, three at a time."""

    batch = 3

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def prepare(self, pixels: np.ndarray) -> Any:
        return pixels.copy()

    def predict_batch(self, prepared: Sequence[np.ndarray]) -> list[float]:
        self.batches.append(len(prepared))
        return [super(InBatches, self).predict(pixels) for pixels in prepared]

    def predict(self, prepared: np.ndarray) -> float:
        return self.predict_batch([prepared])[0]


def test_a_batch_is_the_same_as_one_by_one(here: Path) -> None:
    Path("photos/1.png").write_text("no photo")
    loop(Brightness(), "whole")
    task, told = InBatches(), []
    Path("out").mkdir()
    photos = list_photos_to_predict(["photos"], Path("out"))
    outcome = predict_photos(task, photos, Path("out"), lambda done, total: told.append((done, total)))
    assert task.batches == [2, 3]
    assert told == [(done, 6) for done in range(1, 7)]
    assert list(outcome.skipped) == [Path("photos/1.png")]
    assert content("out") == content("whole")


@pytest.mark.parametrize("height", [13, 15, 17])
def test_one_of_a_batch_does_not_spoil_the_others(here: Path, height: int) -> None:
    Image.new("RGB", (9, height)).save("photos/1.png")
    loop(Brightness(), "whole")
    task = InBatches()
    outcome = loop(task)
    assert task.batches == [3, 1, 1, 1, 3]
    assert list(outcome.skipped) == [Path("photos/1.png")]
    assert content("out") == content("whole")


def test_lists_are_written_as_the_whole_document(tmp_path: Path) -> None:
    document = {"empty": [], "é": [1, "a\nb\u2028", {"x": [1.5, {"y": None}], "z": []}], "one": [[]]}
    write_json(tmp_path / "whole.json", document)
    write_json_lists(tmp_path / "items.json", {name: iter(items) for name, items in document.items()})
    assert (tmp_path / "items.json").read_bytes() == (tmp_path / "whole.json").read_bytes()
