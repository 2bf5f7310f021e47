"""What a pass of a worker process costs besides the pass: reported, while what crosses the socket is asserted.

`pytest tests/benchmark/test_workers.py -s` prints the figures.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable
from statistics import median

import pytest

pytest.importorskip("torch")
from real_backend import workers
from real_backend.batch import Segment
from real_backend.channel import Task, decode, encode
from real_backend.workers import Crew, slowest
from tests.real_backend.pretender import PASS_S, PRETENDER
from tests.real_backend.world import POOL

pytestmark = [pytest.mark.benchmark, pytest.mark.real]
SHAPES = ((1, 64), (16, 512), (64, 1024), (256, 512))
TIMES = 100


def decodes(count: int, context: int) -> list[Segment]:
    table = list(range(1, context // 16 + 1))
    return [Segment(context - 1, array("q", [5]), table, True) for _ in range(count)]


def measured(clock: Callable[[], float], deed: Callable[[], object]) -> float:
    """Median microseconds."""
    found = []
    for _ in range(TIMES):
        begun = clock()
        deed()
        found.append(clock() - begun)
    return median(found) * 1e6


@pytest.mark.parametrize("ranks", [1, 2])
def test_what_a_pass_of_a_worker_costs_besides_the_pass(monkeypatch: pytest.MonkeyPatch, ranks: int) -> None:
    monkeypatch.setattr(workers, "PROGRAM", PRETENDER.replace(f"time.sleep({PASS_S})", "pass"))
    tasks = [Task(POOL, "cpu", 0, "fp32", 0, {}, "work", ((64, 0),), rank, ranks) for rank in range(ranks)]
    crew = Crew("bench", tasks, hang_s=30.0)
    crew.begin()
    crew.ready()
    for count, context in SHAPES:
        segments = decodes(count, context)
        message = encode(0, segments, 16)

        def there_and_back(message: bytes = message) -> dict[int, int]:
            crew.ask(message)
            found: dict[int, int] = slowest(crew.answers())[0]
            return found

        def written(segments: list[Segment] = segments) -> bytes:
            return encode(0, segments, 16)

        assert decode(message) == (0, [one._replace(table=array("q", one.table)) for one in segments], None)
        assert there_and_back() == dict.fromkeys(range(count), 7)
        print(
            f"\n{ranks} ranks, {count} decodes of context {context}: {len(message):,} bytes, "
            f"encode {measured(time.thread_time, written):.0f} us, "
            f"ask and hear {measured(time.thread_time, there_and_back):.0f} us of CPU, "
            f"{measured(time.perf_counter, there_and_back):.0f} us there and back",
            end="",
        )
    crew.end()
