"""Fetch published files: class matrices, backbones, prompts, checkpoints, annotations. The same as ``pomp fetch``.

python tools/fetch.py --help
"""

from pomp.commands.fetch import main
from prompt_core.errors import run_command

if __name__ == "__main__":
    run_command(main)
