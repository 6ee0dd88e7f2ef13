"""Learn a prompt from corrected photos or boxes; every weight stays as it is.

    pomp learn corrections.json --photos photos/ --output my.safetensors
    pomp detect photos/ --prompt my.safetensors --words "scratch,dent"

The corrections are those of pomp import, or any COCO file: boxes that a person named become crops; "words" of an image
name the whole photo, and [] says that it shows none of them. What is learned is a prompt, by local contrast with names
of ImageNet-21K (POMP); --method coop compares the words with each other only. A quarter of the corrected photos chooses
the epoch.

Accuracy before and after is that of photos that were not learned on: each photo is held out once. Words without
corrections are measured by learning on half of the words and asking for the other half.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from prompt_core.command_line import ArgumentParser, parse_with_overrides, real_number
from prompt_core.errors import UserError
from prompt_core.ranges import Range
from prompt_core.visible import say

if TYPE_CHECKING:
    from pomp.learning.before_after import BeforeAfter
    from pomp.learning.learn_words import LearnedWords

SHARE = Range(0, 0.5)


def main() -> int:
    """Parse, learn, print before and after, write the prompt."""
    options = _parse()
    output = Path(options.output)
    if output.suffix != ".safetensors":
        raise UserError(f"--output {output}: a prompt is a .safetensors file")
    from pomp.formats.formats import read_corrections
    from pomp.learning.examples import examples_of
    from pomp.learning.learn_words import learn_words, save_learned
    from pomp.learning.prompt_settings import learning_config
    from prompt_core.command_line import counting, load_model
    from prompt_core.data.sources import open_images
    from prompt_core.files import check_writable
    from prompt_core.temporary_files import temporary_folder
    from prompt_core.vocabulary import read_vocabulary

    check_writable(output)
    name, _, pretrained = options.model.partition(":")
    cfg = learning_config(options.method, (name, pretrained), options.seed, options.overrides)
    corrections = read_corrections(options.corrected, options.photos)
    for note in corrections.notes:
        say(note)
    corrected = Path(options.corrected)
    folder = Path(options.photos or (corrected if corrected.is_dir() else corrected.parent))
    words = read_vocabulary(options.words) if options.words else None
    others = open_images(options.others, options.others_split) if options.others else None
    clip = load_model(cfg, random_weights=False)
    examples = examples_of(corrections.photos, folder, options.task, words)
    kind = "boxes" if examples.task == "detect" else "images"
    say(f"{len(examples)} {kind} of {examples.photos} photos, {len(examples.words)} words")
    for reason, count in examples.left_out.items():
        say(f"{count} annotations are left out: {reason}")
    with temporary_folder(output) as scratch:
        cache = Path(options.cache) if options.cache else scratch
        result = learn_words(cfg, clip, examples, options.held_out, cache, options.template, others, counting)
    save_learned(result, output, cfg)
    _show(result, kind)
    say(f"{'prompt' if options.method in ('pomp', 'coop') else f'method {options.method}'} written to {output}")
    return 0


def _show(result: LearnedWords, kind: str) -> None:
    from rich.table import Table

    from prompt_core.command_line import print_table

    table = Table("right, %", "before", "after", "difference (95 %)", "on")
    for comparison in result.comparisons:
        table.add_row(*_row(comparison, kind))
    if result.comparisons:
        print_table(table)
    else:
        say("nothing is held out to measure by")
    if result.none_refused is not None:
        before, after = result.none_refused
        say(f"photos of none of the words that get none: {100 * before:.0f} % before, {100 * after:.0f} % after")
    drift = result.drift
    if drift is not None:
        say(
            f"other names: {100 * drift.same:.0f} % of {drift.images} images keep their best of {drift.names} names, "
            f"{100 * drift.same_of_five:.0f} % of the five best stay"
        )
    say(f"epoch {result.learned.epoch} is kept")
    say(result.verdict)


def _row(comparison: BeforeAfter, kind: str) -> list[str]:
    numbers = comparison.describe()
    low, high = numbers["gain_interval"]
    place = f"{numbers['images']} {kind} of {numbers['photos']} photos, {comparison.how}"
    return [
        comparison.title,
        f"{numbers['before']:.1f}",
        f"{numbers['after']:.1f}",
        f"{numbers['gain']:+.1f} ({low:+.1f} to {high:+.1f})",
        place,
    ]


def _parse() -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corrected", metavar="CORRECTED", help="corrections, a COCO file")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="settings of learning, such as OPTIM.LR 0.01")
    parser.add_argument("--photos", metavar="DIR", help="folder of the photos (default: that of the corrections)")
    parser.add_argument("--output", required=True, metavar="FILE", help="the prompt, a .safetensors file")
    parser.add_argument("--method", default="pomp", help="pomp, coop or cocoop (default: pomp)")
    parser.add_argument("--words", metavar="WORDS", help="words or a file (default: all that were corrected)")
    parser.add_argument("--model", default="mini", help="mini, or a CLIP as NAME:PRETRAINED")
    parser.add_argument("--task", choices=("auto", "classify", "detect"), default="auto", help="photos or boxes")
    parser.add_argument(
        "--held-out", type=real_number(SHARE), default=0.3, metavar="SHARE", help="photos held out at once; 0 for none"
    )
    parser.add_argument("--template", default="a photo of a {}.", help="what the prompt is compared with")
    parser.add_argument("--others", metavar="DATASET", help="labelled photos of other names, measured too")
    parser.add_argument("--others-split", default="val", metavar="SPLIT", help="their split (default: val)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", metavar="DIR", help="keep image features there, for the next time")
    return parse_with_overrides(parser)
