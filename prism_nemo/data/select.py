"""Which documents of all shards go where: exact duplicates out, held-out groups first, then the training draw.

Works on the records alone (49 bytes a document, about 220 at the peak), so its memory does not grow with the text.
"""

from dataclasses import dataclass

import numpy as np

from prism_nemo.data.draw import mix_array
from prism_nemo.data.mixture import Source
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
    order = np.lexsort((records["hash_low"], records["hash_high"]))  # stable: equal texts keep their order
    high, low = records["hash_high"][order], records["hash_low"][order]
    repeated = np.zeros(len(records), bool)
    repeated[order[1:]] = (high[1:] == high[:-1]) & (low[1:] == low[:-1])
    return repeated


def fates(
    records: np.ndarray, parts: np.ndarray, repeated: np.ndarray, source: Source, budget: Budget, seed: int
) -> np.ndarray:
    """The fate of each document of one source; `parts` is the part it comes from, `repeated` as `duplicates` says."""
    assert records.dtype == RECORD
    fate = np.full(len(records), LEFT_OVER, np.uint8)
    fate[records["state"] == CONTAMINATED] = BENCHMARK
    fate[records["state"] == SHORT] = TOO_SHORT
    fate[repeated] = DUPLICATE
    every = np.flatnonzero((records["state"] == CLEAN) & ~repeated)
    clean = _capped(every, records, parts, source)
    fate[np.setdiff1d(every, clean, assume_unique=True)] = OVER_LIMIT
    held_out = _hold_out(records[clean], budget, seed)
    fate[clean] = np.where(held_out == TRAIN, LEFT_OVER, held_out)
    candidates = clean[held_out == TRAIN]
    fate[_drawn(candidates, records, budget.keep)] = TRAIN
    return fate


def _capped(clean: np.ndarray, records: np.ndarray, parts: np.ndarray, source: Source) -> np.ndarray:
    """A random sample of at most `max_documents` of each part, in the old order."""
    for number, part in enumerate(source.parts):
        if part.max_documents is not None:
            own = clean[parts[clean] == number]
            surplus = own[np.argsort(records["draw"][own], kind="stable")][part.max_documents :]
            clean = np.setdiff1d(clean, surplus, assume_unique=True)
    return clean


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
