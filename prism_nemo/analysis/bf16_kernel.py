"""The fast way for pairs of bf16 numbers: each falls into one of 8192 cells, and cells are read once, in integers.

Where both numbers are normal, the relative change depends only on the old one's mantissa (7 bits) and on how many steps
the new one lies above or below it: it is the same in every binade. So elements are only counted into cells (mantissa,
steps from -32 to 31); beyond those every change is above 10 %. Blocks with zeros, subnormals, inf or NaN go the general
way (`pair_kernel`), and every count is the same as there.
"""

import functools

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from prism_nemo.analysis.pair_kernel import BLOCK, THOUSANDTHS, count_above, count_block, fill_bf16, ulp_edges

CELLS = 128 * 64
NEAR = 16
"""Distances above this are not read from the cells but counted."""
LINE = 32
"""Elements of a cache line."""
_SIGN, _REST, _MANTISSA, _INFINITY, _NORMAL = (np.uint16(bits) for bits in (0x8000, 0x7FFF, 0x7F, 0x7F80, 0x80))
_ZERO, _LAST, _MIDDLE, _SHIFT = np.uint16(0), np.uint16(63), np.uint16(32), np.uint16(6)
_SMALLEST, _LARGEST = np.uint16(32), np.uint16(31)


@njit(nogil=True, cache=True)
def _cells(p, q, cells, distance):  # type: ignore[no-untyped-def]
    """Cell and distance of each pair; smallest and largest size of all, largest distance."""
    low, high, far = _REST, _ZERO, _ZERO
    for i in range(p.size):
        x, y = np.uint16(p[i] & _REST), np.uint16(q[i] & _REST)
        larger, smaller = max(x, y), min(x, y)
        up, down = np.uint16(larger - x), np.uint16(larger - y)
        same = np.uint16((p[i] ^ q[i]) & _SIGN) == _ZERO
        steps = np.uint16(np.uint16(_MIDDLE + min(up, _LARGEST)) - min(down, _SMALLEST))
        cells[i] = np.uint16(np.uint16(p[i] & _MANTISSA) << _SHIFT) | (steps if same else _LAST)
        apart = np.uint16(larger - smaller) if same else np.uint16(x + y)
        distance[i] = apart
        low, high, far = min(low, smaller), max(high, larger), max(far, apart)
    return low, high, far


@intrinsic
def _fetch(context, array, index):  # type: ignore[no-untyped-def]
    """Ask for the cache line of an element that will be needed soon; may lie beyond the end."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        data = make_array(signature.args[0])(context, builder, arguments[0]).data
        place = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
        word = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [place.type, word, word, word])
        call = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(call, [place, word(0), word(3), word(1)])  # to read, keep in all caches, data
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


@njit(nogil=True, cache=True)
def _count(cells, histogram, a, b, next_start):  # type: ignore[no-untyped-def]
    """Into the histogram; meanwhile the next block of `a` and `b` comes from memory: this loop has time for it."""
    whole = cells.size - cells.size % LINE
    for line in range(0, whole, LINE):
        _fetch(a, next_start + line)  # type: ignore[call-arg]
        _fetch(b, next_start + line)
        for i in range(LINE):
            histogram[cells[line + i]] += np.uint32(1)
    for i in range(whole, cells.size):
        histogram[cells[i]] += np.uint32(1)


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _square_sums(p, q):  # type: ignore[no-untyped-def]
    moved = size = 0.0
    for i in range(p.size):
        old = np.float64(np.uint32(np.uint32(p[i]) << np.uint32(16)).view(np.float32))
        new = np.float64(np.uint32(np.uint32(q[i]) << np.uint32(16)).view(np.float32))
        step = new - old
        moved += step * step
        size += old * old
    return moved, size


@njit(nogil=True, cache=True)
def count_bf16(a, b, limits, edges, counts, sums, histogram):  # type: ignore[no-untyped-def]
    """As `count_pair`, but what cells tell goes to `histogram` (uint32, CELLS): `read_cells` adds it to the counts."""
    distance, cells = np.empty(BLOCK, np.uint16), np.empty(BLOCK, np.uint16)
    x, y = np.empty(BLOCK, np.uint32), np.empty(BLOCK, np.uint32)
    for start in range(0, a.size, BLOCK):
        p, q = a[start : start + BLOCK], b[start : start + BLOCK]
        n = p.size
        low, high, far = _cells(p, q, cells[:n], distance[:n])
        if low < _NORMAL or high >= _INFINITY:
            fill_bf16(p, x)
            fill_bf16(q, y)
            u, v = x[:n].view(np.float32), y[:n].view(np.float32)
            count_block(p, q, u, v, limits, edges, distance, counts, sums)
            continue
        counts[0] += n
        _count(cells[:n], histogram, a, b, start + BLOCK)
        for k in range(edges.size):
            if edges[k] > NEAR and far > edges[k]:
                counts[18 + k] += count_above(distance[:n], edges[k])
        moved, size = _square_sums(p, q)
        sums[0] += moved
        sums[1] += size


@functools.cache
def _meaning() -> np.ndarray:
    """For each cell (columns): 1 where it is bit-equal, within each threshold, beyond each near edge (rows)."""
    mantissa, steps = np.divmod(np.arange(CELLS), 64)
    steps = steps - 32
    old, place = 2 * (128 + mantissa), mantissa + steps
    new = np.where(place < 0, 256 + place, np.where(place < 128, 2 * (128 + place), 4 * place))
    within = [1000 * np.abs(new - old) < p * old for p in THOUSANDTHS]
    beyond = [np.abs(steps) > edge for edge in ulp_edges("BF16") if edge <= NEAR]
    return np.array([steps == 0, *within, *beyond], dtype=np.int64)


def read_cells(histogram: np.ndarray, counts: np.ndarray) -> None:
    """Add what the cells hold to the counts of `count_bf16`."""
    filled = np.flatnonzero(histogram)
    found = (_meaning()[:, filled] * histogram[filled]).sum(axis=1)
    first = 1 + len(THOUSANDTHS)
    counts[1 : 1 + first] += found[:first]
    counts[18 : 18 + len(found) - first] += found[first:]
