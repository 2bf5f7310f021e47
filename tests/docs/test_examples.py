"""What the documents show works: python blocks run, relative links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")
WITH_EXAMPLES = [path for path in DOCUMENTS if BLOCK.search(path.read_text())]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.skipif(not WITH_EXAMPLES, reason="no document has a python block yet")
@pytest.mark.parametrize("document", WITH_EXAMPLES, ids=name)
def test_python_blocks_run(document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of one document share their names, as a reader would type them; a block fenced otherwise is text."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__example__"}
    for block in BLOCK.finditer(document.read_text()):
        exec(compile(block.group(1), name(document), "exec"), names)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_links_lead_somewhere(document: Path) -> None:
    targets = LINK.findall(document.read_text())
    assert [target for target in targets if not (document.parent / target).exists()] == []
