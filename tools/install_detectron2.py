"""Install detectron2 without compiling anything, unless it is already installed: ``pomp doctor --install-detectron2``.

python tools/install_detectron2.py              # fetch, check, repack and install
python tools/install_detectron2.py --dry-run    # print the plan only
python tools/install_detectron2.py --wheel FILE # use a wheel that was already downloaded
"""

from pomp_engine.install_detectron2 import main
from prompt_core.errors import run_command

if __name__ == "__main__":
    run_command(main)
