"""The chunked scan against a naive recurrence in fp64 and against transformers' torch path, forward and gradients."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from prism_nemo.models.ssd import ssd_scan

LENGTHS = [1, 5, 16, 32, 50, 64]  # chunks of 16: below one, whole ones, not a multiple


def inputs(length: int, dtype: torch.dtype, seed: int = 0, heads: int = 4, groups: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    values = {
        "x": normal(2, length, heads, 8),
        "dt": F.softplus(normal(2, length, heads)),
        "A": -torch.exp(normal(heads)),
        "B": normal(2, length, groups, 6),
        "C": normal(2, length, groups, 6),
        "D": normal(heads),
        "initial_state": normal(2, heads, 8, 6),
    }
    return {name: value.to(dtype).requires_grad_() for name, value in values.items()}


def naive_scan(x, dt, A, B, C, *, D, initial_state, seq_idx=None):
    """One position after the other."""
    heads = x.shape[2]
    B, C = (t.repeat_interleave(heads // t.shape[2], dim=2) for t in (B, C))
    state, out = initial_state, []
    for t in range(x.shape[1]):
        if seq_idx is not None and t > 0:
            state = state * (seq_idx[:, t] == seq_idx[:, t - 1])[:, None, None, None]
        decay = torch.exp(dt[:, t] * A)[..., None, None]
        state = decay * state + (dt[:, t, :, None] * x[:, t])[..., None] * B[:, t, :, None]
        out.append((state * C[:, t, :, None]).sum(-1) + D[:, None] * x[:, t])
    return torch.stack(out, 1), state


def assert_agree(length: int, dtype: torch.dtype, tolerance: float, seq_idx: torch.Tensor | None = None) -> None:
    """Outputs, last state and every gradient, relative to the largest value of each."""
    ours, exact = inputs(length, dtype), inputs(length, torch.float64)
    results = (
        ssd_scan(**ours, chunk=16, seq_idx=seq_idx),
        naive_scan(**exact, seq_idx=seq_idx),
    )
    for y, state in results:
        (y.double().sin().sum() + state.double().cos().sum()).backward()
    pairs = [*zip(*results, strict=True), *((ours[name].grad, exact[name].grad) for name in ours)]
    for mine, reference in pairs:
        assert (mine - reference).abs().max() <= tolerance * reference.abs().max().clamp(min=1)


@pytest.mark.parametrize("length", LENGTHS)
def test_scan_equals_the_recurrence(length):
    assert_agree(length, torch.float64, 1e-12)
    assert_agree(length, torch.float32, 1e-5)


@pytest.mark.parametrize("length", [50, 64])
def test_state_restarts_at_every_document(length):
    generator = torch.Generator().manual_seed(3)
    seq_idx = (torch.rand(2, length, generator=generator) < 0.1).cumsum(1)
    seq_idx[1, 16:] += 1  # a boundary that falls on a chunk's
    assert_agree(length, torch.float64, 1e-12, seq_idx)
    assert_agree(length, torch.float32, 1e-5, seq_idx)


@settings(max_examples=25, deadline=None)
@given(length=st.integers(1, 40), chunk=st.integers(1, 48))
def test_chunk_size_does_not_matter(length, chunk):
    values = inputs(length, torch.float64)
    y, state = ssd_scan(**values, chunk=chunk)
    reference, last = naive_scan(**values)
    torch.testing.assert_close(y, reference, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(state, last, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("length", [24, 50, 64])
def test_scan_equals_transformers_mamba2(length):
    """transformers' own torch path, convolution, gate and norm left out by making them do nothing."""
    from transformers import Mamba2Config
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

    config = Mamba2Config(
        hidden_size=32,
        num_heads=8,
        head_dim=8,
        state_size=16,
        n_groups=2,
        chunk_size=16,
        expand=2,
        layer_norm_epsilon=1e-5,
    )
    torch.manual_seed(0)
    mixer = Mamba2Mixer(config, layer_idx=0).float()
    hidden = torch.randn(2, length, 32)
    captured: dict[str, torch.Tensor] = {}
    mixer.norm.register_forward_pre_hook(lambda module, args: captured.update(y=args[0], z=args[1]))
    mixer.torch_forward(hidden)
    mine = _through_our_scan(mixer, hidden)
    torch.testing.assert_close(mine, captured["y"], rtol=1e-5, atol=1e-5)
    theirs = torch.autograd.grad(captured["y"].sin().sum(), [mixer.in_proj.weight, mixer.A_log, mixer.dt_bias, mixer.D])
    ours = torch.autograd.grad(mine.sin().sum(), [mixer.in_proj.weight, mixer.A_log, mixer.dt_bias, mixer.D])
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).abs().max() <= 1e-5 * other.abs().max().clamp(min=1)


def _through_our_scan(mixer, hidden: torch.Tensor) -> torch.Tensor:
    """Projection and convolution as the mixer does them, then our scan."""
    inner, gn = mixer.intermediate_size, mixer.n_groups * mixer.ssm_state_size
    projected = mixer.in_proj(hidden)
    _, xbc, dt = projected[..., -(2 * inner + 2 * gn + mixer.num_heads) :].split(
        [inner, inner + 2 * gn, mixer.num_heads], -1
    )
    xbc = mixer.act(mixer.conv1d(xbc.transpose(1, 2))[..., : hidden.shape[1]].transpose(1, 2))
    x, B, C = xbc.split([inner, gn, gn], -1)
    y, _ = ssd_scan(
        x.unflatten(-1, (mixer.num_heads, -1)),
        F.softplus(dt + mixer.dt_bias),
        -torch.exp(mixer.A_log.float()),
        B.unflatten(-1, (mixer.n_groups, -1)),
        C.unflatten(-1, (mixer.n_groups, -1)),
        16,
        D=mixer.D,
    )
    return y.flatten(-2)
