"""What the conversion tests run inside Megatron ranks."""

from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F


def relayout(items: list[tuple[Path, Path, Path]], tensor: int, pipeline: int, length: int) -> list[torch.Tensor]:
    """For each (hf, iter folder, out): load in this layout, compute logits, save in this layout; the logits."""
    from megatron.bridge.training.model_load_save import save_megatron_model

    from prism_nemo.checkpoints.megatron import loaded_model
    from prism_nemo.models.facts import read_config, shape

    results = []
    for hf, folder, out in items:
        vocab = shape(read_config(hf)).vocab
        tokens = torch.randint(1, vocab, (1, length), generator=torch.Generator().manual_seed(5))
        stages = loaded_model(hf, folder, tensor=tensor, pipeline=pipeline, dtype=torch.float32)
        with torch.no_grad():
            results.append(_logits(stages[0].eval(), tokens, tensor, pipeline)[..., :vocab])
        save_megatron_model(stages, out)
    return results


def _logits(stage, tokens: torch.Tensor, tensor: int, pipeline: int) -> torch.Tensor:
    """On every rank. A pipeline of two is run by hand: hidden states are sent, logits come back."""
    positions = torch.arange(tokens.shape[1])[None]
    if pipeline == 1:
        local = stage(tokens, positions, None)
    else:
        local = torch.empty(1, tokens.shape[1], stage.vocab_size // tensor)
        hidden = torch.empty(tokens.shape[1], 1, stage.config.hidden_size)
        first = dist.get_rank() < tensor
        if first:
            hidden = stage(tokens, positions, None)
        dist.broadcast(hidden, src=0)
        if not first:
            stage.set_input_tensor(hidden)
            local = stage(tokens, positions, None)
    parts = [torch.empty_like(local) for _ in range(tensor * pipeline)]
    dist.all_gather(parts, local.contiguous())
    return torch.cat(parts[-tensor:], dim=-1)


ADAM = {"lr": 1e-3, "betas": (0.9, 0.95), "eps": 1e-4, "weight_decay": 0.1}
"""A large eps keeps the update a smooth function of the gradient: rounding is not blown up to a sign."""
CLIP = 0.5


def steps(hf: Path, folder: Path, batches: list[torch.Tensor]) -> tuple[list[float], dict[str, torch.Tensor], float]:
    """Train on each batch with Megatron's own loss, clipping and distributed AdamW, on the GPU where there is one.

    Returns losses, Hugging Face name -> weight after the last step, and the gradient norm of the last step.
    """
    from megatron.bridge.training.checkpointing import _load_model_weights_from_checkpoint
    from megatron.core.distributed import DistributedDataParallelConfig, finalize_model_grads
    from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer, get_standard_config_overrides

    from prism_nemo.checkpoints.layout import model_layout
    from prism_nemo.checkpoints.megatron import ONE_KIND
    from prism_nemo.engine.setup import build_provider, set_up_parallel_groups

    _, provider = build_provider(hf, dtype=torch.float32, overrides=ONE_KIND)
    set_up_parallel_groups(provider, 0)
    ddp = DistributedDataParallelConfig(use_distributed_optimizer=True, grad_reduce_in_fp32=True)
    model = provider.provide_distributed_model(ddp_config=ddp, wrap_with_ddp=True)
    _load_model_weights_from_checkpoint(str(folder), model)
    beta1, beta2 = ADAM["betas"]
    config = OptimizerConfig(
        optimizer="adam",
        lr=ADAM["lr"],
        weight_decay=ADAM["weight_decay"],
        adam_beta1=beta1,
        adam_beta2=beta2,
        adam_eps=ADAM["eps"],
        clip_grad=CLIP,
        use_distributed_optimizer=True,
        params_dtype=torch.float32,
    )
    optimizer = get_megatron_optimizer(config, model, config_overrides=get_standard_config_overrides(config))
    optimizer.reload_model_params()
    for group in optimizer.param_groups:  # what Megatron's scheduler does at every step
        group["weight_decay"] = ADAM["weight_decay"] * group["wd_mult"]
    losses, norm = [], 0.0
    for tokens in batches:
        model[0].zero_grad_buffer()
        optimizer.zero_grad()
        tokens = tokens.to(next(model[0].parameters()).device)
        positions = torch.arange(tokens.shape[1] - 1, device=tokens.device)[None].expand(len(tokens), -1)
        loss = model[0](tokens[:, :-1].contiguous(), positions, None, labels=tokens[:, 1:].contiguous()).mean()
        loss.backward()
        finalize_model_grads(model)
        losses.append(loss.item())
        _, norm, _ = optimizer.step()
    weights = {name: weight.data.cpu() for name, weight in model[0].module.named_parameters()}
    layout = model_layout(hf, dtype=torch.float32)
    after = {}
    for parameter in layout.parameters:
        after |= {name: tensor.clone() for name, tensor in parameter.to_hf(weights[parameter.name]).items()}
    return losses, after, float(norm)


def hf_steps(model, batches: list[torch.Tensor], logits) -> tuple[list[float], float]:
    """The same with torch: cross entropy, clip_grad_norm_, AdamW that spares one-dimensional weights from decay."""
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1]},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, **ADAM)
    losses, norm = [], 0.0
    for tokens in batches:
        optimizer.zero_grad()
        loss = F.cross_entropy(logits(model, tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP).item()
        optimizer.step()
        losses.append(loss.item())
    return losses, norm


def global_shapes(hf: Path, tensor: int, pipeline: int) -> dict[str, tuple[int, ...]]:
    """Checkpoint key -> global shape of the whole model in a layout, every pipeline stage built on the meta device.

    A process group of tensor x pipeline ranks is played by torch's fake backend, one rank after the other.
    """
    from megatron.core import parallel_state
    from megatron.core.process_groups_config import ProcessGroupCollection
    from torch.testing._internal.distributed.fake_pg import FakeStore

    from prism_nemo.checkpoints.layout import _built, sharding_metadata
    from prism_nemo.checkpoints.megatron import ONE_KIND, padding, stored_dtype
    from prism_nemo.engine.setup import build_provider

    found: dict[str, tuple[int, ...]] = {}
    for stage in range(pipeline):
        parallel_state.destroy_model_parallel()
        dist.destroy_process_group()
        dist.init_process_group("fake", store=FakeStore(), rank=stage * tensor, world_size=tensor * pipeline)
        overrides = ONE_KIND | padding(hf, tensor) | {"init_model_with_meta_device": True}
        _, provider = build_provider(hf, tensor=tensor, pipeline=pipeline, dtype=stored_dtype(hf), overrides=overrides)
        provider.initialize_model_parallel(seed=0, create_gloo_process_groups=False)
        provider._pg_collection = ProcessGroupCollection.use_mpu_process_groups()
        with torch.device("meta"):
            model = provider.provide(pre_process=stage == 0, post_process=stage == pipeline - 1)
        for entry in model.sharded_state_dict(metadata=sharding_metadata()).values():
            if not hasattr(entry, "data") or type(entry).__name__ == "ShardedObject":
                continue
            for piece in _built(entry, entry.data):
                assert found.setdefault(piece.key, piece.global_shape) == piece.global_shape
    return {key: tuple(shape) for key, shape in found.items()}


def coverage(hf: Path) -> tuple[int, list[str], dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """(parameters, Hugging Face names as often as mapped, name -> shape, checkpoint key -> global shape)."""
    from prism_nemo.checkpoints.layout import model_layout

    layout = model_layout(hf)
    shapes, keys = {}, {}
    for parameter in layout.parameters:
        for name, tensor in parameter.to_hf(torch.empty(parameter.shape, device="meta")).items():
            shapes[name] = tuple(tensor.shape)
        for (key, offset, extent), _ in parameter.pieces():
            whole = keys.get(key, (0,) * len(extent))
            keys[key] = tuple(max(w, o + e) for w, o, e in zip(whole, offset, extent, strict=True))
    return sum(p.numel() for p in layout.model.parameters()), layout.hf_names, shapes, keys


def import_with_a_wrong_bit(hf: Path, out: Path) -> None:
    """The last digit of one weight goes wrong on its way to the disk."""
    from prism_nemo.checkpoints import importing, saving

    write = saving.save_streamed

    def write_wrongly(layout, provider, folder, convert):
        def wrong(parameter):
            value = convert(parameter).clone()
            if parameter.name.endswith("linear_proj.weight"):
                value.view(torch.int32)[0, 0] += 1
            return value

        write(layout, provider, folder, wrong)

    saving.save_streamed = write_wrongly
    try:
        importing.run_import(hf, out, "keys", False)
    finally:
        saving.save_streamed = write


def export_with_a_wrong_bit(folder: Path, reference: Path, out: Path) -> None:
    """The last digit of a rounded tensor goes wrong on its way to the disk."""
    from safetensors.torch import load_file, save_file

    from prism_nemo.checkpoints import exporting

    out = out / "wrong"
    out.mkdir()
    write = exporting.write_sharded

    def write_wrongly(directory, plan, tensors, **options):
        write(directory, plan, tensors, **options)
        written = load_file(directory / "model.safetensors")
        next(tensor for name, tensor in written.items() if "A_log" in name).view(torch.int16)[0] += 1
        save_file(written, directory / "model.safetensors", metadata={"format": "pt"})

    exporting.write_sharded = write_wrongly
    try:
        exporting.run_export(folder, reference, out, "keys", 1 << 30)
    finally:
        exporting.write_sharded = write
