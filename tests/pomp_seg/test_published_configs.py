"""Every published segmentation file loads; those of the POMP tables and one of each kind build a model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("detectron2")

from pomp_engine.solver import warm_up_warning
from pomp_seg import build_segmenter, load_config
from pomp_seg.config import META_ARCHITECTURES
from prompt_core import UserError
from prompt_core.prompt import SoftPrompt

CPU = {"MODEL.DEVICE": "cpu"}
BUILT = [
    "ade20k-150/cross_dataset_pomp_prompt_test_only",
    "ade20k-847/cross_dataset_test_only",
    "cityscapes-19/cross_dataset_maskformer_R101c_bs32_cart_prompt_test_only",
    "coco-stuff-164k-156/zero_shot_maskformer_R101c_bs32_60k",
    "coco-stuff-164k-156/zero_shot_maskformer_R101c_imagenet_prompt_bs32_60k",
    "coco-stuff-164k-156/zero_shot_maskformer_R101c_pomp_prompt_bs32_60k",
    "coco-stuff-164k-156/zero_shot_maskformer_R101c_single_prompt_clip_rn50_bs32_60k",
    "coco-stuff-164k-156/zero_shot_perpixel_R101c_single_prompt_bs32_60k",
    "coco-stuff-164k-156/zero_shot_proposal_classification_learn_prompt_pomp_bs32_10k",
    "coco-stuff-164k-171/zero_shot_maskformer_R101c_pomp_prompt_bs32_60k",
    "pcontext-59/cross_dataset_pomp_prompt_test_only",
    "voc-11k-15/zero_shot_maskformer_R101c_pomp_prompt_bs16_20k",
    "voc-11k-15/zero_shot_proposal_classification_learn_prompt_pomp_bs16_10k",
    "voc-11k-20/maskformer_R50_bs16_20k",
]


def test_every_file_loads(published: Path) -> None:
    files = sorted(published.rglob("*.yaml"))
    assert len(files) == 53
    for file in files:
        cfg = load_config(file, CPU)
        assert warm_up_warning(cfg) == ""
        assert file.name.startswith("Base-") or cfg.MODEL.META_ARCHITECTURE in META_ARCHITECTURES
    # The expression that the base files hold instead of a list.
    base = load_config(published / "coco-stuff-164k-171/Base-COCOStuff164K-171.yaml", CPU)
    assert list(base.INPUT.MIN_SIZE_TRAIN) == [320, 384, 448, 512, 576, 640, 704, 768, 832, 896, 960]


@pytest.mark.parametrize("name", BUILT)
@pytest.mark.usefixtures("no_initial_values")
def test_builds(published: Path, tmp_path: Path, name: str) -> None:
    file = published / f"{name}.yaml"
    cfg = load_config(file, CPU)
    overrides = dict(CPU)
    if cfg.MODEL.CLIP_ADAPTER.PROMPT_CHECKPOINT:  # a file of its authors' machine
        learner = cfg.MODEL.CLIP_ADAPTER.PROMPT_LEARNER
        prompt = torch.arange(16 * 512).view(16, 512) / 1000
        checkpoint = tmp_path / "prompt.pth"
        state = {"state_dict": {"ctx": prompt}}
        torch.save({"model": {"clip_adapter.prompt_learner.ctx": prompt}} if "tuned" in learner else state, checkpoint)
        with pytest.raises(UserError, match="does not exist"):
            build_segmenter(cfg)
        overrides["MODEL.CLIP_ADAPTER.PROMPT_CHECKPOINT"] = str(checkpoint)
    model = build_segmenter(load_config(file, overrides))
    adapter = getattr(model, "clip_adapter", None)
    if "MODEL.CLIP_ADAPTER.PROMPT_CHECKPOINT" in overrides:
        torch.testing.assert_close(adapter.prompt_learner.ctx.detach(), prompt)
        # Stage 1 goes on learning the prompt, stage 2 keeps it.
        assert adapter.prompt_learner.learns == ("proposal_classification" in name)
    if adapter is not None:
        assert not any(parameter.requires_grad for parameter in adapter.clip_model.parameters())


def test_clip_weights_are_asked_for_when_they_are_needed(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the network a published file builds; random weights never pass for CLIP's."""
    from pomp_seg import clip as clip_source

    file = published / "coco-stuff-164k-156/zero_shot_maskformer_R101c_single_prompt_bs32_60k.yaml"
    model = build_segmenter(load_config(file, CPU))

    def unreachable(*arguments: object) -> None:
        raise UserError("weights could not be fetched")

    monkeypatch.setattr(clip_source, "load_clip", unreachable)
    with pytest.raises(UserError, match="could not be fetched"):
        model.clip_adapter.text_features(["cat"])
    # A checkpoint that holds CLIP makes the download unnecessary.
    adapter = model.clip_adapter
    adapter.load_state_dict(adapter.state_dict())
    assert adapter.text_features(["cat"]).shape == (2, 512)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"MODEL.CLIP_ADAPTER.PROMPT_LEARNER": "pompp"}, "nearest: 'pomp'"),
        ({"MODEL.CLIP_ADAPTER.REGION_FEATURES": "crop"}, "nearest: 'crops'"),
        ({"MODEL.CLIP_ADAPTER.MASK_FILL": "median"}, "expected mean or zero"),
        ({"MODEL.CLIP_ADAPTER.PROMPT_LEARNER": "pomp", "MODEL.CLIP_ADAPTER.PROMPT_DIM": 64}, "PROMPT_DIM is 64"),
        ({"MODEL.CLIP_ADAPTER.PROMPT_LEARNER": "pomp", "MODEL.CLIP_ADAPTER.PROMPT_SHAPE": (4,)}, "2 numbers"),
        ({"MODEL.SEM_SEG_HEAD.EMBEDDING_DIM": 512}, "have width 116"),
        ({"MODEL.SEM_SEG_HEAD.IN_FEATURES": ["res2", "res6"]}, "no feature 'res6'"),
        ({"MODEL.META_ARCHITECTURE": "ZeroShotMaskFormr"}, "nearest: 'ZeroShotMaskFormer'"),
        ({"MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME": "ViT-B-16"}, "CLIP_PRETRAINED is empty"),
        ({"MODEL.CLIP_ADAPTER.PREDEFINED_PROMPT_TEMPLATES": ["a photo"]}, "has no {}"),
        ({"MODEL.VOCABULARY": "cat,cat"}, "cat"),
        ({"INPUT.FORMAT": "BGR"}, "takes RGB"),
        ({"MODEL.CLIP_ADAPTER.MASK_EXPAND_RATIO": 0.0}, "expected above 0"),
    ],
)
def test_mistakes_are_named(tiny, changed: dict[str, object], message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError) as caught:
        tiny(changed)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_prompt_of_another_shape_is_refused(tiny, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    SoftPrompt(torch.zeros(8, 116)).save(tmp_path / "prompt.safetensors")
    with pytest.raises(UserError, match=r"ctx is \(8, 116\), PROMPT_SHAPE and PROMPT_DIM ask for \(4, 116\)"):
        tiny(
            {
                "MODEL.CLIP_ADAPTER.PROMPT_LEARNER": "pomp",
                "MODEL.CLIP_ADAPTER.PROMPT_CHECKPOINT": str(tmp_path / "prompt.safetensors"),
            }
        )
