"""The Hugging Face side of a comparison: logits and gradients that can be trusted on a CPU.

transformers 5.12.1 computes Nemotron-H wrongly without its CUDA kernels as soon as a sequence is longer than one
chunk (modeling_nemotron_h.py:530 sums over the wrong dimension), and clamps dt to `time_step_min`, which its CUDA
path does not. So that one mixer is replaced by the definition of Mamba-2 (Dao and Gu 2024, arXiv 2405.21060, eq. 1),
token by token in fp64. The other architectures are taken as transformers computes them.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F


def load_hf(directory: Path, dtype: torch.dtype = torch.float32) -> Any:
    """The transformers model of a directory, in eval mode; no remote code.

    Pickled weights only where there are no others, and as plain tensors; whether they may be read, `open_hf` has said.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        return AutoModelForCausalLM.from_pretrained(
            directory,
            dtype=dtype,
            use_safetensors=any(Path(directory).glob("*.safetensors")),
            weights_only=True,
            attn_implementation="eager",
        ).eval()
    finally:
        if shown:
            logging.enable_progress_bar()


def hf_logits(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Logits (batch, length, vocabulary) of a transformers model, gradients allowed."""
    with true_mamba(model):
        return model(tokens, use_cache=False).logits


@contextlib.contextmanager
def true_mamba(model: Any) -> Iterator[None]:
    """While it holds, the Nemotron-H mixers of `model` compute the recurrence itself."""
    mixers = [module for module in model.modules() if type(module).__name__ == "NemotronHMamba2Mixer"]
    for mixer in mixers:
        mixer.forward = _recurrence.__get__(mixer)
    try:
        yield
    finally:
        for mixer in mixers:
            del mixer.forward


def _recurrence(self: Any, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """s_t = exp(dt_t A) s_{t-1} + dt_t x_t B_t^T,  y_t = s_t C_t + D x_t; then gate, grouped norm, projection."""
    batch, length, _ = hidden_states.shape
    heads, groups, state = self.num_heads, self.n_groups, self.ssm_state_size
    gate, conv_in, dt = self.in_proj(hidden_states).split([self.intermediate_size, self.conv_dim, heads], dim=-1)
    conv = F.silu(self.conv1d(conv_in.transpose(1, 2))[..., :length].transpose(1, 2)).double()
    x, b, c = conv.split([self.intermediate_size, groups * state, groups * state], dim=-1)
    x = x.view(batch, length, heads, self.head_dim)
    b, c = (t.view(batch, length, groups, state).repeat_interleave(heads // groups, dim=2) for t in (b, c))
    dt = F.softplus(dt.double() + self.dt_bias.double()).clamp(*self.time_step_limit)
    decay = torch.exp(-dt * self.A_log.double().exp())
    s = torch.zeros(batch, heads, self.head_dim, state, dtype=torch.float64, device=x.device)
    outputs = []
    for t in range(length):
        s = decay[:, t, :, None, None] * s + (dt[:, t, :, None] * x[:, t]).unsqueeze(-1) * b[:, t].unsqueeze(-2)
        outputs.append((s * c[:, t].unsqueeze(-2)).sum(-1))
    y = torch.stack(outputs, dim=1) + self.D.double()[:, None] * x
    y = self.norm(y.reshape(batch, length, -1).to(hidden_states.dtype), gate)
    return self.out_proj(y.to(hidden_states.dtype))
