"""`python -m experiments.study ...` is `airi study ...`."""

from __future__ import annotations

import sys

from airi_sim.workbench.cli import main

if __name__ == "__main__":
    sys.exit(main(["study", *sys.argv[1:]]))
