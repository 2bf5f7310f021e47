"""`python -m experiments.validate ...` is `airi validate ...`."""

from __future__ import annotations

import sys

from airi_sim.workbench.cli import main

if __name__ == "__main__":
    sys.exit(main(["validate", *sys.argv[1:]]))
