"""Image labels of photos in a folder for each class, to train a detector with beside boxes.

    python tools/list_photo_folders.py --photos novel_photos --categories lvis_v1_train_norare.json --output novel.json
    python tools/train_net.py --config configs/detection/lvis_base_images_promptdet.yaml \\
        DATASETS.FILES "[['novel_photos','novel.json','novel_photos','image_labels']]"

--categories is the annotation file of the boxes, whose classes and ids the labels take. The photos may come from any
search or camera: PromptDet retrieved them from LAION.
"""

import argparse
from pathlib import Path

from prompt_core.command_line import ArgumentParser
from prompt_core.errors import run_command
from prompt_core.visible import say, visible_path


def main() -> None:
    """Parse, look at the photos, write the list."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", required=True, type=Path, metavar="DIR", help="CLASS/PHOTO")
    parser.add_argument("--categories", required=True, type=Path, metavar="FILE", help="a COCO or LVIS annotation file")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="where the list goes")
    arguments = parser.parse_args()
    from pomp_det.data.annotation_files import read_categories
    from pomp_det.data.prepare.photo_folders import photo_folder_labels
    from prompt_core.files import check_writable, write_json

    check_writable(arguments.output)
    document, problems = photo_folder_labels(arguments.photos, read_categories(arguments.categories))
    write_json(arguments.output, document)
    for line in problems.lines():
        say(line)
    classes = {label for image in document["images"] for label in image["pos_category_ids"]}
    say(f"{len(document['images'])} photos of {len(classes)} classes, written to {visible_path(arguments.output)}")


if __name__ == "__main__":
    run_command(main)
