"""The whole loop on the photos of the package, or with --shapes on drawn ones. The same as ``pomp demo``.

python tools/demo.py --help
"""

from pomp.commands.demo import main
from prompt_core.errors import run_command

if __name__ == "__main__":
    run_command(main)
