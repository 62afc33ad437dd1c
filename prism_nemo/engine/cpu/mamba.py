"""What Megatron-Core's MambaMixer takes from the mamba_ssm package, in plain torch on `ssd_scan`.

MambaMixer (core/ssm/mamba_mixer.py, 0.19.2) offers no place in its spec for the scan or the gated norm: `lend()` puts
them into that module under the names it imports. No fake mamba_ssm package is made, so nobody else is deceived.
"""

from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.transformer.utils import make_sharded_tensors_for_checkpoint
from torch import Tensor, nn

from prism_nemo.models.ssd import ssd_scan


def lend() -> list[str]:
    """Complete the module, once; the names set. Does nothing where mamba_ssm is installed."""
    from megatron.core.ssm import mamba_mixer

    names = {
        "HAVE_MAMBA_SSM": True,
        "ExtendedRMSNorm": GatedRMSNorm,
        "mamba_split_conv1d_scan_combined": split_conv1d_scan,
        "_check_mamba_sequence_packing_support": lambda **_: (True, None),
    }
    ours = mamba_mixer.mamba_split_conv1d_scan_combined is split_conv1d_scan
    if mamba_mixer.HAVE_MAMBA_SSM and not ours:
        return []
    for name, value in names.items():
        setattr(mamba_mixer, name, value)
    return [f"mamba_mixer.{name}" for name in names]


def split_conv1d_scan(
    zxbcdt: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor,
    dt_bias: Tensor,
    A: Tensor,
    D: Tensor,
    chunk_size: int,
    *,
    activation: str,
    headdim: int | None,
    ngroups: int,
    norm_before_gate: bool,
    seq_idx: Tensor | None = None,
) -> Tensor:
    """mamba_ssm's mamba_split_conv1d_scan_combined as MambaMixer calls it in training; returns (b, l, heads*headdim).

    zxbcdt (b, l, z + x + B + C + dt); conv1d_weight (channels of x B C, width); dt_bias, A (heads); D (heads) or
    (heads, headdim). Causal depthwise convolution and SiLU over x, B, C; softplus of dt; scan; gate by silu(z).
    """
    if activation != "silu" or norm_before_gate:
        raise NotImplementedError("Mamba on the CPU: SiLU, gate before norm")
    heads, channels = D.shape[0], conv1d_weight.shape[0]
    headdim = headdim or D.shape[1]
    inner = heads * headdim
    state = (channels - inner) // 2
    z, xbc, dt = zxbcdt.split([inner, channels, heads], -1)
    x, B, C = _convolve(xbc, conv1d_weight, conv1d_bias, seq_idx).split([inner, state, state], -1)
    x, B, C = x.unflatten(-1, (heads, headdim)), B.unflatten(-1, (ngroups, -1)), C.unflatten(-1, (ngroups, -1))
    y, _ = ssd_scan(x, F.softplus(dt + dt_bias), A, B, C, chunk_size, D=D, seq_idx=seq_idx)
    return y.flatten(-2) * F.silu(z)


def _convolve(x: Tensor, weight: Tensor, bias: Tensor, seq_idx: Tensor | None) -> Tensor:
    """Causal depthwise convolution over (b, l, channels), then SiLU; never across a change of seq_idx."""
    width = weight.shape[1]
    out = x * weight[:, -1] + bias
    for back in range(1, min(width, x.shape[1])):
        tap = x[:, :-back] * weight[:, -1 - back]
        if seq_idx is not None:
            tap = tap * (seq_idx[:, back:] == seq_idx[:, :-back]).unsqueeze(-1)
        out = out + F.pad(tap, (0, 0, back, 0))
    return F.silu(out)


class GatedRMSNorm(nn.Module):
    """RMSNorm over groups of channels, after an optional gate; mamba_ssm's RMSNormGated as MambaMixer extends it.

    `eps` is the mixer's own (1e-5 in Megatron-Core), whatever the model's layernorm_epsilon says.
    """

    def __init__(
        self,
        hidden_size: int,
        eps: float = 1e-5,
        group_size: int | None = None,
        norm_before_gate: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.eps, self.group_size = eps, group_size or hidden_size
        self.weight = nn.Parameter(torch.ones(hidden_size, device=device, dtype=dtype))

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        gated = x if z is None else x * F.silu(z)
        normed = F.rms_norm(gated.float().unflatten(-1, (-1, self.group_size)), (self.group_size,), eps=self.eps)
        return (normed.flatten(-2) * self.weight.float()).to(x.dtype)

    def sharded_state_dict(self, prefix: str = "", sharded_offsets: Any = (), metadata: Any = None) -> dict[str, Any]:
        """Sharded over tensor-parallel ranks along the channels, as upstream's ExtendedRMSNorm."""
        return make_sharded_tensors_for_checkpoint(
            self.state_dict(prefix="", keep_vars=True),
            prefix,
            {"weight": 0},
            sharded_offsets,
            tp_group=self.tp_group,
            dp_cp_group=metadata["dp_cp_group"],
        )
