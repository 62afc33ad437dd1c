"""Where a NeMo-RL run happens, and what of its model decides how."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prism_nemo.errors import InputError
from prism_nemo.models.facts import Shape, read_config, shape

RELEASE = "v0.7.0"
IMAGE = f"nvcr.io/nvidia/nemo-rl:{RELEASE}"
ROOT = "/opt/nemo-rl"
"""NeMo-RL's own folder inside the image."""
NO_BRIDGE = ("granite", "granitemoehybrid")
"""Families that NeMo-RL's Megatron backend cannot load: no Megatron-Bridge there handles them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The model that is trained."""

    shape: Shape

    @property
    def family(self) -> str:
        """`model_type` of its config.json."""
        return self.shape.model_type

    @property
    def hybrid(self) -> bool:
        """Has Mamba layers."""
        return self.shape.hybrid


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Where and how it runs."""

    nodes: int = 4
    gpus_per_node: int = 8
    backend: Literal["dtensor", "megatron"] = "dtensor"
    tensor: int = 1
    pipeline: int = 1
    context: int = 1
    generation_tensor: int = 1
    """Tensor parallelism of vLLM."""
    reward_workers: int = 32
    """Completions judged at a time, on the node of the environment."""
    sandbox: Literal["bubblewrap", "rlimits"] = "bubblewrap"
    """How model-written code runs inside the container; `rlimits` walls off nothing but resources."""
    image: str = IMAGE
    mounts: tuple[str, ...] = ()
    """`host:container`; must show the model, the output and this program under the same names."""
    setup: str = ""
    """Shell command run in every container first, such as one that installs bubblewrap."""
    account: str = ""
    partition: str = ""
    time: str = "04:00:00"
    """Wall time, HH:MM:SS; the run saves before it ends."""
    job_name: str = "prism-rl"

    def __post_init__(self) -> None:
        """Raises InputError for values that cannot be."""
        for name in ("nodes", "gpus_per_node", "tensor", "pipeline", "context", "generation_tensor", "reward_workers"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise InputError(f"cluster.{name} is {value!r}; it must be a whole number of at least 1")
        for name, known in (("backend", ("dtensor", "megatron")), ("sandbox", ("bubblewrap", "rlimits"))):
            if getattr(self, name) not in known:
                raise InputError(f"cluster.{name} is {getattr(self, name)!r}; it is one of {', '.join(known)}")

    @property
    def world(self) -> int:
        """GPUs in all."""
        return self.nodes * self.gpus_per_node


def policy_facts(model: Path) -> Policy:
    """Read a Hugging Face directory's config.json. Raises InputError when it is none."""
    return Policy(shape=shape(read_config(model)))


def save_by(time: str) -> str:
    """DD:HH:MM:SS by which the run must have saved: a tenth of the wall time, at most 20 minutes, before its end."""
    try:
        hours, minutes, seconds = (int(part) for part in time.split(":"))
    except ValueError:
        raise InputError(f"cluster.time is {time!r}; give it as HH:MM:SS") from None
    total = hours * 3600 + minutes * 60 + seconds
    left = total - min(total // 10, 1200)
    return f"{left // 86400:02d}:{left % 86400 // 3600:02d}:{left % 3600 // 60:02d}:{left % 60:02d}"
