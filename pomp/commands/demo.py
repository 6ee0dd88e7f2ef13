"""The whole loop on twelve photos of the package: words, boxes and masks, corrections, a learned prompt, one page.

    pomp demo --output runs/demo

Finds each photo's words with the embedded models, takes COCO's boxes as a person's corrections, learns a prompt from
them, measures it on photos that it was not learned on, and writes index.html with everything, corrections.json and
prompt.safetensors. No download; about two minutes on two cores.

pomp demo --shapes is another one: 4,000 drawn images, a prompt for names that are put together of three words, and what
it does for names that it never saw. pomp demo --shapes --help tells its options.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import Any

from prompt_core.command_line import ArgumentParser
from prompt_core.visible import say

# By name: experiments stay above this package.
SHAPES = "pomp_lab.demo.shapes_command"


def main() -> int:
    """Parse, run, print where the page is."""
    if "--shapes" in sys.argv[1:]:
        shapes: Any = importlib.import_module(SHAPES)
        sys.argv = [sys.argv[0], *(word for word in sys.argv[1:] if word != "--shapes")]
        return int(shapes.main() or 0)
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="runs/demo", metavar="DIR", help="folder of the page (default runs/demo)")
    parser.add_argument("--shapes", action="store_true", help="the demo on drawn shapes instead")
    arguments = parser.parse_args()
    from pomp.demo.whole_loop import run_loop

    result = run_loop(arguments.output)
    say(result.finding)
    say(", ".join(f"{name}: {value:.0f} s" for name, value in result.seconds.items()))
    say(f"open {result.folder / 'index.html'}")
    return 0
