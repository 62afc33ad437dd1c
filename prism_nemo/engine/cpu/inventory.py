"""What runs otherwise than on a GPU, as a list: for `prism doctor` and for whoever upgrades Megatron."""

from prism_nemo.engine.cpu import platform, standins

IN_MEGATRON = {
    "DistributedOptimizer.state_dict": "resume with torch's Adam",
    "DistributedOptimizer.load_state_dict": "resume with torch's Adam",
    "DistributedOptimizer._set_main_param_and_optimizer_states": "resume with torch's Adam",
    "mamba_mixer.HAVE_MAMBA_SSM": "Mamba-2 without mamba_ssm",
    "mamba_mixer.ExtendedRMSNorm": "Mamba-2 without mamba_ssm",
    "mamba_mixer.mamba_split_conv1d_scan_combined": "Mamba-2 without mamba_ssm",
    "mamba_mixer._check_mamba_sequence_packing_support": "Mamba-2 without mamba_ssm",
    "attention.apply_rotary_pos_emb": "speed",
    "param_and_grad_buffer.dist_reduce_scatter_func": "speed",
    "param_and_grad_buffer.dist_all_gather_func": "speed",
    "filesystem_async._results_queue": "speed of saving",
    "AsyncCallsQueue.warmup_persistent_caller": "the process that writes asynchronous saves asks for a GPU",
    "AsyncCallsQueue._get_async_caller": "the process that writes asynchronous saves asks for a GPU",
    "setup.initialize_megatron": "asserts CUDA",
}
"""Names replaced in Megatron-Core and Megatron-Bridge -> why."""


def patched_names() -> list[str]:
    """Every name replaced in torch (none where a GPU is in charge) and in Megatron."""
    return [*platform.names(), *IN_MEGATRON]


def stand_ins() -> list[str]:
    """Packages that cannot be installed without CUDA and are stood in for."""
    return standins.stand_ins()
