"""Make the pictures of README and docs from the photos of the package.

    python tools/make_pictures.py --output docs/images

Words, photos and the embedded models give the same pictures every time. Needs Detectron2 and Chromium.
"""

import argparse
from pathlib import Path

from prompt_core.command_line import ArgumentParser
from prompt_core.errors import run_command
from prompt_core.files import make_output_folder
from prompt_core.visible import say


def main() -> None:
    """Parse, draw, list."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="docs/images", metavar="DIR", help="folder (default docs/images)")
    arguments = parser.parse_args()
    from pomp_lab.documentation_pictures import make_pictures

    for file in make_pictures(make_output_folder(Path(arguments.output))):
        say(f"{file}: {file.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    run_command(main)
