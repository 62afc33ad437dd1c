"""Counts of one pair or triple of tensors, how they add up, and the figures read off them."""

import functools
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from prism_nemo.analysis.pair_kernel import SPECIALS, THOUSANDTHS, ulp_edges

_FIXED = 2 + len(THOUSANDTHS) + 2 * len(SPECIALS)
"""Counters before the ulp bins; see `count_pair`."""


@dataclass(frozen=True, kw_only=True)
class PairTally:
    """Raw counters of `count_pair`."""

    elements: int
    counts: np.ndarray
    sums: np.ndarray

    @classmethod
    def empty(cls, dtype: str, elements: int) -> "PairTally":
        counts = np.zeros(_FIXED + ulp_edges(dtype).size, np.int64)
        return cls(elements=elements, counts=counts, sums=np.zeros(2))

    @classmethod
    def total(cls, parts: Iterable["PairTally"]) -> "PairTally":
        """The sum of parts of one dtype; fp64 sums without loss (math.fsum)."""
        found = list(parts)
        return cls(
            elements=sum(part.elements for part in found),
            counts=np.sum([part.counts for part in found], axis=0),
            sums=np.array([math.fsum(part.sums[k] for part in found) for k in range(2)]),
        )

    @functools.cached_property
    def relative_l2(self) -> float | None:
        """||b - a|| / ||a||; None when a is all zeros."""
        return math.sqrt(self.sums[0] / self.sums[1]) if self.sums[1] else None

    @functools.cached_property
    def unchanged(self) -> list[float]:
        """Share of the compared elements within each of THOUSANDTHS; empty when there are none."""
        return (self.counts[2 : 2 + len(THOUSANDTHS)] / self.counts[0]).tolist() if self.counts[0] else []


@dataclass(frozen=True, slots=True, kw_only=True)
class TripleTally:
    """Raw counters of `count_triple`."""

    elements: int
    counts: np.ndarray
    sums: np.ndarray

    @classmethod
    def empty(cls, elements: int) -> "TripleTally":
        return cls(elements=elements, counts=np.zeros(3, np.int64), sums=np.zeros(5))

    @classmethod
    def total(cls, parts: Iterable["TripleTally"]) -> "TripleTally":
        found = list(parts)
        return cls(
            elements=sum(part.elements for part in found),
            counts=np.sum([part.counts for part in found], axis=0),
            sums=np.array([math.fsum(part.sums[k] for part in found) for k in range(5)]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """How far one scope moved in one transition."""

    transition: str
    """Such as `base -> mt`."""
    scope: str
    """total, group, component, layer, cell (a component of a layer, named `3 attention.q`) or tensor."""
    name: str
    """Of the group, component, layer or tensor; empty for the total."""
    tensors: int
    elements: int
    compared: int
    """Elements that are finite at both ends; everything below is about these."""
    l2: float | None
    """||new - old|| / ||old|| of all elements of the scope as one vector (element-weighted); None if old is zero."""
    l2_tensor_mean: float | None
    """Plain mean of the tensors' own relative L2, tensors of zeros left out."""
    l2_tensor_mean_by_size: float | None
    """The same mean, each tensor weighted by its number of elements."""
    zero_norm_tensors: int
    bit_equal: float | None
    """Share of elements with the very same bits."""
    unchanged: Mapping[str, float | None]
    """`0.1` .. `10` (percent) -> share of elements with |new - old| < that share of |old| (element-weighted)."""
    unchanged_tensor_mean: Mapping[str, float | None]
    """The same as a plain mean over tensors."""
    ulp: Mapping[str, Mapping[str, int]]
    """Dtype -> bin of the distance in representable steps (`0`, `1`, `5-8`, `>512`) -> elements."""
    specials_old: Mapping[str, int]
    """Zeros, negative zeros, subnormals, infinities and NaN at the old end."""
    specials_new: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Common:
    """What two updates of one scope have in common, over elements finite at all three points."""

    scope: str
    name: str
    compared: int
    cosine_successive: float | None
    """Between b - a and c - b: mid-training and the RL after it. None when one of them is zero."""
    cosine_common_origin: float | None
    """Between b - a and c - a: two ways from one base (paper, figure 12)."""
    moved_by_both: float | None
    """Share of elements whose bits changed from a to b and again from b to c."""
    differ_at_both: float | None
    """Share of elements whose bits differ from a both at b and at c."""


def percent(thousandths: int) -> str:
    return f"{thousandths / 10:g}"


@functools.cache
def ulp_bins(dtype: str) -> tuple[str, ...]:
    """Names of the ulp bins."""
    edges = [int(edge) for edge in ulp_edges(dtype)]
    spans = [(low + 1, high) for low, high in zip([-1, *edges], edges, strict=False)]
    return (*(str(low) if low == high else f"{low}-{high}" for low, high in spans), f">{edges[-1]}")


def _share(count: float, of: float) -> float | None:
    return float(count / of) if of else None


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def change(transition: str, scope: str, name: str, members: Sequence[tuple[str, PairTally]]) -> Change:
    """Figures of a scope from its tensors' tallies, each with the dtype it was compared in."""
    tallies = [tally for _, tally in members]
    fixed = np.add.reduce([tally.counts[:_FIXED] for tally in tallies])
    compared = int(fixed[0])
    norms = [(tally.relative_l2, tally.elements) for tally in tallies if tally.relative_l2 is not None]
    moved, size = (math.fsum(tally.sums[k] for tally in tallies) for k in range(2))
    labels = [percent(p) for p in THOUSANDTHS]
    shares = [tally.unchanged for tally in tallies if tally.unchanged]
    weight = sum(elements for _, elements in norms)
    first_special = 2 + len(THOUSANDTHS)
    return Change(
        transition=transition,
        scope=scope,
        name=name,
        tensors=len(tallies),
        elements=sum(tally.elements for tally in tallies),
        compared=compared,
        l2=math.sqrt(moved / size) if size else None,
        l2_tensor_mean=_mean([norm for norm, _ in norms]),
        l2_tensor_mean_by_size=math.fsum(norm * size for norm, size in norms) / weight if weight else None,
        zero_norm_tensors=len(tallies) - len(norms),
        bit_equal=_share(fixed[1], compared),
        unchanged={label: _share(fixed[2 + k], compared) for k, label in enumerate(labels)},
        unchanged_tensor_mean={label: _mean([share[k] for share in shares]) for k, label in enumerate(labels)},
        ulp=_histograms(members),
        specials_old=_named(fixed[first_special : first_special + len(SPECIALS)]),
        specials_new=_named(fixed[first_special + len(SPECIALS) :]),
    )


def _named(counts: np.ndarray) -> dict[str, int]:
    return {name: int(count) for name, count in zip(SPECIALS, counts, strict=True)}


def _histograms(members: Sequence[tuple[str, PairTally]]) -> dict[str, dict[str, int]]:
    found = {}
    for dtype in sorted({dtype for dtype, _ in members}):
        counts = np.add.reduce([tally.counts for other, tally in members if other == dtype])
        above = [int(counts[0]), *counts[_FIXED:].tolist(), 0]
        found[dtype] = {
            name: first - second
            for name, (first, second) in zip(ulp_bins(dtype), itertools.pairwise(above), strict=True)
        }
    return found


def common(scope: str, name: str, tallies: Sequence[TripleTally]) -> Common:
    """What two updates of a scope have in common."""
    whole = TripleTally.total(tallies)
    successive, origin, first, second, both = (float(value) for value in whole.sums)
    compared, moved_successive, moved_origin = (int(count) for count in whole.counts)
    return Common(
        scope=scope,
        name=name,
        compared=compared,
        cosine_successive=_cosine(successive, first, second),
        cosine_common_origin=_cosine(origin, first, both),
        moved_by_both=_share(moved_successive, compared),
        differ_at_both=_share(moved_origin, compared),
    )


def _cosine(product: float, first: float, second: float) -> float | None:
    return product / math.sqrt(first * second) if first and second else None
