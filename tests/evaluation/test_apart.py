"""A process of its own: results, progress and errors come back, and it does not outlive the one that started it."""

import os
import signal
import subprocess
import sys
import time

import pytest

from prism_nemo.errors import InputError, PrismError
from prism_nemo.evaluation.apart import side_by_side


def double(number, *, progress):
    progress("half", 1, 2)
    return 2 * number, os.getpid()


def refuse(*, progress):
    raise InputError("no such thing")


def stumble(*, progress):
    raise KeyError("a bug")


def die(*, progress):
    os.kill(os.getpid(), signal.SIGKILL)


def start_and_wait(path, *, progress):
    """Starts a process of its own too, as vLLM does, and waits."""
    other = subprocess.Popen(["sleep", "600"])
    path.write_text(f"{os.getpid()} {other.pid}")
    time.sleep(600)


def gone(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_for(check):
    end = time.monotonic() + 60
    while not check():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_results_and_progress_come_back_from_another_process():
    said = []
    ((found, pid),) = side_by_side(double, [[21]], progress=lambda *words: said.append(words))
    assert (found, said) == (42, [("half", 1, 2)])
    assert pid != os.getpid()
    assert gone(pid)


def test_several_side_by_side_answer_in_order_and_add_up():
    said = []
    found = side_by_side(double, [[1], [2], [3]], progress=lambda *words: said.append(words))
    assert [number for number, _ in found] == [2, 4, 6]
    assert len({pid for _, pid in found}) == 3
    assert said[-1] == ("half", 3, 6)


def refuse_or_wait(number, path, *, progress):
    """The first one fails as soon as the other has begun to wait."""
    if number:
        start_and_wait(path, progress=progress)
    while not path.is_file():
        time.sleep(0.05)
    raise InputError("no such thing")


def test_an_error_of_one_ends_all(tmp_path):
    with pytest.raises(InputError, match="no such thing"):
        side_by_side(refuse_or_wait, [[0, tmp_path / "pids"], [1, tmp_path / "pids"]])
    wait_for(lambda: all(gone(pid) for pid in (tmp_path / "pids").read_text().split()))


@pytest.mark.parametrize(
    ("work", "error", "message"),
    [
        (refuse, InputError, "no such thing"),
        (stumble, PrismError, "stumble failed in its process: KeyError"),
        (die, PrismError, "die: its process ended without a result .exit code -9"),
    ],
)
def test_errors_come_back(work, error, message):
    with pytest.raises(error, match=message):
        side_by_side(work, [[]])


def test_it_ends_with_the_process_that_started_it_and_takes_its_own_along(tmp_path):
    code = (
        f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r})\n"
        "from pathlib import Path\nimport test_apart\nfrom prism_nemo.evaluation.apart import side_by_side\n"
        "if __name__ == '__main__': "
        f"side_by_side(test_apart.start_and_wait, [[Path({str(tmp_path / 'pids')!r})]])\n"
    )
    (tmp_path / "main.py").write_text(code)
    parent = subprocess.Popen([sys.executable, str(tmp_path / "main.py")])
    wait_for(lambda: (tmp_path / "pids").is_file() and len((tmp_path / "pids").read_text().split()) == 2)
    parent.kill()
    parent.wait()
    wait_for(lambda: all(gone(pid) for pid in (tmp_path / "pids").read_text().split()))
