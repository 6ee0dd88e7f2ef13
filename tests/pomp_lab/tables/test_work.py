"""Estimates against work that is counted while it is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pomp_lab.tables.estimate import expected_seconds, job_work, seconds_per_unit
from pomp_lab.tables.jobs import Job, Opened, make_jobs
from pomp_lab.tables.runner import Runner
from pomp_lab.tables.scales import find_table
from pomp_lab.tables.store import Store
from pomp_lab.tables.work import Work, count_tokens, learning_work, scoring_work, templates_of
from prompt_core.config import load_config
from prompt_core.errors import UserError
from prompt_core.text.encoder import PromptedTextEncoder

CONFIGS = Path(__file__).resolve().parents[3] / "configs/prompt"
TARGETS = ["shapes_base_novel", "shapes_sketch_base_novel"]


class Counter:
    """Counts images that the tower encodes, and names that the encoder is given with a gradient and without."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from prompt_core.clip import Clip
        from prompt_core.methods import soft_prompt

        self.images = 0
        self.passes: list[list[str]] = []
        self.scored: list[list[str]] = []
        encode_image, encode_context = Clip.encode_image, PromptedTextEncoder.encode_context
        counter = self

        def images(clip: Any, batch: Any) -> Any:
            counter.images += len(batch)
            return encode_image(clip, batch)

        def context(encoder: Any, vectors: Any, names: Any, *more: Any, **words: Any) -> Any:
            import torch

            (counter.passes if torch.is_grad_enabled() else counter.scored).append(list(names))
            return encode_context(encoder, vectors, names, *more, **words)

        monkeypatch.setattr(Clip, "encode_image", images)
        monkeypatch.setattr(soft_prompt.PromptedTextEncoder, "encode_context", context)


@pytest.fixture
def runner(shapes_root: Path, tmp_path: Path) -> Runner:
    opened = Opened(shapes_root, tmp_path / "lists")
    return Runner(find_table("cross_domain", "laptop"), Store(tmp_path / "out"), opened, lambda line: None)


def jobs_of(runner: Runner, rows: str, tmp_path: Path, *overrides: str) -> list[Job]:
    tiny = ["DATA.CACHE", str(tmp_path / "cache"), "OPTIM.EPOCHS", "2", "OPTIM.BATCH", "5", "DEVICE", "cpu", *overrides]
    return make_jobs(runner.table.chosen(rows), [0], CONFIGS, tiny, runner.opened)


def tokens(passes: list[list[str]], n_ctx: int) -> int:
    return sum(sum(count_tokens(names, n_ctx)) for names in passes)


def test_counted_work_is_what_was_estimated(runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = jobs_of(runner, "CoOp;full softmax", tmp_path)
    expected = [job_work(runner, job, TARGETS) for job in jobs]
    # 14 training images in 2 stored views, and 20 validation images in each of two looks.
    assert expected[0].image_passes == 14 * 2 + 20 * 2
    both = expected[0] + expected[1]
    assert both.image_passes == expected[0].image_passes
    counter = Counter(monkeypatch)
    runner.run(jobs, TARGETS)
    assert counter.images == both.image_passes
    assert len(counter.passes) == both.steps == 2 * 2 * 2
    assert sum(map(len, counter.passes)) == both.texts == 4 * 10 + 4 * 40
    assert tokens(counter.passes, 16) == both.tokens
    assert sum(map(len, counter.scored)) == both.scored_texts
    assert tokens(counter.scored, 16) == both.scored_tokens
    assert [job_work(runner, job, TARGETS) for job in jobs] == [Work(), Work()]


def test_sampled_steps_take_at_most_the_estimate(
    runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,) = jobs_of(runner, "POMP", tmp_path)
    cfg = job.cfg.clone()
    cfg.defrost()
    cfg.LOSS.NUM_CLASSES = 12
    job = Job(job.row, job.seed, cfg)
    expected = job_work(runner, job, TARGETS[:1])
    counter = Counter(monkeypatch)
    runner.run([job], TARGETS[:1])
    assert len(counter.passes) == expected.steps == 4
    assert expected.texts == 4 * (11 + 5)
    assert all(11 <= len(names) <= 11 + 5 for names in counter.passes)


def test_published_step() -> None:
    """K = 1000 with 128 images: 1,127 prompts, 13,060 steps of 256 images in 20 epochs over 10,450 classes."""
    cfg = load_config(CONFIGS / "imagenet21k_vitb16.yaml", ["OPTIM.BATCH", "128", "OPTIM.EPOCHS", "1"])
    names = [f"{number}" for number in range(2000)]
    work = learning_work(cfg, names, 128)
    assert (work.steps, work.texts) == (1, 1127)
    cfg = load_config(CONFIGS / "imagenet21k_vitb16.yaml")
    assert learning_work(cfg, names, 10_450 * 16).steps == 13_060


def test_tokens_are_those_behind_the_context() -> None:
    # start and context; name, full stop, end of text
    assert count_tokens(["cat", "dog"], 4) == (5, 6)
    assert count_tokens(["cat"], 16) == (17, 3)


def test_templates_and_methods_without_texts() -> None:
    for which, number in (("selected", 7), ("selected_own", 8), ("imagenet", 80)):
        cfg = load_config(None, ["METHOD.NAME", "ensemble", "METHOD.ENSEMBLE.TEMPLATES", which])
        assert templates_of(cfg) == number
        assert scoring_work(cfg, ["cat", "dog"], []).scored_texts == 2 * number
    probe = load_config(None, ["METHOD.NAME", "linear_probe", "OPTIM.BATCH", "4", "OPTIM.EPOCHS", "3"])
    assert learning_work(probe, ["cat", "dog"], 9) == Work(steps=6)
    each = load_config(None, ["METHOD.NAME", "cocoop", "LOSS.NUM_CLASSES", "0"])
    assert scoring_work(each, ["cat", "dog"], [(10, 2), (3, 1)]).scored_texts == 23


def finished(machine: str, clip: str = "mini", **more: Any) -> dict[str, Any]:
    learning = {"seconds": {"learn": 8.0, "encode": 3.0}, "tokens": 400, "image_passes": 10}
    run = {"machine": machine, "clip": clip, "learned": "a", "method": "pomp", "learning": learning}
    return {"_run": {**run, **more}, "table": "any"}


def test_time_follows_from_finished_runs_of_this_machine() -> None:
    here = finished("here", scoring={"seconds": {"encode": 1.0, "score": 2.0}, "image_passes": 10, "tokens": 20})
    other = finished("there", scoring={"seconds": {"encode": 100.0, "score": 2.0}, "image_passes": 1, "tokens": 1})
    # The second result is of the same learned method, whose learning counts once.
    again = finished("here", scoring={"seconds": {"encode": 0.0, "score": 4.0}, "image_passes": 0, "tokens": 40})
    rates = seconds_per_unit([here, other, again], "here", "mini")
    assert rates == pytest.approx({"image": 4.0 / 20, "token": 8 / 400, "scored_token": 6 / 60})
    work = Work({"a": 100}, steps=1, texts=1, tokens=1000, scored_tokens=30)
    assert expected_seconds([work], rates) == pytest.approx(20 + 20 + 3)
    # What two runs read is encoded once.
    assert expected_seconds([work, work], rates) == pytest.approx(20 + 40 + 6)
    assert expected_seconds([work], {"image": 1.0}) is None
    assert expected_seconds([Work(step_images=5)], rates) is None
    assert seconds_per_unit([here], "elsewhere", "mini") == {}
    resumed = finished("here", learning={"seconds": {}, "tokens": 400})
    assert seconds_per_unit([resumed], "here", "mini") == {}


def test_models_of_one_machine_take_their_own_time() -> None:
    large = finished("here", "ViT-B-16", learning={"seconds": {"learn": 90.0}, "tokens": 100}, learned="b")
    small = finished("here")
    assert seconds_per_unit([small, large], "here", "mini")["token"] == pytest.approx(8 / 400)
    assert seconds_per_unit([small, large], "here", "ViT-B-16") == pytest.approx({"token": 0.9})


def test_steps_inside_the_image_tower_have_a_rate_of_their_own() -> None:
    learning = {"seconds": {"learn": 60.0}, "tokens": 1000, "step_images": 300}
    inside = finished("here", method="vpt", learned="b", learning=learning)
    rates = seconds_per_unit([finished("here"), inside], "here", "mini")
    assert rates == pytest.approx({"image": 0.3, "token": 8 / 400, "step_image": 0.2})
    assert expected_seconds([Work(step_images=100, tokens=50), Work(tokens=100)], rates) == pytest.approx(20 + 2)
    # Files of before do not count these images, and their time is not that of the texts.
    del learning["step_images"]
    assert seconds_per_unit([inside], "here", "mini") == {}


@pytest.mark.parametrize("run", [5, {"scoring": []}, {"learning": {"seconds": 3}}, {"learning": {"tokens": "x"}}])
def test_times_of_damaged_results_are_left_out(run: Any) -> None:
    document = finished("here")
    document["_run"] = {**document["_run"], "learning": {}, **run} if isinstance(run, dict) else run
    assert seconds_per_unit([document], "here", "mini") == {}


def test_images_that_choose_are_not_reported(runner: Runner, tmp_path: Path) -> None:
    """Whatever split a configuration calls the reported one: what is scored are the targets."""
    sketch, plain = TARGETS[1:], TARGETS[:1]
    jobs = jobs_of(runner, "POMP", tmp_path, "SELECT.ON", "val", "EVAL.SPLIT", "train")
    with pytest.raises(UserError, match="choose the epoch of POMP, seed 0 are reported as shapes_base_novel"):
        runner.run(jobs, TARGETS)
    assert not (tmp_path / "out").exists()
    runner.check_selection(jobs, sketch)
    for given in (("SELECT.ON", "held_out", "DATA.SHOTS", "1"), ("SELECT_ON_TEST", "True"), ()):
        runner.check_selection(jobs_of(runner, "POMP;zero-shot CLIP", tmp_path, *given), plain)


def test_several_processes_may_share_an_output(tmp_path: Path) -> None:
    one, two = Store(tmp_path), Store(tmp_path)
    with one.claim("a") as mine:
        assert mine
        with two.claim("a") as also:
            assert not also
        with two.claim("b") as free:
            assert free
    with two.claim("a") as mine:
        assert mine


def test_base_and_novel_are_those_of_the_shapes(runner: Runner) -> None:
    plain, sketch = (runner.opened.target(name) for name in TARGETS)
    assert plain.counts() == {"shapes_base_of_own": (14, 7), "shapes_novel_of_own": (6, 3)}
    for one, other in zip(plain.questions, sketch.questions, strict=True):
        assert one.asked is not None
        assert other.asked is not None
        np.testing.assert_array_equal(one.asked, other.asked)
        np.testing.assert_array_equal(one.candidates, other.candidates)
    assert plain.identity != sketch.identity
