"""How long collectives over equal ranks take when nothing else uses their links, and other closed forms of parallelism.

`size` is bytes: of the vector every rank holds (all-reduce, broadcast, all-to-all), of the whole result (all-gather)
or of the whole input (reduce-scatter). `bandwidth` is bytes/s a rank can send while it receives as much, `alpha`
seconds per step. Cost model and algorithms: Thakur, Rabenseifner, Gropp, Optimization of Collective Communication
Operations in MPICH, 2005.
"""

from __future__ import annotations

from math import ceil, log2

from airi_sim.core.errors import BadInput


def point_to_point(size: float, bandwidth: float, alpha: float = 0.0) -> float:
    """One message."""
    return alpha + size / bandwidth


def ring_all_gather(ranks: int, size: float, bandwidth: float, alpha: float = 0.0) -> float:
    """ranks - 1 steps, in each of which every rank passes one share of `size` on to its neighbour."""
    _check(ranks)
    return (ranks - 1) * (alpha + size / ranks / bandwidth)


def ring_reduce_scatter(ranks: int, size: float, bandwidth: float, alpha: float = 0.0) -> float:
    """An all-gather the other way round: the same steps and bytes."""
    return ring_all_gather(ranks, size, bandwidth, alpha)


def ring_all_reduce(ranks: int, size: float, bandwidth: float, alpha: float = 0.0) -> float:
    """A reduce-scatter, then an all-gather: 2 (p-1)/p * size / bandwidth + 2 (p-1) * alpha; least bytes, many steps."""
    return ring_reduce_scatter(ranks, size, bandwidth, alpha) + ring_all_gather(ranks, size, bandwidth, alpha)


def tree_all_reduce(ranks: int, size: float, bandwidth: float, alpha: float = 0.0) -> float:
    """Reduced up a binary tree and broadcast down again, the vector cut into pieces that follow each other so closely
    that its bytes pass twice whatever the depth: few steps, more bytes than a ring."""
    _check(ranks)
    return 2 * ceil(log2(ranks)) * alpha + (2 * size / bandwidth if ranks > 1 else 0.0)


def all_reduce(ranks: int, size: float, bandwidth: float, alpha: float = 0.0) -> float:
    """The faster of ring and tree, which is how libraries choose: trees for small vectors, rings for large ones."""
    return min(
        ring_all_reduce(ranks, size, bandwidth, alpha),
        tree_all_reduce(ranks, size, bandwidth, alpha),
    )


def all_to_all(ranks: int, size: float, bandwidth: float, alpha: float = 0.0) -> float:
    """Every rank sends another share of its `size` bytes to each other one, all at once (expert parallelism)."""
    _check(ranks)
    return (alpha if ranks > 1 else 0.0) + (ranks - 1) / ranks * size / bandwidth


def pipeline_bubble(stages: int, microbatches: int) -> float:
    """Share of the time that stages of a pipeline stand still while it fills and drains: (p-1) / (m+p-1)."""
    _check(stages)
    if microbatches < 1:
        raise BadInput(f"a pipeline needs at least 1 microbatch, not {microbatches}.")
    return (stages - 1) / (microbatches + stages - 1)


def roofline(flops: float, moved: float, peak: float, bandwidth: float) -> float:
    """Seconds of a kernel that computes and moves bytes at the same time: the slower of the two decides."""
    return max(flops / peak, moved / bandwidth)


def ridge(peak: float, bandwidth: float) -> float:
    """FLOPs per byte from which on a kernel is bound by compute (Williams, Waterman, Patterson, Roofline, 2009)."""
    return peak / bandwidth


def _check(ranks: int) -> None:
    if ranks < 1:
        raise BadInput(f"a collective needs at least 1 rank, not {ranks}.")
