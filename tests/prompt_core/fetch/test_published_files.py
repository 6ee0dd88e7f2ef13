"""The list of published files: nothing that a configuration asks for is absent, nothing in it is made up."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
import yaml

from prompt_core.errors import UserError
from prompt_core.fetch.advice import where_from
from prompt_core.fetch.documentation import published_page
from prompt_core.fetch.places import Places
from prompt_core.fetch.published_files import find_file, groups, of_group, published_files, select_files
from prompt_core.files import sha256_of_file
from prompt_core.vocabulary import Vocabulary

ROOT = Path(__file__).resolve().parents[3]
FILES = published_files()
# Keys whose paths are bases, results, names of architectures, or folders of data sets (datasets/check.py knows those).
NO_FILES = {"_BASE_", "OUTPUT_DIR", "CLIP_MODEL_NAME", "TRAIN", "TEST"}
ENDINGS = (".npy", ".pkl", ".pth", ".tar", ".json", ".txt", ".csv", ".pt", ".safetensors")


class AnyTag(yaml.SafeLoader):
    """Published files have tags of Python, whose values are numbers."""


AnyTag.add_multi_constructor("", lambda loader, suffix, node: None)


def named_files(value: Any, key: str = "") -> Iterator[str]:
    """Every file that a configuration names, those in texts of tuples too."""
    if isinstance(value, dict):
        for inner, item in value.items():
            yield from named_files(item, str(inner))
    elif isinstance(value, list):
        for item in value:
            yield from named_files(item, key)
    elif isinstance(value, str) and key not in NO_FILES:
        texts = re.findall(r"""["']([^"']+)["']""", value) if value.startswith("(") else [value]
        yield from (text for text in texts if "/" in text or text.endswith(ENDINGS))


def configurations(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.yaml"))


def without_entry(files: list[Path]) -> dict[str, str]:
    """Named files that the list does not have, with the configuration that names each."""
    named = {name: file.name for file in files for name in named_files(yaml.load(file.read_text(), AnyTag))}
    assert len(named) > 10
    return {name: file for name, file in named.items() if find_file(name) is None}


def test_every_file_that_our_configurations_name_has_an_entry() -> None:
    listed = without_entry(configurations(ROOT / "configs"))
    absent = {name: files for name, files in listed.items() if not (ROOT / name).is_file()}
    own = [name for name in absent if name.startswith(("package://pomp_det/", "package://pomp_seg/"))]
    assert [name for name in own if not (ROOT / name.removeprefix("package://")).is_file()] == []
    assert absent.keys() == set(own)


def test_every_file_that_published_configurations_name_has_an_entry(shared: Path) -> None:
    assert without_entry(configurations(shared / "data/published_configs")) == {}


def test_the_walk_sees_names_in_tuples() -> None:
    text = "A: {WEIGHTS: models/a.pth, B: ['(\"b/c.npy\", \"d.npy\",)']}\n_BASE_: ../base.yaml\nN: 3\nT: ('x',)"
    assert list(named_files(yaml.safe_load(text))) == ["models/a.pth", "b/c.npy", "d.npy"]


def test_names_and_places_are_unique() -> None:
    places = [place for file in FILES for place in (file.path, *file.also)]
    assert len(places) == len(set(places))
    assert len({file.name for file in FILES}) == len(FILES)
    assert not set(groups()) & {file.name for file in FILES}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_an_entry_says_how_to_get_its_file_and_who_says_so(file: Any) -> None:
    assert file.what
    assert file.source
    assert file.fetchable or file.build or file.note
    if file.address is not None:
        assert file.licence, "what is downloaded has a licence, or a word on it"
        assert urlsplit(file.address).scheme == "https" or file.sha256, "unencrypted only where the checksum is known"
        if file.page is None:
            assert unquote(urlsplit(file.address).path).rpartition("/")[2] == file.path.rpartition("/")[2]
    if file.sha256 is not None:
        assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)
        assert file.size
    if file.made_from is not None:
        assert select_files([file.made_from])[0].address
    assert not file.unpacks or file.name.endswith(".zip")
    assert set(file.optional_for) <= set(groups())


def test_build_commands_are_of_tools_and_configurations_that_exist() -> None:
    for command in {command for file in FILES for command in file.build}:
        words = command.split()
        if words[1] != "-m":
            assert (ROOT / words[1]).is_file(), command
        assert all((ROOT / word).is_file() for word in words if word.startswith("configs/")), command


def test_files_of_runs_are_built_by_their_configuration() -> None:
    for file in FILES:
        folder, _, name = file.path.removeprefix("runs/").rpartition("/")
        if file.path.startswith("runs/") and name == "model_final.pth" and "--output" not in file.build[0]:
            assert f"configs/{folder}.yaml" in file.build[0]


def test_sizes_and_checksums_are_those_of_the_published_bytes(shared: Path) -> None:
    seen = 0
    for file in FILES:
        path = shared / "data/clip_text" / file.name
        if path.is_file() and file.sha256:
            assert (file.size, file.sha256) == (path.stat().st_size, sha256_of_file(path)), file.name
            if file.shape:
                assert np.load(path).shape == file.shape
            seen += 1
    assert seen == 8


def test_matrices_have_a_row_for_each_class_of_their_vocabulary() -> None:
    matrices = [file for file in FILES if file.shape and file.vocabulary]
    assert len(matrices) == 7
    for file in matrices:
        assert len(Vocabulary.load(file.vocabulary or "").names) == file.shape[0]


def test_files_are_found_by_name_path_and_what_configurations_call_them() -> None:
    prompt = "vit_b16_ep20_randaug2_unc1000_16shots_nctx16_cscFalse_ctpend_seed42.pth.tar"
    for name in (prompt, f"models/{prompt}", f"/home/somebody/pretrained/{prompt}"):
        assert getattr(find_file(name), "name", None) == prompt
    published = "output/Detic/Detic_LI_CLIP_R5021k_640b64_4x_ft4x_max-size_pomp/model_final.pth"
    assert getattr(find_file(published), "page", "").startswith("https://drive.google.com/")
    assert find_file("model_final.pth") is None
    assert [file.name for file in select_files(["lvis_v1_val.json.zip", "lvis/lvis_v1_val.json.zip"])] == [
        "lvis_v1_val.json.zip"
    ]
    assert select_files(["lvis", "lvis_v1_val.json.zip"]) == of_group("lvis")
    with pytest.raises(UserError, match="'lvsi' is neither a published file nor a group of them; nearest: 'lvis'"):
        select_files(["lvsi"])


def test_an_error_on_an_absent_file_ends_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POMP_DATA", "/data")
    prompt = "models/vit_b16_ep20_randaug2_unc1000_16shots_nctx16_cscFalse_ctpend_seed42.pth.tar"
    assert where_from("datasets/metadata/coco_clip_pomp+cname.npy") == (
        "; get it: python tools/fetch.py coco_clip_pomp+cname.npy (82.0 kB); or build it: "
        f"python tools/build_classifier.py --vocabulary coco --prompt {prompt} --clip ViT-B-16-quickgelu "
        "--pretrained openai --output /data/metadata/coco_clip_pomp+cname.npy"
    )
    assert where_from(Path("models/resnet50_miil_21k.pkl")).startswith("; get it: python tools/fetch.py resnet50_miil")
    assert where_from("runs/detection/lvis_boxes/model_final.pth") == (
        "; get it: python tools/train_net.py --config configs/detection/lvis_boxes.yaml --num-gpus 8"
    )
    assert where_from("runs/mine/model_final.pth") == where_from("detector.pth") == ""


def test_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = Places(tmp_path / "data", tmp_path / "weights")
    assert places.path_of("datasets/metadata/a.npy") == tmp_path / "data/metadata/a.npy"
    assert places.path_of("models/a.pth") == tmp_path / "weights/a.pth"
    assert places.path_of("runs/a/model_final.pth") == Path("runs/a/model_final.pth")
    with pytest.raises(UserError, match="package no_such_package is not installed"):
        places.path_of("package://no_such_package/a.pth")
    assert places.path_of("package://prompt_core/assets/mini.json").is_file()
    assert (
        places.command("python datasets/prepare.py lvis") == f"python datasets/prepare.py lvis --root {tmp_path}/data"
    )
    command = "python tools/build_classifier.py --prompt models/p.pth.tar --output datasets/metadata/a.npy"
    assert f"--prompt {tmp_path}/weights/p.pth.tar --output {tmp_path}/data/metadata/a.npy" in places.command(command)
    assert Places(Path("datasets")).command(command) == command


def test_detectron2_finds_what_is_put_into_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("detectron2")
    from detectron2.utils.file_io import PathManager

    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    for file in FILES:
        if file.path.startswith("detectron2://"):
            path = Places(Path("datasets")).path_of(file.path)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"weights")
            assert Path(PathManager.get_local_path(file.path)) == path


def test_the_page_is_that_of_the_list() -> None:
    page = (ROOT / "docs/published_files.md").read_text(encoding="utf-8")
    assert page == published_page(FILES), "run python tools/fetch.py --write-page docs/published_files.md"
    for file in FILES:
        assert f"`{file.path}`" in page
        assert file.build == () or all(command in page for command in file.build)
