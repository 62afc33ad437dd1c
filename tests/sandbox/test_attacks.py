"""No attack escapes, survives or delays the caller: as the present user and, where the tests run as root, as nobody."""

import subprocess
import sys
import time
from pathlib import Path

import attacks
import pytest
from attacks import ATTACKS, Attack
from nobody import as_nobody

from prism_nemo import sandbox

pytestmark = pytest.mark.skipif(
    sandbox.active_mode() is not sandbox.Mode.BUBBLEWRAP, reason=f"needs the strong sandbox: {sandbox.why_not()}"
)
MARGIN_SECONDS = 20
"""For a loaded machine; the limit itself is 3 seconds where it is reached."""


def hold(attack: Attack, struck: dict) -> None:
    assert "ESCAPED" not in struck["stdout"], struck
    assert struck["outcome"] in attack.outcomes, struck
    assert attack.says in struck["stdout"], struck
    assert struck["output"] <= 1 << 20
    assert struck["seconds"] < attack.wall_seconds + MARGIN_SECONDS


@pytest.fixture(scope="module")
def bystander():
    with attacks.caller_with_secrets() as process:
        yield process


@pytest.mark.parametrize("attack", ATTACKS, ids=[attack.name for attack in ATTACKS])
def test_attack_fails(attack, bystander):
    hold(attack, attacks.strike(attack))
    assert bystander.poll() is None


def test_no_child_stays():
    for _ in range(100):  # the kernel clears a namespace away after the call has returned
        if not attacks.survivors():
            return
        time.sleep(0.1)
    raise AssertionError(attacks.survivors())


def test_the_listening_socket_is_within_reach_without_walls(bystander):
    (code,) = [attack.code for attack in ATTACKS if attack.name == "sockets"]
    assert "ESCAPED abstract" in subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout


def test_an_ordinary_user_is_as_safe(tmp_path_factory):
    first, *struck, last = as_nobody(Path(attacks.__file__), tmp_path_factory.mktemp("nobody"))
    assert first == {"mode": "bubblewrap", "why_not": None, "uid": 65534}
    assert [entry["name"] for entry in struck] == [attack.name for attack in ATTACKS]
    for attack, entry in zip(ATTACKS, struck, strict=True):
        hold(attack, entry)
    assert last == {"bystander_lives": True}
