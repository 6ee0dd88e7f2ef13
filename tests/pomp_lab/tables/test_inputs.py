"""What is learned from and scored: base and novel shapes, halves of photos, images that choose and are reported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pomp_lab.runs import RunStore
from pomp_lab.tables.command import find_table
from pomp_lab.tables.data_folders import DataFolders
from pomp_lab.tables.jobs import Inputs, Job, make_jobs
from pomp_lab.tables.runner import Runner, check_selection
from pomp_lab.tables.scored_sets import open_target
from prompt_core.errors import UserError

CONFIGS = Path(__file__).resolve().parents[3] / "configs/prompt"
TARGETS = ["shapes_base_novel", "shapes_sketch_base_novel"]


@pytest.fixture
def inputs(shapes_root: Path, tmp_path: Path) -> Inputs:
    return Inputs(DataFolders(shapes_root), tmp_path / "lists")


def jobs_of(inputs: Inputs, rows: str, *overrides: str) -> list[Job]:
    return make_jobs(find_table("cross_domain", "laptop").chosen(rows), [0], CONFIGS, overrides, inputs)


def test_images_that_choose_are_not_reported(inputs: Inputs, tmp_path: Path) -> None:
    """Whatever split a configuration calls the reported one: what is scored are the targets."""
    plain, sketch = (open_target(name, inputs.folders) for name in TARGETS)
    jobs = jobs_of(inputs, "POMP", "SELECT.ON", "val", "EVAL.SPLIT", "train")
    store = RunStore(tmp_path / "out/runs", tmp_path / "out/table.json")
    with pytest.raises(UserError, match="choose the epoch of POMP, seed 0 are reported as shapes_base_novel"):
        Runner(store, tmp_path / "out/learned").run(jobs, [plain, sketch])
    assert not (tmp_path / "out").exists()
    check_selection(jobs, [sketch])
    for given in (("SELECT.ON", "held_out", "DATA.SHOTS", "1"), ("SELECT_ON_TEST", "True"), ()):
        check_selection(jobs_of(inputs, "POMP;zero-shot CLIP", *given), [plain])


def test_rows_that_change_their_configuration_are_no_runs_of_it(inputs: Inputs) -> None:
    def as_configured(rows: str, *overrides: str) -> list[bool]:
        return [job.as_configured for job in jobs_of(inputs, rows, *overrides)]

    assert as_configured("POMP;full softmax;CoOp") == [True, False, False]
    assert as_configured("POMP", "OPTIM.LR", "0.05") == [False]
    assert as_configured("POMP", "DATA.CACHE", "elsewhere") == [True]


def test_base_and_novel_are_those_of_the_shapes(inputs: Inputs) -> None:
    plain, sketch = (open_target(name, inputs.folders) for name in TARGETS)
    counts = {
        question.dataset: (len(plain.images_of(question)), len(question.candidates)) for question in plain.questions
    }
    assert counts == {"shapes_base_of_own": (14, 7), "shapes_novel_of_own": (6, 3)}
    for first, second in zip(plain.questions, sketch.questions, strict=True):
        assert first.asked is not None
        assert second.asked is not None
        np.testing.assert_array_equal(first.asked, second.asked)
        np.testing.assert_array_equal(first.candidates, second.candidates)
    assert plain.identity != sketch.identity
