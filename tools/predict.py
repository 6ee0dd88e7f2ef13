"""Photos and words in, drawn boxes and masks and a COCO JSON out.

    python tools/predict.py --model configs/detection/lvis_images_pomp.yaml --weights detector.pth \
        --vocabulary "cat,remote control" --prompt pomp.pth.tar --output runs/predict photo.jpg more_photos/

--model is a detection configuration, published files included. Names without --prompt are looked up in the class
matrix of the configuration. --vocabulary may be given several times: the words change, the model is loaded once, and
each list gets a folder 1, 2, … of its own.
"""

import argparse
from pathlib import Path

from prompt_core.command_line import ArgumentParser
from prompt_core.errors import UserError, run_command
from prompt_core.files import atomic_path, make_output_folder, write_json

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


def main() -> None:
    """Parse, load once, predict for each list of words."""
    arguments = parse()
    photos = find_photos(arguments.photos)
    if not 0 <= arguments.threshold <= 1:
        raise UserError(f"--threshold is {arguments.threshold}; a score between 0 and 1 is expected")
    output = make_output_folder(arguments.output)
    import numpy as np
    from PIL import Image

    import pomp_det
    from pomp_det.pictures import draw_detections
    from pomp_det.predictor import OpenVocabularyPredictor, coco_results, read_photo

    overrides = list(arguments.set)
    if arguments.weights:
        overrides.append(f"MODEL.WEIGHTS={arguments.weights}")
    predictor = OpenVocabularyPredictor.load(pomp_det.load_config(arguments.model, overrides))
    lists = arguments.vocabulary or [None]
    for number, words in enumerate(lists, start=1):
        if words is not None:
            predictor.set_vocabulary(words, arguments.prompt)
        names = predictor.class_names
        folder = output if len(lists) == 1 else make_output_folder(output / str(number))
        results = []
        for photo in photos:
            pixels = read_photo(photo)
            found = predictor(pixels)
            found = found[found.scores >= arguments.threshold]
            results.append((str(photo), pixels.shape[:2], found))
            with atomic_path(folder / f"{len(results):04d}_{photo.stem}.png") as temporary:
                canvas = np.full_like(pixels, 235) if arguments.no_photo else pixels
                Image.fromarray(draw_detections(canvas, found, names)).save(temporary, format="PNG")
        write_json(folder / "detections.json", coco_results(results, names))
        total = sum(len(found) for _, _, found in results)
        print(f"{total} detections of {len(names)} classes in {len(photos)} photos, written to {folder}")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="photos, or folders of photos")
    parser.add_argument("--model", required=True, metavar="FILE", help="configuration of the detector")
    parser.add_argument("--weights", metavar="FILE", help="its checkpoint (default: MODEL.WEIGHTS)")
    parser.add_argument(
        "--vocabulary",
        action="append",
        metavar="WORDS",
        help="names joined by commas, a file, or a published vocabulary",
    )
    parser.add_argument("--prompt", default="", help="a prompt file, or templates with {} separated by |")
    parser.add_argument("--threshold", type=float, default=0.3, help="least score (default: 0.3)")
    parser.add_argument("--no-photo", action="store_true", help="draw on grey, for photos that may not be shown")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="configuration override")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="pictures and detections.json")
    return parser.parse_args()


def find_photos(given: list[str]) -> list[Path]:
    """The photos themselves, and those inside folders in order of their names.

    Raises:
        UserError: for a path that is not there, or a folder without photos.
    """
    photos: list[Path] = []
    for path in map(Path, given):
        inside = sorted(each for each in path.rglob("*") if each.suffix.lower() in ENDINGS) if path.is_dir() else [path]
        if not path.exists():
            raise UserError(f"photo {path} does not exist")
        if not inside:
            raise UserError(f"folder {path} holds no photo; endings {', '.join(ENDINGS)} are looked for")
        photos += inside
    return photos


if __name__ == "__main__":
    run_command(main)
