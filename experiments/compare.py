"""`python -m experiments.compare ...` is `airi compare ...`."""

from __future__ import annotations

import sys

from airi_sim.workbench.cli import main

if __name__ == "__main__":
    sys.exit(main(["compare", *sys.argv[1:]]))
