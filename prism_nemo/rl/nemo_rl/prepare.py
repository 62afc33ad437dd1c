"""What is submitted: prompts in the order they are drawn, the YAML, the script that starts Ray on SLURM."""

import dataclasses
import shlex
from pathlib import Path

import yaml

from prism_nemo.artifacts import fingerprint, path_fingerprint, write_whole
from prism_nemo.errors import InputError
from prism_nemo.recipe.presets import lacks
from prism_nemo.rl.job import RLJob, check_lengths, draw
from prism_nemo.rl.nemo_rl.cluster import RELEASE, ROOT, Cluster, Policy, policy_facts
from prism_nemo.rl.nemo_rl.config import BATCH_MULTIPLIER, render
from prism_nemo.verifiers import Problem, load_problems

CODE = Path(__file__).parents[3]
"""The folder that holds the package: what PYTHONPATH names on the cluster."""


def prepare(job: RLJob, cluster: Cluster, folder: Path, *, policy: Policy | None = None) -> Path:
    """Write prompts, YAML and launch script of a run into `folder`; returns the script's path.

    Raises InputError, before anything is written, for prompts or combinations that would fail on the cluster, and for
    an output folder that has checkpoints of another configuration, prompts or start: NeMo-RL would go on from them
    without a word.
    """
    policy = policy or policy_facts(Path(job.model))
    order = drawn(job)
    _check_prompts(job, order)
    folder = folder.resolve()
    lines = "".join(problem.to_json() + "\n" for problem in order)
    path, prompts = folder / "grpo.yaml", folder / "prompts" / fingerprint(lines) / "train.jsonl"
    start = folder / "start" / path_fingerprint(Path(job.model))
    fed = dataclasses.replace(job.rl, prompts=str(prompts))
    config = render(dataclasses.replace(job, model=str(start), rl=fed), policy, cluster)
    _check_mounts(cluster, [Path(job.model).resolve(), Path(job.out), folder, CODE])
    missing = lacks("nemo_rl", kl=job.rl.kl, reference_every=job.rl.reference_every)
    notes = "".join(f"# not in this run: {line}\n" for line in missing)
    text = f"# NeMo-RL {RELEASE}; every other key is its base's.\n{notes}{yaml.safe_dump(config, sort_keys=False)}"
    _check_unique(Path(job.out) / "checkpoints", path, text)
    _link(start, Path(job.model).resolve())
    prompts.parent.mkdir(parents=True, exist_ok=True)
    script = folder / "launch.sh"
    # A job in the queue may read them at any time.
    for file, content in ((prompts, lines), (path, text), (script, launch_script(str(path), cluster))):
        write_whole(file, content)
    script.chmod(0o755)
    return script


def _link(start: Path, model: Path) -> None:
    """The model under a name made of its content: NeMo-RL keeps its own conversion of a model by path alone."""
    start.parent.mkdir(parents=True, exist_ok=True)
    start.unlink(missing_ok=True)
    start.symlink_to(model)


def drawn(job: RLJob) -> list[Problem]:
    """The prompts of the run; with dynamic sampling in its larger batches, none of which holds a prompt twice."""
    times = BATCH_MULTIPLIER if job.rl.dynamic_sampling else 1
    wide = dataclasses.replace(job.rl, prompts_per_step=job.rl.prompts_per_step * times)
    return draw(load_problems(Path(job.rl.prompts)), wide)


def _check_prompts(job: RLJob, order: list[Problem]) -> None:
    from transformers import AutoTokenizer

    check_lengths(order, AutoTokenizer.from_pretrained(job.model, trust_remote_code=False), job.rl)


def _check_mounts(cluster: Cluster, paths: list[Path]) -> None:
    pairs = [mount.split(":") for mount in cluster.mounts]
    shown = [Path(pair[0]) for pair in pairs if len(pair) > 1 and pair[0] == pair[1]]
    for path in paths:
        if not any(path.is_relative_to(place) for place in shown):
            raise InputError(f"the container does not see {path}; add mounts={path}:{path} (or a folder above it)")


def _check_unique(checkpoints: Path, path: Path, text: str) -> None:
    if any(checkpoints.glob("step_*")) and not (path.is_file() and path.read_text() == text):
        raise InputError(
            f"{checkpoints} has checkpoints of another configuration or other prompts and NeMo-RL would go on from "
            "them; change --out, or in a chain on SLURM give --force"
        )


def launch_script(config_path: str, cluster: Cluster) -> str:
    """The shell script that submits the run: NeMo-RL's own ray.sub, from NeMo-RL's folder on the login node."""
    variables = {"PYTHONPATH": str(CODE), "PRISM_SANDBOX": cluster.sandbox}
    settings = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
    command = (
        f"cd {ROOT} && {settings} uv run python -m prism_nemo.rl.nemo_rl.train --config {shlex.quote(config_path)}"
    )
    options = [f"--nodes={cluster.nodes}", f"--time={cluster.time}", f"--job-name={cluster.job_name}"]
    options += [f"--gres=gpu:{cluster.gpus_per_node}"]
    options += [f"--account={cluster.account}"] if cluster.account else []
    options += [f"--partition={cluster.partition}"] if cluster.partition else []
    lines = [
        "#!/bin/bash",
        f"# Submit from the root of a NeMo-RL {RELEASE} checkout on a shared file system: ray.sub logs beside itself.",
        "set -euo pipefail",
        '[ -f ray.sub ] || { echo "run this in the root of a NeMo-RL checkout (no ray.sub here)" >&2; exit 2; }',
        f"export COMMAND={shlex.quote(command)}",
        f"export CONTAINER={shlex.quote(cluster.image)}",
        f"export MOUNTS={shlex.quote(','.join(cluster.mounts))}",
        f"export GPUS_PER_NODE={cluster.gpus_per_node}",
        *([f"export SETUP_COMMAND={shlex.quote(cluster.setup)}"] if cluster.setup else []),
        f"sbatch {' '.join(map(shlex.quote, options))} ray.sub",
    ]
    return "\n".join(lines) + "\n"
