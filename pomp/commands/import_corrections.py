"""Read corrections that were made in another tool, for pomp learn and pomp thresholds.

    pomp import export/annotations.json --photos photos/ --output corrected.json
    pomp import project.json --photos photos/ --predictions runs/detections.json --output corrected.json

Read are exports of COCO, YOLO (a folder with data.yaml and labels), Pascal VOC, Label Studio (JSON), CVAT for images
1.1, FiftyOne's own layout, folders called by the words of their photos, and CSV tables with a photo and its words in
each row. Which it is, its content says.

The output is a COCO file without scores, whose images have "words" where a person named the whole photo. A photo that
carries a model's scores was corrected by nobody, and is left out.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from prompt_core.command_line import ArgumentParser
from prompt_core.visible import say, visible_path

if TYPE_CHECKING:
    from pomp.formats.imported import Imported

LISTED = 10  # photos and words that are named one by one


def main() -> int:
    """Parse, read, tell, write."""
    options = _parse()
    from pomp.formats.coco_json import write_corrections
    from pomp.formats.formats import read_corrections
    from pomp.formats.imported import imported, unchanged
    from prompt_core.files import check_writable
    from prompt_core.vocabulary import read_vocabulary

    output = Path(options.output)
    check_writable(output)
    words = list(read_vocabulary(options.words)) if options.words else []
    found = read_corrections(options.corrections, options.photos)
    result = imported(found, words, bool(options.photos), options.accept_predictions)
    _tell(result)
    if options.predictions:
        model = read_corrections(options.predictions)
        photos, boxes = unchanged(result.corrections.photos, model.photos)
        say(f"left as the model had them: {photos} photos, {boxes} boxes")
    write_corrections(result.corrections, output)
    say(f"written to {output}")
    return 0


def _tell(result: Imported) -> None:
    corrections = result.corrections
    boxes = sum(len(photo.objects) for photo in corrections.photos)
    masks = sum(item.mask is not None for photo in corrections.photos for item in photo.objects)
    named = sum(photo.words is not None for photo in corrections.photos)
    parts = [f"{len(corrections.photos)} photos", f"{boxes} boxes ({masks} with masks)", f"{named} named as a whole"]
    say(f"{corrections.kind}: {', '.join(parts)}, {len(corrections.words)} words")
    for note in corrections.notes:
        say(note)
    if result.uncorrected:
        say(f"{result.uncorrected} photos left out that nobody has corrected; --accept-predictions takes them as right")
    for word, count in result.other_words.most_common(LISTED):
        say(f"{count} times {word!r} left out, which is not one of --words")
    if result.unknown:
        say(f"{len(result.unknown)} photos left out whose file was not found:")
        for name in result.unknown[:LISTED]:
            say(f"  {visible_path(name)}")


def _parse() -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "corrections", metavar="FILE", help="what the other tool exported: a file, or an unpacked folder"
    )
    parser.add_argument("--photos", metavar="DIR", help="where the photos are; others are left out and listed")
    parser.add_argument("--words", metavar="WORDS", help="the words that count: joined by commas, or a file (all)")
    parser.add_argument(
        "--predictions", metavar="FILE", help="what the model had said, to count what was left as it was"
    )
    parser.add_argument("--accept-predictions", action="store_true", help="take what nobody corrected for right")
    parser.add_argument("--output", required=True, metavar="FILE", help="the corrections, a COCO file")
    return parser.parse_args()
