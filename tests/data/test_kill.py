"""kill -9 at any moment, run again: the finished directory is that of an uninterrupted run."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prism_nemo.data.prepare import prepare
from prism_nemo.data.verify import verify_blend
from tests.data.test_prepare import content

SCRIPT = """
import sys
from pathlib import Path
from prism_nemo.data.mixture import load_mixture
from prism_nemo.data.prepare import prepare
from prism_nemo.data import work

work.WORTH_A_POOL = 0
if __name__ == "__main__":
    folder, tokenizer, workers = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    prepare(load_mixture(folder / "mixture.yaml"), tokenizer, 4000, folder / "killed", seq_length=32, valid_tokens=300,
            workers=workers, unit_bytes=3000)
"""


def killed_when(ready, folder: Path, tokenizer: Path, workers: int, kill=os.killpg) -> int:
    """Start a run in its own process group and kill it as soon as `ready` says so. The group, or 0: it ended before."""
    script = folder / "run.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(folder), str(tokenizer), str(workers)]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if ready(folder):
            kill(process.pid, signal.SIGKILL)
            process.wait()
            return process.pid
        time.sleep(0.0005)
    process.wait()
    return 0


def shards_made(number: int):
    return lambda folder: len(list((folder / ".killed.work" / "shards").glob("[!.]*"))) >= number


def assembling(folder: Path) -> bool:
    return (folder / ".killed.partial" / "train" / "b.bin").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("ready", "workers"), [(shards_made(1), 1), (shards_made(9), 2), (assembling, 1)])
def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path, three_sources, tokenizer, ready, workers):
    mixture = three_sources((400, 200, 100))
    common = {"seq_length": 32, "valid_tokens": 300, "unit_bytes": 3000}
    plain = prepare(mixture, tokenizer, 4000, tmp_path / "plain", **common)
    assert killed_when(ready, tmp_path, tokenizer, workers)
    left = set((tmp_path / ".killed.work" / "shards").glob("[!.]*"))
    assert left
    assert not (tmp_path / "killed").exists(), "nothing stands under the final name"
    stamps = {path: path.stat().st_mtime_ns for path in left}
    seen: list[bool] = []

    def still_the_same(progress: object) -> None:
        seen.append(all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items()))

    out = prepare(mixture, tokenizer, 4000, tmp_path / "killed", **common, on_progress=still_the_same)
    assert seen and all(seen), "finished shards are not made again"
    assert content(out) == content(plain)
    assert verify_blend(out) == []
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


@pytest.mark.slow
def test_no_worker_outlives_a_killed_parent(tmp_path, three_sources, tokenizer):
    three_sources((400, 200, 100))
    group = killed_when(shards_made(3), tmp_path, tokenizer, 2, kill=os.kill)
    assert group
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    os.killpg(group, signal.SIGKILL)
    pytest.fail("processes are left")
