"""Precisions of a recipe: which mixed-precision recipe of Megatron-Bridge each one is, and what stays in bf16.

Source: megatron-bridge 0.6.2, bridge/training/mixed_precision.py; megatron-core 0.19.2, core/fp8_utils.py.

In every FP8 precision only the matrix products of attention, MLP and Mamba projections are in FP8. Embedding, output
layer, norms, the attention core, the causal convolution and the state-space scan are computed in bf16 or fp32 always:
Transformer Engine has no FP8 version of them here (`fp8_dot_product_attention` is off, the scan keeps fp32 states).

Hybrids keep two layers at either end in bf16 with current and blockwise scaling, dense models one or none: this is how
NVIDIA trained Nemotron-H and Nemotron Nano 2 in FP8 (bridge/recipes/nemotronh/h100: nemotronh.py, 47B and 56B;
nemotron_nano_v2.py), because the layers next to the embedding and the output are the most sensitive ones. Delayed
scaling cannot do so: it enters one FP8 context for all layers, and Megatron-Core asserts that no layer is left out
(core/fp8_utils.py, "Delayed scaling does not support first / last layer in BF16"). MXFP8, with a scale for every 32
numbers, leaves none out, in NVIDIA's hybrids neither (bridge/perf_recipes/nemotronh/gb200/nemotronh.py).
"""

from dataclasses import dataclass

from prism_nemo.recipe.parts import Precision


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedPrecision:
    """One row of the table below."""

    bridge: str | None
    """Name for `get_mixed_precision_config`; None: plain fp32."""
    bf16_layers: int = 0
    """Layers at the start, and as many at the end, that stay in bf16; of a hybrid, sublayers."""
    weight_bytes: float = 2.0
    """Held per parameter of an FP8 layer: bf16, or row- and column-wise FP8 copies, or both."""
    needs: str = ""
    """Oldest GPU generation that has it."""

    @property
    def fp8(self) -> bool:
        return bool(self.needs)


DENSE: dict[Precision, MixedPrecision] = {
    "fp32": MixedPrecision(bridge=None, weight_bytes=4.0),
    "bf16": MixedPrecision(bridge="bf16_mixed"),
    "fp8_current": MixedPrecision(bridge="bf16_with_fp8_current_scaling_mixed", bf16_layers=1, needs="hopper"),
    "fp8_delayed": MixedPrecision(bridge="bf16_with_fp8_delayed_scaling_mixed", needs="hopper"),
    "fp8_blockwise": MixedPrecision(bridge="bf16_with_fp8_subchannel_scaling_mixed", weight_bytes=4.0, needs="hopper"),
    "mxfp8": MixedPrecision(bridge="bf16_with_mxfp8_mixed", needs="blackwell"),
}
"""Of models without Mamba layers."""

HYBRID: dict[Precision, MixedPrecision] = {
    **DENSE,
    "fp8_current": MixedPrecision(
        bridge="nemotron_h_bf16_with_fp8_current_scaling_mixed", bf16_layers=2, needs="hopper"
    ),
    "fp8_blockwise": MixedPrecision(bridge="nanov2_bf16_with_fp8_current_scaling_mixed", bf16_layers=2, needs="hopper"),
}
"""Of models with Mamba layers."""


def mixed_precision(precision: Precision, *, hybrid: bool) -> MixedPrecision:
    """The row of a recipe's `precision`."""
    return (HYBRID if hybrid else DENSE)[precision]


def left_in_bf16(precision: Precision, *, hybrid: bool) -> list[str]:
    """One line on what an FP8 precision does not touch; nothing for the others."""
    row = mixed_precision(precision, hybrid=hybrid)
    if not row.fp8:
        return []
    always = f"embedding, output layer, norms, attention core{', convolution and scan' if hybrid else ''}"
    count, what = row.bf16_layers, "sublayer" if hybrid else "layer"
    ends = f"the first and the last {what if count == 1 else f'{count} {what}s'}, " if count else ""
    return [f"{precision} leaves in bf16 or fp32: {ends}{always}"]
