"""The project's own segmentation files: they build, and each run means what its published file means."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("detectron2")

from pomp_engine.config import flatten
from pomp_seg import build_segmenter, load_config
from pomp_seg.config import is_segmenter
from pomp_seg.data.catalog import segmentation_entry
from pomp_seg.data.label_sets import label_set
from prompt_core.prompt import SoftPrompt

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
FOLDER = CONFIGS / "segmentation"
FILES = sorted(FOLDER.glob("*.yaml"))
CPU = {"MODEL.DEVICE": "cpu"}
CLIP = "MODEL.CLIP_ADAPTER."
PROMPT = f"{CLIP}PROMPT_CHECKPOINT"
FULL_ADE20K = {"DATASETS.TEST": "('ade20k_full_sem_seg_val',)", f"{CLIP}MASK_THR": 0.3,
               f"{CLIP}CLIP_ENSEMBLE_WEIGHT": 0.7}  # fmt: skip
# Runs that are a file with options behind its command: what the page's second table gives.
PROMPTS: dict[str, dict[str, Any]] = {
    "imagenet": {f"{CLIP}PROMPT_LEARNER": "imagenet"},
    "vild": {f"{CLIP}PROMPT_LEARNER": "vild"},
    "pomp_raw": {
        f"{CLIP}PROMPT_LEARNER": "pomp",
        f"{CLIP}PROMPT_LAYOUT": "joined",
        PROMPT: "runs/imagenet21k_vitb16/prompt.safetensors",
    },
}
OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"{file}_{name}": (file, options) for file in ("coco_stuff_156", "coco_stuff_171", "voc_15")
       for name, options in PROMPTS.items()},
    "coco_stuff_156_per_pixel": ("coco_stuff_156_spnet", {f"{CLIP}CLIP_ENSEMBLE_WEIGHT": 0.7}),
    "ade20k_847_zsseg": ("ade20k_150_zsseg", FULL_ADE20K),
    "ade20k_847_pomp": ("ade20k_150_pomp", FULL_ADE20K),
}  # fmt: skip
RUNS = {file.stem: (file.stem, {}) for file in FILES if file.stem != "base_mask_former"} | OPTIONS
FORMER, VOC = "zero_shot_maskformer_R101c{}_bs32_60k", "zero_shot_maskformer_R101c{}_bs16_20k"
SUFFIX = {"": "_single_prompt", "_imagenet": "_imagenet_prompt", "_vild": "_vild_prompt", "_zsseg": "",
          "_pomp": "_pomp_prompt"}  # fmt: skip
STAGE_1 = {
    "coco_stuff_prompt_zsseg": "coco-stuff-164k-156/zero_shot_proposal_classification_learn_prompt_bs32_10k",
    "coco_stuff_prompt_pomp": "coco-stuff-164k-156/zero_shot_proposal_classification_learn_prompt_pomp_bs32_10k",
    "voc_prompt_zsseg": "voc-11k-15/zero_shot_proposal_classification_learn_prompt_bs16_10k",
    "voc_prompt_pomp": "voc-11k-15/zero_shot_proposal_classification_learn_prompt_pomp_bs16_10k",
}
STAGE_2 = {
    **{f"coco_stuff_156{suffix}": f"coco-stuff-164k-156/{FORMER.format(name)}" for suffix, name in SUFFIX.items()},
    **{f"coco_stuff_171{suffix}": f"coco-stuff-164k-171/{FORMER.format(name)}" for suffix, name in SUFFIX.items()},
    **{f"voc_15{suffix}": f"voc-11k-15/{VOC.format(name)}" for suffix, name in SUFFIX.items()},
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
NOT_READ = ("TEST.AUG.", "MODEL.MASK_ON")
# Prompt tuning has no backbone, no mask head and no crops of whole photos; published files inherit them. It is given
# true regions also without being told so.
NOT_TUNED = ("ORACLE", "MODEL.PIXEL_", "MODEL.BACKBONE.", "MODEL.RESNETS.", "MODEL.SEM_SEG_HEAD.", "INPUT.CROP.",
             "INPUT.MAX_SIZE_TRAIN", "INPUT.COLOR_AUG_SSD")  # fmt: skip
# Published cross-dataset files inherit how the 156 classes are trained, though the weights come from all 171; a test
# reads none of it.
NOT_TESTED = ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", "DATASETS.TRAIN", "INPUT.CROP.SIZE", "INPUT.SIZE_DIVISIBILITY")


def load(run: str, changed: dict[str, Any] = CPU) -> Any:
    file, options = RUNS[run]
    return load_config(FOLDER / f"{file}.yaml", options | changed)


def meaning(cfg: Any, left_out: tuple[str, ...] = ()) -> dict[str, Any]:
    return {key: value for key, value in flatten(cfg) if not key.startswith((*PLACES, *NOT_READ, *left_out))}


@pytest.mark.parametrize("name", sorted(STAGE_1 | STAGE_2 | CROSS_DATASET))
def test_means_what_the_published_file_means(published: Path, name: str) -> None:
    left_out = NOT_TUNED if name in STAGE_1 else NOT_TESTED if name in CROSS_DATASET else ()
    theirs = load_config(published / f"{(STAGE_1 | STAGE_2 | CROSS_DATASET)[name]}.yaml", CPU)
    assert meaning(load(name), left_out) == meaning(theirs, left_out)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_names_its_output_and_begins_with_its_command(file: Path) -> None:
    assert is_segmenter(file)
    assert f"runs/segmentation/{file.stem}" == load_config(file, CPU).OUTPUT_DIR
    first = file.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ")
    if file.stem in RUNS:
        assert first.startswith(f"# python tools/train_net.py --config configs/segmentation/{file.name} --num-gpus 8")
        assert ("--eval-only" in first) == file.stem.startswith(("ade20k", "pcontext"))


@pytest.mark.parametrize("run", RUNS)
def test_starts_from_its_own_first_stage(run: str) -> None:
    cfg = load(run)
    checkpoint, learner = cfg.MODEL.CLIP_ADAPTER.PROMPT_CHECKPOINT, cfg.MODEL.CLIP_ADAPTER.PROMPT_LEARNER
    tuning = cfg.MODEL.META_ARCHITECTURE == "ProposalClipClassifier"
    if learner == "pomp":
        pretraining = (CONFIGS / "prompt/imagenet21k_vitb16.yaml").read_text(encoding="utf-8").splitlines()[0]
        assert checkpoint == f"{pretraining.split('--output ')[1]}/prompt.safetensors"
    elif learner in ("learnable", "pomp_tuned") and not tuning:
        source = load(Path(checkpoint).parent.name)
        assert checkpoint == f"{source.OUTPUT_DIR}/model_final.pth"
        theirs, ours = source.MODEL.CLIP_ADAPTER, cfg.MODEL.CLIP_ADAPTER
        assert (
            learner.removesuffix("_tuned"),
            ours.PROMPT_SHAPE,
            ours.PROMPT_LAYOUT,
        ) == (theirs.PROMPT_LEARNER, theirs.PROMPT_SHAPE, theirs.PROMPT_LAYOUT)
    else:
        assert checkpoint == ""
    if run.startswith(("ade20k", "pcontext")):
        source = load(Path(cfg.MODEL.WEIGHTS).parent.name)
        assert (source.DATASETS.TRAIN, source.MODEL.SEM_SEG_HEAD.NUM_CLASSES) == (
            ("coco_2017_train_stuff_sem_seg",),
            171,
        )
        assert checkpoint == source.MODEL.CLIP_ADAPTER.PROMPT_CHECKPOINT


@pytest.mark.parametrize("run", RUNS)
def test_data_sets_are_known_and_have_as_many_classes_as_the_loss(run: str) -> None:
    cfg = load(run)
    counts = {"coco_stuff": 171, "coco_stuff_base": 156, "voc": 20, "voc_base": 15}
    for name in cfg.DATASETS.TEST:
        segmentation_entry(name)
    for name in cfg.DATASETS.TRAIN:
        entry = segmentation_entry(name)
        assert name.endswith("_classification") == (cfg.MODEL.META_ARCHITECTURE == "ProposalClipClassifier")
        if "MaskFormer" in cfg.MODEL.META_ARCHITECTURE:
            assert counts[entry.label_set] == cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES


# One of each kind of model and prompt; the others differ in data, schedule and numbers.
@pytest.mark.parametrize(
    "run",
    ["coco_stuff_prompt_zsseg", "coco_stuff_prompt_pomp", "coco_stuff_156", "coco_stuff_156_imagenet",
     "coco_stuff_156_vild", "coco_stuff_156_zsseg", "coco_stuff_156_pomp", "coco_stuff_156_pomp_raw",
     "coco_stuff_156_spnet", "coco_stuff_156_cagnet", "coco_stuff_156_zegformer", "coco_stuff_171_closed"],
)  # fmt: skip
def test_builds(run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_initial_values: None) -> None:
    monkeypatch.chdir(tmp_path)
    cfg = load(run)
    checkpoint, learner = cfg.MODEL.CLIP_ADAPTER.PROMPT_CHECKPOINT, cfg.MODEL.CLIP_ADAPTER.PROMPT_LEARNER
    context = torch.arange(16 * 512).view(16, 512) / 1000
    save_context(checkpoint, context, "prefix_prompt" if learner == "learnable" else "ctx")
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


def save_context(checkpoint: str, context: torch.Tensor, key: str = "ctx") -> None:
    """Write vectors as the prompt file, or the output of a prompt tuning, that a configuration names."""
    if not checkpoint:
        return
    Path(checkpoint).parent.mkdir(parents=True)
    if checkpoint.endswith(".safetensors"):
        SoftPrompt(context).save(checkpoint)
    else:
        torch.save({"model": {f"clip_adapter.prompt_learner.{key}": context}}, checkpoint)


def test_baselines_differ_from_their_neighbours_in_the_method_alone() -> None:
    def changed(first: str, second: str) -> set[str]:
        ours, theirs = (meaning(load(name)) for name in (first, second))
        return {key for key in ours if ours[key] != theirs[key]}

    for data in ("coco_stuff_156", "voc_15"):
        assert changed(f"{data}_zegformer", data) == {
            f"{CLIP}ENSEMBLE",
            f"{CLIP}PREDEFINED_PROMPT_TEMPLATES",
        }
        assert changed(f"{data}_spnet", data) == {
            f"{CLIP}CLIP_ENSEMBLE_WEIGHT",
            "MODEL.META_ARCHITECTURE",
            "MODEL.SEM_SEG_HEAD.NAME",
            "MODEL.SEM_SEG_HEAD.NUM_CLASSES",
        }
        for kind in ("zs3", "cagnet"):
            of_kind = {"MODEL.GENERATOR.KIND", "MODEL.GENERATOR.MOMENTS"} if kind == "cagnet" else set()
            assert changed(f"{data}_{kind}", f"{data}_spnet") == of_kind | {
                "MODEL.META_ARCHITECTURE",
                "MODEL.GENERATOR.SELF_TRAINING",
                "MODEL.GENERATOR.SELF_TRAINING_FROM",
                "SOLVER.BASE_LR",
                "SOLVER.MAX_ITER",
            } - ({"SOLVER.MAX_ITER"} if load(f"{data}_spnet").SOLVER.MAX_ITER == 20000 else set())
            spnet = load(f"{data}_spnet").OUTPUT_DIR
            assert f"{spnet}/model_final.pth" == load(f"{data}_{kind}").MODEL.WEIGHTS
        assert changed(f"{data}_pomp_raw", f"{data}_pomp") == {f"{CLIP}PROMPT_LEARNER", f"{CLIP}PROMPT_LAYOUT"}
    assert load("voc_15_spnet").MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT > 1


def test_the_documentation_names_each_run_and_nothing_else() -> None:
    text = (CONFIGS.parent / "docs/segmentation.md").read_text(encoding="utf-8")
    named = set()
    for before, choices, after in re.findall(r"`([a-z0-9_/]+)(?:\{([a-z0-9_,]+)\}([a-z0-9_]*))?\.yaml`", text):
        named |= {f"{before}{choice}{after}" for choice in choices.split(",")}
    places = {FOLDER / f"{name}.yaml" if "/" not in name else CONFIGS.parent / f"{name}.yaml" for name in named}
    assert sorted(str(place) for place in places if not place.is_file()) == []
    assert sorted({file.stem for file in FILES} - named) == []
    for _, options in OPTIONS.values():
        pairs = ((key, f'"{value}"' if "(" in str(value) else value) for key, value in options.items())
        written = " ".join(f"{key} {value}" for key, value in pairs)
        assert f"`{written}`" in text
    keys = {key for key, _ in flatten(load_config(None, CPU))}
    mentioned = set(re.findall(r"`?((?:MODEL|INPUT|DATASETS|SOLVER|TEST)\.[A-Z_.0-9]*[A-Z0-9])", text))
    assert sorted(mentioned - keys) == []


# The small files, on the embedded CLIP

MINI = CONFIGS / "mini"
MINI_FILES = sorted(file for file in MINI.glob("*.yaml") if is_segmenter(file))


def test_all_small_files_are_looked_at() -> None:
    assert {
        "coco_seg",
        "coco_seg_pomp",
        "coco_seg_pomp_tuned",
        "coco_seg_prompt",
        "cross_dataset_seg",
        "scenes_seg",
    } <= {file.stem for file in MINI_FILES}


@pytest.mark.parametrize("file", MINI_FILES, ids=lambda file: file.stem)
def test_small_files_build_with_sets_of_as_many_classes(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_initial_values: None
) -> None:
    monkeypatch.chdir(tmp_path)
    cfg = load_config(file, CPU)
    save_context(cfg.MODEL.CLIP_ADAPTER.PROMPT_CHECKPOINT, torch.zeros(cfg.MODEL.CLIP_ADAPTER.PROMPT_SHAPE[0], 116))
    model = build_segmenter(cfg)
    assert model.clip_adapter.clip.name == "mini"
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        entry = segmentation_entry(name)
        if name in cfg.DATASETS.TRAIN and "MaskFormer" in cfg.MODEL.META_ARCHITECTURE and not entry.classes_in_file:
            assert len(label_set(entry.label_set)) == cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES


def test_small_stages_hand_on_what_the_next_one_reads() -> None:
    tuning, tuned = (load_config(MINI / f"{name}.yaml", CPU) for name in ("coco_seg_prompt", "coco_seg_pomp_tuned"))
    assert f"{tuning.OUTPUT_DIR}/model_final.pth" == tuned.MODEL.CLIP_ADAPTER.PROMPT_CHECKPOINT
    assert tuned.MODEL.CLIP_ADAPTER.PROMPT_SHAPE == tuning.MODEL.CLIP_ADAPTER.PROMPT_SHAPE
    source, cross = (load_config(MINI / f"{name}.yaml", CPU) for name in ("coco_seg", "cross_dataset_seg"))
    assert f"{source.OUTPUT_DIR}/model_final.pth" == cross.MODEL.WEIGHTS
    # Only the test sets and the weights differ: another vocabulary needs nothing else.
    for cfg in (source, cross):
        cfg.DATASETS.TEST, cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR = (), "", ""
    assert source.dump() == cross.dump()
