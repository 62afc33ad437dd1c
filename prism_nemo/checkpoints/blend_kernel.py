"""Weighted sums of checkpoints' elements, compiled by numba: fp64 inside, rounded once to the output's dtype."""

import numpy as np
import torch
from numba import njit

BF16_INFINITY = np.uint16(0x7F80)


@njit(nogil=True, cache=True)
def _add_bf16(bits, weight, total):  # type: ignore[no-untyped-def]
    """total += weight * bits; returns the largest magnitude as bits."""
    top = np.uint16(0)
    for i in range(bits.size):
        top = max(top, np.uint16(bits[i] & np.uint16(0x7FFF)))
        value = np.uint32(np.uint32(bits[i]) << np.uint32(16)).view(np.float32)
        total[i] += weight * np.float64(value)
    return top


@njit(nogil=True, cache=True)
def _round_bf16(total, out):  # type: ignore[no-untyped-def]
    """To the nearest bf16, ties to even, as one rounding: fp64 goes to fp32 by round-to-odd, which keeps ties apart.

    Returns the largest magnitude as bits.
    """
    top = np.uint16(0)
    for i in range(total.size):
        near = np.float32(total[i])
        bits = near.view(np.uint32)
        exact = np.float64(near)
        beyond = np.uint32(1) if abs(exact) > abs(total[i]) else np.uint32(0)
        inexact = np.uint32(1) if exact != total[i] else np.uint32(0)
        odd = np.uint32(np.uint32(bits - beyond) | inexact)
        even = np.uint32(np.uint32(odd >> np.uint32(16)) & np.uint32(1))
        out[i] = np.uint16(np.uint32(odd + np.uint32(0x7FFF) + even) >> np.uint32(16))
        top = max(top, np.uint16(out[i] & np.uint16(0x7FFF)))
    return top


def add_scaled(raw: np.ndarray, dtype: torch.dtype, weight: float, total: np.ndarray) -> bool:
    """total (float64) += weight * values of `raw` (bytes of `dtype`). Returns whether all of them are finite."""
    if dtype == torch.bfloat16:
        return bool(_add_bf16(raw.view(np.uint16), weight, total) < BF16_INFINITY)
    values = torch.from_numpy(raw).view(dtype).double().numpy()
    total += weight * values
    return bool(np.isfinite(values).all())


def round_into(total: np.ndarray, dtype: torch.dtype, out: np.ndarray) -> bool:
    """The sums as bytes of `dtype`, each rounded once to the nearest (half an ulp at most). Returns whether all fit."""
    if dtype == torch.bfloat16:
        return bool(_round_bf16(total, out.view(np.uint16)) < BF16_INFINITY)
    kinds = {torch.float16: np.float16, torch.float32: np.float32, torch.float64: np.float64}
    values = out.view(kinds[dtype])
    with np.errstate(over="ignore"):
        values[:] = total
    return bool(np.isfinite(values).all())
