"""A detector for words of one's own, from boxed photos: what is inferred, and the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pomp.learning.boxed_photos import HELD_OUT, TRAIN, WORDS, BoxedPhotos
from prompt_core.errors import UserError
from prompt_core.visible import say

START, TRAINING = "start.safetensors", "training"
SETS = ("own_train", "own_held_out")
EPOCHS = 12  # times that each photo is seen
FEWEST_STEPS, MOST_STEPS = 200, 6000
BATCH = 4


@dataclass(frozen=True)
class FineTuned:
    """What came of a run: box AP in percent on photos that were held out, before and after; None without any."""

    folder: Path
    before: dict[str, float] | None
    after: dict[str, float] | None


def fine_tune(
    boxed: BoxedPhotos, photos: Path, model: str, overrides: Sequence[str] = (), resume: bool = False, seed: int = 0
) -> FineTuned:
    """Train on the files of ``boxed.folder`` and measure on those held out.

    The embedded detector learns the last layers of its detection network, where each word is a class of it
    (:mod:`pomp.learning.own_rows`); what names other words stays. Any other detector learns as its configuration says,
    with these words.

    Args:
        model: ``mini``, the name of a configuration or a YAML file.
        overrides: ``KEY VALUE`` pairs of the configuration, which win.
        resume: go on with the run in the folder.

    Raises:
        UserError: anything that the configuration, the data or the weights lack.
    """
    from pomp_det.task import detection_task
    from pomp_engine import run

    settings = inferred_settings(boxed, photos, model, seed)
    if settings.embedded:
        settings.values.update(_start(settings.config, boxed, resume))
    cfg = settings.load(overrides)
    before = _measured(cfg, cfg.MODEL.WEIGHTS, "before") if boxed.held_out and settings.embedded else None
    run.train(detection_task(), cfg, resume)
    final = _finish(cfg, boxed.folder, settings)
    after = _measured(cfg, final, "after") if boxed.held_out else None
    return FineTuned(boxed.folder, before, after)


@dataclass
class InferredSettings:
    """A configuration and what the photos and words say about it.

    Attributes:
        config: the file.
        values: keys and values.
        embedded: whether it is the embedded detector, or one like it.
        masks: whether the detector has masks.
    """

    config: Path
    values: dict[str, Any]
    embedded: bool
    masks: bool

    def load(self, overrides: Sequence[str] = ()) -> Any:
        """The configuration; ``overrides`` win."""
        from pomp_det.config import load_config
        from prompt_core.config import override_pairs

        return load_config(self.config, {**self.values, **dict(override_pairs(list(overrides)))})


def inferred_settings(boxed: BoxedPhotos, photos: Path, model: str, seed: int = 0) -> InferredSettings:
    """Data sets, words, width, sizes and the length of the run.

    Raises:
        UserError: an unknown model, or one that is no detector.
    """
    import pomp_seg
    from pomp.configurations import configuration
    from pomp_det.clip_towers import clip_width
    from pomp_det.config import load_config

    file = (
        Path(model)
        if model.endswith((".yaml", ".yml"))
        else configuration("mini/detector" if model == "mini" else model)
    )
    if pomp_seg.is_segmenter(file, []):
        raise UserError(f"{file} is a segmenter; pomp train fine-tunes detectors on boxes")
    cfg = load_config(file)
    folder = boxed.folder
    steps = min(max(EPOCHS * boxed.photos // BATCH, FEWEST_STEPS), MOST_STEPS)
    files = [[SETS[0], str(folder / TRAIN), str(photos)]]
    if boxed.held_out:
        files.append([SETS[1], str(folder / HELD_OUT), str(photos)])
    values: dict[str, Any] = {
        "DATASETS.FILES": files,
        "DATASETS.TRAIN": [SETS[0]],
        "DATASETS.TEST": [],
        "MODEL.VOCABULARY": str(folder / WORDS),
        "OUTPUT_DIR": str(folder / TRAINING),
        "SEED": seed,
    }
    embedded = cfg.MODEL.ROI_HEADS.NAME == "RegionWordsROIHeads"
    if embedded:
        values |= {
            "SOLVER.MAX_ITER": steps,
            "SOLVER.IMS_PER_BATCH": BATCH,
            "SOLVER.BASE_LR": 3e-4,
            "SOLVER.WARMUP_ITERS": steps // 10,
            "SOLVER.RESUME_PERIOD": 100,
            "MODEL.MASK_ON": False,  # the masks stay as they are, see _finish
        }
        return InferredSettings(file, values, True, cfg.MODEL.MASK_ON)
    name = cfg.MODEL.CLIP.NAME or "mini"
    values |= {"MODEL.CLIP.NAME": name, "MODEL.PROMPT": cfg.MODEL.PROMPT or "a {}."}
    if (width := clip_width(name)) is not None:
        values["MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_DIM"] = width
    if cfg.INPUT.CUSTOM_AUG == "EfficientDetResizeCrop":
        side = min(max(32 * round(boxed.side / 32), 256), cfg.INPUT.TRAIN_SIZE)
        values |= {"INPUT.TRAIN_SIZE": side, "INPUT.TEST_SIZE": side}
    values["MODEL.MASK_ON"] = False  # boxes are what is given
    return InferredSettings(file, values, False, False)


def _start(config: Path, boxed: BoxedPhotos, resume: bool) -> dict[str, Any]:
    """The embedded detector's weights with a class for each word, written to the folder; the settings that fit them."""
    from pomp.learning.own_rows import own_rows
    from pomp_det.config import load_config
    from pomp_det.heads.seen_words import Closeness
    from pomp_det.predictor import OpenVocabularyPredictor
    from prompt_core.classifier import TextClassifier
    from prompt_core.clip import load_clip
    from prompt_core.files import write_safetensors

    cfg = load_config(config)
    node = cfg.MODEL.WORDS
    shipped: Any = OpenVocabularyPredictor.load(cfg, words_follow=True).model
    state = {key: value for key, value in shipped.state_dict().items() if not key.endswith("zs_weight")}
    clip = load_clip(cfg.MODEL.CLIP.NAME, cfg.MODEL.CLIP.PRETRAINED or None)
    text = TextClassifier.build(clip, boxed.words, node.SEEN_TEMPLATE).weight
    closeness = Closeness(node.SEEN_FROM, node.SEEN_WHOLLY, node.SEEN_SHARPNESS)
    own = own_rows(state, text, node.SEEN_CLASSES, closeness)
    for word in own.new:
        say(f"{boxed.words[word]}: a new class of the detection network")
    start = boxed.folder / START
    if not resume:
        weights = {key: value.detach().contiguous() for key, value in own.state.items()}
        write_safetensors(start, weights, {"source": cfg.MODEL.WEIGHTS})
    return {
        "MODEL.WEIGHTS": str(start),
        "MODEL.WORDS.SEEN_CLASSES": node.SEEN_CLASSES + len(own.new),
        "MODEL.WORDS.SEEN_NAMES": own.names,
        "MODEL.WORDS.LEARNED_ROWS": own.rows,
    }


def _finish(cfg: Any, folder: Path, settings: InferredSettings) -> str:
    """Write ``config.yaml`` and ``model_final.pth`` of the folder, which every command takes as a model.

    The embedded detector's masks were left out of the training; they are those of the start.

    Returns:
        the checkpoint.
    """
    import torch

    from pomp_det import build_detector, load_weights
    from pomp_engine.run_folder import FINAL, keep_config
    from prompt_core.files import atomic_path

    learned, whole = Path(cfg.OUTPUT_DIR) / f"{FINAL}.pth", folder / f"{FINAL}.pth"
    finished = cfg.clone()
    finished.defrost()
    finished.OUTPUT_DIR, finished.MODEL.WEIGHTS = str(folder), str(whole)
    finished.MODEL.MASK_ON = settings.masks
    model = build_detector(finished)
    if settings.embedded:
        load_weights(model, cfg.MODEL.WEIGHTS)
    load_weights(model, learned)
    with atomic_path(whole, durable=True) as temporary:
        torch.save({"model": model.state_dict()}, temporary)
    keep_config(finished)
    return str(whole)


def _measured(cfg: Any, weights: str, name: str) -> dict[str, float]:
    """Box AP of a checkpoint on the photos that are held out; its numbers stay in the folder ``name`` of the run."""
    from pomp_det.task import detection_task
    from pomp_engine import run

    asked = cfg.clone()
    asked.defrost()
    asked.DATASETS.TEST = [SETS[1]]
    asked.MODEL.MASK_ON = False
    asked.OUTPUT_DIR = str(Path(cfg.OUTPUT_DIR).parent / name)
    results = run.evaluate(detection_task(), asked, weights)
    return {metric: float(results[SETS[1]]["bbox"][metric]) for metric in ("AP", "AP50")}
