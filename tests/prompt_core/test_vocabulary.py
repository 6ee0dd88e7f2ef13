"""Vocabularies: the published ones, every file format, and the refusals."""

from __future__ import annotations

import json
import pkgutil
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_core import PromptedTextEncoder, SoftPrompt, TextClassifier, UserError, Vocabulary
from prompt_core.clip import Clip
from prompt_core.methods.base import Method
from prompt_core.methods.registry import METHODS
from prompt_core.methods.templates import TemplateMethod
from prompt_core.vocabulary import plain_name, read_vocabulary

from ..support import hostile


@pytest.fixture(scope="module")
def imagenet21k() -> Vocabulary:
    return Vocabulary.load("imagenet21k")


def test_imagenet21k(imagenet21k: Vocabulary) -> None:
    assert len(imagenet21k) == 21843
    assert len(set(imagenet21k.names)) == 20101
    assert imagenet21k.synsets is not None
    assert imagenet21k.synonyms is not None
    assert len(set(imagenet21k.synsets)) == 21843
    assert all(re.fullmatch(r"n\d{8}", synset) for synset in imagenet21k.synsets)
    row = list(imagenet21k.synsets).index("n02084071")
    assert imagenet21k[row] == "dog"
    assert imagenet21k.synonyms[row] == ["domestic dog", "Canis familiaris"]
    assert not any("," in name or name != name.strip() for name in imagenet21k)


def test_two_published_vocabularies_as_one() -> None:
    both, lvis, coco = (read_vocabulary(name) for name in ("lvis+coco", "lvis", "coco"))
    assert both.names[: len(lvis)] == lvis.names
    assert set(both.names[len(lvis) :]) <= set(coco.names)
    assert {plain_name(name) for name in both} == {plain_name(name) for name in [*lvis, *coco]}
    assert len({plain_name(name) for name in both}) == len(both) == 1224
    assert both.check().ids is None  # a number would mean two things


@pytest.mark.parametrize(
    ("name", "count", "first", "last"),
    [
        ("imagenet1k", 1000, "tench", "toilet tissue"),
        ("lvis", 1203, "aerosol_can", "zucchini"),
        ("coco", 80, "person", "toothbrush"),
        ("objects365", 365, "Person", "Table Tennis"),
        ("openimages", 500, "Infant bed", "Toilet"),
        ("ade20k", 150, "wall", "flag"),
    ],
)
def test_published_vocabularies(name: str, count: int, first: str, last: str) -> None:
    vocabulary = Vocabulary.load(name)
    assert len(vocabulary) == len(vocabulary.names) == count
    assert vocabulary[0].startswith(first)
    assert vocabulary[-1].startswith(last)
    assert vocabulary.ids is not None
    assert len(set(vocabulary.ids)) == count
    assert vocabulary.source
    assert vocabulary.check() is vocabulary


def test_details_of_published_vocabularies() -> None:
    lvis, coco = Vocabulary.load("lvis"), Vocabulary.load("coco")
    assert lvis.frequency is not None
    assert {letter: list(lvis.frequency).count(letter) for letter in "rcf"} == {"r": 337, "c": 461, "f": 405}
    assert lvis.ids == list(range(1, 1204))
    assert lvis.synonyms is not None
    assert lvis.synonyms[0] == ["aerosol_can", "spray_can"]
    assert coco.ids is not None
    assert coco.ids[-1] == 90
    synsets = Vocabulary.load("imagenet1k").synsets
    assert synsets is not None
    assert (synsets[0], synsets[999]) == ("n01440764", "n15075141")


def test_shared_names_of_the_training_classes(imagenet21k: Vocabulary) -> None:
    """ImageNet-21K's processed release: 10,450 classes, 754 more than they have names."""
    listed = pkgutil.get_data("timm.data", "_info/imagenet21k_miil_w21_synsets.txt")
    assert listed is not None
    assert imagenet21k.synsets is not None
    row = {synset: index for index, synset in enumerate(imagenet21k.synsets)}
    training = imagenet21k[[row[synset] for synset in listed.decode().split()]]
    assert len(training) == 10450
    assert training.synsets == listed.decode().split()
    names, counts = np.unique(np.array(training.names), return_counts=True)
    assert len(training) - len(names) == 754
    assert counts[counts > 1].sum() == 1415
    # CLIP lower-cases: names that differ in case only are one to it.
    groups = np.bincount(training.name_groups)
    assert len(groups) == len({name.lower() for name in training.names})
    assert groups[groups > 1].sum() == 1426


def test_name_groups_follow_what_clip_reads(tiny_clip: Clip) -> None:
    names = ["Crane", "crane", "cap_(headwear)", "cap (headwear)", "cap  (headwear)", "cap", " crane"]
    groups = Vocabulary(names).name_groups
    assert groups.tolist() == [0, 0, 1, 1, 1, 2, 0]
    with torch.no_grad():
        features = PromptedTextEncoder(tiny_clip)(SoftPrompt.random(32, 2, std=0.5), names)
    same = (features @ features.T) > 1 - 1e-5
    assert same.tolist() == (groups[:, None] == groups[None]).tolist()


@settings(max_examples=60, deadline=None)
@given(names=st.lists(st.text(st.sampled_from("aAbB_ "), max_size=4), max_size=10))
def test_name_groups_are_numbered_from_zero(names: list[str]) -> None:
    groups = Vocabulary(names).name_groups
    assert groups.shape == (len(names),)
    assert groups.dtype == np.int64
    assert sorted(set(groups.tolist())) == list(range(len(set(groups.tolist()))))
    for row, name in enumerate(names):
        for other, another in enumerate(names):
            same = name.lower().replace("_", " ").split() == another.lower().replace("_", " ").split()
            assert (groups[row] == groups[other]) == same


def full() -> Vocabulary:
    return Vocabulary(
        ["cat", "dog", "hot_dog"],
        ids=[17, 18, 58],
        synsets=["cat.n.01", "dog.n.01", "frank.n.02"],
        synonyms=[["kitty"], [], ["frank", "wiener"]],
        frequency=["f", "c", "r"],
        source="a test",
    )


def test_indexing_and_slicing_carry_everything() -> None:
    vocabulary = full()
    assert vocabulary[1] == "dog"
    assert vocabulary[np.int64(-1)] == "hot_dog"
    assert list(vocabulary) == ["cat", "dog", "hot_dog"]
    assert "dog" in vocabulary
    picks = (slice(2, None, -2), [2, 0], np.array([2, 0]), torch.tensor([2, 0]), range(2, -1, -2))
    for picked in (vocabulary[pick] for pick in picks):  # type: ignore[index]
        assert picked.names == ["hot_dog", "cat"]
        assert picked.ids == [58, 17]
        assert picked.synsets == ["frank.n.02", "cat.n.01"]
        assert picked.synonyms == [["frank", "wiener"], ["kitty"]]
        assert picked.frequency == ["r", "f"]
        assert picked.source == "a test"
    for mask in (np.array([True, False, True]), [True, False, True], torch.tensor([True, False, True])):
        assert vocabulary[mask].ids == [17, 58]  # type: ignore[index]
    with pytest.raises(UserError, match="a mask of 3 classes"):
        vocabulary[np.array([True, False])]
    with pytest.raises(IndexError):
        vocabulary[3]
    assert len(vocabulary[:0]) == 0
    assert Vocabulary(["a", "b"])[:1].ids is None
    assert vocabulary[:] == vocabulary


def test_sha256_tells_what_decides_the_features() -> None:
    vocabulary = full()
    same = Vocabulary(tuple(vocabulary.names), np.array([17, 18, 58]), None, vocabulary.synonyms)
    assert same.sha256 == vocabulary.sha256
    assert re.fullmatch("[0-9a-f]{64}", vocabulary.sha256)
    assert vocabulary.names == list(vocabulary.names)
    others = [
        vocabulary[::-1],
        vocabulary[:2],
        Vocabulary(["cat", "dog", "hot dog"], vocabulary.ids, None, vocabulary.synonyms),
        Vocabulary(vocabulary.names, [17, 18, 59], None, vocabulary.synonyms),
        Vocabulary(vocabulary.names, None, None, vocabulary.synonyms),
        Vocabulary(vocabulary.names, vocabulary.ids),
        Vocabulary(vocabulary.names, vocabulary.ids, None, [["kitty"], [], ["wiener", "frank"]]),
    ]
    assert len({vocabulary.sha256, *(other.sha256 for other in others)}) == 1 + len(others)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"names": "cat"}, "single text 'cat'"),
        ({"names": ["a", 1]}, "expected to be text, given 1"),
        ({"names": ["a", "b"], "ids": [1]}, "vocabulary ids: 1 values for 2 names"),
        ({"names": ["a"], "frequency": []}, "vocabulary frequency: 0 values for 1 names"),
        ({"names": ["a", "b"], "synonyms": ["x", "y"]}, "a list of names for each class"),
        ({"names": ["a"], "synonyms": "x"}, "a list of names for each class"),
    ],
)
def test_parts_that_do_not_go_together(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Vocabulary(**arguments)  # type: ignore[arg-type]


def test_save_and_load(tmp_path: Path) -> None:
    for vocabulary in (full(), Vocabulary(["é", "b"]), Vocabulary(np.array(["a", "b"]), ids=np.array([3, 1]))):
        vocabulary.save(tmp_path / "a.json")
        loaded = Vocabulary.load(tmp_path / "a.json")
        assert loaded == vocabulary
        assert loaded.sha256 == vocabulary.sha256
    full().save(tmp_path / "b.json")
    assert Vocabulary.load(str(tmp_path / "b.json")).source == "a test"


texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp", "Zs")), min_size=1, max_size=8)


@settings(max_examples=40, deadline=None)
@given(names=st.lists(texts, min_size=1, max_size=6, unique=True))
def test_any_names_come_back_from_every_format(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    folder = tmp_path_factory.getbasetemp()
    quoted = [name.replace('"', '""') for name in names]
    contents = {
        "a.txt": "\n".join(names),
        "b.txt": "\ufeff" + "\r\n".join(names) + "\r\n\r\n",
        "a.csv": "name\n" + "\n".join(f'"{name}"' for name in quoted),
        "b.csv": "\ufeffid,name\r\n" + "\r\n".join(f'{row},"{name}"' for row, name in enumerate(quoted)),
        "a.json": json.dumps(names),
        "b.json": "\ufeff" + json.dumps({"names": names}, ensure_ascii=False),
        "c.json": json.dumps([{"id": row, "name": name} for row, name in enumerate(names)]),
        "d.json": json.dumps({"images": [], "categories": [{"name": name} for name in names]}),
    }
    for file, content in contents.items():
        if not file.endswith(".json") and any(name.startswith("\ufeff") for name in names):
            continue
        (folder / file).write_bytes(content.encode())
        assert Vocabulary.load(folder / file).names == names, file


def test_csv_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        'id,name,synset,frequency,synonyms,extra\n3, cat ,cat.n.01,f,kitty| puss |,x\n\n1,"dog, hot",dog.n.01,r,,\n'
    )
    vocabulary = Vocabulary.load(tmp_path / "a.csv")
    assert vocabulary.names == ["cat", "dog, hot"]
    assert vocabulary.ids == [3, 1]
    assert vocabulary.synsets == ["cat.n.01", "dog.n.01"]
    assert vocabulary.frequency == ["f", "r"]
    assert vocabulary.synonyms == [["kitty", "puss"], []]
    (tmp_path / "b.csv").write_text("id,name\nn01,cat\n07,dog\n")
    assert Vocabulary.load(tmp_path / "b.csv").ids == ["n01", "07"]
    assert Vocabulary.load(tmp_path / "b.csv").synonyms is None


def test_annotation_categories_are_sorted_by_id(tmp_path: Path) -> None:
    categories = [
        {"id": 10, "name": "b", "synset": "b.n.01", "synonyms": ["bb"], "frequency": "r"},
        {"id": 9, "name": "a", "synset": "a.n.01", "synonyms": [], "frequency": "f"},
    ]
    (tmp_path / "a.json").write_text(json.dumps({"images": [], "annotations": [], "categories": categories}))
    vocabulary = Vocabulary.load(tmp_path / "a.json")
    assert vocabulary.names == ["a", "b"]
    assert vocabulary.ids == [9, 10]
    assert vocabulary.synsets == ["a.n.01", "b.n.01"]
    assert vocabulary.synonyms == [[], ["bb"]]
    assert vocabulary.frequency == ["f", "r"]
    # Ids that are not numbers have no order of their own: the file's stands.
    (tmp_path / "b.json").write_text(json.dumps([{"id": "10", "name": "b"}, {"id": 9, "name": "a"}]))
    assert Vocabulary.load(tmp_path / "b.json").names == ["b", "a"]


def test_classifier_files_carry_their_names(tmp_path: Path) -> None:
    names = ["crane", "crane", "dog"]  # ImageNet has two cranes
    TextClassifier(torch.eye(3), names).save(tmp_path / "a.safetensors")
    assert Vocabulary.load(tmp_path / "a.safetensors").names == names


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("a.txt", "", "holds no class names"),
        ("a.txt", "\n \n", "holds no class names"),
        ("a.txt", "cat\n\ndog\n", r"a\.txt: class 2 of 3 is blank; remove it"),
        ("a.txt", "cat\ndog\n cat\n", r"a\.txt: 1 classes occur more than once, the first is 'cat'"),
        ("a.txt", b"caf\xe9\n", r"a\.txt is not UTF-8 text .* save it as UTF-8"),
        ("a.csv", "label\ncat\n", r"a column 'name' is expected, the columns are label"),
        ("a.csv", "name\n", "holds no class names"),
        ("a.csv", "id,name\n1,cat\n1,dog\n", "the first is 1; keep one of each"),
        ("a.csv", "id,name\n1,\n", "class 1 of 1 is blank"),
        ("a.json", "[", "not valid JSON"),
        ("a.json", "[]", "holds no class names"),
        ("a.json", "3", "expected a list of names, an object with 'names'"),
        ("a.json", '{"categories": [{"id": 1}]}', r"a\.json: categories\[0\] has no 'name'"),
        ("a.json", '[{"name": null}]', r"a\.json: \[0\].name is None; a text is expected"),
        ("a.json", '{"names": ["a", 2]}', r"a\.json: names\[1\] is 2; a text is expected"),
        ("a.json", '{"names": ["a"], "ids": [1e30]}', r"a\.json: ids\[0\] is 1e\+30; a whole number or a text"),
        ("a.json", '{"names": ["a"], "synonyms": ["b"]}', r"a\.json: synonyms\[0\] is 'b'; a list is expected"),
        ("a.json", '["hot\\ndog"]', r"a\.json: the class name 'hot\\ndog' has a line break"),
        (
            "a.json",
            '["\\u001b[31mdog"]',
            r"a\.json: the class name '\\x1b\[31mdog' has a line break or another",
        ),
        ("a.csv", 'name\n"hot\ndog"\n', r"a\.csv: the class name 'hot\\ndog' has a line break"),
        ("a.csv", "name,id\ndog, hot,3\n", r"a\.csv: row 2 has more cells than the 2 columns, from '3' on; quote"),
        ("a.csv", "a" * 5_000 + "\nx\n", r"a column 'name' is expected, the columns are a{199}…$"),
        ("a.csv", "name\n" + "a" * 200_000, r"a\.csv as a CSV table, near line 2: field larger"),
        ("a.txt", "hot\tdog", r"a\.txt: the class name 'hot\\tdog' has a line break"),
        ("a.json", '{"names": ["a"], "ids": [1, 2]}', "2 values for 1 names"),
        ("a.json", '["a", "a"]', "the first is 'a'"),
        ("a.yaml", "a", r"read from \.txt, \.csv, \.json, \.safetensors, not from '\.yaml'"),
        ("a.safetensors", b"\x00" * 20, "could not be read"),
    ],
)
def test_malformed_files(tmp_path: Path, file: str, content: str | bytes, message: str) -> None:
    (tmp_path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message) as caught:
        Vocabulary.load(tmp_path / file)
    assert "\n" not in str(caught.value)


@given(content=hostile.vocabulary_files | hostile.text_files | hostile.csv_files())
@settings(max_examples=60, deadline=None)
def test_any_file_is_a_vocabulary_or_a_line(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    for ending in ("json", "csv", "txt"):
        path = tmp_path_factory.getbasetemp() / f"hostile.{ending}"
        path.write_bytes(content)
        vocabulary = hostile.success_or_one_line(lambda path=path: Vocabulary.load(path))  # type: ignore[misc]
        if vocabulary is not None:
            assert all(len(name.splitlines()) == 1 for name in vocabulary.names)
            assert len(vocabulary.sha256) == 64


def test_ids_tell_namesakes_apart() -> None:
    assert Vocabulary(["crane", "crane"], ids=[1, 2]).check().names == ["crane", "crane"]
    with pytest.raises(UserError, match="class list: 1 classes occur more than once, the first is 'crane'"):
        Vocabulary(["crane", "crane"]).check()


@pytest.mark.parametrize(
    ("name", "suggestion"), [("lviss", "'lvis'"), ("LVIS", "'lvis'"), ("imagenet-21k", "'imagenet21k'")]
)
def test_unknown_names_suggest_the_nearest(name: str, suggestion: str) -> None:
    with pytest.raises(UserError, match=f"vocabulary '{name}' is neither a file nor one of .*; nearest: {suggestion}"):
        Vocabulary.load(name)


def test_absent_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is neither a file nor one of imagenet21k"):
        Vocabulary.load(tmp_path / "classes.txt")
    with pytest.raises(UserError, match="is neither a file"):
        Vocabulary.load(tmp_path)


def test_kept_underscores_travel_with_the_vocabulary(tmp_path: Path) -> None:
    plain, kept = Vocabulary(["hot_dog", "cat"]), Vocabulary(["hot_dog", "cat"], keep_underscores=True)
    assert plain != kept
    assert plain.sha256 != kept.sha256
    assert kept[:1].keep_underscores
    assert kept.including(Vocabulary(["fox"]))[0].keep_underscores
    for vocabulary in (plain, kept):
        vocabulary.save(tmp_path / "a.json")
        assert Vocabulary.load(tmp_path / "a.json") == vocabulary
        assert Vocabulary.load(tmp_path / "a.json").sha256 == vocabulary.sha256


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"linear_probe", "logistic_regression"}))
def test_methods_keep_underscores_where_the_vocabulary_does(
    clip: Clip, make_method: Callable[..., Method], name: str
) -> None:
    learned = name not in ("zero_shot", "ensemble")
    method = make_method(name, clip) if learned else TemplateMethod(clip, name)
    names = ["cat", "hot_dog"] if method.bound_names is None else list(method.bound_names)
    underscored = ["_" in name for name in names]
    assert any(underscored)
    images = torch.nn.functional.normalize(torch.randn(1, 24), dim=1)
    with torch.no_grad():
        plain, kept = (
            method.class_features(Vocabulary(names, ids=list(range(len(names))), keep_underscores=keep), None, images)
            for keep in (False, True)
        )
    changed = (plain - kept).norm(dim=-1).reshape(-1, len(names))[0] > 1e-4
    assert changed.tolist() == underscored


def test_words_as_people_give_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words.txt").write_text("red star\noak\n")
    (tmp_path / "cat").write_text("a file that is no list of words")
    assert read_vocabulary("coco").sha256 == Vocabulary.load("coco").sha256
    assert read_vocabulary("words.txt").names == ["red star", "oak"]
    for text, names in {
        "cat": ["cat"],
        "cat, St. Bernard": ["cat", "St. Bernard"],
        "coco, lvis": ["coco", "lvis"],
        "cocoa,": ["cocoa"],
    }.items():
        assert read_vocabulary(text).names == names
    for text in ("coko", "lvsi", "imagenet"):
        with pytest.raises(UserError, match=f"vocabulary '{text}' is neither .*; nearest: .* write '{text},'"):
            read_vocabulary(text)
    for text, message in {
        "cat,,dog": "class 2 of 3 is blank",
        "cat,dog,cat": "1 classes occur more than once, the first is 'cat'",
        "": "class 1 of 1 is blank",
        "none.csv": "neither a file nor one of",
    }.items():
        with pytest.raises(UserError, match=message):
            read_vocabulary(text)
    (tmp_path / "words.yaml").write_text("cat")
    with pytest.raises(UserError, match=r"class lists are read from \.txt"):
        read_vocabulary("words.yaml")
