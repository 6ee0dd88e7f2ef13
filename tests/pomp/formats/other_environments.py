"""Read what ``pomp detect --format …`` wrote with tools that have environments of their own; run by hand.

    python other_environments.py fiftyone RUN       (pip install fiftyone pycocotools; it needs a MongoDB)
    python other_environments.py labelstudio RUN    (pip install label-studio-sdk pycocotools)
    python other_environments.py datumaro RUN       (pip install datumaro, CVAT's own library of formats)
    python other_environments.py ultralytics RUN    (pip install ultralytics)

RUN has the folders coco, yolo, yolo-masks, voc, labelstudio, labelstudio-masks, cvat, cvat-masks and fiftyone, and its
photos are where ``coco`` says, from the current folder. Counts are compared with those of ``coco``; the last line says
that all agree.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any


def fiftyone(run: Path, boxes: int) -> None:
    """Its importers of its own layout, COCO, YOLO, VOC and CVAT."""
    import fiftyone as tool

    kinds = tool.types
    photos = {"data_path": str(Path.cwd())}
    readers: dict[str, tuple[Any, dict[str, Any]]] = {
        "fiftyone": (kinds.FiftyOneDataset, {"dataset_dir": str(run / "fiftyone")}),
        "coco": (kinds.COCODetectionDataset, {**photos, "labels_path": str(run / "coco/annotations.json")}),
        "yolo": (kinds.YOLOv5Dataset, {"dataset_dir": str(run / "yolo"), "yaml_path": "data.yaml", "split": "train"}),
        "voc": (
            kinds.VOCDetectionDataset,
            {"data_path": str(run / "voc/JPEGImages"), "labels_path": str(run / "voc/Annotations")},
        ),
        "cvat": (kinds.CVATImageDataset, {**photos, "labels_path": str(run / "cvat/annotations.xml")}),
    }
    for kind, (layout, options) in readers.items():
        data = tool.Dataset.from_dir(dataset_type=layout, progress=False, **options)
        fields = data.get_field_schema(embedded_doc_type=tool.Detections)
        count = max(data.count(f"{field}.detections") for field in fields)  # COCO gives boxes, and again with masks
        print(f"fiftyone {tool.__version__}, {kind}: {len(data)} photos, {count} boxes")
        assert count == boxes
    own = tool.Dataset.from_dir(dataset_dir=str(run / "fiftyone"), dataset_type=kinds.FiftyOneDataset, progress=False)
    masks = sum(detection.mask is not None for sample in own for detection in sample.predictions.detections)
    print(f"masks in its own layout: {masks}")
    assert masks == boxes


def labelstudio(run: Path, boxes: int) -> None:
    """Its checks of predictions, its converter to COCO, VOC and YOLO, and its decoder of brushes."""
    from label_studio_sdk.converter import Converter
    from label_studio_sdk.converter.brush import decode_rle
    from label_studio_sdk.label_interface import LabelInterface
    from pycocotools import mask

    for kind in ("labelstudio", "labelstudio-masks"):
        configuration = (run / kind / "config.xml").read_text(encoding="utf-8")
        tasks = json.loads((run / kind / "tasks.json").read_text(encoding="utf-8"))
        interface = LabelInterface(configuration)
        said = [task["predictions"][0] for task in tasks]
        faults = [fault for row in said for fault in interface.validate_prediction(row, return_errors=True) or []]
        print(f"{kind}: {len(tasks)} tasks, {len(faults)} faults of their predictions")
        assert not faults
        if kind == "labelstudio-masks":
            rows = json.loads((run / "coco/annotations.json").read_text(encoding="utf-8"))["annotations"]
            results = [result for row in said for result in row["result"]]
            for row, result in zip(rows, results, strict=True):
                size = result["original_height"], result["original_width"], 4
                painted = decode_rle(result["value"]["rle"]).reshape(size)[:, :, 3] > 0
                assert (painted == mask.decode(row["segmentation"]).astype(bool)).all()
            print(f"{len(results)} brushes decoded to the pixels of coco")
            continue
        accepted = [
            {"id": number, "data": task["data"], "annotations": [{"id": number, "result": row["result"]}]}
            for number, (task, row) in enumerate(zip(tasks, said, strict=True))
        ]
        with tempfile.TemporaryDirectory() as folder:
            export = Path(folder) / "export.json"
            export.write_text(json.dumps(accepted), encoding="utf-8")
            converter = Converter(configuration, project_dir=None, download_resources=False)
            converter.convert_to_coco(str(export), f"{folder}/coco", output_image_dir=f"{folder}/i", is_dir=False)
            count = len(json.loads(Path(folder, "coco/result.json").read_text(encoding="utf-8"))["annotations"])
            converter.convert_to_yolo(str(export), f"{folder}/yolo", output_image_dir=f"{folder}/i", is_dir=False)
            lines = sum(len(file.read_text().splitlines()) for file in Path(folder, "yolo/labels").iterdir())
        print(f"converted to {count} boxes of COCO and {lines} lines of YOLO")
        assert count == lines == boxes


def datumaro(run: Path, boxes: int) -> None:
    """Its importer of CVAT's documents: masks, pixel by pixel."""
    import datumaro as tool
    import numpy as np
    from pycocotools import mask

    document = json.loads((run / "coco/annotations.json").read_text(encoding="utf-8"))
    rows = iter(document["annotations"])
    with tempfile.TemporaryDirectory() as folder:
        for image in document["images"]:
            link = Path(folder, "images", image["file_name"])
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(Path(image["file_name"]).absolute())
        Path(folder, "annotations.xml").write_bytes((run / "cvat-masks/annotations.xml").read_bytes())
        found = {item.id: item for item in tool.Dataset.import_from(folder, "cvat")}
        same = 0
        for image in document["images"]:
            for annotation in found[str(Path(image["file_name"]).with_suffix(""))].annotations:
                pixels = mask.decode(next(rows)["segmentation"]).astype(bool)
                same += bool((np.asarray(annotation.image).astype(bool) == pixels).all())
    print(f"datumaro {tool.__version__}, cvat-masks: {len(found)} photos, {same} masks as in coco")
    assert same == boxes


def ultralytics(run: Path, boxes: int) -> None:
    """Its checks of a data set, for detection and segmentation."""
    import ultralytics as tool
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset

    for kind, task in (("yolo", "detect"), ("yolo-masks", "segment")):
        data = check_det_dataset(str(run / kind / "data.yaml"), autodownload=False)
        labels = YOLODataset(img_path=data["train"], data=data, task=task, augment=False).labels
        count, polygons = (sum(len(row[name]) for row in labels) for name in ("cls", "segments"))
        print(f"ultralytics {tool.__version__}, {kind}: {len(labels)} photos, {count} boxes, {polygons} polygons")
        assert count == boxes
        assert polygons == (boxes if task == "segment" else 0)


TOOLS = {"fiftyone": fiftyone, "labelstudio": labelstudio, "datumaro": datumaro, "ultralytics": ultralytics}


def main() -> None:
    """Read with one tool."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tool", choices=TOOLS)
    parser.add_argument("run", type=Path, help="folder of the formats")
    values = parser.parse_args()
    run = values.run.resolve()
    written = json.loads((run / "coco/annotations.json").read_text(encoding="utf-8"))
    boxes = len(written["annotations"])
    print(f"{len(written['images'])} photos, {boxes} boxes, {len(written['categories'])} words")
    TOOLS[values.tool](run, boxes)
    print("all agree")


if __name__ == "__main__":
    main()
