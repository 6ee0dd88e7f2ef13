"""Write the model zoo: every configuration with its commands, and its measured and published numbers.

    python tools/model_zoo.py --output docs/model_zoo.md --models pomp/assets/models.json

--models is the same for the command "pomp models", which has no docs where the package is installed. Measured numbers
come from docs/results, published ones from pomp_lab/assets/published.json.
"""

from argparse import RawDescriptionHelpFormatter
from pathlib import Path

from pomp_lab.model_zoo import zoo_entries, zoo_page
from prompt_core.command_line import ArgumentParser
from prompt_core.errors import run_command
from prompt_core.files import write_json, write_text
from prompt_core.visible import say

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Parse, build the page, write it."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output", required=True, metavar="FILE", help="the page; its links are relative to its folder"
    )
    parser.add_argument("--models", metavar="FILE", help="the list of configurations that the package carries")
    arguments = parser.parse_args()
    output = Path(arguments.output)
    write_text(output, zoo_page(ROOT, output.resolve().parent))
    if arguments.models:
        about = "Written by tools/model_zoo.py from configs, docs/results and pomp_lab/assets/published.json."
        write_json(arguments.models, {"about": about, "configurations": zoo_entries(ROOT)})
    say(f"written to {output}")


if __name__ == "__main__":
    run_command(main)
