"""What every test may use: the reference data, the profiles of hypothesis, and life without torch."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import settings

HAS_TORCH = find_spec("torch") is not None

collect_ignore = [] if HAS_TORCH else ["real_backend"]

settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("deep", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_report_header() -> list[str]:
    """Say what this run can and cannot test."""
    torch = "present" if HAS_TORCH else "absent: tests/real_backend left out, tests marked real skipped"
    data = os.environ.get("AIRI_DATA", "not set: tests that need it are skipped")
    return [f"torch: {torch}", f"AIRI_DATA: {data}"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `real` need torch."""
    if HAS_TORCH:
        return
    for item in items:
        if item.get_closest_marker("real"):
            item.add_marker(pytest.mark.skip(reason="torch is not installed (pip install 'airi-sim[real]')"))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of reference data; the test is skipped where AIRI_DATA does not name one."""
    named = os.environ.get("AIRI_DATA")
    if not named:
        pytest.skip("AIRI_DATA is not set: this test reads reference data")
    folder = Path(named)
    if not folder.is_dir():
        pytest.fail(f"AIRI_DATA names '{named}', which is not a folder")
    return folder
