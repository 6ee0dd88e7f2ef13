"""Tables as data: configurations exist and load, published rows are there, overrides of what a row is are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pomp_lab.report.published import load_published
from pomp_lab.tables.command import NAMES, SCALES, TABLES, find_table, note_of
from pomp_lab.tables.data_folders import DataFolders
from pomp_lab.tables.jobs import deciding_settings, row_config
from pomp_lab.tables.plan import Row, Table, check_overrides
from pomp_lab.tables.scored_sets import source_of
from prompt_core.errors import UserError
from prompt_core.methods.registry import method_class

ROOT = Path(__file__).resolve().parents[3]
CONFIGS = ROOT / "configs/prompt"
PUBLISHED = {table.name: table for table in load_published()}
ROWS = [
    pytest.param(table, row, id=f"{table.scale} {table.name} {row.name}")
    for table in TABLES.values()
    for row in table.rows
]


def test_both_scales_have_the_same_tables() -> None:
    assert set(TABLES) == {(scale, name) for scale in SCALES for name in NAMES}
    assert len(NAMES) == 7
    for table in TABLES.values():
        assert table.rows or table.cost
        assert set(table.published) <= set(PUBLISHED)
        assert len({row.name for row in table.rows}) == len(table.rows)
        needed = {*map(source_of, table.targets), *(row.train for row in table.rows if row.train)}
        for name in needed:
            assert f"data set {name} is not at nowhere/" in str(DataFolders(Path("nowhere")).missing(name))


@pytest.mark.parametrize(("table", "row"), ROWS)
def test_every_row_loads(table: Table, row: Row) -> None:
    cfg = row_config(row, CONFIGS)
    kind = method_class(cfg.METHOD.NAME)
    assert (row.train != "") == (kind.learned_by != "nothing")
    if table.scale == "laptop":
        assert cfg.MODEL.NAME == "mini"
    else:
        assert (cfg.MODEL.PRETRAINED, cfg.EVAL.NAMESAKES) == ("openai", "separate")
        fixed = dict(row.settings)
        assert (fixed["MODEL.NAME"], fixed["MODEL.PRETRAINED"]) == (cfg.MODEL.NAME, cfg.MODEL.PRETRAINED)
    for reference in row.published:
        published = PUBLISHED[reference.table]
        assert reference.row in dict(published.rows)
        if reference.column:
            assert reference.column in {column.name for column in published.columns}
        else:
            assert reference.model in {column.model for column in published.columns}


@pytest.mark.parametrize("table", [table for table in TABLES.values() if table.scale == "laptop" and table.rows])
def test_committed_results_are_of_these_rows(table: Table) -> None:
    """A new key of the configuration does not make a finished run another one."""
    runs = json.loads((ROOT / f"docs/results/{table.name}_laptop.json").read_text(encoding="utf-8"))["runs"]
    named = {row.name: row for row in table.rows}
    derived = {"method", "clip", "clip_sha256", "K", "correction", "negatives"}
    checked = 0
    for key, document in runs.items():
        if document["_run"].get("hand_prompt"):
            continue
        cfg = row_config(named[key.partition("/seed ")[0]], CONFIGS)
        stated = {name: value for name, value in document["_run"]["settings"].items() if name not in derived}
        assert {"METHOD.NAME": document["_run"]["method"], **stated} == deciding_settings(cfg), key
        checked += 1
    assert checked >= 6


def test_the_paper_has_every_published_number_a_row() -> None:
    for name, published in (("imagenet21k", "ImageNet-21K"), ("ablation_k", "Number of classes K")):
        references = {
            (reference.row, reference.model) for row in find_table(name, "paper").rows for reference in row.published
        }
        expected = {
            (row, column.model)
            for row, values in PUBLISHED[published].rows
            for column, value in zip(PUBLISHED[published].columns, values, strict=True)
            if value == value
        }
        assert references == expected
    margins = [reference for row in find_table("ablation_margin", "paper").rows for reference in row.published]
    assert {(reference.row, reference.column) for reference in margins} == {
        (row, column.name) for row, _ in PUBLISHED["Margin m"].rows for column in PUBLISHED["Margin m"].columns
    }


def test_margins_are_what_their_rows_say() -> None:
    for scale in SCALES:
        table = find_table("ablation_margin", scale)
        losses = {row.name: row_config(row, CONFIGS).LOSS for row in table.rows}
        assert len(losses) == 12
        assert (losses["K = 319, m = 1.5"].NUM_CLASSES, losses["K = 319, m = 1.5"].CORRECTION) == (319, "1.5")
        assert losses["K = 1000, m = 0"].CORRECTION == "none"
        assert losses["K = 1000, ln"].CORRECTION == "ln"


def test_tables_share_what_is_the_same() -> None:
    def settings(scale: str, table: str, row: str) -> dict[str, object]:
        (chosen,) = find_table(table, scale).chosen(row)
        return deciding_settings(row_config(chosen, CONFIGS))

    for scale, pomp in (("laptop", "POMP"), ("paper", "POMP, ViT-B/16")):
        assert settings(scale, "imagenet21k", pomp) == settings(scale, "ablation_k", "K = 1000")
        assert settings(scale, "imagenet21k", pomp) == settings(scale, "ablation_margin", "K = 1000, log10")
        assert settings(scale, "imagenet21k", pomp) == settings(scale, "cross_dataset", "POMP")
        assert settings(scale, "imagenet21k", pomp) != settings(scale, "ablation_k", "K = 500")


def test_bad_names_tell_the_nearest() -> None:
    with pytest.raises(UserError, match="nearest: 'ablation_k'"):
        find_table("ablation-k", "paper")
    with pytest.raises(UserError, match="paper or laptop"):
        find_table("cost", "phone")
    with pytest.raises(UserError, match="unknown row 'POMPP'; nearest: 'POMP'"):
        find_table("cross_domain", "laptop").chosen("POMPP")


def test_what_a_row_is_cannot_be_overridden() -> None:
    table = find_table("ablation_k", "laptop")
    check_overrides(table, table.rows, ["OPTIM.LR", "OPTIM.EPOCHS", "DATA.CACHE"])
    with pytest.raises(UserError, match=r"LOSS.NUM_CLASSES defines row 'K = 100'"):
        check_overrides(table, table.rows, ["LOSS.NUM_CLASSES"])
    for key in ("SEED", "EVAL.SPLIT", "EVAL.CLASSES", "EVAL.VOCABULARY"):
        with pytest.raises(UserError, match=rf"{key} is the table's own choice"):
            check_overrides(table, table.rows, [key])


@pytest.mark.parametrize("name", ["cross_dataset", "cross_domain", "ablation_k", "ablation_margin", "imagenet21k"])
def test_paper_rows_have_the_published_model(name: str) -> None:
    table = find_table(name, "paper")
    for row in table.rows:
        backbones = {"RN50": "RN50-quickgelu", "ViT-B/32": "ViT-B-32-quickgelu", "ViT-B/16": "ViT-B-16-quickgelu"}
        published = row.name.rpartition(", ")[2] if name == "imagenet21k" else "ViT-B/16"
        assert backbones[published] == row_config(row, CONFIGS).MODEL.NAME
        for key in ("MODEL.NAME", "MODEL.PRETRAINED"):
            with pytest.raises(UserError, match=f"{key} defines row"):
                check_overrides(table, [row], [key])


def test_notes_say_what_the_command_line_changes() -> None:
    for scale, words in (("laptop", "16 photos of each"), ("paper", "16 images of a class")):
        table = find_table("imagenet21k", scale)
        assert words in table.note
        assert note_of(table, ()) == table.note
        changed = note_of(table, ("OPTIM.EPOCHS", "1"))
        assert changed == f"{table.note} With OPTIM.EPOCHS 1."
        few = note_of(table, ("DATA.SHOTS=2", "DATA.CACHE", "/somewhere/cache"))
        assert words not in few
        assert words.replace("16", "2") in few
        assert few.endswith(" With DATA.SHOTS 2 DATA.CACHE cache.")
        assert words.replace("16", "all") in note_of(table, ("DATA.SHOTS", "-1"))
