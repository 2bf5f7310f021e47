"""Decoding jobs that advance together. One integer counts passes; everything else is derived from it in O(1)."""

from __future__ import annotations

from heapq import heappop, heappush

from airi_sim.runtime.job import LiveJob


class Lockstep:
    """A group of jobs that all decode one token a pass.

    A job that joined at pass g0 with n0 tokens of context holds n0 + passes - g0 now, and needs a new block in the
    passes p with p = g0 - n0 (mod block): `phases` counts jobs by that residue, so the growth of a pass is one look-up.
    """

    __slots__ = ("accounts", "block", "context", "count", "field", "heap", "index", "passes", "phases", "ranked")

    def __init__(self, block: int, field: str | None = None, index: int = 0) -> None:
        self.block = block
        self.ranked = False
        self.field = field
        self.index = index
        self.passes = self.count = self.context = 0
        self.phases = [0] * block
        self.accounts: dict[str, int] = {}
        self.heap: list[tuple[int, int, LiveJob]] = []

    def join(self, job: LiveJob, context: int) -> None:
        """`job` takes part from the next pass on, with `context` tokens in its cache."""
        passes = self.passes
        job.lane = self
        job.n0 = context
        job.g0 = passes
        self.count += 1
        self.context += context
        self.phases[(passes - context) % self.block] += 1
        if self.ranked:
            self._rank(job, passes - context)
        if self.field is not None:
            account = getattr(job, self.field)
            self.accounts[account] = self.accounts.get(account, 0) + 1

    def _rank(self, job: LiveJob, key: int) -> None:
        heap = self.heap
        while heap and heap[0][2].lane is not self:
            heappop(heap)
        heappush(heap, (key, job.id, job))

    def leave(self, job: LiveJob) -> int:
        """Take `job` out, settle its output tokens, and return the tokens it holds."""
        advanced = self.passes - job.g0
        tokens = job.n0 + advanced
        self.count -= 1
        self.context -= tokens
        self.phases[(job.g0 - job.n0) % self.block] -= 1
        job.out += advanced
        job.lane = None
        if self.field is not None:
            self._unbook(getattr(job, self.field))
        return tokens

    def _unbook(self, account: str) -> None:
        left = self.accounts[account] - 1
        if left:
            self.accounts[account] = left
        else:
            del self.accounts[account]

    def tokens(self, job: LiveJob) -> int:
        """Tokens in the cache of a member."""
        return job.n0 + self.passes - job.g0

    def longest(self) -> int:
        """The longest context of a member, 0 if there is none. Kept only if `ranked` (set before anybody joins)."""
        heap = self.heap
        while heap and (heap[0][2].lane is not self or heap[0][2].g0 - heap[0][2].n0 != heap[0][0]):
            heappop(heap)
        return self.passes - heap[0][0] if heap else 0

    def shift(self, job: LiveJob, extra: int) -> int:
        """`job` advanced `extra` tokens more (or fewer) than one; returns the blocks it grew by that."""
        before = -(-self.tokens(job) // self.block)
        self.phases[(job.g0 - job.n0) % self.block] -= 1
        job.n0 += extra
        job.out += extra
        self.phases[(job.g0 - job.n0) % self.block] += 1
        self.context += extra
        if self.ranked:
            self._rank(job, job.g0 - job.n0)
        return -(-self.tokens(job) // self.block) - before

    def growth(self, passes: int) -> int:
        """Blocks that the next `passes` passes take."""
        if passes == 1:
            return self.phases[self.passes % self.block]
        rounds, rest = divmod(passes, self.block)
        begin = self.passes % self.block
        over = begin + rest - self.block
        some = sum(self.phases[begin : begin + rest])
        return rounds * self.count + some + (sum(self.phases[:over]) if over > 0 else 0)

    def headroom(self, free: int) -> int:
        """How many passes fit into `free` blocks (at least 1: the first has been made to fit)."""
        rounds, rest = divmod(free, self.count)
        if rounds >= 64:  # far away: it need not be exact
            return rounds * self.block
        passes = rounds * self.block
        phases, block, at = self.phases, self.block, self.passes
        for p in range(at, at + block):
            rest -= phases[p % block]
            if rest < 0:
                break
            passes += 1
        return passes or 1

    def advance(self, passes: int) -> None:
        """Everybody took part in `passes` passes."""
        self.passes += passes
        self.context += passes * self.count
