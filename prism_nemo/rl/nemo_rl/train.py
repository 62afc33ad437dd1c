"""Inside the container: NeMo-RL's own GRPO, with our environment registered.

    cd /opt/nemo-rl && PYTHONPATH=CHECKOUT uv run python -m prism_nemo.rl.nemo_rl.train --config grpo.yaml [a.b=c ...]

Environments can only be registered in the process that starts the run, which is what this is for; the arguments are
those of NeMo-RL's examples/run_grpo.py (v0.7.0), which does the rest.
"""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prism_nemo.errors import InputError, PrismError

ENVIRONMENT = "prism"
ACTOR = "prism_nemo.rl.nemo_rl.actor.PrismEnvironment"
PROGRAM = Path("examples/run_grpo.py")


def register() -> None:
    """Make `env.prism` known to NeMo-RL and let rollouts keep their token ids on the way to it.

    The ids say whether a completion ended by itself and what it repeats; NeMo-RL hands environments the text alone.
    """
    from nemo_rl.distributed import ray_actor_environment_registry as registry
    from nemo_rl.distributed.virtual_cluster import PY_EXECUTABLES
    from nemo_rl.environments.utils import register_env
    from nemo_rl.experience import rollouts

    registry.ACTOR_ENVIRONMENT_REGISTRY[ACTOR] = PY_EXECUTABLES.SYSTEM
    register_env(ENVIRONMENT, ACTOR)
    rollouts.get_keys_from_message_log = _with_token_ids(rollouts.get_keys_from_message_log)


def _with_token_ids(pick: Callable[[Any, list[str]], Any]) -> Callable[[Any, list[str]], Any]:
    return lambda log, keys: pick(log, [*keys, "token_ids"])


def require_sandbox(arguments: list[str]) -> None:
    """Before any GPU is taken: can code be run here, if the configuration names code? Raises InputError."""
    import yaml

    from prism_nemo.rl.nemo_rl.environment import Settings

    if "--config" not in arguments:
        raise InputError("give the configuration: --config grpo.yaml")
    config = yaml.safe_load(Path(arguments[arguments.index("--config") + 1]).read_text())
    Settings.from_dict(config["env"][ENVIRONMENT]).require_sandbox()


def main() -> None:
    """Raises InputError outside NeMo-RL's folder."""
    if not PROGRAM.is_file():
        raise InputError(f"no {PROGRAM} here; start this in NeMo-RL's folder (/opt/nemo-rl in its image)")
    require_sandbox(sys.argv[1:])
    register()
    sys.argv[0] = str(PROGRAM)
    runpy.run_path(str(PROGRAM), run_name="__main__")


if __name__ == "__main__":
    try:
        main()
    except PrismError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
