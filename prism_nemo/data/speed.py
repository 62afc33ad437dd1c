"""How fast a data set was prepared, and how long the paper's budget takes at that rate."""

import resource
import time
from dataclasses import dataclass

PAPER_TOKENS = 27_000_000_000
ENOUGH_TOKENS = 1_000_000
"""From fewer, mostly the start-up would be extrapolated."""
NODE_CORES = 32


@dataclass(slots=True, kw_only=True)
class Speed:
    """What one call of `prepare` did itself; shards that it found finished do not count."""

    tokens: int = 0
    """Tokens encoded."""
    bytes: int = 0
    """Bytes of source files read for them."""
    cpu_seconds: float = 0.0
    """User and system time of all processes until the last shard: reading to encoding, spread over the workers."""
    file_seconds: float = 0.0
    """Wall time of what one process does after that: choosing the documents and writing the files."""

    def seconds(self, tokens: int, cores: int) -> float:
        """Estimated wall seconds for so many tokens of the same kind on so many cores like this one."""
        return (self.cpu_seconds / cores + self.file_seconds) * tokens / self.tokens

    def line(self) -> str:
        """The rate, and the estimate for the paper's budget on one node; empty when too little was made to tell."""
        if self.tokens < ENOUGH_TOKENS:
            return ""
        seconds = self.seconds(PAPER_TOKENS, NODE_CORES)
        reading = self.bytes / self.tokens * PAPER_TOKENS / seconds
        return (
            f"speed {self.tokens / self.cpu_seconds / 1e6:.1f}M tokens per CPU second, then "
            f"{self.tokens / self.file_seconds / 1e6:.0f}M per second into files; "
            f"{PAPER_TOKENS / 1e9:.0f}B tokens take about {seconds / 60:.0f} min on {NODE_CORES} such cores, "
            f"if the disk gives {reading / 1e6:,.0f} MB/s"
        )


class Clock:
    """CPU and wall seconds since it was made, finished child processes included."""

    def __init__(self) -> None:
        self._cpu, self._wall = _cpu(), time.monotonic()

    def cpu(self) -> float:
        return _cpu() - self._cpu

    def wall(self) -> float:
        return time.monotonic() - self._wall


def _cpu() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
