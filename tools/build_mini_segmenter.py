"""Build the embedded segmenter: its training labels, and in the end the weights that are shipped.

    python datasets/prepare.py coco_small_seg
    python tools/build_mini_segmenter.py --labels datasets
    python tools/build_mini_detector.py --output build/mini_detector
    python tools/train_net.py --config configs/mini/segmenter.yaml --num-gpus 0 \\
        DATASETS.FILES "[['mini_seg','FOLDER/train/labels','FOLDER/train/photos','FOLDER/names.txt']]" \\
        DATASETS.TRAIN "('mini_seg',)" MODEL.WEIGHTS build/mini_detector/start.safetensors \\
        OUTPUT_DIR build/mini_segmenter/run
    python tools/build_mini_segmenter.py --output build/mini_segmenter --finish build/mini_segmenter/run/model_final.pth

FOLDER is mini_seg in the data root: photos of COCO and Pascal VOC, labels of 139 classes, and VOC's validation photos.
The last command writes segmenter.safetensors in half precision. pomp_seg/assets/SEGMENTER_MODEL_CARD.md has the recipe.
"""

import argparse
from pathlib import Path

from prompt_core.command_line import ArgumentParser
from prompt_core.errors import UserError, run_command
from prompt_core.files import make_output_folder, write_safetensors
from prompt_core.visible import say

CONFIG = Path(__file__).resolve().parent.parent / "configs" / "mini" / "segmenter.yaml"


def main() -> None:
    """Make labels, or finish."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, metavar="DIR", help="data root; writes mini_seg there")
    parser.add_argument("--output", type=Path, default="build/mini_segmenter", metavar="DIR", help="for the weights")
    parser.add_argument("--finish", type=Path, metavar="FILE", help="the checkpoint of the training")
    arguments = parser.parse_args()
    if (arguments.labels is None) == (arguments.finish is None):
        raise UserError("give --labels DIR before the training or --finish FILE after it")
    from pomp_lab.mini_segmenter.make import finished_weights, make_labels
    from pomp_seg import load_config

    if arguments.labels is not None:
        for name, count in make_labels(arguments.labels).items():
            say(f"{name}: {count} photos")
        return
    cfg = load_config(CONFIG, {"MODEL.DEVICE": "cpu", "MODEL.WEIGHTS": ""})
    finished = make_output_folder(arguments.output) / "segmenter.safetensors"
    state = finished_weights(cfg, arguments.finish)
    write_safetensors(finished, state, {"labels": "COCO and Pascal VOC, 133 classes"})
    say(f"{finished}: written")


if __name__ == "__main__":
    run_command(main)
