"""What is installed, what is missing; and Detectron2, installed without a compiler."""

from __future__ import annotations

import sys

INSTALL = "--install-detectron2"


def main() -> int:
    """The findings of the doctor, or the installation, whose options are ``--dry-run`` and ``--wheel FILE``."""
    given = sys.argv[1:]
    if INSTALL in given:
        from pomp_engine import install_detectron2

        install_detectron2.main([word for word in given if word != INSTALL])
        return 0
    from prompt_core import doctor

    return doctor.main(given, prog=sys.argv[0])
