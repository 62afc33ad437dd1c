"""The environment as a Ray actor: what NeMo-RL makes of the name `ACTOR` in `train`."""

import ray

from prism_nemo.rl.nemo_rl.environment import Environment

# restarted and asked again like NeMo-RL's own: judging has no state
PrismEnvironment = ray.remote(max_restarts=-1, max_task_retries=-1)(Environment)
