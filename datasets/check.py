"""Check data sets: what is present, missing or wrong, where it belongs and how to get it. The same as ``pomp check``.

python datasets/check.py --help
"""

from pomp.commands.check import main
from prompt_core.errors import run_command

if __name__ == "__main__":
    run_command(main)
