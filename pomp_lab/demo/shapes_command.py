"""Learn a prompt with the embedded model on generated images, and show its effect, without any download.

    pomp demo --shapes --output runs/demo_shapes

Draws 4,000 images of coloured, patterned shapes, learns a prompt on the base classes, classifies base and novel ones
among up to 1,440 names, and writes pictures, metrics.json and one page, index.html. A second run reuses the results of
the first; --fresh starts over. Trailing KEY VALUE pairs change the configuration.
"""

from __future__ import annotations

from pomp.configurations import configuration
from pomp_lab.demo.make_demo import run_demo
from pomp_lab.demo.summary import score_table
from pomp_lab.tables.show import Block, print_blocks
from prompt_core.command_line import config_parser, parse_with_overrides
from prompt_core.config import load_config
from prompt_core.visible import say


def main() -> None:
    """Parse, run, print the table."""
    parser = config_parser(__doc__)
    parser.set_defaults(output="runs/demo_shapes", config=str(configuration("prompt/mini_shapes")))
    parser.add_argument("--fresh", action="store_true", help="delete what an earlier demo wrote and start over")
    arguments = parse_with_overrides(parser)
    result = run_demo(arguments.output, load_config(arguments.config, arguments.overrides), fresh=arguments.fresh)
    table = score_table(result)
    print_blocks([Block(table.caption, (), tuple(table.headings), tuple(table.texts))])
    say(", ".join(f"{name}: {value:.0f} s" for name, value in result.seconds.items()))
    say(f"open {result.folder / 'index.html'}")
