"""The threshold of each word for a wanted precision, from corrected photos; and words that are taken for each other.

    pomp thresholds corrections.json --photos photos/ --precision 0.9 --output thresholds.json
    pomp detect photos/ --words "scratch,dent" --thresholds thresholds.json --output results

Of boxes every thing of the words has to be boxed in the corrected photos: what is found besides counts as wrong. Of
whole photos "words" name them, and [] says that a photo shows none of the words. A word with few answers gets the
default and says so. Use photos that no prompt was learned on, or the numbers flatter it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from prompt_core.command_line import ArgumentParser, real_number
from prompt_core.ranges import SHARE
from prompt_core.visible import say

if TYPE_CHECKING:
    from pomp.learning.word_thresholds import WordThresholds


def main() -> int:
    """Parse, look at the corrected photos, choose, print, write."""
    options = _parse()
    output = Path(options.output)
    from pomp.formats.formats import read_corrections
    from pomp.learning.find_thresholds import find_thresholds
    from prompt_core.command_line import counting
    from prompt_core.files import check_writable
    from prompt_core.vocabulary import read_vocabulary

    check_writable(output)
    corrections = read_corrections(options.corrected, options.photos)
    words = read_vocabulary(options.words) if options.words else None
    with counting("looking at the corrected photos") as progress:
        found, unreadable = find_thresholds(
            corrections.photos,
            words,
            options.task,
            options.model,
            options.prompt,
            options.precision,
            options.sure,
            progress,
        )
    for name in unreadable:
        say(f"left out, cannot be read: {name}", error=True)
    _show(found)
    found.save(output)
    say(f"thresholds written to {output}")
    return 0


def _show(found: WordThresholds) -> None:
    from rich.table import Table

    from prompt_core.command_line import print_table

    table = Table("word", "threshold", "precision, %", "95 %", "right of answers", "given by a person", "")
    for word, entry in found.words.items():
        low, high = entry.interval
        table.add_row(
            word,
            f"{entry.threshold:.2f}",
            f"{100 * entry.precision:.0f}" if entry.answers else "-",
            f"{100 * low:.0f} to {100 * high:.0f}",
            f"{entry.right} of {entry.answers}",
            str(entry.known),
            entry.status,
        )
    print_table(table)
    for pair in found.confused:
        one, other = pair["words"]
        near = "nearer in text than ten other names" if pair["near"] else "not near in text"
        say(f"{one} and {other}: {pair['wrong']} of {pair['of']} taken for the other; {near} (cosine {pair['cosine']})")


def _parse() -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corrected", metavar="CORRECTED", help="corrections: any format that pomp import reads")
    parser.add_argument("--photos", metavar="DIR", help="folder of the photos (default: that of the corrections)")
    parser.add_argument("--output", required=True, metavar="FILE", help="thresholds.json")
    parser.add_argument("--precision", type=real_number(SHARE), default=0.9, help="that is wanted (0.9)")
    parser.add_argument("--sure", action="store_true", help="the lower end of the interval has to reach it")
    parser.add_argument("--words", metavar="WORDS", help="words or a file (default: all that were corrected)")
    parser.add_argument("--model", default="mini", help="as pomp classify and pomp detect take it")
    parser.add_argument("--prompt", metavar="FILE", help="a prompt, or templates with {} separated by |")
    parser.add_argument("--task", choices=("auto", "classify", "detect"), default="auto", help="photos or boxes")
    return parser.parse_args()
