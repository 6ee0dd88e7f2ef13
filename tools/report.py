"""Tables of runs next to the published numbers, plots, and one page. The same as ``pomp report``.

python tools/report.py --help
"""

from pomp_lab.report.report_command import main
from prompt_core.errors import run_command

if __name__ == "__main__":
    run_command(main)
