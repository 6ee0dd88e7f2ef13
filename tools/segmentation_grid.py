"""Draw photos, true labels and predictions of segmenters side by side, for documentation.

    python tools/segmentation_grid.py --dataset coco_small_sem_seg_val --images 4 --no-photo --output grid.png \\
        --weights "hand prompt=runs/mini/coco_seg" --weights "POMP=runs/mini/coco_seg_pomp"

Each --weights is a column: its name, and the folder of a run, which holds its configuration, or a checkpoint, which
needs --config. Images are spread evenly over the data set, or chosen by their ids.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from prompt_core.command_line import ArgumentParser
from prompt_core.errors import UserError, run_command
from prompt_core.files import atomic_path, check_writable
from prompt_core.visible import say


def main() -> None:
    """Parse, predict with one segmenter after the other, draw."""
    arguments = parse()
    sources = [find_weights(text, arguments.config) for text in arguments.weights]
    check_writable(arguments.output)
    import torch
    from PIL import Image

    import pomp_seg

    overrides = [] if torch.cuda.is_available() else ["MODEL.DEVICE=cpu"]  # a run elsewhere may have had a GPU
    configs = [
        pomp_seg.load_config(config, [*overrides, *arguments.set, f"MODEL.WEIGHTS={weights}"])
        for _, config, weights in sources
    ]
    from pomp_lab.picture_grid import add_predictions, choose_records, draw_grid, read_rows
    from pomp_seg.data.registration import register_configured, registered_metadata
    from pomp_seg.predictor import OpenVocabularySegmenter

    register_configured(configs[0])
    records = choose_records(arguments.dataset, arguments.images)
    rows = read_rows(arguments.dataset, records)
    for cfg in configs:
        rows = add_predictions(rows, OpenVocabularySegmenter.load(cfg), arguments.dataset)
    columns = ["photo", "truth", *(name for name, _, _ in sources)]
    if arguments.no_photo:
        columns, rows = columns[1:], [replace(row, photo=None) for row in rows]
    picture = draw_grid(rows, columns, registered_metadata(arguments.dataset).stuff_classes)
    with atomic_path(arguments.output) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")
    say(f"{arguments.output}: {', '.join(str(record['image_id']) for record in records)}")


def find_weights(given: str, config: str | None) -> tuple[str, str, str]:
    """Name, configuration and checkpoint of ``NAME=FILE``, ``NAME=RUN`` or one of these without a name.

    Raises:
        UserError: an absent file, a folder without a finished checkpoint, a file without a configuration.
    """
    name, _, place = given.partition("=") if "=" in given else (Path(given).stem, "", given)
    path = Path(place)
    if not path.is_dir():
        if config is None:
            raise UserError(f"--weights {place} is not the folder of a run; give --config with a checkpoint")
        return name, config, place
    last, config_file = path / "last_checkpoint", path / "config.yaml"
    for needed in (last, config_file):
        if not needed.is_file():
            raise UserError(f"--weights {place} holds no run: {needed} does not exist")
    return name, str(config_file), str(path / last.read_text(encoding="utf-8").strip())


def parse() -> argparse.Namespace:
    """The command line."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", metavar="FILE", help="configuration of checkpoints outside of runs")
    parser.add_argument(
        "--weights",
        action="append",
        required=True,
        metavar="NAME=RUN",
        help="name of a column and its run or checkpoint; may repeat",
    )
    parser.add_argument("--dataset", required=True, metavar="NAME", help="registered data set with semantic labels")
    parser.add_argument(
        "--images", default="4", metavar="N", help="number of images, or ids separated by commas (default: 4)"
    )
    parser.add_argument(
        "--no-photo", action="store_true", help="leave out the photos, for those that must not be shown"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="configuration override; may repeat"
    )
    parser.add_argument("--output", required=True, metavar="PNG", help="where the picture is written")
    return parser.parse_args()


if __name__ == "__main__":
    run_command(main)
