"""Published files of captions and of a dynamic classifier train on tiny data: their data sets, kinds and losses."""

from __future__ import annotations

import itertools
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("detectron2")

from detectron2.utils.events import EventStorage

from pomp_det import build_detector, load_config
from pomp_det.checks import check_class_facts, check_run
from pomp_det.data.loader import build_train_loader
from pomp_det.data.prepare.captions import coco_caption_tags, tagged
from pomp_det.data.prepare.imagenet_21k import lvis_21k_vocabulary
from pomp_det.data.prepare.lvis import category_info
from pomp_det.data.prepare.photo_lists import categories_of, image_label_document
from pomp_det.data.registration import register_datasets
from prompt_core.vocabulary import Vocabulary

from ..support.data_files import save
from ..support.detector import TINY

WIDTH, HEIGHT = 64, 48
BOX = {"bbox": [8, 8, 30, 24], "area": 720, "iscrowd": 0, "segmentation": [[8, 8, 38, 8, 38, 32, 8, 32]]}
# What makes a published model tiny; classes, losses, proposals and data stay as they are published.
PARTS = ("RESNETS", "FPN", "BACKBONE", "CENTERNET", "ROI_BOX_HEAD.FC_DIM", "ROI_MASK_HEAD.CONV_DIM")
SMALL = {key: value for key, value in TINY.items() if key.startswith(tuple(f"MODEL.{part}" for part in PARTS))} | {
    "MODEL.RESNETS.NORM": "FrozenBN",
    "MODEL.CENTERNET.POST_NMS_TOPK_TRAIN": 40,
    "DATALOADER.DATASET_INPUT_SIZE": [64, 48],
}
C4 = {
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 16,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 4,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 40,
    "DATALOADER.DATASET_MIN_SIZES": [[48, 64], [32, 48]],
}
COMMON = {
    "MODEL.DEVICE": "cpu",
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 16,
    "MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH": "rand",
    "MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_DIM": 116,
    "MODEL.CAPTION_CLIP.NAME": "mini",
    "MODEL.CAPTION_CLIP.PRETRAINED": "",
    "DATALOADER.DATASET_BS": [1, 2],
    "DATALOADER.NUM_WORKERS": 0,
    "DATASETS.TEST": [],
    "SEED": 1,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two photos, as the photos of every data set."""
    folder = tmp_path_factory.mktemp("data")
    pixels = np.random.default_rng(0).integers(0, 256, (2, HEIGHT, WIDTH, 3), dtype=np.uint8)
    for place in ("coco/train2017", "cc3m/training", "archive"):
        (folder / place).mkdir(parents=True)
        for number in (1, 2):
            Image.fromarray(pixels[number - 1]).save(folder / place / f"{number}.jpg")
    make_coco(folder / "coco")
    make_lvis(folder)
    make_archives(folder / "imagenet", [folder / f"archive/{number}.jpg" for number in (1, 2)])
    return folder


def photos(**more: Any) -> list[dict[str, Any]]:
    return [{"id": n, "file_name": f"{n}.jpg", "width": WIDTH, "height": HEIGHT} | more for n in (1, 2)]


def instances(category: int) -> list[dict[str, Any]]:
    return [{"id": n, "image_id": n, "category_id": category} | BOX for n in (1, 2)]


def make_coco(folder: Path) -> None:
    boxes = {
        "images": photos(),
        "annotations": instances(4),
        "categories": categories_of(Vocabulary.load("coco")),
    }
    seen = folder / "zero-shot/instances_train2017_seen_2_oriorder.json"
    save(seen, boxes)
    save(seen.with_name(f"{seen.stem}_cat_info.json"), category_info(boxes))
    captions = [{"image_id": n, "caption": text} for n in (1, 2) for text in ("a dog on a sofa", "two animals")]
    save(folder / "captions.json", {"images": photos(), "annotations": captions})
    tags = coco_caption_tags(folder / "captions.json", boxes["categories"])
    save(folder / "annotations/captions_train2017_tags_allcaps.json", tags)


def make_lvis(folder: Path) -> None:
    categories = categories_of(Vocabulary.load("lvis"))
    lists: dict[str, Any] = {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    images = [image | {"file_name": f"train2017/{image['file_name']}"} for image in photos(**lists)]
    boxes = {"images": images, "annotations": instances(3), "categories": categories}
    for name in ("train", "train_norare", "train+coco_mask"):
        save(folder / f"lvis/lvis_v1_{name}.json", boxes)
    save(folder / "metadata/lvis_v1_train_cat_info.json", [c | {"image_count": 1 + c["id"] % 9} for c in categories])
    save(folder / "cc3m/train_image_info_tags.json", tagged(photos(captions=["a cat on a bed"]), categories))


def make_archives(folder: Path, files: list[Path]) -> None:
    """The photos as Detic's index names them, of the first and the last class of LVIS with ImageNet-21K."""
    index, paths = folder / "metadata-22k", []
    (index / "tarindex_npy").mkdir(parents=True)
    for wnid, file in zip(("n1", "n2"), files, strict=True):
        with tarfile.open(folder / f"{wnid}.tar", "w") as archive:
            archive.add(file, file.name)
            end = archive.offset // 512
        np.save(index / f"tarindex_npy/{wnid}_offsets.npy", np.array([0, end]))
        paths.append(str(folder / f"{wnid}.tar"))
    np.save(index / "tar_files.npy", np.array(paths))
    listed = [
        {"id": n + 1, "tar_index": n, "width": WIDTH, "height": HEIGHT, "pos_category_ids": [label]}
        for n, label in enumerate((1, 22_047))
    ]
    document = image_label_document(listed, lvis_21k_vocabulary())
    save(folder / "annotations/imagenet-22k_image_info_lvis-22k.json", document)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Detic_OVCOCO_CLIP_R50_1x_caption", "caption"),
        ("Detic_OVCOCO_CLIP_R50_1x_max-size_caption", "captiontag"),
        ("Detic_OVCOCO_CLIP_R50_1x_max-size_caption_pomp", "captiontag"),
        ("Detic_LbaseCCcapimg_CLIP_R5021k_640b64_4x_ft4x_max-size", "captiontag"),
        ("Detic_LI21k_CLIP_SwinB_896b32_4x_ft4x_max-size", "image"),
        ("Detic_LCOCOI21k_CLIP_R18_640b32_4x_ft4x_max-size", "image"),
    ],
)
def test_a_step_of_each_kind(shared: Path, root: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str) -> None:
    monkeypatch.setenv("POMP_DATA", str(root))
    file = shared / f"data/published_configs/detic_all/{name}.yaml"
    cfg = load_config(file, COMMON | (C4 if "OVCOCO" in name else SMALL))
    register_datasets()
    torch.manual_seed(0)
    model = build_detector(cfg)
    check_run(cfg, model, training=True)
    check_class_facts(model)
    batches: dict[str, Any] = {}
    for batch in itertools.islice(build_train_loader(cfg), 100):
        batches.setdefault(batch[0]["ann_type"], batch)
        if len(batches) == 2:
            break
    assert set(batches) == {"box", kind}
    losses: dict[str, dict[str, torch.Tensor]] = {}
    parameters = dict(model.named_parameters())
    for which, batch in batches.items():
        model.zero_grad()
        with EventStorage(0):
            losses[which] = model.train()(batch)
        torch.stack([*losses[which].values()]).sum().backward()
        assert all(torch.isfinite(loss) for loss in losses[which].values())
        learned = [n for n, p in parameters.items() if n.endswith("cls_score.linear.weight") and p.grad.abs().sum() > 0]
        assert len(learned) == (1 if "OVCOCO" in name else 3)
    boxes, weak = losses["box"], losses[kind]
    assert set(boxes) == set(weak)
    for key, loss in weak.items():
        if key.startswith("caption_loss"):
            assert loss > 0
            assert boxes[key] == 0
        elif key.startswith("image_loss"):
            assert (loss > 0) == (kind != "caption")
            assert boxes[key] == 0
        else:
            assert loss == 0
    assert any(key.startswith("caption_loss") for key in weak) == ("caption" in kind)
    assert any(key.startswith("loss_cls") and loss > 0 for key, loss in boxes.items())
