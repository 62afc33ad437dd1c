"""Which documents of all shards go where: exact duplicates out, held-out groups first, then the training draw.

Works on the records alone (49 bytes a document, about 220 at the peak), so its memory does not grow with the text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from prism_nemo.data.draw import mix_array
from prism_nemo.data.shard import CLEAN, CONTAMINATED, RECORD, SHORT

SPLITS = ("train", "valid", "test")
SURPLUS = 0.01
HELD_OUT_LIMIT = 0.1

# What became of a document; the report counts the last as filtered.
TRAIN, VALID, TEST, LEFT_OVER, DUPLICATE, BENCHMARK, TOO_SHORT, OVER_LIMIT = range(8)
FATES = ("train", "valid", "test", "left_over", "duplicate", "contaminated", "short")


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a source has to supply, in tokens."""

    train: int
    """Tokens the trainer will draw: the budget times the source's weight."""
    valid: int
    test: int
    seq_length: int
    """The trainer's sequence length: it reads one token more than a sequence."""

    @property
    def keep(self) -> int:
        """Training tokens to keep: Megatron builds every data set half a percent and a sequence larger than it draws
        (`mid_level_dataset_surplus`), which must not start another epoch."""
        return self.train + int(self.train * SURPLUS) + 2 * (self.seq_length + 1)

    @property
    def total(self) -> int:
        """Clean tokens that are enough for all splits, whole groups and documents included."""
        return self.keep + 2 * (self.valid + self.test) + 16 * self.seq_length


def duplicates(records: np.ndarray) -> np.ndarray:
    """Mask of documents whose text stood earlier, in the order of the records (mixture order)."""
    return sift(records, [(len(records), None)])[0]


def sift(records: np.ndarray, parts: Sequence[tuple[int, int | None]]) -> tuple[np.ndarray, np.ndarray]:
    """Masks of documents whose text stood earlier, and of those beyond their part's limit.

    `parts`: number of documents and `max_documents` of each part, in the order of the records (mixture order). A limit
    keeps a random sample; a text that is left out by it may stand in a later part.
    """
    texts = _text_numbers(records)
    repeated, over = np.zeros(len(records), bool), np.zeros(len(records), bool)
    first, stands = np.empty(len(records), np.int64), np.zeros(len(records), bool)  # by text
    ends = accumulate(count for count, _ in parts)
    for end, (count, limit) in zip(ends, parts, strict=True):
        place, own = np.arange(end - count, end), texts[end - count : end]
        first[own[::-1]] = place[::-1]  # of equal texts the last that is written remains
        fresh = (first[own] == place) & ~stands[own]
        repeated[place] = ~fresh
        over[_surplus(place[fresh], records, limit)] = True
        stands[own[fresh & ~over[place]]] = True
    return repeated, over


def _text_numbers(records: np.ndarray) -> np.ndarray:
    """A number for each document, the same for equal texts."""
    order = np.lexsort((records["hash_low"], records["hash_high"]))
    high, low = records["hash_high"][order], records["hash_low"][order]
    other = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    numbers = np.zeros(len(records), np.int64)
    numbers[order[1:]] = np.cumsum(other)
    return numbers


def _surplus(fresh: np.ndarray, records: np.ndarray, limit: int | None) -> np.ndarray:
    """The clean ones of these documents beyond the `limit` with the smallest keys."""
    if limit is None:
        return fresh[:0]
    clean = fresh[records["state"][fresh] == CLEAN]
    return clean[np.argsort(records["draw"][clean], kind="stable")][limit:]


def fates(records: np.ndarray, repeated: np.ndarray, over: np.ndarray, budget: Budget, seed: int) -> np.ndarray:
    """The fate of each document of one source; `repeated` and `over` as `sift` says."""
    assert records.dtype == RECORD
    fate = np.full(len(records), LEFT_OVER, np.uint8)
    fate[records["state"] == CONTAMINATED] = BENCHMARK
    fate[records["state"] == SHORT] = TOO_SHORT
    fate[repeated] = DUPLICATE
    fate[over] = OVER_LIMIT
    clean = np.flatnonzero((records["state"] == CLEAN) & ~repeated & ~over)
    held_out = _hold_out(records[clean], budget, seed)
    fate[clean] = np.where(held_out == TRAIN, LEFT_OVER, held_out)
    candidates = clean[held_out == TRAIN]
    fate[_drawn(candidates, records, budget.keep)] = TRAIN
    return fate


def _hold_out(records: np.ndarray, budget: Budget, seed: int) -> np.ndarray:
    """TRAIN, VALID or TEST for each document: whole groups in random order until the wanted tokens are there.

    One group at least when there are two, and beyond that a tenth of the tokens at most: a tiny source stays trainable.
    """
    splits = np.full(len(records), TRAIN, np.uint8)
    groups, member = np.unique(records["group"], return_inverse=True)
    tokens = np.bincount(member, weights=records["tokens"], minlength=len(groups)).astype(np.int64)
    limit = int(tokens.sum() * HELD_OUT_LIMIT)
    order = np.argsort(mix_array(groups, seed), kind="stable")
    chosen = np.full(len(groups), TRAIN, np.uint8)
    taken = 0
    for split, wanted in ((VALID, budget.valid), (TEST, budget.test)):
        count = _groups_for(tokens[order[taken:]], min(wanted, limit), len(order) - taken)
        chosen[order[taken : taken + count]] = split
        taken += count
    splits[:] = chosen[member]
    return splits


def _groups_for(tokens: np.ndarray, wanted: int, left: int) -> int:
    """How many of the first groups hold `wanted` tokens; one at least, and one is always left for training."""
    if wanted <= 0 or left < 2:
        return 0
    return min(int(np.searchsorted(np.cumsum(tokens), wanted)) + 1, left - 1)


def _drawn(candidates: np.ndarray, records: np.ndarray, keep: int) -> np.ndarray:
    """The documents with the smallest keys that hold `keep` tokens, or all."""
    order = candidates[np.argsort(records["draw"][candidates], kind="stable")]
    total = np.cumsum(records["tokens"][order], dtype=np.int64)
    return order[: int(np.searchsorted(total, keep)) + 1]
