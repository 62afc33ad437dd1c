"""One SLURM cluster for the whole session, and a run of a tiny recipe prepared up to its mid-training."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from slurm_cluster import Cluster, UnavailableError

RECIPE = """
from prism_nemo.recipe import Recipe, load_recipe

SHAPE = {"seq_length": 256, "global_batch": 4, "micro_batch": 1, "log_every": 5}


def recipe() -> Recipe:
    tiny = load_recipe("tiny_dense")
    return tiny.with_(
        name="cluster",
        merge=None,
        long_context=None,
        model={"pico": {"hidden": 32, "layers": 2, "ffn": 64, "heads": 4, "kv_heads": 2}},
        data={"vocab_size": 600, "validation_tokens": 4096},
        pretrain={"tokens": 10 * 1024, "warmup_steps": 2, **SHAPE},
        midtrain={"tokens": STEPS * 1024, "warmup_steps": 2, "save_every_tokens": 20 * 1024, **SHAPE},
        parallel={"nodes": 2, "devices_per_node": 1},
    )
"""
STEPS = 400


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    # Two for every job and a spare one: SLURM repeats its last orders to a dead node a minute after it came back.
    made = Cluster(tmp_path_factory.mktemp("slurm") / "cluster", nodes=3)
    try:
        made.load_container_stub()
        made.start()
    except UnavailableError as reason:
        made.stop()
        pytest.skip(str(reason))
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = made.environment["SLURM_CONF"]
    try:
        yield made
    finally:
        made.stop()
        os.environ.pop("SLURM_CONF")
        if before is not None:
            os.environ["SLURM_CONF"] = before


@pytest.fixture(scope="session")
def prism() -> Callable[..., str]:
    """Run the command line in a process of its own; its output, or a failed test."""

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "prism_nemo.cli.main", *arguments]
        environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
        result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=500)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    return run


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("recipe") / "cluster.py"
    file.write_text(RECIPE.replace("STEPS", str(STEPS)))
    return file


@pytest.fixture(scope="session")
def prepared(recipe: Path, prism: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never interrupted, up to the export of its mid-training."""
    run = tmp_path_factory.mktemp("prepared") / "run"
    prism("run", str(recipe), "--to", "mt", "--out", str(run))
    return run


@pytest.fixture
def run(prepared: Path, tmp_path: Path) -> Path:
    """A copy of that run as it was before its mid-training."""
    later = ("midtrain", "mt", "midtrain.json", "mt.json", ".lock")
    return Path(shutil.copytree(prepared, tmp_path / "run", ignore=shutil.ignore_patterns(*later)))
