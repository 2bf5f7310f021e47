"""A function of one whole number, remembered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

SPAN = 1024
"""Values worked out together where the function takes arrays: nearly as cheap as one."""


class Table(dict[int, float]):
    """Works `function` out once per value asked for (`arrays`: for the SPAN values around it, in one call with an array
    of them); later look-ups cost as much as those of a dict."""

    def __init__(self, function: Callable[[Any], Any], arrays: bool = False) -> None:
        super().__init__()
        self.function, self.arrays = function, arrays

    def __missing__(self, n: int) -> float:
        if not self.arrays:
            self[n] = self.function(n)
            return self[n]
        import numpy as np

        whole = np.arange(n - n % SPAN, n - n % SPAN + SPAN)
        self.update(zip(whole.tolist(), np.asarray(self.function(whole), dtype=float).tolist(), strict=True))
        return self[n]
