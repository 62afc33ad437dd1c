"""Parameters, memory and FLOPs of the plan against built models: Hugging Face's, and Megatron's on the CPU."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_nemo.models.facts import BASES, base_model, base_shape, shape
from prism_nemo.models.pico import hf_config, make_pico, pico_config
from prism_nemo.recipe.parts import Parallel, Training
from prism_nemo.recipe.plan import flops
from prism_nemo.recipe.plan.activations import Kept, head_bytes, sublayer_bytes
from prism_nemo.recipe.plan.memory import optimizer_bytes, stage_memory
from prism_nemo.recipe.plan.parameters import convolved, stage_parameters, total

VOCAB = 384
DENSE = [name for name in BASES if not base_shape(name).hybrid]


@pytest.mark.parametrize("name", BASES)
def test_parameters_are_the_published_ones(name: str) -> None:
    assert total(base_shape(name)) == base_model(name).parameters


@pytest.mark.parametrize("name", BASES)
def test_parameters_gradients_and_adam_of_a_built_model_to_the_byte(name: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    config = pico_config(name, VOCAB - 1)
    model = AutoModelForCausalLM.from_config(hf_config(config), dtype=torch.float32)
    sizes = shape(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == total(sizes)

    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    moments = [tensor for state in optimizer.state.values() for tensor in state.values() if tensor.ndim]
    alone = Parallel(nodes=1, devices_per_node=1)
    planned = stage_memory(sizes, Training(seq_length=8, global_batch=1), alone, "fp32")[0]
    assert planned.weights == sum(parameter.nbytes for parameter in model.parameters())
    assert planned.gradients == sum(parameter.grad.nbytes for parameter in model.parameters())  # type: ignore[union-attr]
    assert planned.optimizer == sum(tensor.nbytes for tensor in moments)


@given(tensor=st.sampled_from([1, 2, 4, 8]), pipeline=st.sampled_from([1, 2, 4]), name=st.sampled_from(list(BASES)))
def test_split_parameters_add_up(tensor: int, pipeline: int, name: str) -> None:
    """Over all ranks: the model, and its norms once more for every further tensor rank."""
    sizes = base_shape(name)
    if len(sizes.pattern) % pipeline:
        return
    once = sum(stage_parameters(sizes, pipeline=pipeline))
    copied = (tensor - 1) * sizes.hidden * (len(sizes.pattern) + 1)
    rows = sizes.padded_vocab(tensor) - sizes.vocab
    copies = 1 if sizes.tied and pipeline == 1 else 2
    split = tensor * sum(stage_parameters(sizes, tensor=tensor, pipeline=pipeline))
    assert split == once + copied + copies * rows * sizes.hidden


@pytest.mark.parametrize(("name", "layers"), [("llama_3_1_8b", ["*-"]), ("nemotron_h_8b", ["*", "-", "M"])])
def test_full_recomputation_makes_one_layer_at_a_time_once_more(name: str, layers: list[str]) -> None:
    """Of a GPTModel attention and MLP together: Megatron checkpoints its layers, of a HybridModel the sublayers."""
    sizes = base_shape(name)
    parallel = Parallel(nodes=1, pipeline=4, recompute="full")
    first = stage_memory(sizes, Training(), parallel, "bf16")[0]
    kept = Kept(tokens=8192, length=8192)
    assert first.workspace == max(sum(sublayer_bytes(sizes, kind, kept) for kind in layer) for layer in layers)


def test_optimizer_is_shared_by_data_and_context_ranks() -> None:
    parallel = Parallel(nodes=2, devices_per_node=8, tensor=2, context=2)
    assert optimizer_bytes(800, parallel, "bf16") == 12 * 100
    assert optimizer_bytes(801, parallel, "bf16") == 12 * 101


@pytest.mark.parametrize("name", DENSE)
def test_dense_flops_are_the_counted_ones(name: str) -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoModelForCausalLM

    config = pico_config(name, VOCAB)
    model = AutoModelForCausalLM.from_config(hf_config(config), dtype=torch.float32, attn_implementation="eager")
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(2, 96, dtype=torch.long)).logits.sum().backward()
    tables = 96 * shape(config).head_dim  # transformers makes the angles of RoPE by a matrix product, once
    assert 2 * 3 * flops.forward(shape(config), 96, causal=False) == counter.get_total_flops() - tables


@pytest.mark.parametrize("name", ["nemotron_h_8b", "granite_4_0_h_micro"])
def test_hybrid_flops_are_the_counted_ones_but_for_the_scan(name: str) -> None:
    """transformers' own scan multiplies and adds without matrix products, so it counts as nothing; of the depthwise
    convolution's backward pass torch's counter knows nothing (it counts as if channels were mixed)."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoModelForCausalLM

    config = pico_config(name, VOCAB)
    sizes = shape(config)
    assert sizes.mamba is not None
    model = AutoModelForCausalLM.from_config(hf_config(config), dtype=torch.float32, attn_implementation="eager")
    with FlopCounterMode(display=False) as counter:
        loss = model(torch.zeros(1, 96, dtype=torch.long)).logits.sum()
        ahead = counter.get_total_flops()
        loss.backward()
    mixers = sizes.pattern.count("M")
    planned = flops.forward(sizes, 96, causal=False) - mixers * flops.scan(sizes.mamba, 96)
    assert ahead == pytest.approx(planned, rel=0.02)
    convolutions = mixers * 2 * 96 * convolved(sizes.mamba) * sizes.mamba.conv_kernel
    products = [count for kind, count in counter.get_flop_counts()["Global"].items() if "convolution" not in str(kind)]
    assert sum(products) == pytest.approx(3 * (planned - convolutions), rel=0.02)


@pytest.mark.parametrize("length", [64, 128, 100])
def test_scan_flops_are_the_counted_ones(length: int) -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from prism_nemo.models.ssd import ssd_scan

    sizes = shape(pico_config("nemotron_h_8b", VOCAB, chunk=32))
    mixer = sizes.mamba
    assert mixer is not None
    x = torch.randn(1, length, mixer.heads, mixer.head_dim, requires_grad=True)
    b, c = (torch.randn(1, length, mixer.groups, mixer.state, requires_grad=True) for _ in range(2))
    with FlopCounterMode(display=False) as counter:
        out, *_ = ssd_scan(x, torch.rand(1, length, mixer.heads), -torch.rand(mixer.heads), b, c, mixer.chunk)
        assert flops.scan(mixer, length) == counter.get_total_flops()
        out.sum().backward()
    assert 3 * flops.scan(mixer, length) == counter.get_total_flops()


@given(length=st.integers(1, 60), window=st.none() | st.integers(1, 80))
def test_keys_seen_by_brute_force(length: int, window: int | None) -> None:
    reach = window or length
    assert flops.seen(length, window) == sum(min(query + 1, reach) for query in range(length))


def saved_bytes(model: Any, length: int, sequences: int) -> int:
    """Storages that autograd keeps for the backward pass, the parameters left out."""
    import torch

    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, Any] = {}

    def keep(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = tensor  # holding it keeps its address from being used again
        return tensor

    tokens = torch.randint(0, VOCAB, (sequences, length))
    positions = torch.arange(length).expand(sequences, length)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(tokens, positions, None, labels=tokens)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def built(name: str, folder: Path, overrides: dict[str, Any] | None = None, **sizes: int) -> tuple[Any, Any]:
    """(Megatron model on the CPU, its sizes); `overrides`: of its configuration."""
    from prism_nemo.engine import build_model

    for variable in [variable for variable in os.environ if variable.startswith("NVTE_")]:
        del os.environ[variable]  # an earlier model's choice of attention kernel, which Megatron keeps here
    make_pico(name, folder, vocab_size=VOCAB, **sizes)
    (model,), _ = build_model(folder, load_weights=False, overrides=overrides)
    return model, shape(pico_config(name, VOCAB, **sizes))


@pytest.mark.slow
@pytest.mark.parametrize("name", BASES)
def test_activations_of_a_megatron_model_within_ten_percent(name: str, tmp_path: Path) -> None:
    model, sizes = built(name, tmp_path, chunk=64)
    assert sum(parameter.numel() for parameter in model.parameters()) == stage_parameters(sizes)[0]
    for length, sequences in ((256, 2), (128, 1)):
        kept = Kept(tokens=length * sequences, length=length, bytes=4, plain=True)
        planned = sum(sublayer_bytes(sizes, kind, kept) for kind in sizes.pattern)
        planned += head_bytes(sizes, kept, sizes.padded_vocab(1))
        assert planned == pytest.approx(saved_bytes(model, length, sequences), rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", BASES)
def test_activations_with_full_recomputation_within_ten_percent(name: str, tmp_path: Path) -> None:
    """What the engine sets for recompute=full: one layer at a time, its input kept."""
    uniform = {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1}
    model, sizes = built(name, tmp_path, uniform, chunk=64)
    model.train()
    for length, sequences in ((256, 2), (128, 1)):
        alone = Parallel(nodes=1, devices_per_node=1, recompute="full")
        training = Training(seq_length=length, micro_batch=sequences, global_batch=sequences)
        planned = stage_memory(sizes, training, alone, "fp32", plain=True)[0].activations
        kept = Kept(tokens=length * sequences, length=length, bytes=4, plain=True)
        planned += head_bytes(sizes, kept, sizes.padded_vocab(1))
        assert planned == pytest.approx(saved_bytes(model, length, sequences), rel=0.1)
