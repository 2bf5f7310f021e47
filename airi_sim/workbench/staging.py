"""The files of a run are made beside where they belong, and moved there when all of them are complete."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from tempfile import mkdtemp


class Staging:
    """A folder within `folder` that is made when first asked for (`path`), then published, kept as a part, or
    discarded. A folder that had to be made is removed again when nothing of it is left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._created: Path | None = None
        self._made: Path | None = None

    def path(self) -> Path:
        """Where to make files."""
        if self._made is None:
            self._created = next((p for p in reversed([self.folder, *self.folder.parents]) if not p.exists()), None)
            self.folder.mkdir(parents=True, exist_ok=True)
            self._made = Path(mkdtemp(prefix=".airi-", dir=self.folder))
        return self._made

    def publish(self, old: Iterable[str]) -> None:
        """Move all files to the folder. `old` names those that an earlier run may have left there: they go."""
        made = self.path()
        for name in old:
            place = self.folder / name
            shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
        for file in sorted(made.iterdir()):
            file.replace(self.folder / file.name)
        made.rmdir()
        self._made = self._created = None

    def keep(self, name: str) -> Path:
        """Leave the files in a folder `name` within the folder, in place of an older one; returns it."""
        part = self.folder / name
        shutil.rmtree(part, ignore_errors=True)
        self.path().replace(part)
        self._made = self._created = None
        return part

    def discard(self) -> None:
        """Leave nothing."""
        for folder in (self._made, self._created):
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
