"""`python -m experiments.run ...` is `airi run ...`."""

from __future__ import annotations

import sys

from airi_sim.workbench.cli import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
