"""The list of architectures says what a built model does."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import open_clip
import pytest

from prompt_core import PromptedTextEncoder, UserError, doctor, load_clip
from prompt_core.towers.listing import list_towers, render, summarise

from ...support.towers import HUGGING_FACE_KINDS, KINDS, one_tokenizer, shared_clip, shrunk_settings

pytestmark = pytest.mark.filterwarnings("ignore:.*encoded at full length")


@pytest.fixture(autouse=True, scope="module")
def _one_tokenizer() -> Iterator[None]:
    with one_tokenizer():
        yield


@pytest.mark.parametrize("architecture", KINDS)
def test_the_list_agrees_with_the_built_model(architecture: str) -> None:
    clip = shared_clip(architecture)
    listed, encoder = summarise(architecture, shrunk_settings(architecture)), PromptedTextEncoder(clip)
    found = "no" if encoder.texts_only else "yes" if encoder.slow_because is None else "slow"
    assert (listed.learned_prompt, listed.width) == (found, clip.embed_dim)
    assert listed.context_length == clip.tokenizer.context_length
    assert (listed.tokenizer == "byte pairs") == clip.has_byte_pairs
    assert listed.text_tower == "open_clip"
    if not encoder.texts_only:
        assert listed.causal == encoder.tower.is_causal


def test_every_architecture_is_listed_and_none_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("listing neither builds nor fetches")

    for target in ("open_clip.CLIP", "open_clip.CustomTextCLIP", "open_clip.create_model"):
        monkeypatch.setattr(target, refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    towers = {tower.name: tower for tower in list_towers()}
    assert list(towers) == ["mini", *open_clip.list_models()]
    assert towers["ViT-B-16-quickgelu"].learned_prompt == "yes"
    assert "openai" in towers["ViT-B-16-quickgelu"].pretrained
    assert towers["ViT-B-16-SigLIP2"].tokenizer == "timm/ViT-B-16-SigLIP2"
    for name in HUGGING_FACE_KINDS:
        assert (towers[name].learned_prompt, towers[name].causal) == ("no", False)
        assert towers[name].text_tower == open_clip.get_model_config(name)["text_cfg"]["hf_model_name"]
    lines = render(list(towers.values())).splitlines()
    assert len(lines) == 1 + len(towers) + 2
    assert len({line.index("pretrained") for line in lines[:1]} | {lines[1].index("embedded")}) == 1


def test_mini_is_listed_as_it_is() -> None:
    (listed,), clip = list_towers("MINI"), load_clip("mini")
    assert (listed.width, listed.learned_prompt) == (clip.embed_dim, "yes")


def test_the_doctor_lists_towers(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(["--towers", "siglip2", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert len(listed) > 10
    assert all("SigLIP2" in tower["name"] and tower["learned_prompt"] == "no" for tower in listed)
    assert doctor.main(["--towers", "RN50"]) == 0
    assert "RN50-quickgelu" in capsys.readouterr().out
    with pytest.raises(UserError, match="no architecture has 'ViT-B-99' in its name; nearest: 'ViT-B-32'"):
        doctor.main(["--towers", "ViT-B-99"])
