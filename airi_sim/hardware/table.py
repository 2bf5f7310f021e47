"""A function of one whole number, remembered."""

from __future__ import annotations

from collections.abc import Callable


class Table(dict[int, float]):
    """Works `function` out once per value asked for; later look-ups cost as much as those of a dict."""

    def __init__(self, function: Callable[[int], float]) -> None:
        super().__init__()
        self.function = function

    def __missing__(self, n: int) -> float:
        value = self[n] = self.function(n)
        return value
