"""Reproduce a table of the paper. The same as ``pomp reproduce``.

python tools/reproduce.py --help
"""

from pomp_lab.tables.reproduce import main
from prompt_core.errors import run_command

if __name__ == "__main__":
    run_command(main)
