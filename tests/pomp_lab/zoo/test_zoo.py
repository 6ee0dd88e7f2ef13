"""The model zoo: rules on a small tree, mappings that must exist, and the committed page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pomp_lab.zoo.configurations import bases, commands, commands_in, read_configurations
from pomp_lab.zoo.measured import _detector_digests, _segmenter_digests, measured
from pomp_lab.zoo.page import zoo_page
from pomp_lab.zoo.published import load_mapping, published
from prompt_core.config import load_config
from prompt_core.errors import UserError
from prompt_core.files import sha256_of_json

ROOT = Path(__file__).resolve().parents[3]
LEARN = "python tools/pretrain_prompt.py --config configs/prompt/one.yaml --output runs/one"
FILES = {
    # A base by its name, a base without data, and one that is a run although another inherits from it.
    "prompt/base_all.yaml": f"# What all share.\n#   {LEARN}\nDATA:\n  TRAIN: imagenet\n",
    "prompt/shared.yaml": "# Vectors. Shared.\n_BASE_: other/base.yaml\nMETHOD:\n  NAME: coop\n",
    "prompt/other/base.yaml": "# Nothing is set here.\nDATA:\n  TRAIN: ''\n",
    "prompt/one.yaml": f'# {LEARN}\n#\n# One prompt, "a {{}}." and\n# more. Then others.\n_BASE_: base_all.yaml\n',
    "prompt/two.yaml": "# Two: as one, longer.\n_BASE_: one.yaml\nOPTIM:\n  EPOCHS: 3\n",
    "prompt/mini_three.yaml": "# Three is (small). More.\n_BASE_: shared.yaml\n",
    "mini/scenes.yaml": "# Scenes. tools/many.py runs this file.\nMODEL:\n  ROI_HEADS: {NUM_CLASSES: 2}\n",
    "mini/stage.yaml": "# Stage 1 of configs/mini/scenes.yaml.\nMODEL:\n  SEM_SEG_HEAD: {NUM_CLASSES: 2}\n",
    "seg.yaml": '# All\n# are seen.\nMODEL:\n  CLIP_ADAPTER: {}\nDATASETS:\n  TRAIN: ("a",)\n  TEST: ("b",)\n',
    "seg_elsewhere.yaml": '# Elsewhere.\n_BASE_: seg.yaml\nMODEL:\n  WEIGHTS: x.pth\nDATASETS:\n  TEST: ("c",)\n',
}
MANY = '"""Many.\n\n    python tools/many.py --shapes shapes \\\n        --output runs/many\n"""\n'


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "configs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools/many.py").write_text(MANY, encoding="utf-8")
    return tmp_path


def write_results(tree: Path, name: str, document: dict[str, Any]) -> None:
    path = tree / "docs/results" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")


def test_bases_are_found_by_rule(tree: Path) -> None:
    files = read_configurations(tree)
    named = {"prompt/base_all", "prompt/shared", "prompt/other/base"}
    assert bases(files) == {f"configs/{name}.yaml" for name in named}


def test_a_file_called_base_that_nothing_inherits_is_run(tree: Path) -> None:
    (tree / "configs/prompt/base_alone.yaml").write_text("# Alone.\nDATA:\n  TRAIN: imagenet\n", encoding="utf-8")
    assert "configs/prompt/base_alone.yaml" not in bases(read_configurations(tree))


def test_first_sentences(tree: Path) -> None:
    about = {name.removeprefix("configs/"): file.about for name, file in read_configurations(tree).items()}
    assert about["prompt/one.yaml"] == 'One prompt, "a {}." and more.'
    assert about["prompt/mini_three.yaml"] == "Three is (small)."
    assert about["seg.yaml"] == "All are seen."
    assert about["mini/stage.yaml"] == "Stage 1 of configs/mini/scenes.yaml."


def test_tasks_and_sizes(tree: Path) -> None:
    found = {name: (file.task, file.small) for name, file in read_configurations(tree).items()}
    assert found["configs/prompt/two.yaml"] == ("classification", False)
    assert found["configs/prompt/mini_three.yaml"] == ("classification", True)
    assert found["configs/mini/scenes.yaml"] == ("detection", True)
    assert found["configs/seg_elsewhere.yaml"] == ("segmentation", False)


def test_commands(tree: Path) -> None:
    files = read_configurations(tree)
    own = {name.removeprefix("configs/"): commands(file, files) for name, file in files.items()}
    assert own["prompt/one.yaml"] == [LEARN]
    assert own["prompt/two.yaml"] == [
        "python tools/pretrain_prompt.py --config configs/prompt/two.yaml --output runs/two"
    ]
    assert own["mini/scenes.yaml"] == ["python tools/many.py --shapes shapes --output runs/many"]
    assert own["mini/stage.yaml"] == own["mini/scenes.yaml"]
    assert own["seg.yaml"] == ["python tools/train_net.py --config configs/seg.yaml --num-gpus 8"]
    assert own["seg_elsewhere.yaml"] == [
        "python tools/train_net.py --config configs/seg_elsewhere.yaml --num-gpus 8 --eval-only"
    ]
    assert commands_in("a\n  python b.py \\\n     c\npython d.py") == ["python b.py c", "python d.py"]


def test_a_run_without_a_comment_or_a_task_is_named(tree: Path) -> None:
    (tree / "configs/bare.yaml").write_text("SEED: 1\n", encoding="utf-8")
    file = read_configurations(tree)["configs/bare.yaml"]
    with pytest.raises(UserError, match=r"configs/bare.yaml does not begin with a comment"):
        _ = file.about
    with pytest.raises(UserError, match=r"configs/bare.yaml: no key tells its task"):
        _ = file.task


@pytest.mark.parametrize("text", ["# A.\n_BASE_: absent.yaml\n", "# A.\nDATA: [\n"])
def test_a_file_that_cannot_be_read_is_named(tree: Path, text: str) -> None:
    (tree / "configs/broken.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"configs/broken.yaml cannot be read"):
        read_configurations(tree)


def test_no_configurations(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no configuration below"):
        read_configurations(tmp_path)


def test_results_by_their_command(tree: Path) -> None:
    for seed, number in enumerate((50.0, 52.0)):
        command = "train_net.py --config configs/seg.yaml --num-gpus 0 SOLVER.MAX_ITER 10"
        row = {"row": "hand prompt", "seed": seed, "metrics": {"hIoU": number}, "_protocol": {"split": "b"}}
        write_results(tree, f"rows/{seed}.json", {**row, "settings": {"config": "configs/seg.yaml", "seed": seed}})
        write_results(tree, f"{seed}.json", {"b/hIoU": number, "_run": {"command": command}, "_protocol": {"b": {}}})
    write_results(tree, "other.json", {"b/hIoU": 1.0, "_run": {"command": "train_net.py --config configs/no.yaml"}})
    found = measured(tree, read_configurations(tree))
    assert set(found) == {"configs/seg.yaml"}
    rows = [each for each in found["configs/seg.yaml"] if each.row]
    assert [(each.row, each.seeds, each.numbers, each.file) for each in rows] == [
        ("hand prompt", 2, (("b", (("hIoU", "51.0 ± 1.0"),)),), "docs/results/rows")
    ]
    alone = [each for each in found["configs/seg.yaml"] if not each.row]
    assert {each.settings for each in alone} == {"SOLVER.MAX_ITER 10"}
    assert {each.file for each in alone} == {"docs/results/0.json", "docs/results/1.json"}


def test_runs_that_differ_in_more_than_the_seed_share_no_mean(tree: Path) -> None:
    for seed, scenes in ((0, 10), (1, 20)):
        row = {"row": "a", "seed": seed, "metrics": {"hIoU": 5.0}, "_protocol": {"split": "b"}}
        settings = {"config": "configs/seg.yaml", "seed": seed, "scenes": scenes}
        write_results(tree, f"{seed}.json", {**row, "settings": settings})
    assert [each.seeds for each in measured(tree, read_configurations(tree))["configs/seg.yaml"]] == [1, 1]


def test_results_by_the_settings_that_they_hold(tree: Path) -> None:
    dump = load_config(tree / "configs/prompt/two.yaml", ["SEED", "7", "DATA.CACHE", "x"]).dump()
    write_results(tree, "two.json", {"dtd/top1": 40.0, "_run": {"config": dump}, "_protocol": {"dtd": {}}})
    changed = load_config(tree / "configs/prompt/two.yaml", ["OPTIM.LR", "0.5"]).dump()
    write_results(tree, "changed.json", {"dtd/top1": 41.0, "_run": {"config": changed}, "_protocol": {"dtd": {}}})
    found = measured(tree, read_configurations(tree))
    assert [each.numbers for each in found["configs/prompt/two.yaml"]] == [(("dtd", (("top-1", "40.0"),)),)]
    assert set(found) == {"configs/prompt/two.yaml"}


def test_rows_of_reproduced_tables(tree: Path) -> None:
    """A row is of the file that it begins with where it sets nothing else than the file does."""
    kept = {"method": "pomp", "clip": "ViT-B-16-quickgelu", "LOSS.NUM_CLASSES": 1000, "AUGMENT.SCALE": [0.08, 1.0]}
    changes: list[dict[str, Any]] = [{}, {"seed": 1}, {"method": "coop"}, {"clip": "mini"}, {"LOSS.NUM_CLASSES": 0}]
    for number, change in enumerate(changes):
        settings = {**kept, "seed": 0, **change}
        run = {"config": "two.yaml", "command": "reproduce.py imagenet21k --scale laptop --output out"}
        document = {"table": "imagenet21k", "scale": "laptop", "row": "POMP", "seed": settings["seed"]}
        document |= {
            "settings": settings,
            "dtd/top1": 40.0 + number,
            "_run": run,
            "_protocol": {"dtd": {"split": "test"}},
        }
        write_results(tree, f"laptop/{number}.json", document)
    ((name, (found,)),) = measured(tree, read_configurations(tree)).items()
    assert (name, found.row, found.seeds) == ("configs/prompt/two.yaml", "POMP", 2)
    assert found.numbers == (("dtd", (("top-1", "40.5 ± 0.5"),)),)
    assert found.note == "table `imagenet21k` of `reproduce.py`, laptop scale"


def test_a_scored_prompt_is_of_the_file_that_it_was_learned_with(tree: Path) -> None:
    """Not of the configuration that it was scored under, and hand prompts are of none."""
    import torch

    from prompt_core import SoftPrompt

    scored = "evaluate_prompt.py --config configs/prompt/one.yaml --datasets dtd"
    document = {"dtd/top1": 40.0, "_protocol": {"dtd": {"split": "test"}}}
    config = load_config(tree / "configs/prompt/one.yaml").dump()
    for number, prompt in enumerate(["a photo of a {}.", "selected_own", "gone.safetensors"]):
        about = {"command": f"{scored} --prompt {prompt}", "config": config, "prompt": prompt}
        write_results(tree, f"{number}/metrics.json", {**document, "_run": about})
    assert measured(tree, read_configurations(tree)) == {}
    learned = load_config(tree / "configs/prompt/two.yaml", ["SEED", "7", "OUTPUT", "x"]).dump()
    numbers = {"train/loss": 1.5}
    write_results(tree, "3/learned/metrics.json", {**numbers, "_run": {"config": learned}, "_protocol": {}})
    prompt = tree / "docs/results/3/learned/prompt.safetensors"
    SoftPrompt(torch.zeros(2, 4)).save(prompt, K=1000, correction="log10", metrics=numbers)
    about = {"command": f"{scored} --prompt learned/prompt.safetensors", "prompt": "learned/prompt.safetensors"}
    write_results(tree, "3/metrics.json", {**document, "_run": {**about, "config": config}})
    ((name, (found,)),) = measured(tree, read_configurations(tree)).items()
    assert (name, found.file) == ("configs/prompt/two.yaml", "docs/results/3/metrics.json")


def test_a_choice_on_the_reported_images_is_told(tree: Path) -> None:
    command = "train_net.py --config configs/seg.yaml --num-gpus 0"
    about = {"command": command, "select_on_test": True}
    write_results(tree, "a.json", {"b/hIoU": 5.0, "_run": about, "_protocol": {"b": {}}})
    write_results(tree, "b.json", {"b/hIoU": 4.0, "_run": {"command": command}, "_protocol": {"b": {}}})
    notes = {
        each.numbers[0][1][0][1]: each.note for each in measured(tree, read_configurations(tree))["configs/seg.yaml"]
    }
    assert notes == {"5.0": "best checkpoint chosen on the reported images", "4.0": ""}


def test_a_damaged_result_is_named(tree: Path) -> None:
    write_results(tree, "a.json", {"b/hIoU": 5.0, "_run": {}, "_protocol": {"b": {}}})
    (tree / "docs/results/b.json").write_text('{"b/hIoU": ', encoding="utf-8")
    with pytest.raises(UserError, match=r"b\.json: is not valid JSON"):
        measured(tree, read_configurations(tree))


def test_running_means_of_a_training_are_no_result(tree: Path) -> None:
    command = f"{LEARN}".removeprefix("python tools/")
    write_results(tree, "a.json", {"train/accuracy": 0.9, "_run": {"command": command}, "_protocol": {"train": {}}})
    assert measured(tree, read_configurations(tree)) == {}


def test_tables(tree: Path) -> None:
    table = "| row | runs | a / 1 |\n| --- | --- | --- |\n| one | 3 | 4.0 ± 0.1 |\n"
    (tree / "docs").mkdir()
    (tree / "docs/table.md").write_text(table, encoding="utf-8")
    files = read_configurations(tree)
    entry = {"configuration": "configs/prompt/one.yaml", "file": "docs/table.md", "row": "one"}
    (found,) = measured(tree, files, [entry])["configs/prompt/one.yaml"]
    assert (found.seeds, found.numbers) == (3, (("", (("a / 1", "4.0 ± 0.1"),)),))
    for change, message in (
        ({"row": "ones"}, r"has no row 'ones'; nearest: 'one'"),
        ({"file": "docs/no.md"}, r"docs/no.md, a table of configs/prompt/one.yaml, does not exist"),
        ({"configuration": "configs/prompt/on.yaml"}, r"configs/prompt/on.yaml does not exist; nearest"),
    ):
        with pytest.raises(UserError, match=message):
            measured(tree, files, [{**entry, **change}])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"table": "Margin n"}, "no published table is called 'Margin n'; nearest: 'Margin m'"),
        ({"row": "K = 31"}, "no row of 'Margin m' is called 'K = 31'; nearest"),
        ({"columns": ["Avg"]}, "has no number in 'Avg'"),
        ({"configurations": ["configs/x.yaml"]}, "no configuration is called 'configs/x.yaml'"),
    ],
)
def test_mappings_to_what_is_not_there(tree: Path, change: dict[str, Any], message: str) -> None:
    entry = {"configurations": ["configs/seg.yaml"], "table": "Margin m", "row": "K = 319", "columns": ["Avg10, m = 0"]}
    files = read_configurations(tree)
    assert published(files, [entry])["configs/seg.yaml"][0].numbers == (("Avg10, m = 0", 65.2),)
    with pytest.raises(UserError, match=re.escape(message)):
        published(files, [{**entry, **change}])


def test_digests_are_those_of_the_comparisons(tmp_path: Path) -> None:
    """A result of an older text of a configuration is none of today's."""
    from pomp_lab.comparisons.detectors import ROWS, DetectorComparison
    from pomp_seg import comparison as segmenters

    (tmp_path / "shapes.json").write_text(json.dumps({"options": {"classes": 4}}), encoding="utf-8")
    detectors = DetectorComparison(tmp_path, ROOT / "configs/mini", tmp_path, tmp_path)
    digests = _detector_digests(ROOT)
    for row in ROWS:
        assert digests[detectors._identity(row, 0)["config"]] == f"configs/mini/{row.config}"
    digests = _segmenter_digests(ROOT)
    for experiment in segmenters.EXPERIMENTS.values():
        runs = segmenters.SegmenterComparison(experiment, tmp_path, ROOT / "configs", tmp_path, tmp_path)
        for each in segmenters.ROWS:
            assert digests[runs._identity(each, 0)["config"]] == f"configs/mini/{experiment.config}"
    assert sha256_of_json(["another text"]) not in digests


def test_every_configuration_appears_once() -> None:
    page = zoo_page(ROOT, ROOT / "docs")
    linked = re.findall(r"\]\(\.\./(configs/[^)]+)\)", page)
    assert sorted(linked) == sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yaml"))


def test_published_numbers_are_mapped_once() -> None:
    entries = load_mapping()["published"]
    rows = [(name, each["table"], each["row"]) for each in entries for name in each["configurations"]]
    assert len(rows) == len(set(rows))
    assert published(read_configurations(ROOT), entries)


def test_tables_of_the_page_are_well_formed() -> None:
    for line in zoo_page(ROOT, ROOT / "docs").splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) == 5, line


def test_the_committed_page_is_what_the_files_say() -> None:
    """Mend it by: python tools/model_zoo.py --output docs/model_zoo.md"""
    committed = (ROOT / "docs/model_zoo.md").read_text(encoding="utf-8")
    assert committed == zoo_page(ROOT, ROOT / "docs")
