"""No key of a segmenter is silently ignored: each is read, or refused where it is set to something."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("detectron2")

from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import BACKBONE_REGISTRY, ShapeSpec

from pomp_engine import run
from pomp_engine.config import flatten, refuse_unsupported, value_of
from pomp_engine.run_folder import weights_to_evaluate
from pomp_seg import add_segmenter_config, build_segmenter, load_config
from pomp_seg.config import UNBUILT
from pomp_seg.task import segmentation_task
from pomp_seg.views import ViewOptions
from prompt_core import UserError

from ..support.config_keys import recorded_reads
from ..support.segmenter_run import make_data, tiny_settings, unregister

CPU = {"MODEL.DEVICE": "cpu"}
CLIP = "MODEL.CLIP_ADAPTER."
REGIONS = f"{CLIP}REGION_CLIP_ADAPTER"
# Keys of Detectron2 that published segmentation files change, and that nothing here reads.
WITHOUT_EFFECT = {
    "MODEL.MASK_ON": "a detector's; there are no masks of boxes",
    "TEST.AUG.MAX_SIZE": "only with TEST.AUG.ENABLED",
    "TEST.AUG.MIN_SIZES": "only with TEST.AUG.ENABLED",
}


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The keys that a prompt tuning, a segmenter's training and tests, prompts and backbones read."""
    folder = tmp_path_factory.mktemp("keys")
    make_data(folder)
    short = {"SOLVER.MAX_ITER": 2, "SOLVER.WARMUP_ITERS": 0, "SOLVER.CLIP_GRADIENTS.ENABLED": True,
             "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": "full_model"}  # fmt: skip
    tuning = load_config(None, tiny_settings(folder, 1, **short, OUTPUT_DIR=str(folder / "tuning")))
    training = load_config(None, tiny_settings(folder, 2, **short, ORACLE=True))
    prompted = []
    for learner in ("predefined", "pomp"):
        prompts = {f"MODEL.CLIP_ADAPTER.{place}PROMPT_LEARNER": learner for place in ("", "REGION_CLIP_ADAPTER.")}
        sizes = {f"{REGIONS}.PROMPT_DIM": 116, f"{REGIONS}.CLIP_MODEL_NAME": "mini"}
        separate = {"MODEL.CLIP_ADAPTER.SEPERATE_ADAPTER": True}
        prompted.append(load_config(None, tiny_settings(folder) | prompts | sizes | separate))
    generated = {"MODEL.META_ARCHITECTURE": "GeneratedFeatureModel", "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 116,
                 "MODEL.SEM_SEG_HEAD.NAME": "ZeroPerPixelBaselineHead"}  # fmt: skip
    prompted.append(load_config(None, tiny_settings(folder) | {f"{CLIP}PROMPT_LEARNER": "predefined"} | generated))
    views = load_config(None, CPU | {"TEST.SLIDING_WINDOW": True})
    backbone = load_config(None, CPU | {"OUTPUT_DIR": str(folder / "nothing")})
    with pytest.MonkeyPatch.context() as patch, recorded_reads(tuning, training, *prompted, views, backbone) as keys:
        patch.setenv("POMP_DATA", str(folder))
        run.train(segmentation_task(), tuning)
        run.train(segmentation_task(), training)
        for cfg in prompted:
            build_segmenter(cfg)
        ViewOptions.from_config(views)
        with pytest.raises(UserError, match="holds no run"):
            weights_to_evaluate(backbone)
        for name in ("build_efficientnet_lite_backbone", "build_detection_and_words_backbone"):
            BACKBONE_REGISTRY.get(name)(backbone, ShapeSpec(channels=3))
    yield keys
    unregister()


def test_own_keys_are_read_or_refused(read: set[str]) -> None:
    own = {key for key, _ in flatten(load_config(None, CPU))} - {key for key, _ in flatten(get_cfg())}
    assert own - read == set()


def test_keys_of_published_files_are_read_or_refused(published: Path, read: set[str]) -> None:
    defaults = dict(flatten(load_config(None, CPU)))
    changed: set[str] = set()
    for file in sorted(published.rglob("*.yaml")):
        cfg = load_config(file, CPU)
        refuse_unsupported(cfg, add_segmenter_config, UNBUILT)
        changed |= {key for key, value in flatten(cfg) if value != defaults[key]}
    assert changed - read == set(WITHOUT_EFFECT)


@pytest.mark.parametrize("key", sorted(UNBUILT))
def test_a_segmenter_refuses_what_is_not_built(tiny: Any, key: str) -> None:
    section = value_of(load_config(None, CPU), key)
    if isinstance(section, CfgNode):  # its first setting
        key, section = flatten(section, f"{key}.")[0]
    other: Any = {bool: lambda value: not value, float: lambda value: value / 2 + 0.1, int: lambda value: value + 1,
                  str: lambda _: "other", list: lambda _: ["other"], tuple: lambda _: ("other",),
                  type(None): lambda _: 0.5}  # fmt: skip
    value = other[type(section)](section)
    with pytest.raises(UserError) as caught:
        tiny({key: value})
    assert str(caught.value).startswith(f"{key} is {value!r}, which is not built: ")
