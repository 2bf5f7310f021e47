"""`python -m experiments.calibrate ...` is `airi calibrate ...`."""

from __future__ import annotations

import sys

from airi_sim.workbench.cli import main

if __name__ == "__main__":
    sys.exit(main(["calibrate", *sys.argv[1:]]))
