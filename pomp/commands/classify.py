"""Name whole photos by your words, or "none of these"; needs no Detectron2.

    pomp classify photos/ --words "scratch,dent,ok" --output results
    pomp classify '**/*.jpg' --words words.txt --negatives "packaging,hand"

An own share is the probability of a word against all other words and the names of everything else; a photo gets the
word with the largest one where it is above --threshold. --output gets results.csv, results.jsonl and contact sheets;
without it, a table is printed.

Photos that cannot be read are left out, listed at the end and counted. Results are written batch by batch: a run that
was stopped goes on where it was when the same command is given again.
"""

from __future__ import annotations

import tempfile

from pomp.labelling.label_options import device_of, photo_parser, request_of
from pomp.labelling.outputs import Outputs
from prompt_core.command_line import real_number
from prompt_core.errors import UserError
from prompt_core.ranges import SHARE


def main() -> int:
    """Parse, load, name the photos; returns the exit code."""
    parser = photo_parser(__doc__, output_needed=False)
    parser.add_argument("--model", default="mini", metavar="NAME", help="mini, or a CLIP as NAME:PRETRAINED")
    parser.add_argument("--prompt", metavar="FILE", help="a prompt, or templates with {} separated by |")
    parser.add_argument("--threshold", type=real_number(SHARE), help="own share above which a word is taken (0.5)")
    parser.add_argument("--thresholds", metavar="FILE", default="", help="one for each word, of pomp thresholds")
    parser.add_argument("--gallery", action="store_true", help="also pages of all photos, those in doubt first")
    parser.add_argument("--no-contact-sheet", action="store_true", help="no sheets of small photos")
    arguments = parser.parse_args()
    if not arguments.words:
        raise UserError('--words is missing; name what may be in the photos, such as --words "scratch,dent,ok"')
    if not arguments.output and (arguments.format or arguments.shard):
        raise UserError("--format and --shard need --output; name a folder for the files")
    from pomp.labelling.label_photos import label_photos
    from pomp.labelling.show_answers import show_answers
    from pomp.models.load import load
    from pomp.models.photo_model import Model

    def model() -> Model:
        return load(
            arguments.model,
            "classify",
            prompt=arguments.prompt,
            threshold=arguments.threshold,
            thresholds=arguments.thresholds,
            device=device_of(arguments),
        )

    if arguments.output:
        return label_photos(request_of(arguments, Outputs(not arguments.no_contact_sheet, arguments.gallery)), model)
    with tempfile.TemporaryDirectory() as folder:
        arguments.output = folder
        return show_answers(request_of(arguments, Outputs(pictures=False)), model)
