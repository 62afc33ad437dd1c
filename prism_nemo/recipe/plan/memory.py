"""Memory of one GPU in each pipeline stage. The distributed optimizer of Megatron-Core, 1F1B pipeline schedule."""

from dataclasses import dataclass

from prism_nemo.models.facts import Shape
from prism_nemo.recipe.parts import Parallel, Precision, Training
from prism_nemo.recipe.plan.activations import Kept, head_bytes, stream_bytes, sublayer_bytes
from prism_nemo.recipe.plan.hardware import RESERVE
from prism_nemo.recipe.plan.parameters import stage_parameters, stage_sublayers, sublayer
from prism_nemo.recipe.precision import mixed_precision


@dataclass(frozen=True, slots=True, kw_only=True)
class StageMemory:
    """Bytes on one GPU of a pipeline stage."""

    parameters: int
    """Parameters held (a count, not bytes)."""
    weights: int
    """What forward and backward read."""
    gradients: int
    """fp32, the whole of them: `grad_reduce_in_fp32`."""
    optimizer: int
    """fp32 main weights and both moments, a share of them per data- and context-parallel rank."""
    activations: int
    """Of the micro batches in flight."""
    workspace: int
    """Logits and softmax on the last stage, or the largest layer being differentiated (with full recomputation all of
    it, made once more): whichever is more."""
    reserve: int
    """CUDA context, communication buffers, fragmentation: assumed."""

    @property
    def total(self) -> int:
        parts = (self.weights, self.gradients, self.optimizer, self.activations, self.workspace, self.reserve)
        return sum(parts)


def stage_memory(
    sizes: Shape,
    training: Training,
    parallel: Parallel,
    precision: Precision,
    *,
    plain: bool = False,
) -> list[StageMemory]:
    """One entry per pipeline stage, first stage first.

    `plain`: the engine's torch layers on a CPU (fp32) in the place of fused GPU kernels.
    """
    tensor, pipeline = parallel.tensor, parallel.pipeline
    row = mixed_precision(precision, hybrid=sizes.hybrid)
    length = training.seq_length // parallel.context
    kept = Kept(
        tokens=length * training.micro_batch,
        length=length,
        tensor=tensor,
        sequence=parallel.sequence,
        bytes=4 if precision == "fp32" else 2,
        fp8=row.fp8,
        plain=plain,
    )
    counts = stage_parameters(sizes, tensor=tensor, pipeline=pipeline)
    vocab = sizes.padded_vocab(tensor)
    accumulated = max(1, training.global_batch // (training.micro_batch * max(1, parallel.data)))
    stages = []
    for number, symbols in enumerate(stage_sublayers(sizes, pipeline)):
        in_flight = min(pipeline - number, accumulated)
        largest = max(sum(sublayer_bytes(sizes, kind, kept) for kind in layer) for layer in _by_layer(sizes, symbols))
        head = head_bytes(sizes, kept, vocab) if number == pipeline - 1 else 0
        stages.append(
            StageMemory(
                parameters=counts[number],
                weights=_weights(sizes, symbols, counts[number], tensor, precision),
                gradients=4 * counts[number],
                optimizer=optimizer_bytes(counts[number], parallel, precision),
                activations=in_flight * _layers(sizes, symbols, kept, parallel.recompute),
                workspace=max(head, largest),
                reserve=0 if plain else RESERVE,
            )
        )
    return stages


def optimizer_bytes(parameters: int, parallel: Parallel, precision: Precision) -> int:
    """Adam's two fp32 moments, and in bf16 and FP8 the fp32 main weights, per rank that shares a gradient."""
    each = 8 if precision == "fp32" else 12
    return each * -(-parameters // (max(1, parallel.data) * parallel.context))


def _weights(sizes: Shape, symbols: str, count: int, tensor: int, precision: Precision) -> int:
    """FP8 layers may hold more or less than 2 bytes; embedding, output layer and the bf16 layers hold 2 (fp32: 4)."""
    row = mixed_precision(precision, hybrid=sizes.hybrid)
    if not row.fp8:
        return round(row.weight_bytes * count)
    layers = sum(sublayer(sizes, kind, tensor) for kind in symbols)
    return round(2 * (count - layers) + row.weight_bytes * layers)


def _by_layer(sizes: Shape, symbols: str) -> list[str]:
    """The sublayers of each of Megatron's layers: attention and MLP of a GPTModel, one symbol of a HybridModel."""
    size = len(sizes.pattern) // sizes.megatron_layers
    return [symbols[start : start + size] for start in range(0, len(symbols), size)]


def _layers(sizes: Shape, symbols: str, kept: Kept, recompute: str) -> int:
    """Of one micro batch. Full recomputation keeps the input of every layer (of a HybridModel, every sublayer).

    Selective recomputation is Megatron's default, the attention core; flash attention keeps none of it anyway.
    """
    if recompute != "full":
        return sum(sublayer_bytes(sizes, kind, kept) for kind in symbols)
    return len(_by_layer(sizes, symbols)) * stream_bytes(sizes, kept)
