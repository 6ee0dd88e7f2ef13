"""Find things by your words: boxes and masks, with any words, in one folder of files.

    pomp detect photos/ --words "bus,pedestrian,scooter" --output results
    pomp detect clip.mp4 --every 2s --words "bird" --crops --format coco,yolo --output results

--output gets a drawn picture of each photo, a gallery (index.html) with the photos in doubt first, and detections.json,
a COCO file whose annotations carry a score and the area of their masks. Without --words the model's own are looked for.

Photos that cannot be read are left out, listed at the end and counted. Results are written photo by photo: a run that
was stopped goes on where it was when the same command is given again, and ends with the same files.
"""

from __future__ import annotations

from pomp.labelling.label_options import add_region_options, device_of, photo_parser, region_outputs, request_of
from prompt_core.command_line import real_number
from prompt_core.ranges import SHARE

MASKS = ("rle", "polygons")


def main() -> int:
    """Parse, load, find things in the photos; returns the exit code."""
    parser = photo_parser(__doc__, output_needed=True)
    add_region_options(parser)
    parser.add_argument("--model", default="mini", metavar="NAME", help="mini, a configuration, or a run's folder")
    parser.add_argument("--prompt", metavar="FILE", help="a prompt, or templates with {} separated by |")
    parser.add_argument("--threshold", type=real_number(SHARE), help="lowest score (0.3)")
    parser.add_argument("--thresholds", metavar="FILE", default="", help="one for each word, of pomp thresholds")
    parser.add_argument("--masks", choices=MASKS, default=MASKS[0], help="how detections.json has them")
    arguments = parser.parse_args()
    from pomp.labelling.label_photos import label_photos
    from pomp.models.load import load

    return label_photos(
        request_of(arguments, region_outputs(arguments, arguments.masks == "polygons")),
        lambda: load(
            arguments.model,
            "detect",
            prompt=arguments.prompt,
            weights=arguments.weights,
            threshold=arguments.threshold,
            thresholds=arguments.thresholds,
            device=device_of(arguments),
            settings=arguments.set,
        ),
    )
