"""Nemotron-H in transformers 5.12.1 without its CUDA kernels, computed rightly.

The plain-torch Mamba there sums over the wrong dimension as soon as a sequence is longer than one chunk
(modeling_nemotron_h.py:530), clamps dt where the kernels do not, keeps chunk x chunk x heads x state numbers per row,
and goes on from its cache by single tokens only. Here the same layer runs on the scan that the CPU engine trains with.
"""

from typing import Any

import torch
import torch.nn.functional as F

from prism_nemo.models.ssd import ssd_scan

CHUNK = 64
"""Positions that the scan takes at once; the result does not depend on it."""


def mend(model: Any) -> Any:
    """`model` with its Nemotron-H mixers mended; another architecture, and the path through the kernels, as it is."""
    for mixer in mixers(model):
        mixer.torch_forward = _forward.__get__(mixer)
    return model


def mixers(model: Any) -> list[Any]:
    """The Mamba-2 layers of a Nemotron-H; of another model none."""
    return [module for module in model.modules() if type(module).__name__ == "NemotronHMamba2Mixer"]


def _forward(self: Any, input_states: Any, cache_params: Any = None, attention_mask: Any = None) -> torch.Tensor:
    """As NemotronHMamba2Mixer.torch_forward: (rows, tokens, hidden), after what the cache holds, if any.

    `attention_mask` (rows, tokens, or more: those in the cache too) is 0 at padding, which begins a row.
    """
    batch, length, _ = input_states.shape
    mask = None if attention_mask is None else attention_mask[:, -length:, None]
    sizes = [self.intermediate_size, *[self.n_groups * self.ssm_state_size] * 2]
    gate, convolved, dt = self.in_proj(_unpadded(input_states, mask)).split(
        [self.intermediate_size, self.conv_dim, self.num_heads], dim=-1
    )
    convolved = _unpadded(_convolve(self, convolved.transpose(1, 2), cache_params), mask)
    x, B, C = convolved.split(sizes, dim=-1)
    going_on = cache_params is not None and cache_params.layers[self.layer_idx].is_recurrent_states_initialized
    y, state = ssd_scan(
        x.reshape(batch, length, self.num_heads, self.head_dim),
        F.softplus(dt.float() + self.dt_bias.float()).clamp(*self.time_step_limit),
        -self.A_log.float().exp(),
        B.reshape(batch, length, self.n_groups, -1),
        C.reshape(batch, length, self.n_groups, -1),
        CHUNK,
        D=self.D,
        initial_state=cache_params.layers[self.layer_idx].recurrent_states if going_on else None,
    )
    if cache_params is not None:
        cache_params.update_recurrent_state(state, self.layer_idx)
    return torch.Tensor(self.out_proj(self.norm(y.reshape(batch, length, -1), gate).to(input_states.dtype)))


def _unpadded(states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    return states if mask is None else (states * mask).to(states.dtype)


def _convolve(mixer: Any, states: torch.Tensor, cache: Any) -> torch.Tensor:
    """The causal convolution (rows, tokens, channels) of (rows, channels, tokens), after the cached ones or zeros."""
    width = mixer.conv_kernel_size
    going_on = cache is not None and cache.has_previous_state(mixer.layer_idx)
    if going_on:
        states = torch.cat([cache.layers[mixer.layer_idx].conv_states[..., 1:], states], dim=-1)
    else:
        states = F.pad(states, (width - 1, 0))
    if cache is not None:
        cache.update_conv_state(states[..., -width:], mixer.layer_idx)
    weight, bias = mixer.conv1d.weight, mixer.conv1d.bias
    out = F.conv1d(states, weight, bias, groups=weight.shape[0])
    return torch.Tensor(mixer.act(out.transpose(1, 2)))
