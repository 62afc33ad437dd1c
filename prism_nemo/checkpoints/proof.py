"""The proof that a Hugging Face directory and a Megatron checkpoint are the same model.

(a) names and (b) bits are checked tensor by tensor while converting (`importing`, `exporting`). Here are (c), equal
logits, and (d), equal gradients: both sides are loaded from disk by their own libraries and run on the same tokens. Of
a large model it is a small one with the same configuration that is run (`scaled`).
"""

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from prism_nemo.checkpoints.layout import Layout
from prism_nemo.checkpoints.megatron import loaded_model, stored_dtype
from prism_nemo.checkpoints.reference import hf_logits, load_hf
from prism_nemo.errors import PrismError
from prism_nemo.models.facts import Shape, read_config, shape

FP32_LOGITS = 1e-4
"""Largest difference of a logit, absolute and relative to the largest logit. Measured on pico models: below 1e-5."""
FP32_GRADIENTS = 1e-3
"""Largest norm of a tensor's gradient difference, relative to its norm. Measured on pico models: below 1e-4
(A_log of Granite-4-H; without Mamba layers below 3e-6)."""
BF16_KL = 1e-3
"""Mean KL divergence per token, in nats, with both sides computing in bf16."""
BF16_TOP1 = 0.9
"""Share of tokens with the same first choice; near ties flip in bf16, more often for random weights than real ones."""
MAX_TOKENS = 1024
"""Longest sequence tried; a window or chunk longer than this is reported as not crossed."""


def lengths_for(sizes: Shape) -> list[int]:
    """Sequence lengths below and above the sliding window and the scan's chunk, within MAX_TOKENS."""
    edges = [edge for edge in (sizes.window, sizes.mamba and sizes.mamba.chunk) if edge and edge < MAX_TOKENS]
    if not edges:
        return [33, 150]
    return sorted({max(2, min(edges) // 2 + 1), max(edges) + 9})


def compare_runs(hf: Path, folder: Path, layout: Layout, *, bf16: bool | None = None) -> dict[str, Any]:
    """(c) and (d): run both models on random tokens; figures for the proof file.

    hf: Hugging Face directory with weights; folder: `iter_*` of the Megatron checkpoint; layout: of the model; bf16:
    compare in bf16 too (None: when the weights are stored so). transformers runs on the CPU, Megatron where this
    machine trains. Raises PrismError when logits or gradients differ by more than the tolerances above.
    """
    config = read_config(hf)
    sizes = shape(config)
    batches = [_tokens(config, sizes, length) for length in lengths_for(sizes)]
    figures: dict[str, Any] = {"lengths": [batch.shape[1] for batch in batches], "window": sizes.window}
    figures["chunk"] = sizes.mamba.chunk if sizes.mamba else None
    figures["fp32"] = _fp32(hf, folder, layout, batches)
    if bf16 or (bf16 is None and stored_dtype(hf) == torch.bfloat16):
        figures["bf16"] = _bf16(hf, folder, batches)
    return figures


def _tokens(config: dict[str, Any], sizes: Shape, length: int) -> torch.Tensor:
    """Without the pad token, whose embedding transformers gives no gradient (`padding_idx`)."""
    generator = torch.Generator().manual_seed(length)
    ids = torch.randint(0, sizes.vocab - 1, (1, length), generator=generator)
    pad = config.get("pad_token_id")
    return ids if pad is None else ids + (ids >= pad)


def megatron_logits(stages: Any, tokens: torch.Tensor, vocab: int) -> torch.Tensor:
    """Logits (batch, length, vocabulary) of a single-stage Megatron model, on the CPU wherever the model is."""
    tokens = tokens.to(next(stages[0].parameters()).device)
    positions = torch.arange(tokens.shape[1], device=tokens.device)[None].expand_as(tokens)
    return stages[0].eval()(tokens, positions, None)[..., :vocab].float().cpu()


def _loss(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def _fp32(hf: Path, folder: Path, layout: Layout, batches: list[torch.Tensor]) -> dict[str, Any]:
    """Both sides compute in fp32 from the stored weights: what differs is the model, not the rounding."""
    theirs, ours = load_hf(hf), loaded_model(hf, folder, dtype=torch.float32)
    vocab = theirs.config.vocab_size
    worst = relative = 0.0
    for tokens in batches:
        reference, logits = hf_logits(theirs, tokens), megatron_logits(ours, tokens, vocab)
        difference, size = (logits - reference).abs().max().item(), reference.abs().max().item()
        worst, relative = _max(worst, difference), _max(relative, difference / size if size else math.inf)
    _loss(reference, tokens).backward()
    _loss(logits, tokens).backward()
    gradients, name = _gradient_difference(theirs, ours[0], layout)
    if not (worst <= FP32_LOGITS and relative <= FP32_LOGITS):
        raise PrismError(
            f"logits differ by {worst:.1e} ({relative:.1e} of the largest); at most {FP32_LOGITS:.0e} is allowed"
        )
    if not gradients <= FP32_GRADIENTS:
        raise PrismError(f"the gradient of {name} differs by {gradients:.1e}; at most {FP32_GRADIENTS:.0e} is allowed")
    return {"logits_max": worst, "logits_relative": relative, "gradient_relative": gradients, "gradient_worst": name}


def _max(a: float, b: float) -> float:
    """NaN wins, so that it cannot hide."""
    return b if math.isnan(b) or b > a else a


def _gradient_difference(theirs: Any, ours: Any, layout: Layout) -> tuple[float, str]:
    """(largest relative difference, its Hugging Face name) over all tensors."""
    wanted = {_on_disk(name, theirs.config.model_type): parameter.grad for name, parameter in theirs.named_parameters()}
    ours = dict(ours.named_parameters())
    worst, worst_name = 0.0, ""
    for parameter in layout.parameters:
        for name, gradient in parameter.to_hf(ours[parameter.name].grad).items():
            reference = wanted.pop(name)
            floor = 1e-12 + reference.norm().item()
            difference = (gradient.cpu() - reference).norm().item() / floor
            if math.isnan(difference) or difference > worst:
                worst, worst_name = difference, name
    if wanted:
        raise PrismError(f"no Megatron gradient for {', '.join(sorted(wanted)[:3])}")
    return worst, worst_name


def _on_disk(name: str, model_type: str) -> str:
    """transformers 5 calls `model.` in memory what Nemotron-H's files call `backbone.`."""
    return (
        "backbone." + name.removeprefix("model.") if model_type == "nemotron_h" and name.startswith("model.") else name
    )


@torch.no_grad()
def _bf16(hf: Path, folder: Path, batches: list[torch.Tensor]) -> dict[str, Any]:
    """Both sides compute in bf16, as in use; rounding differs, so distributions are compared."""
    theirs = load_hf(hf, torch.bfloat16)
    references = [hf_logits(theirs, tokens).float() for tokens in batches]
    vocab = theirs.config.vocab_size
    del theirs
    ours = loaded_model(hf, folder, dtype=torch.bfloat16)
    results = [megatron_logits(ours, tokens, vocab) for tokens in batches]
    p, q = (torch.cat([x.flatten(0, 1) for x in side]).log_softmax(-1) for side in (references, results))
    divergence = (p.exp() * (p - q)).sum(-1).mean().item()
    top1 = (p.argmax(-1) == q.argmax(-1)).float().mean().item()
    if not (divergence <= BF16_KL and top1 >= BF16_TOP1):
        raise PrismError(
            f"in bf16 the models differ: KL {divergence:.1e} (at most {BF16_KL:.0e}), "
            f"top-1 {top1:.3f} (at least {BF16_TOP1})"
        )
    return {"kl_mean": divergence, "top1": top1}
