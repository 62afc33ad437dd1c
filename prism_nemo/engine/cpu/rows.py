"""RMSNorm and rotary embedding one row at a time, compiled by numba: one pass over memory.

In torch's operations either takes several passes, and on a pico model both together a good quarter of a step. Arrays
are contiguous and of one dtype, float32 or float64; sums may be taken in any order.
"""

from typing import Any

import numpy as np
from numba import njit

_compiled: Any = njit(nogil=True, cache=True, fastmath={"reassoc", "contract"}, error_model="numpy")


@_compiled
def norm(x, weight, epsilon, out, scale):  # type: ignore[no-untyped-def]
    """`out` (rows, n) = x * scale * weight with `scale` (rows) = 1 / sqrt(mean of x^2 + epsilon)."""
    rows, n = x.shape
    one = x.dtype.type(1)
    for r in range(rows):
        total = x.dtype.type(0)
        for i in range(n):
            total += x[r, i] * x[r, i]
        factor = one / np.sqrt(total / x.dtype.type(n) + x.dtype.type(epsilon))
        scale[r] = factor
        for i in range(n):
            out[r, i] = x[r, i] * factor * weight[i]


@_compiled
def norm_backward(gradient, x, weight, scale, x_gradient, weight_gradient):  # type: ignore[no-untyped-def]
    """Gradients of `norm`; `weight_gradient` (n) is added to."""
    rows, n = x.shape
    for r in range(rows):
        s = scale[r]
        along = x.dtype.type(0)
        for i in range(n):
            product = gradient[r, i] * x[r, i]
            along += product * weight[i]
            weight_gradient[i] += product * s
        along *= s * s / x.dtype.type(n)
        for i in range(n):
            x_gradient[r, i] = (gradient[r, i] * weight[i] - x[r, i] * along) * s


@_compiled
def turn(t, cos, sin, direction, out):  # type: ignore[no-untyped-def]
    """`out` (s, n, d) = the halves of each row of t turned by the angles of its position: cos, sin are (s, d / 2)."""
    positions, heads, d = t.shape
    half = d // 2
    sign = t.dtype.type(direction)
    for p in range(positions):
        for h in range(heads):
            for i in range(half):
                a, b = t[p, h, i], t[p, h, half + i]
                c, s = cos[p, i], sign * sin[p, i]
                out[p, h, i] = a * c - b * s
                out[p, h, half + i] = b * c + a * s
