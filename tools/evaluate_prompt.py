"""Accuracy of a learned prompt or method, or of hand-written templates, on image sets. The same as ``pomp evaluate``.

python tools/evaluate_prompt.py --help
"""

from pomp.commands.evaluate import main
from prompt_core.errors import run_command

if __name__ == "__main__":
    run_command(main)
