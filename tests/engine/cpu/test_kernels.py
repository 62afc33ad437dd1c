"""The hand-written kernels against the plain formulas, forward and gradients, in fp64 and fp32."""

import pytest
import torch
import torch.nn.functional as F

from prism_nemo.engine.cpu import kernels


def random(*shape: int, dtype=torch.float64, seed: int = 0) -> torch.Tensor:
    return (
        torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        .to(dtype)
        .requires_grad_()
    )


def plain_swiglu(x):
    gate, linear = x.chunk(2, dim=-1)
    return F.silu(gate) * linear


def plain_rotate(t, freqs):
    first, second = t.chunk(2, dim=-1)
    return t * freqs.cos() + torch.cat((-second, first), dim=-1) * freqs.sin()


def angles(length: int, size: int, dtype=torch.float64) -> torch.Tensor:
    half = torch.arange(length, dtype=dtype)[:, None] * 0.5 ** torch.arange(size // 2, dtype=dtype)
    return torch.cat((half, half), dim=-1)[:, None, None, :]


CASES = {
    "rms_norm": (
        lambda x, w: kernels.rms_norm(x, w, 1e-5),
        lambda x, w: F.rms_norm(x, w.shape, w, 1e-5),
        [(5, 2, 8), (8,)],
    ),
    "swiglu": (kernels.SwiGLU(), plain_swiglu, [(5, 2, 12)]),
    "rotate": (
        lambda t: kernels.rotate(t, angles(5, 8, t.dtype)),
        lambda t: plain_rotate(t, angles(5, 8, t.dtype)),
        [(5, 2, 3, 8)],
    ),
    "rms_norm of a slice": (
        lambda x, w: kernels.rms_norm(x[:, :, 1, ::2], w, 1e-5),
        lambda x, w: F.rms_norm(x[:, :, 1, ::2], w.shape, w, 1e-5),
        [(5, 2, 3, 8), (4,)],
    ),
    "rotate of a slice": (
        lambda t: kernels.rotate(t[..., 3:11], angles(5, 8, t.dtype)),
        lambda t: plain_rotate(t[..., 3:11], angles(5, 8, t.dtype)),
        [(5, 2, 3, 12)],
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_kernels_equal_the_plain_formulas(name, dtype, tolerance):
    kernel, plain, shapes = CASES[name]
    results = []
    for function in (kernel, plain):
        values = [random(*shape, dtype=dtype, seed=i) for i, shape in enumerate(shapes)]
        out = function(*values)
        results.append([out, *torch.autograd.grad(out.sin().sum(), values)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_the_forward(name):
    kernel, _, shapes = CASES[name]
    assert torch.autograd.gradcheck(kernel, [random(*shape, seed=i) for i, shape in enumerate(shapes)])


def test_norm_in_bf16_sums_in_fp32():
    x, weight = random(4, 64, dtype=torch.bfloat16), random(64, dtype=torch.bfloat16, seed=1)
    expected = F.rms_norm(x.double(), (64,), weight.double(), 1e-5)
    assert (kernels.rms_norm(x, weight, 1e-5).double() - expected).abs().max() <= 2e-2 * expected.abs().max()


def test_norm_of_zeros_is_finite():
    x = torch.zeros(2, 8, requires_grad=True)
    out = kernels.rms_norm(x, torch.ones(8), 1e-5)
    out.sum().backward()
    assert out.abs().max() == 0 and torch.isfinite(x.grad).all()
