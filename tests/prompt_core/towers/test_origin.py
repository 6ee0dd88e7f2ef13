"""Which CLIP class features come from, by their content and by names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_core import SoftPrompt, TextClassifier, UserError
from prompt_core.towers.origin import Origin, origin_by_name, recognise, stated_origin

B32, B16 = "ViT-B-32-quickgelu", "ViT-B-16-quickgelu"
PUBLISHED = {
    "lvis_v1_clip_a+cname": B32,
    "coco_clip_a+cname": B32,
    "o365_clip_a+cnamefix": B32,
    "oid_clip_a+cname": B32,
    "lvis_v1_clip_pomp+cname": B16,
    "coco_clip_pomp+cname": B16,
    "o365_fixname_clip_pomp+cname": B16,
}


@pytest.mark.parametrize(("file", "clip"), PUBLISHED.items())
def test_published_matrices_and_copies_of_them(shared: Path, tmp_path: Path, file: str, clip: str) -> None:
    published = np.load(shared / "data/clip_text" / f"{file}.npy")
    unit = published.astype(np.float32) / np.linalg.norm(published.astype(np.float32), axis=1, keepdims=True)
    copies = {
        "as_published": published,
        "single": published.astype(np.float32),
        "unit": unit,
        "scaled": 50 * unit,
        "half_unit": unit.astype(np.float16),
        "some_rows": published[np.random.default_rng(0).permutation(len(published))[:30]],
        "with_background": np.concatenate([unit, np.zeros((1, 512), np.float32)]),
        "fortran": np.asfortranarray(published),
    }
    for name, matrix in copies.items():
        found = recognise(torch.from_numpy(np.ascontiguousarray(matrix, dtype=np.float32)))
        assert found == Origin(clip, "openai", by_content=True), name
    np.save(tmp_path / "renamed.npy", copies["single"])
    metadata = TextClassifier.load(tmp_path / "renamed.npy").metadata
    assert (metadata["clip"], metadata["pretrained"], metadata["clip_by_content"]) == (clip, "openai", True)
    np.save(tmp_path / "side.npy", copies["with_background"].T)
    with pytest.raises(UserError, match=r"side\.npy is a class matrix on its side, \(512, .*one row per class"):
        TextClassifier.load(tmp_path / "side.npy")


def test_what_a_file_says_goes_before_its_content(shared: Path, tmp_path: Path) -> None:
    matrix = np.load(shared / "data/clip_text/coco_clip_a+cname.npy")
    np.save(tmp_path / "a.npy", matrix)
    notes = {"names": [f"class {row}" for row in range(len(matrix))], "metadata": {"clip": "mine"}}
    (tmp_path / "a.names.json").write_text(json.dumps(notes))
    loaded = TextClassifier.load(tmp_path / "a.npy")
    assert loaded.metadata == {"clip": "mine", "source": "a.npy"}
    TextClassifier(loaded.weight, loaded.names).save(tmp_path / "a.safetensors")
    assert TextClassifier.load(tmp_path / "a.safetensors").metadata["clip"] == B32


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([1, 3, 80]), st.sampled_from([24, 512]), st.floats(0, 3))
def test_other_features_are_not_recognised(seed: int, count: int, width: int, cone: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    common = cone * torch.randn(width, generator=generator)
    assert recognise(torch.randn(count, width, generator=generator) + common) is None


@pytest.mark.parametrize("rows", [torch.zeros(3, 512), torch.full((3, 512), torch.nan), torch.zeros(0, 512)])
def test_rows_without_a_direction(rows: torch.Tensor) -> None:
    assert recognise(rows) is None


@pytest.mark.parametrize(
    ("name", "clip"),
    [
        ("vit_b16_ep20_randaug2_unc1000_16shots_nctx16_cscFalse_ctpend_seed42.pth.tar", B16),
        ("pretrained/vit_b16_ep5_randaug2_unc1000_16shots_nctx4_cscFalse_ctpend_seed42.pth.tar", B16),
        ("output/imagenet/CoOp/rn50_ep50_16shots/nctx16/seed1/prompt_learner/model.pth.tar-50", "RN50-quickgelu"),
        ("vit_b32_ep20_randaug2/model-best.pth.tar", B32),
        ("model.pth.tar", None),
        ("my_vit_b16_ep20.pth.tar", None),
    ],
)
def test_published_checkpoints_say_their_backbone_by_name(tmp_path: Path, name: str, clip: str | None) -> None:
    found = origin_by_name(Path(name))
    assert (found and found.clip) == clip
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": {"ctx": torch.randn(4, 512)}}, tmp_path / name)
    assert SoftPrompt.load(tmp_path / name).metadata.get("clip") == clip


def test_which_origins_differ() -> None:
    def differ(first: tuple[str, str | None], second: tuple[str, str | None]) -> bool:
        one, other = Origin(*first), Origin(*second)
        assert one.differs_from(other) == other.differs_from(one)
        return one.differs_from(other)

    assert differ((B16, "openai"), (B32, "openai"))
    assert differ((B16, None), ("mini", "mini.safetensors"))
    assert differ(("ViT-B-16", "openai"), ("ViT-B-16", "laion2b_s34b_b88k"))
    assert not differ((B16, "openai"), ("ViT-B-16", "openai"))
    assert not differ((B16, "openai"), (B16, "my_weights.pt"))
    assert not differ((B16, None), (B16, "openai"))
    assert not differ(("openai", "ViT-B-16.pt"), (B16, "openai"))
    assert not differ(("hf-hub:timm/vit_base_patch16_clip_224.openai", None), (B16, "openai"))
    assert not differ(("runs/a/tiny.json", None), ("/elsewhere/tiny.json", None))
    assert stated_origin({"clip": None}) is None
    assert stated_origin({"clip": B16, "pretrained": "openai"}) == Origin(B16, "openai")
    assert str(Origin(B16, "openai", by_content=True)) == f"CLIP {B16} (openai, told by its content)"
    assert str(Origin("mini", "mini.safetensors")) == "CLIP mini"
