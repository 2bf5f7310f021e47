"""`python -m experiments.bench ...` is `airi bench ...`."""

from __future__ import annotations

import sys

from airi_sim.workbench.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", *sys.argv[1:]]))
