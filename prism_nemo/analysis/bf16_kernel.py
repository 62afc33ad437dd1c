"""The fast way for pairs of bf16 numbers: integers of 8 and 16 bits, 64 pairs at a time.

Where both numbers are normal, the relative change depends only on the old one's mantissa (7 bits) and on how many steps
the new one lies above or below it: it is the same in every binade. In half steps of the old number's binade the old one
is 2 (128 + mantissa) and the change a small integer, so |new - old| < p |old| with p in thousandths is
`500 change < p (128 + mantissa)`, in bytes that stop at 255. Blocks with zeros, subnormals, inf or NaN go the general
way (`pair_kernel`), and every count is the same as there.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from prism_nemo.analysis.lanes import (
    BYTES,
    DOUBLES,
    FLOATS,
    HALF_BYTES,
    INDEX,
    PAIRS,
    QUADS,
    WORDS,
    Lanes,
    address,
    align_stack,
    prefetch,
    same,
)
from prism_nemo.analysis.lanes import intrinsic as llvm
from prism_nemo.analysis.pair_kernel import BLOCK, count_block, fill_bf16, ulp_edges

LANES = 64
"""Pairs at a time."""
LINE = 32
"""Elements of a cache line."""
NEAR = 32
"""Where all pairs of a block have one sign and are no more steps apart than this, a shorter way will do."""
MAGNITUDES = 2.0**-128
"""Scale of a near block's numbers in fp64."""
AGAIN = 16 * BLOCK
"""After so many elements the shorter way is tried again where it would not do."""
EDGES, FAR_EDGES = ([int(edge) for edge in ulp_edges("BF16") if bool(edge >= NEAR) is far] for far in (False, True))
"""No distance of a near block is beyond a far one."""
_REST, _NORMAL, _INFINITY = 0x7FFF, 0x80, 0x7F80
_COUNTS = 5 + len(EDGES) + len(FAR_EDGES)


class _Running:
    """A value that goes through a loop of the compiled code."""

    def __init__(self, builder: Any, start: Any) -> None:
        self.builder, self.place = builder, cgutils.alloca_once_value(builder, start)

    @property
    def value(self) -> Any:
        return self.builder.load(self.place)

    def set(self, value: Any) -> None:
        self.builder.store(value, self.place)

    def take(self, lanes: Lanes) -> None:
        self.set(self.builder.sub(self.value, lanes.value))


def _emit_counts(builder: Any, p: Any, q: Any, found: Any, groups: Any, near: bool) -> None:
    """Over `groups` times 64 pairs, into `found`: how many change by each of 5 shares or more, how many are beyond each
    of EDGES and FAR_EDGES, and the largest of each check.

    Every lane counts for itself; a block is so short that no byte overflows.
    """
    counts = [_Running(builder, same(HALF_BYTES, 0)) for _ in range(5 + len(EDGES))]
    far = [_Running(builder, same(WORDS, 0)) for _ in FAR_EDGES]
    checks = [_Running(builder, same(WORDS, 0)) for _ in range(2)]
    with cgutils.for_range(builder, groups, intp=INDEX) as loop:
        old, steps = [], []
        for half in range(2):
            index = builder.add(builder.mul(loop.index, INDEX(LANES)), INDEX(half * WORDS.count))
            x, y = (Lanes.load(builder, base, index, WORDS) for base in (p, q))
            step, seen, beyond = _near(x, y) if near else _any(x, y)
            old.append(x)
            steps.append(step)
            for check, value in zip(checks, seen, strict=True):
                check.set(value.larger(Lanes(builder, check.value)).value)
            for count, reached in zip(far, beyond, strict=False):
                count.take(reached)
        for count, reached in zip(counts, _few_steps(_low_bytes(*old), _low_bytes(*steps)), strict=True):
            count.take(reached.halves())
    totals = [Lanes(builder, count.value).total() for count in counts + far]
    largest = [llvm(builder, "vector.reduce.umax.v32i16", ir.IntType(16), check.value) for check in checks]
    for number, value in enumerate(totals + [builder.zext(top, INDEX) for top in largest]):
        builder.store(value, address(builder, found, INDEX(number), INDEX))


def _near(x: Lanes, y: Lanes) -> tuple[Lanes, tuple[Lanes, Lanes], list[Lanes]]:
    """Steps from x to y, and what must stay small for that: the steps themselves, and how far x is from normal."""
    step = y - x  # of one sign, or else very large
    return step, (step + NEAR, (x & _REST) - (_NORMAL + NEAR)), []


def _any(x: Lanes, y: Lanes) -> tuple[Lanes, tuple[Lanes, Lanes], list[Lanes]]:
    """The same for all normal numbers: steps up to 127, also for a change of sign; and counts of far distances."""
    signs, a, b = x ^ y, x & _REST, y & _REST
    distance = signs.where_negative(a + b, a.minus(b) | b.minus(a))
    step = signs.where_negative(127, (b - a).at_least(-127).at_most(127))
    return step, (a - _NORMAL, b - _NORMAL), [distance.reaches(edge + 1) for edge in FAR_EDGES]


def _low_bytes(first: Lanes, second: Lanes) -> Lanes:
    """The low bytes of both, side by side."""
    both = (first & 0xFF) | (second << 8)
    return Lanes(both.builder, both.builder.bitcast(both.value, BYTES))


def _few_steps(old: Lanes, step: Lanes) -> list[Lanes]:
    """Which pairs change by 0.5, 1, 2, 5, 10 % or more, and which beyond each of EDGES.

    The change in half steps of the old binade: two a step, four a step beyond it, one a step below it.
    """
    mantissa, size = old & 0x7F, old | 0x80
    up = step.at_least(0)
    down = up - step
    once = up + (mantissa + up).minus(128)
    change = once.plus(once).plus(down + mantissa.smaller(down))
    twice = change.plus(change)
    by_5 = twice.plus(twice).plus(change)
    by_10 = by_5.plus(by_5)
    by_25 = by_10.plus(by_10).plus(by_5)
    by_50 = by_25.plus(by_25)
    changed = [product.reaches(size) for product in (by_50.plus(by_50), by_50, by_25, by_10, by_5)]
    return changed + [(up + down).beyond(edge) for edge in EDGES]


def _emit_sums(builder: Any, p: Any, q: Any, sums: Any, groups: Any, near: bool) -> None:
    """Over `groups` times 64 pairs: sums of squares in fp64, 16 of the differences and 16 of the old, into `sums`.

    Meanwhile the next block comes from memory: this loop has time for it.
    """
    running = [_Running(builder, same(DOUBLES, 0.0)) for _ in range(4)]

    def add(number: int, value: Any) -> None:
        square = builder.fmul(value, value, flags=("contract",))
        running[number].set(builder.fadd(running[number].value, square, flags=("contract",)))

    with cgutils.for_range(builder, groups, intp=INDEX) as loop:
        for part in range(0, LANES, 2 * PAIRS.count):
            index = builder.add(builder.mul(loop.index, INDEX(LANES)), INDEX(part))
            pairs = [Lanes.load(builder, base, index, PAIRS) for base in (p, q)]
            for base in (p, q) if part % LINE == 0 else ():
                prefetch(builder, address(builder, base, builder.add(index, INDEX(BLOCK)), ir.IntType(8)))
            for number, (old, new) in enumerate(zip(*map(_magnitudes if near else _values, pairs), strict=True)):
                add(number, builder.fsub(new, old))
                add(2 + number, old)
    for number, total in enumerate(running):
        builder.store(total.value, address(builder, sums, INDEX(8 * number), DOUBLES), align=8)


def _values(pairs: Lanes) -> list[Any]:
    """The words of all lanes as fp64."""
    builder = pairs.builder
    return [builder.fpext(builder.bitcast(word.value, FLOATS), DOUBLES) for word in (pairs << 16, pairs & 0xFFFF0000)]


def _magnitudes(pairs: Lanes) -> list[Any]:
    """The same without signs, times MAGNITUDES: exponent and mantissa moved to their places, without a conversion."""
    builder, found = pairs.builder, []
    for word in (pairs << 13, pairs >> 3):
        upper = word & (_REST << 13) | (3 << 28)
        wide = Lanes(builder, builder.bitcast(upper.value, QUADS))
        both = (wide << 32).beside(wide & 0xFFFFFFFF00000000)
        found.append(builder.bitcast(both.value, DOUBLES))
    return found


def _compiled(emit: Any, **options: Any) -> Any:
    """A function for numba: `emit` over the whole groups of 64 of two arrays, into a third."""

    @intrinsic
    def function(context, p, q, out):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            arrays = [make_array(t)(context, builder, a) for t, a in zip(signature.args, arguments, strict=True)]
            size = builder.extract_value(arrays[0].shape, 0)
            align_stack(builder)
            emit(builder, *(array.data for array in arrays), builder.udiv(size, INDEX(LANES)), **options)
            return context.get_dummy_value()

        return types.void(p, q, out), generate

    return function


_count_near = _compiled(_emit_counts, near=True)
_count_any = _compiled(_emit_counts, near=False)
_add_magnitudes = _compiled(_emit_sums, near=True)
_add_values = _compiled(_emit_sums, near=False)


@njit(nogil=True, cache=True)
def count_bf16(a, b, limits, edges, counts, sums):  # type: ignore[no-untyped-def]
    """As `count_pair`, without the values."""
    distance, x, y = np.empty(BLOCK, np.uint16), np.empty(BLOCK, np.uint32), np.empty(BLOCK, np.uint32)
    found, squares = np.empty(_COUNTS + 2, np.int64), np.empty(32)
    totals, all_squares, pairs = np.zeros(_COUNTS, np.int64), np.zeros(32), 0
    near = True
    for start in range(0, a.size, BLOCK):
        p, q = a[start : start + BLOCK], b[start : start + BLOCK]
        n = p.size - p.size % LANES
        if near or start % AGAIN == 0:
            _count_near(p, q, found)
            near = found[_COUNTS] <= 2 * NEAR and found[_COUNTS + 1] < _INFINITY - _NORMAL - 2 * NEAR
        if not near:  # nor will the next blocks be
            _count_any(p, q, found)
            if max(found[_COUNTS], found[_COUNTS + 1]) >= _INFINITY - _NORMAL:
                n = 0
        if n:
            scale = 1.0
            if near:
                _add_magnitudes(p, q, squares)
                scale = MAGNITUDES**-2
            else:
                _add_values(p, q, squares)
            pairs += n
            for k in range(_COUNTS):
                totals[k] += found[k]
            for k in range(32):
                all_squares[k] += squares[k] * scale
        if n < p.size:
            fill_bf16(p[n:], x)
            fill_bf16(q[n:], y)
            u, v = x[: p.size - n].view(np.float32), y[: p.size - n].view(np.float32)
            count_block(p[n:], q[n:], u, v, limits, edges, distance, counts, sums)
    counts[0] += pairs
    counts[1:3] += pairs - totals[5]  # no change at all is also the only one within 0.1 %
    counts[3:8] += pairs - totals[:5]
    counts[18:] += totals[5:]
    sums[0] += all_squares[:16].sum()
    sums[1] += all_squares[16:].sum()
