"""The project's own segmentation files: each builds, and means what the published file of that run means."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("detectron2")

from pomp_engine.config import flatten
from pomp_seg import build_segmenter, load_config
from pomp_seg.data.catalog import segmentation_entry
from pomp_seg.names import is_segmenter
from prompt_core.prompt import SoftPrompt

FOLDER = Path(__file__).resolve().parents[2] / "configs/segmentation"
FILES = sorted(FOLDER.glob("*.yaml"))
RUNS = [file for file in FILES if not file.stem.startswith("base_")]
CPU = {"MODEL.DEVICE": "cpu"}
PROMPT = "MODEL.CLIP_ADAPTER.PROMPT_CHECKPOINT"
FORMER, VOC = "zero_shot_maskformer_R101c{}_bs32_60k", "zero_shot_maskformer_R101c{}_bs16_20k"
SUFFIX = {"predefined": "_single_prompt", "imagenet": "_imagenet_prompt", "vild": "_vild_prompt", "zsseg": "",
          "pomp": "_pomp_prompt"}  # fmt: skip
STAGE_1 = {
    "coco_stuff_prompt_zsseg": "coco-stuff-164k-156/zero_shot_proposal_classification_learn_prompt_bs32_10k",
    "coco_stuff_prompt_pomp": "coco-stuff-164k-156/zero_shot_proposal_classification_learn_prompt_pomp_bs32_10k",
    "voc_prompt_zsseg": "voc-11k-15/zero_shot_proposal_classification_learn_prompt_bs16_10k",
    "voc_prompt_pomp": "voc-11k-15/zero_shot_proposal_classification_learn_prompt_pomp_bs16_10k",
}
STAGE_2 = {
    **{f"coco_stuff_156_{own}": f"coco-stuff-164k-156/{FORMER.format(name)}" for own, name in SUFFIX.items()},
    **{f"coco_stuff_171_{own}": f"coco-stuff-164k-171/{FORMER.format(name)}" for own, name in SUFFIX.items()},
    **{f"voc_15_{own}": f"voc-11k-15/{VOC.format(name)}" for own, name in SUFFIX.items()},
    "coco_stuff_156_per_pixel": "coco-stuff-164k-156/zero_shot_perpixel_R101c_single_prompt_bs32_60k",
    "coco_stuff_171_closed": "coco-stuff-164k-171/maskformer_R101c_bs32_60k",
    "voc_20_closed": "voc-11k-20/maskformer_R101c_bs16_20k",
}
CROSS_DATASET = {
    "ade20k_150_zsseg": "ade20k-150/cross_dataset_learned_prompt_test_only",
    "ade20k_150_pomp": "ade20k-150/cross_dataset_pomp_prompt_test_only",
    "ade20k_847_vild": "ade20k-847/cross_dataset_test_only",
    "pcontext_59_zsseg": "pcontext-59/cross_dataset_learned_prompt_test_only",
    "pcontext_59_pomp": "pcontext-59/cross_dataset_pomp_prompt_test_only",
}
# Where results and weights go and come from, and what nothing reads.
PLACES = ("OUTPUT_DIR", "MODEL.WEIGHTS", PROMPT)
NOT_READ = ("TEST.AUG.", "ORACLE", "MODEL.MASK_ON", "SOLVER.TEST_IMS_PER_BATCH")
# Prompt tuning has no backbone, no mask head and no crops of whole photos; published files inherit them.
NOT_TUNED = ("MODEL.PIXEL_", "MODEL.BACKBONE.", "MODEL.RESNETS.", "MODEL.SEM_SEG_HEAD.", "INPUT.CROP.",
             "INPUT.MAX_SIZE_TRAIN", "INPUT.COLOR_AUG_SSD")  # fmt: skip
# Published cross-dataset files inherit how the 156 classes are trained, though the weights come from all 171; a test
# reads none of it.
NOT_TESTED = ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", "DATASETS.TRAIN", "INPUT.CROP.SIZE", "INPUT.SIZE_DIVISIBILITY")


def meaning(file: Path, left_out: tuple[str, ...] = ()) -> dict[str, Any]:
    settings = flatten(load_config(file, CPU))
    return {key: value for key, value in settings if not key.startswith((*PLACES, *NOT_READ, *left_out))}


@pytest.mark.parametrize("name", sorted(STAGE_1 | STAGE_2 | CROSS_DATASET))
def test_means_what_the_published_file_means(published: Path, name: str) -> None:
    left_out = NOT_TUNED if name in STAGE_1 else NOT_TESTED if name in CROSS_DATASET else ()
    theirs = published / f"{(STAGE_1 | STAGE_2 | CROSS_DATASET)[name]}.yaml"
    assert meaning(FOLDER / f"{name}.yaml", left_out) == meaning(theirs, left_out)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_names_its_output_and_begins_with_its_command(file: Path) -> None:
    assert is_segmenter(file)
    assert f"runs/segmentation/{file.stem}" == load_config(file, CPU).OUTPUT_DIR
    if file in RUNS:
        first = file.read_text(encoding="utf-8").splitlines()[0]
        assert first.startswith(f"# python tools/train_net.py --config configs/segmentation/{file.name} --num-gpus 8")
        assert ("--eval-only" in first) == file.stem.startswith(("ade20k", "pcontext"))


@pytest.mark.parametrize("file", RUNS, ids=lambda file: file.stem)
def test_starts_from_its_own_first_stage(file: Path) -> None:
    cfg = load_config(file, CPU)
    checkpoint, learner = cfg.MODEL.CLIP_ADAPTER.PROMPT_CHECKPOINT, cfg.MODEL.CLIP_ADAPTER.PROMPT_LEARNER
    tuning = cfg.MODEL.META_ARCHITECTURE == "ProposalClipClassifier"
    if learner == "pomp":
        pretraining = (FOLDER.parent / "prompt/imagenet21k_vitb16.yaml").read_text(encoding="utf-8").splitlines()[0]
        assert checkpoint == f"{pretraining.split('--output ')[1]}/prompt.safetensors"
    elif learner in ("learnable", "pomp_tuned") and not tuning:
        source = load_config(FOLDER / f"{Path(checkpoint).parent.name}.yaml", CPU)
        assert checkpoint == f"{source.OUTPUT_DIR}/model_final.pth"
        theirs, ours = source.MODEL.CLIP_ADAPTER, cfg.MODEL.CLIP_ADAPTER
        assert (
            learner.removesuffix("_tuned"),
            ours.PROMPT_SHAPE,
            ours.PROMPT_LAYOUT,
        ) == (theirs.PROMPT_LEARNER, theirs.PROMPT_SHAPE, theirs.PROMPT_LAYOUT)
    else:
        assert checkpoint == ""
    if file.stem.startswith(("ade20k", "pcontext")):
        source = load_config(FOLDER / f"{Path(cfg.MODEL.WEIGHTS).parent.name}.yaml", CPU)
        assert f"{source.OUTPUT_DIR}/model_final.pth" == cfg.MODEL.WEIGHTS
        assert (source.DATASETS.TRAIN, source.MODEL.SEM_SEG_HEAD.NUM_CLASSES) == (
            ("coco_2017_train_stuff_sem_seg",),
            171,
        )
        assert checkpoint == source.MODEL.CLIP_ADAPTER.PROMPT_CHECKPOINT


@pytest.mark.parametrize("file", RUNS, ids=lambda file: file.stem)
def test_data_sets_are_known_and_have_as_many_classes_as_the_loss(file: Path) -> None:
    cfg = load_config(file, CPU)
    counts = {"coco_stuff": 171, "coco_stuff_base": 156, "voc": 20, "voc_base": 15}
    for name in cfg.DATASETS.TEST:
        segmentation_entry(name)
    for name in cfg.DATASETS.TRAIN:
        entry = segmentation_entry(name)
        assert name.endswith("_classification") == (cfg.MODEL.META_ARCHITECTURE == "ProposalClipClassifier")
        if "MaskFormer" in cfg.MODEL.META_ARCHITECTURE:
            assert counts[entry.label_set] == cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES


@pytest.mark.parametrize("file", RUNS, ids=lambda file: file.stem)
def test_builds(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Drawing the weights of full-size models takes most of the time, and this test does not look at them.
    monkeypatch.setattr(torch.Tensor, "uniform_", lambda self, *arguments, **options: self)
    monkeypatch.setattr(torch.Tensor, "normal_", lambda self, *arguments, **options: self)
    monkeypatch.chdir(tmp_path)
    cfg = load_config(file, CPU)
    checkpoint, learner = cfg.MODEL.CLIP_ADAPTER.PROMPT_CHECKPOINT, cfg.MODEL.CLIP_ADAPTER.PROMPT_LEARNER
    context = torch.arange(16 * 512).view(16, 512) / 1000
    if checkpoint:
        Path(checkpoint).parent.mkdir(parents=True)
        if checkpoint.endswith(".safetensors"):
            SoftPrompt(context).save(checkpoint)
        else:
            key = "prefix_prompt" if learner == "learnable" else "ctx"
            torch.save({"model": {f"clip_adapter.prompt_learner.{key}": context}}, checkpoint)
    model: Any = build_segmenter(cfg)
    assert type(model).__name__ == cfg.MODEL.META_ARCHITECTURE
    if cfg.MODEL.META_ARCHITECTURE == "MaskFormer":
        assert not hasattr(model, "clip_adapter")
        return
    prompt = model.clip_adapter.prompt_learner
    if checkpoint:
        assert torch.equal(prompt.context().detach(), context)
    # Stage 1 learns the prompt, stage 2 keeps it.
    assert prompt.learns == (cfg.MODEL.META_ARCHITECTURE == "ProposalClipClassifier")


def test_baselines_differ_from_their_neighbours_in_the_method_alone() -> None:
    def changed(one: str, other: str) -> set[str]:
        ours, theirs = (meaning(FOLDER / f"{name}.yaml") for name in (one, other))
        return {key for key in ours if ours[key] != theirs[key]}

    clip = "MODEL.CLIP_ADAPTER."
    for data in ("coco_stuff_156", "voc_15"):
        assert changed(f"{data}_zegformer", f"{data}_predefined") == {
            f"{clip}ENSEMBLE",
            f"{clip}PREDEFINED_PROMPT_TEMPLATES",
        }
        assert changed(f"{data}_spnet", f"{data}_predefined") == {
            f"{clip}CLIP_ENSEMBLE_WEIGHT",
            "MODEL.META_ARCHITECTURE",
            "MODEL.SEM_SEG_HEAD.NAME",
            "MODEL.SEM_SEG_HEAD.NUM_CLASSES",
        }
        assert changed(f"{data}_pomp_raw", f"{data}_pomp") == {f"{clip}PROMPT_LEARNER", f"{clip}PROMPT_LAYOUT"}
    assert load_config(FOLDER / "voc_15_spnet.yaml", CPU).MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT > 1


def test_the_documentation_names_each_run_and_nothing_else() -> None:
    text = (FOLDER.parents[1] / "docs/segmentation.md").read_text(encoding="utf-8")
    named = set()
    for before, choices, after in re.findall(r"`([a-z0-9_/]+)(?:\{([a-z0-9_,]+)\}([a-z0-9_]*))?\.yaml`", text):
        named |= {f"{before}{choice}{after}" for choice in choices.split(",")}
    places = {FOLDER / f"{name}.yaml" if "/" not in name else FOLDER.parents[1] / f"{name}.yaml" for name in named}
    assert sorted(str(place) for place in places if not place.is_file()) == []
    assert sorted({file.stem for file in RUNS} - named) == []
    keys = {key for key, _ in flatten(load_config(None, CPU))}
    mentioned = set(re.findall(r"`?((?:MODEL|INPUT|DATASETS|SOLVER|TEST)\.[A-Z_.0-9]*[A-Z0-9])", text))
    assert sorted(mentioned - keys) == []
