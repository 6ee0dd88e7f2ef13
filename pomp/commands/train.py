"""Fine-tune the detector on boxes of your own; names, width and sizes are inferred.

    pomp train annotations.json --photos photos/ --output runs/mine
    pomp train annotations.json --photos photos/ --output runs/mine --resume
    pomp detect more/ --model runs/mine --output results

The boxes are a COCO file, or what pomp import reads. A part of the photos is held out to measure AP, before and after.
The embedded detector learns the last layers of its detection network, with a class for each word, and still takes any
other words. Another detector is given by its configuration, as --model mini/base. Ctrl-C saves; --resume goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from prompt_core.command_line import ArgumentParser, parse_with_overrides, real_number
from prompt_core.ranges import Range
from prompt_core.visible import say


def main() -> int:
    """Parse, split, train, print AP before and after."""
    options = _parse()
    from pomp.formats.formats import read_corrections
    from pomp.learning.boxed_photos import write_boxed_photos
    from pomp.learning.fine_tune import TRAINING, fine_tune
    from prompt_core.errors import UserError
    from prompt_core.files import make_output_folder

    annotated = Path(options.annotations)
    photos = Path(options.photos or (annotated if annotated.is_dir() else annotated.parent))
    corrections = read_corrections(annotated, options.photos)
    for note in corrections.notes:
        say(note)
    folder = make_output_folder(options.output)
    if (folder / TRAINING / "last_checkpoint").exists() and not options.resume:
        raise UserError(f"{folder} already holds a run; add --resume to continue it, or choose another --output")
    boxed = write_boxed_photos(corrections, photos, folder, options.held_out, options.seed)
    say(f"{boxed.boxes} boxes of {boxed.photos} photos, {len(boxed.words)} words; {boxed.held_out} photos are held out")
    result = fine_tune(boxed, photos, options.model, options.overrides, options.resume, options.seed)
    if result.after is not None:
        said = f"box AP {result.after['AP']:.1f}, AP50 {result.after['AP50']:.1f} on {boxed.held_out} held-out photos"
        before = result.before
        say(said + (f"; before {before['AP']:.1f}, AP50 {before['AP50']:.1f}" if before is not None else ""))
        if before is not None and result.after["AP"] <= before["AP"]:
            say("the detector is not better than before: keep the one that is shipped, or give more boxes")
    say(f"pomp detect PHOTOS --model {folder} --output results")
    return 0


def _parse() -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations", metavar="COCO", help="boxes: a COCO file, or what pomp import reads")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="settings, such as SOLVER.MAX_ITER 500")
    parser.add_argument("--photos", metavar="DIR", help="folder of the photos (default: that of the annotations)")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the run")
    parser.add_argument("--model", default="mini", help="mini, or the configuration of another detector")
    parser.add_argument(
        "--held-out",
        type=real_number(Range(0, 1, below=True)),
        default=0.2,
        metavar="SHARE",
        help="of the photos, to measure by (0.2); 0 for none",
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run in --output")
    parser.add_argument("--seed", type=int, default=0)
    return parse_with_overrides(parser)
