"""Give each pixel one of your words.

    pomp segment photos/ --words "road,car,sky" --negatives "building" --output results

--output gets a coloured picture of each photo, a gallery (index.html), segmentation.json, and labels/, where PNG files
have the index of each pixel's word (8 bits for at most 255 words, else 16). Each pixel gets its best word, or
none of these; --negatives adds words for what else may be there, which are left uncoloured.

Photos that cannot be read are left out, listed at the end and counted. Results are written photo by photo: a run that
was stopped goes on where it was when the same command is given again, and ends with the same files.
"""

from __future__ import annotations

from pomp.labelling.label_options import add_region_options, device_of, photo_parser, region_outputs, request_of
from prompt_core.command_line import real_number
from prompt_core.ranges import Range


def main() -> int:
    """Parse, load, name the pixels of the photos; returns the exit code."""
    parser = photo_parser(__doc__, output_needed=True)
    add_region_options(parser)
    parser.add_argument("--model", default="mini", metavar="NAME", help="mini, a configuration, or a run's folder")
    parser.add_argument("--prompt", metavar="FILE", help="a prompt, or templates with {} separated by |")
    parser.add_argument(
        "--none-of-these",
        type=real_number(Range(0, 1, below=True)),
        metavar="SHARE",
        help="pixels whose best word has no more own share show none of them; 0: each gets a word (the model's: 0.5)",
    )
    arguments = parser.parse_args()
    share = arguments.none_of_these
    settings = [] if share is None else [f"MODEL.SEM_SEG_HEAD.NONE_OF_THESE={share}"]
    from pomp.labelling.label_photos import label_photos
    from pomp.models.load import load

    return label_photos(
        request_of(arguments, region_outputs(arguments)),
        lambda: load(
            arguments.model,
            "segment",
            prompt=arguments.prompt,
            weights=arguments.weights,
            device=device_of(arguments),
            settings=[*settings, *arguments.set],
        ),
    )
