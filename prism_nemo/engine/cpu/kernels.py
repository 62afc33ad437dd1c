"""RMSNorm, SwiGLU and rotary embedding with hand-written backward passes: the same formulas, fewer passes over memory.

Step by step through autograd each of them makes three to ten temporary tensors; on a CPU that costs as much as a matrix
product of the same layer. The loops of `rows` are for one thread. Benchmarked by benchmarks/engine_cpu_step.py.
"""

import functools
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from prism_nemo.engine.cpu import rows


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """F.rms_norm over the last dimension; below fp32, which needs wider sums, it is F.rms_norm."""
    if x.dtype not in (torch.float32, torch.float64) or weight.dtype != x.dtype:
        return F.rms_norm(x, weight.shape, weight, epsilon)
    return _RMSNorm.apply(x, weight, epsilon)


class _RMSNorm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        x = x.contiguous()
        out, scale = torch.empty_like(x), x.new_empty(x.shape[:-1])
        rows.norm(_rows(x), weight.detach().numpy(), epsilon, _rows(out), scale.view(-1).numpy())
        ctx.save_for_backward(x, weight, scale)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, scale = ctx.saved_tensors
        x_gradient, weight_gradient = torch.empty_like(x), torch.zeros_like(weight)
        given = (_rows(gradient.contiguous()), _rows(x), weight.detach().numpy(), scale.view(-1).numpy())
        rows.norm_backward(*given, _rows(x_gradient), weight_gradient.numpy())
        return x_gradient, weight_gradient, None


def _rows(t: Tensor) -> np.ndarray:
    """A contiguous tensor as (rows, last dimension), in the same memory."""
    return t.detach().view(-1, t.shape[-1]).numpy()


class SwiGLU(torch.nn.Module):
    """silu(first half) * second half of the last dimension; for MLPSubmodules.activation_func."""

    def __init__(self, config: Any = None) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return _SwiGLU.apply(x)


class _SwiGLU(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        gate, linear = x.chunk(2, dim=-1)
        activated = F.silu(gate)
        ctx.save_for_backward(x, activated)
        return activated * linear

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        x, activated = ctx.saved_tensors
        gate, linear = x.chunk(2, dim=-1)
        result = torch.empty_like(x)
        gate_gradient, linear_gradient = result.chunk(2, dim=-1)
        torch.ops.aten.silu_backward.grad_input(gradient * linear, gate, grad_input=gate_gradient)
        torch.mul(gradient, activated, out=linear_gradient)
        return result


def rotate(t: Tensor, freqs: Tensor) -> Tensor:
    """Rotary embedding of t (s, b, heads, d) by angles freqs (s, 1, 1, d), whose halves are equal (not interleaved).

    fp32 or fp64.
    """
    return _Rotate.apply(t, *_cos_sin(freqs, t.dtype))


@functools.lru_cache(maxsize=4)
def _cos_sin(freqs: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Of one half; Megatron gives every layer and step the same tensor."""
    half = freqs[..., : freqs.shape[-1] // 2]
    return half.cos().to(dtype), half.sin().to(dtype)


class _Rotate(Function):
    @staticmethod
    def forward(ctx: Any, t: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turn(t, cos, sin, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turn(gradient, cos, sin, -1), None, None


def _turn(t: Tensor, cos: Tensor, sin: Tensor, direction: int) -> Tensor:
    t = t.contiguous()
    result = torch.empty_like(t)
    one, two = (each.detach().view(t.shape[0], -1, t.shape[-1]).numpy() for each in (t, result))
    rows.turn(one, cos.view(len(cos), -1).numpy(), sin.view(len(sin), -1).numpy(), direction, two)
    return result
