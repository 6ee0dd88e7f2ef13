"""Models from folders, JSON files and the hub; downloads where there is no network."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from huggingface_hub import constants
from safetensors.torch import save_file

from prompt_core import PromptedTextEncoder, SoftPrompt, TextClassifier, UserError, load_clip
from prompt_core.towers import offline

from ...support.towers import (
    HUGGING_FACE_KINDS,
    one_tokenizer,
    save_hugging_face_parts,
    shrunk_clip,
    shrunk_settings,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*encoded at full length")


@pytest.fixture(autouse=True, scope="module")
def _one_tokenizer() -> Iterator[None]:
    with one_tokenizer():
        yield


def save_model(folder: Path, architecture: str, weights: str = "open_clip_model.safetensors", **text: Any) -> None:
    """A folder as open_clip's ``local-dir:`` expects it."""
    settings = shrunk_settings(architecture)
    settings["text_cfg"] |= text
    preprocess = {"mean": [0.1, 0.2, 0.3], "std": [1, 1, 2], "resize_mode": "squash"}
    content = {"model_cfg": settings, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False, pretrained_text=False)
    save_state(model, folder / weights)


def save_state(model: torch.nn.Module, path: Path, **changed: torch.Tensor) -> None:
    save_file({key: value.clone().contiguous() for key, value in {**model.state_dict(), **changed}.items()}, path)


def their_features(folder: Path, texts: list[str]) -> torch.Tensor:
    """From open_clip alone."""
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    with torch.no_grad():
        return F.normalize(model.encode_text(open_clip.get_tokenizer(f"local-dir:{folder}")(texts)), dim=1)


def test_a_folder_is_a_model(tmp_path: Path) -> None:
    save_model(tmp_path, "MobileCLIP2-S0")
    clip = load_clip(f"local-dir:{tmp_path}")
    assert (clip.name, clip.pretrained) == (f"local-dir:{tmp_path}", f"local-dir:{tmp_path}")
    assert clip.image_mean == (0.1, 0.2, 0.3)
    assert clip.has_byte_pairs
    ours = TextClassifier.build(clip, ["cat", "red fox"], "a {}.").weight
    torch.testing.assert_close(ours, their_features(tmp_path, ["a cat.", "a red fox."]), atol=1e-6, rtol=0)
    save_state(clip.model, tmp_path / "other.safetensors", logit_scale=torch.tensor(0.5).log())
    given = load_clip(f"local-dir:{tmp_path}", tmp_path / "other.safetensors")
    assert given.logit_scale == pytest.approx(0.5)
    assert given.pretrained == str(tmp_path / "other.safetensors")


def test_folders_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"local-dir:.*absent cannot be built \(.*not found.*open_clip_config\.json and w"
    ):
        load_clip(f"local-dir:{tmp_path / 'absent'}")
    save_model(tmp_path, "ViT-B-16")
    (tmp_path / "open_clip_model.safetensors").unlink()
    with pytest.raises(UserError, match=r"cannot be built \(Required pretrained weights"):
        load_clip(f"local-dir:{tmp_path}")
    with pytest.raises(UserError, match=r"no weights file at .*webli"):
        load_clip(f"local-dir:{tmp_path}", "webli")


def test_json_files_of_every_kind(tmp_path: Path) -> None:
    for architecture in ("coca_ViT-B-32", "MobileCLIP2-S0", "ViT-B-16-SigLIP"):
        (tmp_path / "a.json").write_text(json.dumps(shrunk_settings(architecture)))
        theirs = shrunk_clip(architecture)
        save_state(theirs.model, tmp_path / "a.safetensors")
        clip = load_clip(tmp_path / "a.json", tmp_path / "a.safetensors")
        assert type(clip.model) is type(theirs.model)
        if theirs.has_byte_pairs:
            expected = PromptedTextEncoder(theirs).encode_texts(["a cat"])
            torch.testing.assert_close(PromptedTextEncoder(clip).encode_texts(["a cat"]), expected)


def test_transformers_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    (tmp_path / "a.json").write_text(json.dumps(shrunk_settings("ViT-B-16-SigLIP")))
    clip = load_clip(tmp_path / "a.json")
    with pytest.raises(UserError, match=r"a\.json: its tokenizer needs .*; run: pip install transformers"):
        TextClassifier.build(clip, ["cat"], "a {}")
    with pytest.raises(UserError, match="takes hand-written templates only"):
        PromptedTextEncoder(clip)(SoftPrompt.random(32, 2), ["cat"])
    monkeypatch.setattr("open_clip.hf_model.transformers", None)
    (tmp_path / "b.json").write_text(json.dumps(shrunk_settings("roberta-ViT-B-32")))
    with pytest.raises(UserError, match=r"b\.json: its text tower needs .*; run: pip install transformers"):
        load_clip(tmp_path / "b.json")


def test_files_of_weights_get_the_normalisation_of_their_architecture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for architecture, mean in (("ViT-B-16-SigLIP", 0.5), ("MobileCLIP2-S0", 0), ("ViT-B-16", 0.48145466)):
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, architecture, shrunk_settings(architecture))
        save_state(shrunk_clip(architecture).model, tmp_path / "a.safetensors")
        clip = load_clip(architecture, tmp_path / "a.safetensors")
        assert clip.image_mean[0] == pytest.approx(mean)
        assert clip.preprocess_cfg["resize_mode"] == ("squash" if mean == 0.5 else "shortest")


@pytest.mark.parametrize(("architecture", "kind"), list(HUGGING_FACE_KINDS.items()))
def test_hugging_face_text_towers(tmp_path: Path, architecture: str, kind: str) -> None:
    pytest.importorskip("transformers", reason="the package transformers is not installed")
    save_hugging_face_parts(tmp_path, kind)
    save_model(tmp_path, architecture, hf_model_name=str(tmp_path), hf_tokenizer_name=str(tmp_path))
    clip = load_clip(f"local-dir:{tmp_path}")
    assert not clip.has_byte_pairs
    assert clip.embed_dim == 24
    texts = ["a photo of a red fox.", "a photo of a cat."]
    ours = TextClassifier.build(clip, ["red_fox", "cat"], "a photo of a {}.").weight
    torch.testing.assert_close(ours, their_features(tmp_path, texts), atol=1e-6, rtol=0)
    with pytest.raises(UserError, match="takes hand-written templates only, its text tower HFTextEncoder is not"):
        PromptedTextEncoder(clip)(SoftPrompt.random(24, 2), ["cat"])
    with pytest.raises(UserError, match="needs more than the 77 tokens"):
        PromptedTextEncoder(clip).encode_texts(["cat " * 76])
    assert PromptedTextEncoder(clip).encode_texts(["cat " * 75]).shape == (1, 24)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """No name is resolved, and the hub's cache is empty; returns the names that were asked for."""
    asked: list[str] = []

    def refuse(host: Any, *_: Any, **__: Any) -> Any:
        asked.append(str(host))
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    return asked


def seconds(call: Callable[[], Any]) -> tuple[float, str]:
    """How long a refusal takes, and what it says."""
    start = time.monotonic()
    with pytest.raises(UserError) as caught:
        call()
    return time.monotonic() - start, str(caught.value)


def test_without_network_downloads_end_at_once(no_network: list[str], caplog: pytest.LogCaptureFixture) -> None:
    took, message = seconds(lambda: load_clip("ViT-B-32", "openai"))
    assert message == (
        "weights ViT-B-32/openai are not on this machine and could not be fetched from "
        "https://huggingface.co/timm/vit_base_patch32_clip_224.openai; download them elsewhere and give the file: "
        "--pretrained FILE (pretrained=FILE in Python)"
    )
    assert took < 10
    assert no_network == ["huggingface.co"], "one request, not one for each file and retry"
    assert caplog.records == []
    took, message = seconds(lambda: load_clip("hf-hub:timm/ViT-B-16-SigLIP"))
    assert message.startswith("hf-hub:timm/ViT-B-16-SigLIP needs files that are not on this machine and could not be")
    assert message.endswith("give the folder as local-dir:FOLDER")
    assert took < 10
    assert constants.HF_HUB_OFFLINE is False


def test_a_server_that_does_not_answer_is_waited_for_once(
    no_network: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offline, "PATIENCE", 0.3)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(5))
    took, message = seconds(lambda: load_clip("RN50", "yfcc15m"))
    assert "weights RN50/yfcc15m are not on this machine" in message
    assert 0.3 < took < 4


def test_a_closed_port_as_the_hub(no_network: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    took, message = seconds(lambda: load_clip("ViT-B-32", "laion2b_e16"))
    assert "could not be fetched from http://127.0.0.1:9/timm/vit" in message
    assert took < 10


def test_a_model_of_the_hub_that_was_fetched_needs_no_request(no_network: list[str], tmp_path: Path) -> None:
    repository = tmp_path / "models--somebody--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("0" * 40)
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    save_model(snapshot, "ViT-B-16")
    clip = load_clip("hf-hub:somebody/tiny")
    assert clip.image_mean == (0.1, 0.2, 0.3)
    assert clip.has_byte_pairs
    ours = TextClassifier.build(clip, ["cat", "red fox"], "a {}.").weight
    torch.testing.assert_close(ours, their_features(snapshot, ["a cat.", "a red fox."]), atol=1e-6, rtol=0)
    assert no_network == []
    (snapshot / "open_clip_model.safetensors").unlink()
    with pytest.raises(UserError, match=r"hf-hub:somebody/tiny needs files that are not on this machine"):
        load_clip("hf-hub:somebody/tiny")


def test_what_is_on_the_machine_needs_no_request(no_network: list[str]) -> None:
    assert offline.with_files(lambda: 3) == 3
    assert no_network == []
    with pytest.raises(KeyError):
        offline.with_files(lambda: {}["no file"])
    assert no_network == [], "only a file that is missing is asked for"
