"""Counting over two or three equally long runs of floating-point numbers, compiled by numba.

Every count is exact up to fp32 inputs: thresholds are compared as `1000 |b - a| < p |a|` with p in thousandths, scaled
by 2^-10 so that nothing overflows, in twice the inputs' precision: no product rounds where the answer is close. Sums
are accumulated in fp64 from exact terms. Elements that are not finite in every run are counted and left out.
"""

import numpy as np
from numba import njit

THOUSANDTHS = (1, 5, 10, 20, 50, 100)
"""Relative thresholds in thousandths: 0.1, 0.5, 1, 2, 5 and 10 % (written out in `_count_unchanged`)."""
SPECIALS = ("zero", "negative_zero", "subnormal", "inf", "nan")
BLOCK = 4096
"""Elements per pass; the scratch of a block stays in the first-level cache, and 16-bit counters cannot overflow."""
MANTISSA = {"BF16": 7, "F16": 10, "F32": 23, "F64": 52}


def ulp_edges(dtype: str) -> np.ndarray:
    """Upper ends of the ulp bins: 0, 1, 2, 3, 4, 8, 16, ... up to four binades; one more bin holds the rest."""
    powers = [1 << k for k in range(2, min(MANTISSA[dtype], 30) + 3)]
    return np.array([0, 1, 2, 3, *powers], dtype=BITS[dtype])


BITS = {"BF16": np.uint16, "F16": np.uint16, "F32": np.uint32, "F64": np.uint64}


@njit(nogil=True, cache=True)
def fill_bf16(bits, out):  # type: ignore[no-untyped-def]
    for i in range(bits.size):
        out[i] = np.uint32(bits[i]) << np.uint32(16)


def widen_bf16(bits: np.ndarray, out: np.ndarray) -> np.ndarray:
    """bf16 bit patterns (uint16) as float32, in the memory of `out` (uint32)."""
    fill_bf16(bits, out)
    return out.view(np.float32)


@njit(nogil=True, cache=True)
def _ulp_distance(a, b, sign, out):  # type: ignore[no-untyped-def]
    """Steps between neighbouring numbers; -0 and +0 are the same point."""
    rest = a.dtype.type(sign - a.dtype.type(1))
    for i in range(a.size):
        x = a.dtype.type(a[i] & rest)
        y = a.dtype.type(b[i] & rest)
        apart = a.dtype.type(max(x, y) - min(x, y))
        across = a.dtype.type(x + y)
        same_sign = a.dtype.type((a[i] ^ b[i]) & sign) == a.dtype.type(0)
        out[i] = apart if same_sign else across


@njit(nogil=True, cache=True)
def count_above(values, edge):  # type: ignore[no-untyped-def]
    count = values.dtype.type(0)
    one, none = values.dtype.type(1), values.dtype.type(0)
    for i in range(values.size):
        count = values.dtype.type(count + (one if values[i] > edge else none))
    return np.int64(count)


@njit(nogil=True, cache=True)
def _count_equal(a, b):  # type: ignore[no-untyped-def]
    count = a.dtype.type(0)
    one, none = a.dtype.type(1), a.dtype.type(0)
    for i in range(a.size):
        count = a.dtype.type(count + (one if a[i] == b[i] else none))
    return np.int64(count)


@njit(nogil=True, cache=True)
def _count_unchanged(x, y, counts):  # type: ignore[no-untyped-def]
    real = x.dtype.type
    c0 = c1 = c2 = c3 = c4 = c5 = np.uint32(0)
    one, none = np.uint32(1), np.uint32(0)
    for i in range(x.size):
        size = abs(x[i])
        moved = abs(y[i] - x[i]) * real(1000 / 1024)
        c0 = np.uint32(c0 + (one if moved < size * real(1 / 1024) else none))
        c1 = np.uint32(c1 + (one if moved < size * real(5 / 1024) else none))
        c2 = np.uint32(c2 + (one if moved < size * real(10 / 1024) else none))
        c3 = np.uint32(c3 + (one if moved < size * real(20 / 1024) else none))
        c4 = np.uint32(c4 + (one if moved < size * real(50 / 1024) else none))
        c5 = np.uint32(c5 + (one if moved < size * real(100 / 1024) else none))
    counts[0] += c0
    counts[1] += c1
    counts[2] += c2
    counts[3] += c3
    counts[4] += c4
    counts[5] += c5


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _square_sums(x, y):  # type: ignore[no-untyped-def]
    moved = size = 0.0
    for i in range(x.size):
        step = np.float64(y[i]) - np.float64(x[i])
        moved += step * step
        size += np.float64(x[i]) * np.float64(x[i])
    return moved, size


@njit(nogil=True, cache=True)
def _extremes(bits, sign):  # type: ignore[no-untyped-def]
    rest = bits.dtype.type(sign - bits.dtype.type(1))
    low, high = rest, bits.dtype.type(0)
    for i in range(bits.size):
        size = bits.dtype.type(bits[i] & rest)
        low = min(low, size)
        high = max(high, size)
    return low, high


@njit(nogil=True, cache=True)
def _count_specials(bits, sign, infinity, normal, counts):  # type: ignore[no-untyped-def]
    """Into `counts`, in the order of SPECIALS."""
    rest = bits.dtype.type(sign - bits.dtype.type(1))
    for i in range(bits.size):
        size = bits.dtype.type(bits[i] & rest)
        if size == 0:
            counts[0 if bits[i] == size else 1] += 1
        elif size < normal:
            counts[2] += 1
        elif size >= infinity:
            counts[3 if size == infinity else 4] += 1


@njit(nogil=True, cache=True)
def _both_zero(a, b, sign):  # type: ignore[no-untyped-def]
    rest = a.dtype.type(sign - a.dtype.type(1))
    count = 0
    for i in range(a.size):
        if a.dtype.type((a[i] | b[i]) & rest) == 0:
            count += 1
    return count


@njit(nogil=True, cache=True)
def _finite(a, b, c, sign, infinity):  # type: ignore[no-untyped-def]
    """Indices at which all three are finite."""
    rest = a.dtype.type(sign - a.dtype.type(1))
    keep = np.empty(a.size, np.int64)
    n = 0
    for i in range(a.size):
        top = max(a.dtype.type(a[i] & rest), max(a.dtype.type(b[i] & rest), a.dtype.type(c[i] & rest)))
        if top < infinity:
            keep[n] = i
            n += 1
    return keep[:n]


@njit(nogil=True, cache=True)
def count_block(p, q, u, v, limits, edges, distance, counts, sums):  # type: ignore[no-untyped-def]
    """`count_pair` of at most BLOCK elements; `distance` is scratch."""
    sign, infinity, normal = limits[0], limits[1], limits[2]
    low_p, high_p = _extremes(p, sign)
    low_q, high_q = _extremes(q, sign)
    if low_p < normal or high_p >= infinity:
        _count_specials(p, sign, infinity, normal, counts[8:13])
    if low_q < normal or high_q >= infinity:
        _count_specials(q, sign, infinity, normal, counts[13:18])
    if high_p >= infinity or high_q >= infinity:
        keep = _finite(p, q, q, sign, infinity)
        p, q, u, v = p[keep], q[keep], u[keep], v[keep]
    counts[0] += p.size
    counts[1] += _count_equal(p, q)
    _count_unchanged(u, v, counts[2:8])
    if low_p == 0 and low_q == 0:
        counts[2:8] += _both_zero(p, q, sign)
    ulps = distance[: p.size]
    _ulp_distance(p, q, sign, ulps)
    _, farthest = _extremes(ulps, p.dtype.type(0))
    for k in range(edges.size):
        if farthest > edges[k]:
            counts[18 + k] += count_above(ulps, edges[k])
    moved, size = _square_sums(u, v)
    sums[0] += moved
    sums[1] += size


@njit(nogil=True, cache=True)
def count_pair(a, b, x, y, limits, edges, counts, sums):  # type: ignore[no-untyped-def]
    """Add the statistics of one run of pairs.

    `a`, `b`: bit patterns (unsigned); `x`, `y`: the same as values (float32 for 16-bit formats, else float64).
    `limits`: sign bit, infinity and smallest normal number as bit patterns.
    `counts` (int64): compared, bit-equal, 6 unchanged, 5 specials of a, 5 of b, then one per edge: distance above it.
    `sums` (float64): sum of squared differences, sum of squares of `a`.
    """
    distance = np.empty(BLOCK, a.dtype)
    for start in range(0, a.size, BLOCK):
        stop = min(start + BLOCK, a.size)
        p, q, u, v = a[start:stop], b[start:stop], x[start:stop], y[start:stop]
        count_block(p, q, u, v, limits, edges, distance, counts, sums)


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _products(x, y, z, sums):  # type: ignore[no-untyped-def]
    s0 = s1 = s2 = s3 = s4 = 0.0
    for i in range(x.size):
        first = np.float64(y[i]) - np.float64(x[i])
        second = np.float64(z[i]) - np.float64(y[i])
        whole = np.float64(z[i]) - np.float64(x[i])
        s0 += first * second
        s1 += first * whole
        s2 += first * first
        s3 += second * second
        s4 += whole * whole
    sums[0] += s0
    sums[1] += s1
    sums[2] += s2
    sums[3] += s3
    sums[4] += s4


@njit(nogil=True, cache=True)
def _moved_together(a, b, c, d):  # type: ignore[no-untyped-def]
    """How many elements differ between a and b and between c and d."""
    count = np.uint32(0)
    for i in range(a.size):
        count = np.uint32(count + (np.uint32(1) if (a[i] != b[i]) and (c[i] != d[i]) else np.uint32(0)))
    return np.int64(count)


@njit(nogil=True, cache=True)
def count_triple(a, b, c, x, y, z, limits, counts, sums):  # type: ignore[no-untyped-def]
    """Add what two updates have in common; arguments as in `count_pair`.

    `counts` (int64): compared; moved by a->b and by b->c; moved by a->b and by a->c.
    `sums` (float64): (b-a)(c-b), (b-a)(c-a), (b-a)^2, (c-b)^2, (c-a)^2.
    """
    sign, infinity = limits[0], limits[1]
    for start in range(0, a.size, BLOCK):
        stop = min(start + BLOCK, a.size)
        p, q, r = a[start:stop], b[start:stop], c[start:stop]
        u, v, w = x[start:stop], y[start:stop], z[start:stop]
        high = max(_extremes(p, sign)[1], max(_extremes(q, sign)[1], _extremes(r, sign)[1]))
        if high >= infinity:
            keep = _finite(p, q, r, sign, infinity)
            p, q, r, u, v, w = p[keep], q[keep], r[keep], u[keep], v[keep], w[keep]
        counts[0] += p.size
        counts[1] += _moved_together(p, q, q, r)
        counts[2] += _moved_together(p, q, p, r)
        _products(u, v, w, sums)


def limits(dtype: str) -> np.ndarray:
    """Sign bit, infinity and smallest normal number of a safetensors dtype as bit patterns."""
    bits = np.dtype(BITS[dtype]).itemsize * 8
    mantissa = MANTISSA[dtype]
    exponent = (1 << (bits - 1 - mantissa)) - 1
    return np.array([1 << (bits - 1), exponent << mantissa, 1 << mantissa], dtype=BITS[dtype])
