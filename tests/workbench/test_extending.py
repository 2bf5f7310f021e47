"""The commands of docs/extending.md work on the files it shows, in a folder that holds nothing else."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

DOCUMENT = (Path(__file__).parents[2] / "docs" / "extending.md").read_text()
FILES = dict(re.findall(r"^```python\n# (my_\w+\.py)\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL))
BASH = re.findall(r"^```bash\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
COMMANDS = [line for block in BASH for line in block.replace("\\\n", " ").splitlines() if line]


def test_there_are_files_and_commands() -> None:
    assert set(FILES) == {"my_queue.py", "my_policies.py", "my_programs.py", "my_trace.py", "my_cost.py"}
    assert len(COMMANDS) == 7 and all(command.startswith("airi run ") for command in COMMANDS)


@pytest.mark.parametrize(
    "command",
    [pytest.param(c, marks=pytest.mark.real) if "backend=torch" in c else c for c in COMMANDS],
    ids=lambda command: re.sub(r"[ =]+", " ", command)[9:60],
)
def test_the_command_works(command: str, tmp_path: Path) -> None:
    for name, code in FILES.items():
        (tmp_path / name).write_text(re.sub(r"^assert check_policy.*\n", "", code, flags=re.MULTILINE))
    subprocess.run([sys.executable, "my_trace.py"], cwd=tmp_path, check=True)
    words = [sys.executable, "-m", "airi_sim.workbench.cli", *shlex.split(command)[1:], "hydra.run.dir=out"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "summary.json").exists()
    assert re.search(r"requests finished +(\d+) of \1\b", done.stdout), done.stdout
