"""Finding and reading runs: every form of file, names, and errors for bad input."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from pomp_lab.report.build import build_report, report_page
from pomp_lab.report.find import FoundRuns, find_runs
from pomp_lab.report.page import render_markdown
from pomp_lab.report.results import Run
from prompt_core.errors import UserError
from prompt_core.evaluation.protocol import ON_REPORTED

Write = Callable[..., Path]


def numbers_of(run: Run) -> dict[tuple[str, str], float]:
    """Data set and metric → number."""
    return {(column.dataset, column.metric): number for column, number in run.numbers.items()}


def test_a_folder_a_file_and_a_folder_of_folders(write_run: Write, tmp_path: Path) -> None:
    first = write_run("many/a", {"set/top1": 1.0}, {"set": {"split": "val"}})
    write_run("many/deep/b", {"set/top1": 2.0}, {"set": {"split": "val"}})
    # Parts of a run, other JSON files and hidden files are no runs.
    write_run("many/a/inference_set", {"set/top1": 1.0}, {"set": {"split": "val"}})
    (tmp_path / "many/notes.json").write_text("[1, 2]")
    (tmp_path / "many/.half.json").write_text("{")
    assert [run.name for run in find_runs([first]).runs] == ["a"]
    assert [run.name for run in find_runs([first / "metrics.json"]).runs] == ["a"]
    files = find_runs([tmp_path / "many"])
    assert [run.name for run in files.runs] == ["a", "deep/b"]
    assert [(file.path.name, file.reason, file.damaged) for file in files.ignored] == [
        ("notes.json", "it holds no results", False)
    ]


def test_a_damaged_line_of_a_log_is_named(write_run: Write) -> None:
    folder = write_run("a", {"set/box_AP": 1.0})
    lines = [json.dumps({"iteration": 20 * step, "total_loss": 5.0 - step}) for step in range(4)]
    log = folder / "log.jsonl"
    log.write_text("\n".join([*lines, '{"iteration": 80, "tot']))  # the last line of a run that goes on
    found = find_runs([folder])
    assert ([len(run.history) for run in found.runs], found.ignored) == ([4], [])
    lines[1] = lines[1].replace(":", ";", 1)
    log.write_text("\n".join(lines))
    for given in (folder, folder.parent):
        found = find_runs([given])
        assert [len(run.history) for run in found.runs] == [3]
        assert found.ignored == [(log, "line 2 is damaged and is left out", True)]


def test_names_with_numbers_are_in_the_order_of_the_numbers(write_run: Write, tmp_path: Path) -> None:
    for name in ("k1000", "k100", "k500"):
        write_run(f"many/{name}", {"set/top1": 1.0})
    assert [run.name for run in find_runs([tmp_path / "many"]).runs] == ["k100", "k500", "k1000"]


def test_a_run_can_be_given_a_name(write_run: Write, tmp_path: Path) -> None:
    first, second = write_run("x/run", {"set/top1": 1.0}), write_run("y/run", {"set/top1": 2.0})
    with pytest.raises(UserError, match=r"two runs are called 'run': .*x/run/metrics.json and .*y/run.*NAME="):
        find_runs([first, second])
    runs = find_runs([first, f"other={second}"]).runs
    assert [(run.name, run.label) for run in runs] == [("run", "run"), ("other", "other")]
    assert [run.name for run in find_runs([f"all={tmp_path}"]).runs] == ["all/x/run", "all/y/run"]
    with pytest.raises(UserError, match="two runs are called 'run'"):
        find_runs([first, first])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"set/top1": 1.0,', "not valid JSON"),
        ("[]", "holds no results"),
        ('{"top1": 1.0}', "holds no results"),
        ('{"set/top1": "high", "_run": {}}', "'set/top1' is 'high'; a number is expected"),
        ('{"set/top1": true, "_run": {}}', "a number is expected"),
        ('{"set/top1": 1, "_run": {}, "_protocol": {"set": "val"}}', "an object is expected"),
    ],
)
def test_bad_files_are_reported_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        find_runs([tmp_path])
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_to_read_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no runs; give"):
        find_runs([])
    with pytest.raises(UserError, match=r"no run at .*absent"):
        find_runs([tmp_path / "absent"])
    (tmp_path / "other.json").write_text("{}x")
    with pytest.raises(UserError, match="not valid JSON"):
        find_runs([tmp_path])
    (tmp_path / "other.json").write_text('{"a": 1}')
    with pytest.raises(UserError, match=r"neither a metrics\.json nor another file with results"):
        find_runs([tmp_path])


def test_foreign_and_broken_files_below_a_folder_are_listed(write_run: Write, tmp_path: Path) -> None:
    write_run("many/ours", {"set/top1": 1.0}, {"set": {"split": "val"}})
    others = {
        "detectron2/metrics.json": '{"iteration": 19, "total_loss": 1.2}\n{"iteration": 39, "total_loss": 1.1}\n',
        "short/metrics.json": '{"iteration": 19, "bbox/AP": 20.0}\n',
        "broken/x.json": '{"a": ',
        "text/metrics.json": '{"set/top1": "high", "_run": {}}',
    }
    for name, text in others.items():
        (tmp_path / "many" / name).parent.mkdir()
        (tmp_path / "many" / name).write_text(text)
    (tmp_path / "many/gone.json").symlink_to(tmp_path / "absent.json")
    files = find_runs([tmp_path / "many"])
    assert [run.name for run in files.runs] == ["ours"]
    assert {file.path.relative_to(tmp_path / "many").as_posix(): file.damaged for file in files.ignored} == {
        "detectron2/metrics.json": True,
        "short/metrics.json": False,
        "broken/x.json": True,
        "text/metrics.json": True,
        "gone.json": True,
    }
    # What is named itself is read or refused.
    for name in others:
        with pytest.raises(UserError):
            find_runs([tmp_path / "many" / name])


@pytest.mark.parametrize("about", [{"history": 5}, {"history": {"a": 1}}, {"history": "x"}, {"versions": "torch"}])
def test_odd_descriptions_of_a_run_are_no_error(write_run: Write, about: dict) -> None:
    run = find_runs([write_run("run", {"set/top1": 1.0}, **about)]).runs[0]
    assert run.history == []
    report = build_report(FoundRuns([run], []))
    assert "| run | 1 | 0 |" in render_markdown(report_page(report), "report.html")


def test_data_sets_with_slashes_and_metrics_without_numbers(write_run: Write) -> None:
    numbers = {"folder:/a/b/top1": 5.0, "c/d/top1": 6.0, "c/d/top5": None, "c/d/per_class": math.nan}
    run = find_runs([write_run("run", numbers, {"folder:/a/b": {"split": "val"}})]).runs[0]
    read = numbers_of(run)
    assert (read["folder:/a/b", "top1"], read["c/d", "top1"]) == (5.0, 6.0)
    assert math.isnan(read["c/d", "top5"])
    assert math.isnan(read["c/d", "per_class"])
    protocols = {column.dataset: column.protocol for column in run.numbers}
    assert protocols == {"folder:/a/b": {"split": "val"}, "c/d": {"protocol": "not stated by run"}}


@pytest.mark.parametrize(
    ("about", "protocol"),
    [
        ({"config": "TEST:\n  SELECT_ON_TEST: true\n"}, {}),
        ({"select_on_test": True}, {}),
        ({}, {"select_on_test": True}),
    ],
)
def test_a_choice_on_the_reported_images_is_a_word_of_the_protocol(
    write_run: Write, about: dict, protocol: dict
) -> None:
    run = find_runs([write_run("run", {"set/top1": 1.0}, {"set": {"split": "val", **protocol}}, **about)]).runs[0]
    assert run.selected_on_test
    assert [column.protocol["selection"] for column in run.numbers] == [ON_REPORTED]
    other = write_run("other", {"set/top1": 1.0}, {"set": {"split": "val"}}, config="SELECT_ON_TEST: false\n")
    assert not find_runs([other]).runs[0].selected_on_test


def test_results_files_hold_many_runs(write_base_novel: Write) -> None:
    write_base_novel('"a photo of a {}."', 40.0, 30.0, None, templates=["a photo of a {}."])
    path = write_base_novel("POMP K=100, 16 shots", 41.0, 33.0, 2, num_classes=100, correction="log10")
    hand, run = find_runs([path]).runs
    assert (hand.name, hand.label, hand.hand) == ('base_novel/"a photo of a {}."', '"a photo of a {}."', True)
    assert (run.name, run.label) == ("base_novel/POMP K=100, 16 shots/seed 2", "POMP K=100, 16 shots")
    # Names of configurations are those of the report; what the file says of all runs is said of each.
    assert run.settings == {"K": 100, "correction": "log10", "seed": 2}
    assert run.about["command"] == "compare_prompts.py"
    top1 = {column: number for column, number in run.numbers.items() if column.metric == "top1"}
    assert [(column.dataset, column.protocol["candidates"], number) for column, number in top1.items()] == [
        ("tiny_base_of_own", 160, 41.0),
        ("tiny_base_of_both", 200, 36.0),
        ("tiny_novel_of_own", 40, 33.0),
        ("tiny_novel_of_both", 200, 28.0),
    ]
    assert numbers_of(run)["tiny_novel_of_own", "uniformity"] == -3.0


def test_a_run_that_several_tables_hold_counts_once(write_run: Write, tmp_path: Path) -> None:
    """Known by its id: with all its names and all its data sets."""
    about = {"id": "f" * 16, "settings": {"K": 1000}}
    write_run("a", {"set/top1": 1.0}, {"set": {"split": "val"}}, row="K = 1000", **about)
    write_run("b", {"set/top1": 1.0}, {"set": {"split": "val"}}, row="K = 1000", **about)
    write_run("c", {"other/top1": 2.0}, {"other": {"split": "val"}}, row="POMP", **about)
    (run,) = find_runs([tmp_path]).runs
    assert (run.label, list(numbers_of(run))) == ("K = 1000 / POMP", [("set", "top1"), ("other", "top1")])


def test_the_prompts_of_a_demonstration_are_rows(write_run: Write) -> None:
    numbers = {"base_of_own/top1_chance": 1.0, "base_of_own/top1_photo": 50.0, "base_of_own/top1_learned": 60.0}
    numbers |= {"base_of_own/top5_learned": 80.0, "base_of_own/top1_gain": 10.0, "base_of_own/top1_gain_margin": 2.0}
    runs = find_runs([write_run("demo", numbers, {"base_of_own": {"split": "val"}})]).runs
    data_set = "base_of_own"
    assert [(run.label, run.hand, numbers_of(run)) for run in runs] == [
        ("demo: chance", False, {(data_set, "top1"): 1.0}),
        ("demo: photo", True, {(data_set, "top1"): 50.0}),
        ("demo: learned", False, {(data_set, "top1"): 60.0, (data_set, "top5"): 80.0}),
    ]


def test_how_a_scored_prompt_was_learned_is_read_from_its_file(write_run: Write, tmp_path: Path) -> None:
    import torch

    from prompt_core import SoftPrompt

    prompt = tmp_path / "prompt.safetensors"
    SoftPrompt(torch.zeros(2, 4)).save(
        prompt, K=100, correction="ln", training={"epochs": 3, "seed": 5}, vocabulary={"size": 1000}
    )
    run = find_runs([write_run("run", {"set/top1": 1.0}, prompt=str(prompt))]).runs[0]
    assert {key: run.settings[key] for key in ("K", "correction", "epochs", "seed", "names")} == {
        "K": 100,
        "correction": "ln",
        "epochs": 3,
        "seed": 5,
        "names": 1000,
    }
    lost = find_runs([write_run("gone", {"set/top1": 1.0}, prompt="elsewhere.safetensors")]).runs[0]
    hand = find_runs([write_run("hand", {"set/top1": 1.0}, prompt="a photo of a {}.")]).runs[0]
    assert (lost.settings, lost.hand, hand.settings, hand.hand) == ({}, False, {}, True)
    ensemble = find_runs([write_run("ensemble", {"set/top1": 1.0}, prompt="selected_own")]).runs[0]
    published = find_runs([write_run("published", {"set/top1": 1.0}, prompt="ctx.pth.tar")]).runs[0]
    assert (ensemble.hand, published.hand) == (True, False)


def test_logs_and_classes_next_to_a_run(all_kinds: Path, write_run: Write) -> None:
    folder = write_run("detector", {"lvis_v1_val/box_AP": 36.0}, {"lvis_v1_val": {"split": "lvis_v1_val"}})
    (folder / "inference_lvis_v1_val").mkdir()
    rows = [
        {"id": 1, "name": "cat", "box_AP": 10.0, "mask_AP": None},
        {"id": 2, "name": "bat", "box_AP": 20.0},
        {"id": 3, "name": "bat", "box_AP": 30.0},
    ]
    text = json.dumps({"dataset": "lvis_v1_val", "metric": "AP", "classes": rows})
    (folder / "inference_lvis_v1_val/per_class.json").write_text(text)
    (folder / "inference_lvis_v1_val_oracle_box").mkdir()
    (folder / "inference_lvis_v1_val_oracle_box/per_class.json").write_text(text.replace("10.0", "99.0"))
    (classes,) = find_runs([folder]).runs[0].classes.values()
    assert classes == {"cat": {"box_AP": 10.0}, "bat (2)": {"box_AP": 20.0}, "bat (3)": {"box_AP": 30.0}}
    logged = find_runs([all_kinds / "detector"]).runs[0]
    assert [entry["loss"] for entry in logged.history] == [5 / (i + 1) for i in range(5)]
    prompt = find_runs([all_kinds / "prompt"]).runs[0]
    assert [(entry["epoch"], entry["loss"]) for entry in prompt.history] == [(1, 6), (2, 5), (3, 4), (4, 3)]
