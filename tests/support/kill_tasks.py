"""The commands that are killed, each with tiny inputs."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file

from . import detector_run, segmenter_run
from .kills import Task
from .tools import TINY

# Blocks of four views, so that a kill finds some of them finished.
SMALL_BLOCKS = "from prompt_core.data import encode_photos; encode_photos.BLOCK_VIEWS = 4"
# A state after every step.
EVERY_STEP = ("LOG.CHECKPOINT_MINUTES", "0")


def make_clip(folder: Path) -> tuple[Path, Path]:
    """Configuration and weights of a random CLIP."""
    (folder / "tiny.json").write_text(json.dumps(TINY))
    torch.manual_seed(0)
    model = open_clip.CLIP(**json.loads(json.dumps(TINY)))
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / "tiny.safetensors")
    return folder / "tiny.json", folder / "tiny.safetensors"


def make_pictures(folder: Path, count: int) -> Path:
    """Class folders with random pictures."""
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("red_star", "blue_disc"):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 255, (24, 24, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")
    return folder


def with_resume(folder: Path) -> list[str]:
    """As users go on with a run that has a state."""
    return ["--resume"] if any(folder.glob("run/state.pt")) or any(folder.glob("run/last_checkpoint")) else []


def prompt_tasks(inputs: Path) -> list[Task]:
    """Learning on photos: by steps from cached features, and at once; scores, and a classifier."""
    config, weights = make_clip(inputs)
    pictures = make_pictures(inputs / "pictures", 4)
    model = ("MODEL.NAME", str(config), "MODEL.PRETRAINED", str(weights))
    common = (*model, "DATA.TRAIN", f"folder:{pictures}", "DATA.CACHE", "cache", "DATA.WORKERS", "0", "DEVICE", "cpu")
    learned = (*common, "AUGMENT.STORED_VIEWS", "2", "AUGMENT.VIEWS", "2", "PROMPT.N_CTX", "3", "LOSS.NUM_CLASSES", "2")
    steps = ("OPTIM.BATCH", "4", "OPTIM.EPOCHS", "3", "OPTIM.WARMUP_EPOCHS", "1", "LOG.TENSORBOARD", "False")
    regression = ("METHOD.NAME", "logistic_regression")
    clip = ("--clip", str(config), "--pretrained", str(weights), "--template", "a {}")
    evaluation = ("--datasets", f"folder:{pictures}", "--output", "scores", "DATA.CACHE", "cache")
    return [
        Task(
            "prompt learning",
            "tools/pretrain_prompt",
            ("--output", "run", *learned, *steps, *EVERY_STEP),
            resume=with_resume,
            before=SMALL_BLOCKS,
        ),
        Task(
            "method without steps",
            "tools/pretrain_prompt",
            ("--output", "run", *common, *regression),
            before=SMALL_BLOCKS,
        ),
        Task("scores of photos", "tools/evaluate_prompt", (*clip, *evaluation), before=SMALL_BLOCKS),
        Task(
            "classifier",
            "tools/build_classifier",
            (*clip, "--vocabulary", "cat,remote control", "--output", "two.npy"),
        ),
    ]


def region_tasks(inputs: Path) -> list[Task]:
    """Detectors and segmenters: training, evaluation, prediction; tables of experiments; derived files."""
    return [*detector_tasks(inputs / "detector"), *segmenter_tasks(inputs / "segmenter"), *shapes_tasks(inputs)]


def detector_tasks(inputs: Path) -> list[Task]:
    """Training with an evaluation at its end, an evaluation, and prediction."""
    from pomp_det import build_detector, load_config
    from prompt_core.classifier import TextClassifier

    inputs.mkdir()
    detector_run.make_data(inputs, 4)
    names = [category["name"] for category in detector_run.CATEGORIES]
    rows = torch.randn(3, 24, generator=torch.Generator().manual_seed(1))
    TextClassifier(rows, names, {}).save(inputs / "classes.safetensors")
    changed = {
        "MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH": str(inputs / "classes.safetensors"),
        "SOLVER.MAX_ITER": 5,
        "SOLVER.RESUME_PERIOD": 2,
        "OUTPUT_DIR": "run",
    }
    config = str(detector_run.make_config(inputs, **changed))
    torch.manual_seed(2)
    weights = str(inputs / "detector.pth")
    torch.save({"model": build_detector(load_config(config, [])).state_dict()}, weights)
    train = ("--config", config, "--num-gpus", "0")
    predict = ("--model", config, "--weights", weights, "--threshold", "0", "--output", "out")
    return [
        Task("detector training", "tools/train_net", train, resume=with_resume),
        Task("detector evaluation", "tools/train_net", (*train, "--eval-only", "MODEL.WEIGHTS", weights)),
        Task("detector prediction", "tools/predict", (*predict, *map(str, sorted(inputs.glob("*.png"))))),
    ]


def segmenter_tasks(inputs: Path) -> list[Task]:
    """Both stages of training, an evaluation, and prediction."""
    from pomp_seg import load_config

    inputs.mkdir()
    segmenter_run.make_data(inputs)
    changed = {"SOLVER.MAX_ITER": 5, "SOLVER.RESUME_PERIOD": 2, "OUTPUT_DIR": "run"}
    configs = [str(segmenter_run.make_config(inputs, stage, **changed)) for stage in (1, 2)]
    os.environ.setdefault("POMP_DATA", str(inputs))
    weights = str(segmenter_run.save_segmenter(inputs, load_config(configs[1], [])))
    environment = {"POMP_DATA": str(inputs)}
    photos = map(str, sorted(inputs.glob("shapes/scenes/val/*.png")))
    predict = ("--model", configs[1], "--weights", weights, "--vocabulary", "cat,sky", "--output", "out", *photos)
    stages = [
        Task(
            f"segmenter training, stage {stage}",
            "tools/train_net",
            ("--config", config, "--num-gpus", "0"),
            resume=with_resume,
            environment=environment,
        )
        for stage, config in enumerate(configs, start=1)
    ]
    evaluate = ("--config", configs[1], "--num-gpus", "0", "--eval-only", "MODEL.WEIGHTS", weights)
    return [
        *stages,
        Task("segmenter evaluation", "tools/train_net", evaluate, environment=environment),
        Task("segmenter prediction", "tools/predict", predict, environment=environment),
    ]


def shapes_tasks(inputs: Path) -> list[Task]:
    """A table of experiments, and derived files of a data set."""
    from pomp_lab.shapes.generate import build_shapes
    from pomp_lab.shapes.options import ShapesOptions

    pictures, scenes = inputs / "pictures_root", inputs / "scenes_root"
    small = {"classes": 40, "classification_classes": 10, "classification_size": 32, "train_images_per_class": 2}
    build_shapes(pictures / "shapes", ShapesOptions(parts=("classification",), val_images_per_class=2, **small))
    options = {"classes": 12, "scenes": 4, "val_scenes": 2, "scene_size": 96}
    build_shapes(scenes / "shapes", ShapesOptions(parts=("scenes",), **options))
    table = ("cross_domain", "--scale", "laptop", "--output", "out", "--root", str(pictures), "--seeds", "0")
    table += ("--rows", "zero-shot CLIP;POMP", "--datasets", "shapes_base_novel")
    budget = ("DATA.CACHE", "cache", "OPTIM.EPOCHS", "2", "OPTIM.BATCH", "8", "DATA.WORKERS", "0", *EVERY_STEP)
    without_page = "import pomp_lab.tables.command as command; command.write_page = lambda store, output: None"
    return [
        Task("table", "tools/reproduce", (*table, *budget), before=f"{SMALL_BLOCKS}\n{without_page}"),
        Task("derived files", "datasets/prepare", ("shapes_seg", "--root", "."), inputs=scenes),
    ]


def fetch_task(serve: Callable[..., str], answer: Callable[[bytes], Any]) -> Task:
    """Two published files from a server on this machine.

    Args:
        serve: gives an answer a path, and returns the address.
        answer: to a request, made from the content.
    """
    files = {name: os.urandom(700_000) for name in ("a.bin", "b.bin")}
    listed = [
        f"PublishedFile(name={name!r}, path='models/{name}', what='x', source='x', groups=('some',), size={len(data)}, "
        f"address={serve(f'/{name}', answer(data))!r}, sha256={hashlib.sha256(data).hexdigest()!r})"
        for name, data in files.items()
    ]
    before = (
        "from prompt_core.fetch import published_files as listed\n"
        "from prompt_core.fetch.published_files import PublishedFile\n"
        f"listed.published_files = lambda: ({', '.join(listed)})\n"
    )
    return Task("download", "tools/fetch", ("some", "--root", "data", "--models", "models"), before=before)
