"""Stand-ins for the two packages that cannot be installed without CUDA, lent only to the modules that insist on them.

Transformer Engine has no CPU build; nvidia-resiliency-ext has wheels for newer systems only. Three modules of
Megatron-Bridge 0.6.2 import them unconditionally, though nothing trained here calls them (LoRA, in-process restart).
A stand-in is in sys.modules only while one of those modules executes: a lasting fake `transformer_engine` would turn
every other `try: import transformer_engine` true. An attribute of a stand-in that is used after import raises.

Where such packages are installed and yet no GPU is visible (a login node, a hidden GPU), they are hidden, so that the
CPU engine is the same everywhere: Megatron would take Transformer Engine's Adam and Mamba's kernels, which need a GPU.
"""

import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from prism_nemo.errors import PrismError

LENT = {
    "megatron.bridge.peft.lora_layers": "transformer_engine.pytorch",
    "megatron.bridge.training.pretrain": "nvidia_resiliency_ext.inprocess",
    "megatron.bridge.training.inprocess_restart": "nvidia_resiliency_ext.inprocess",
}
"""Module of Megatron-Bridge -> the module it is lent."""

GPU_ONLY = (
    *("transformer_engine", "transformer_engine_torch", "apex", "flash_attn", "fla", "flashinfer"),
    *("mamba_ssm", "causal_conv1d", "nvidia_resiliency_ext"),
)
"""What Megatron and transformers take for a GPU's kernels as soon as it can be imported."""


def hide() -> None:
    """Let GPU_ONLY be not installed for this process, where nothing has imported it yet."""
    for name in GPU_ONLY:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]


def install() -> None:
    """Add the import hook, once; before megatron.bridge is imported."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def stand_ins() -> list[str]:
    """Top-level names of the packages that are stood in for on this machine."""
    return sorted({name.split(".")[0] for name in LENT.values() if not _is_installed(name)})


def _is_installed(name: str) -> bool:
    return importlib.util.find_spec(name.split(".")[0]) is not None


class _Missing:
    """Whatever is taken from a stand-in: good for an annotation or isinstance, useless for anything else."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise PrismError(f"{type(self).__qualname__} needs a package that does not exist for this machine (no GPU)")


class _StandIn(ModuleType):
    __path__: list[str] = []  # noqa: RUF012

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        child = f"{self.__name__}.{name}"
        value = _StandIn(child) if name.islower() else type(child, (_Missing,), {})
        setattr(self, name, value)
        return value


class _Finder:
    """Finds the three modules as usual and wraps their execution."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        lent = LENT.get(name)
        if lent is None or _is_installed(lent):
            return None
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path, target) if finder is not self else None
            if spec is not None and spec.loader is not None:
                spec.loader.exec_module = _lending(lent, spec.loader.exec_module)  # type: ignore[method-assign]
                return spec
        return None


def _lending(lent: str, execute: Any) -> Any:
    """`execute` with `lent` and its parent in sys.modules meanwhile."""

    def exec_module(module: ModuleType) -> None:
        top = _StandIn(lent.split(".")[0])
        sys.modules[top.__name__] = top
        sys.modules[lent] = getattr(top, lent.split(".")[1])
        try:
            execute(module)
        finally:
            del sys.modules[lent]
            sys.modules[top.__name__] = None  # type: ignore[assignment]

    return exec_module
