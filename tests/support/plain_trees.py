"""The folders of :mod:`tests.support.plain_runs`: tiny inputs of every kind, each made once, when asked for."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image

from . import benchmark_trees, detector_run, segmenter_run
from .data_files import save
from .forked import run_forked
from .tools import TINY as TINY_CLIP
from .tools import tool_main

_LABELS = np.array([[0, 1, 2, 255]] * 3, np.uint8)


class Trees:
    """Folders of inputs below ``root``, by name; making one may take seconds."""

    def __init__(self, root: Path) -> None:
        self.root, self.made = root, 0
        self._texts = root / "texts"
        self._texts.mkdir(parents=True)

    def __getitem__(self, name: str) -> Path:
        """The folder, made if need be."""
        folder = self.root / name
        if not folder.exists():
            self.made += 1
            folder.mkdir()
            getattr(self, f"_make_{name}")(folder)
        return folder

    def _run(self, tool: str, folder: Path, *arguments: str) -> None:
        done = run_forked(tool_main(tool), [tool, *arguments], folder, self._texts)
        assert done.code == 0, f"{tool}: {done}"

    def _make_model(self, folder: Path) -> None:
        import open_clip
        from safetensors.torch import save_file

        (folder / "tiny.json").write_text(json.dumps(TINY_CLIP))
        torch.manual_seed(0)
        model = open_clip.CLIP(**json.loads(json.dumps(TINY_CLIP)))
        save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / "tiny.safetensors")

    def _make_prompt(self, folder: Path) -> None:
        model = self["model"]
        for name in ("tiny.json", "tiny.safetensors"):
            (folder / name).symlink_to(model / name)
        classes = ("cat", "hot_dog", "old_oak")
        rows = ["file,class_name"]
        for split in ("train", "val"):
            for number, name in enumerate(classes):
                for index in range(2):
                    _photo(folder / f"photos/{split}/{name}/{index}.png", 40 * number + index)
                    rows.append(f"photos/{split}/{name}/{index}.png,{name}")
        (folder / "photos.csv").write_text("\n".join(rows) + "\n")
        (folder / "words.json").write_text(json.dumps({"names": list(classes), "synonyms": [["kitty"], [], ["oak"]]}))
        (folder / "words.csv").write_text("id,name,synonyms,frequency\n1,cat,kitty|puss,f\n2,hot dog,,r\n")
        (folder / "words.txt").write_text("cat\nhot dog\n")
        (folder / "shards").mkdir()
        (folder / "shards/classes.txt").write_text("cat\ndog\n")
        with tarfile.open(folder / "shards/0.tar", "w") as archive:
            for number in range(3):
                for name, content in ((f"{number}.png", _png(number)), (f"{number}.cls", str(number % 2).encode())):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
        rows_of = {
            split: [[f"{split}/cat/0.png", 0, "cat"], [f"{split}/old_oak/1.png", 1, "oak"]]
            for split in ("train", "val")
        }
        (folder / "coop").mkdir()
        (folder / "coop/images").symlink_to("../photos")
        save(folder / "coop/split.json", rows_of | {"test": rows_of["val"]})
        torch.save({"state_dict": {"ctx": torch.randn(3, 32).half()}, "epoch": 5}, folder / "published.pth.tar")
        settings = {
            "MODEL": {"NAME": "tiny.json", "PRETRAINED": "tiny.safetensors"},
            "DATA": {"TRAIN": "folder:photos", "CACHE": "cache"},
            "AUGMENT": {"STORED_VIEWS": 1, "VIEWS": 1},
            "PROMPT": {"N_CTX": 3},
            "LOSS": {"NUM_CLASSES": 2},
            "OPTIM": {"BATCH": 3, "EPOCHS": 1},
            "LOG": {"TENSORBOARD": False},
            "DEVICE": "cpu",
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(settings))
        self._run("tools/pretrain_prompt", folder, "--config", "config.yaml", "--output", "run")

    def _make_detector(self, folder: Path) -> None:
        from pomp_det import build_detector, load_config

        detector_run.make_data(folder, 3)
        settings = {"DATASETS.FILES": [["tiny", "boxes.json", "."]], "OUTPUT_DIR": "run", "SOLVER.MAX_ITER": 1}
        config = detector_run.make_config(folder, **settings, **{"SOLVER.WARMUP_ITERS": 0})
        torch.manual_seed(0)
        torch.save({"model": build_detector(load_config(config)).state_dict()}, folder / "tiny.pth")
        np.save(folder / "classes.npy", np.random.default_rng(0).normal(size=(3, 24)).astype(np.float32))
        self._run("tools/train_net", folder, "--config", "tiny.yaml", "--output", "run")

    def _make_segmenter(self, folder: Path) -> None:
        from pomp_seg import load_config

        segmenter_run.make_data(folder)
        shapes = folder / "shapes"
        files = [
            [
                "tiny_train",
                *(str(shapes.relative_to(folder) / part) for part in ("semantic/train_base", "scenes/train")),
                "seen.txt",
            ],
            [
                "tiny",
                *(str(shapes.relative_to(folder) / part) for part in ("semantic/val", "scenes/val")),
                "all.txt",
                "seen.txt",
            ],
        ]
        config = segmenter_run.make_config(
            folder, **{"DATASETS.FILES": files, "OUTPUT_DIR": "run", "SOLVER.MAX_ITER": 1, "SOLVER.WARMUP_ITERS": 0}
        )
        segmenter_run.save_segmenter(folder, load_config(config))
        (folder / "segmenter.pth").rename(folder / "tiny.pth")

    def _make_results(self, folder: Path) -> None:
        from .hostile import METRICS

        run = {"seed": 1, "clip": "ViT-B-16-quickgelu", "pretrained": "openai"}
        words = {"split": "test", "metric": "top-1 over all images (micro)", "images": 2_465, "candidates": 100}
        protocol = {"caltech101": {**words, "source": "caltech101, published split"}}
        save(folder / "one/metrics.json", {"caltech101/top1": 94.5, "_run": run, "_protocol": protocol})
        save(folder / "folder/metrics.json", METRICS)
        save(
            folder / "two.json",
            {"runs": {f"POMP/seed {seed}": {"coco/box_AP": 40.0 + seed, "_run": {}} for seed in (0, 1)}},
        )

    def _make_tables(self, folder: Path) -> None:
        from pomp_lab.shapes.generate import build_shapes
        from pomp_lab.shapes.labels import prepare_image_labels, prepare_shapes_seg
        from pomp_lab.shapes.options import ShapesOptions

        sizes = {"classes": 12, "classification_classes": 12, "val_images_per_class": 2, "scenes": 2, "val_scenes": 2}
        for variant, name in (("plain", "shapes"), ("sketch", "shapes_sketch")):
            small = ShapesOptions(
                variant=variant, scene_size=64, classification_size=32, train_images_per_class=1, **sizes
            )
            build_shapes(folder / "data" / name, small)
        prepare_image_labels(folder / "data/shapes")
        prepare_shapes_seg(folder / "data")
        tiny, names = folder / "data/tiny-imagenet-200", ("cat", "dog", "oak", "car", "hare")
        lines = []
        for number in range(len(names)):
            _photo(tiny / f"train/n0000000{number}/images/n0000000{number}_0.JPEG", number)
            for index in range(8):
                _photo(tiny / f"val/images/val_{number}{index}.JPEG", number)
                lines.append(f"val_{number}{index}.JPEG\tn0000000{number}\t0\t0\t1\t1\n")
        (tiny / "val/val_annotations.txt").write_text("".join(lines))
        (tiny / "wnids.txt").write_text("".join(f"n0000000{number}\n" for number in range(len(names))))
        (tiny / "words.txt").write_text("".join(f"n0000000{number}\t{name}\n" for number, name in enumerate(names)))
        _photo(folder / "data/imagenet_samples/a.png", 9)
        (folder / "data/imagenet_samples/labels.csv").write_text("file,wnid,class_name\na.png,n00000001,dog\n")
        wide = [*names, "cup", "pen", "table", "house"]
        save(folder / "wide.json", {"names": wide, "ids": [f"n0000000{number}" for number in range(len(wide))]})
        model = self["model"]
        settings = {
            "MODEL": {"NAME": str(model / "tiny.json"), "PRETRAINED": str(model / "tiny.safetensors")},
            "DATA": {"CACHE": "cache"},
            "AUGMENT": {"STORED_VIEWS": 0, "VIEWS": 1},
            "PROMPT": {"N_CTX": 2},
            "OPTIM": {"EPOCHS": 1},
            "DEVICE": "cpu",
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(settings))

    def _make_data(self, folder: Path) -> None:
        from .published_documents import coco_document, lvis_document, objects365_document, run_lengths

        for split in ("train", "val"):
            save(folder / f"coco/annotations/instances_{split}2017.json", coco_document())
            save(folder / f"lvis/lvis_v1_{split}.json", lvis_document(split))
            save(folder / f"objects365/annotations/zhiyuan_objv2_{split}.json", objects365_document())
        save(folder / "cc3m/Train_GCC-training.tsv", "a dog\thttp://example.org/1.jpg\n")
        save(folder / "cc3m/training/1.jpg", np.zeros((8, 8, 3), np.uint8))
        for name in ("train/images/v1/patch0/a.jpg", "val/images/v1/patch0/a.jpg"):
            _photo(folder / "objects365" / name, 3)
        captions = [{"image_id": number, "id": number, "caption": "a dog"} for number in (1, 2)]
        save(
            folder / "coco/annotations/captions_train2017.json",
            {"images": coco_document()["images"], "annotations": captions},
        )
        for place in ("train2017/1", "val2017/4"):
            save(folder / f"coco/stuffthingmaps/{place}.png", _LABELS)
            _photo(folder / f"coco/{place}.jpg", 3)
        for name in ("t1", "v1"):
            save(folder / f"VOC2012/SegmentationClassAug/{name}.png", _LABELS)
            _photo(folder / f"VOC2012/JPEGImages/{name}.jpg", 3)
        for split, name in (("train", "t1"), ("val", "v1")):
            (folder / f"VOC2012/{split}.txt").write_text(f"{name}\n")
        images = [
            {"image_id": n, "file_name": f"{n}.jpg", "phase": phase, "height": 4, "width": 6}
            for n, phase in ((1, "train"), (2, "val"))
        ]
        masks = [{"image_id": n, "category_id": 2, "segmentation": run_lengths(np.ones((4, 6), bool))} for n in (1, 2)]
        save(folder / "VOC2010/trainval_merged.json", {"images": images, "annos_segmentation": masks})
        for split in ("training", "validation"):
            save(folder / f"ADEChallengeData2016/annotations/{split}/a.png", np.array([[0, 1, 150]], np.uint8))
            place = folder / f"ADE20K_2021_17_01/images/ADE/{split}/urban"
            save(place / f"{split}_seg.png", np.full((2, 2, 3), (10, 44, 0), np.uint8))
            save(place / f"{split}.jpg", np.zeros((2, 2, 3), np.uint8))
            save(place / f"{split}.json", {"annotation": {"object": [{"name": "sky", "name_ndx": 300}]}})
        save(folder / "classes.json", {"names": ["heaven"], "ids": [300]})
        place = folder / "imagenet/ImageNet-LVIS"
        _photo(place / "n02084071/a.png", 1)
        with tarfile.open(place / "n02121620.tar", "w") as archive:
            archive.add(place / "n02084071/a.png", "c.png")
        (folder / "wnids.txt").write_text("n02121620\nn02084071\n")
        (folder / "mapping.txt").write_text("n02121620 cat.n.01\nn02084071 dog.n.01\n")
        shutil.copytree(self["tables"] / "data/shapes", folder / "shapes")
        benchmark_trees.oxford_pets(folder / "oxford_pets")
        benchmark_trees.stanford_cars(folder / "stanford_cars")
        benchmark_trees.eurosat(folder / "eurosat")
        benchmark_trees.ucf101(folder / "ucf101")
        benchmark_trees.sun397(folder / "sun397")
        benchmark_trees.food101(folder / "food-101")
        (folder / "models").mkdir()
        (folder / "models/R-50.pkl").write_bytes(b"no weights")

    def _make_packages(self, folder: Path) -> None:
        lvis = [{"id": n, "name": n, "synset": "a.n.01", "synonyms": ["a"], "frequency": "f"} for n in ("1", "2")]
        coco = [{"id": 1, "name": "person", "isthing": 1}]
        classes = {"classes": ("Moniter/TV", "Table Tennis ")}
        sources = {
            "detectron2/data/datasets/lvis_v1_categories.py": f"LVIS_CATEGORIES = {lvis!r}\n",
            "detectron2/data/datasets/builtin_meta.py": f"COCO_CATEGORIES = {coco!r}\n"
            'ADE20K_SEM_SEG_CATEGORIES = ["window ", "road, route"]\n',
            "mmdet/datasets/objects365.py": f"class Objects365V2Dataset:\n    METAINFO = {classes!r}\n",
        }
        for name, text in sources.items():
            (folder / "packages" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "packages" / name).write_text(text)


def _photo(path: Path, seed: int) -> None:
    save(path, np.random.default_rng(seed).integers(0, 255, (24, 24, 3), dtype=np.uint8))


def _png(seed: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (50 * seed, 0, 0)).save(stream, "PNG")
    return stream.getvalue()
