"""`prism doctor`: what it says of the sandbox."""

import pytest

from prism_nemo import sandbox
from prism_nemo.launch.doctor import examine
from prism_nemo.sandbox import Mode


@pytest.mark.parametrize(
    ("mode", "fault", "state", "found"),
    [
        (Mode.BUBBLEWRAP, None, "good", "bubblewrap"),
        (Mode.RLIMITS, None, "note", "rlimits: the weaker mode, limits without walls"),
        (None, "bwrap is not installed", "missing", "bwrap is not installed"),
    ],
)
def test_the_sandbox_is_said_as_it_is(
    monkeypatch: pytest.MonkeyPatch, mode: Mode | None, fault: str | None, state: str, found: str
) -> None:
    monkeypatch.setattr(sandbox, "active_mode", lambda: mode)
    monkeypatch.setattr(sandbox, "why_not", lambda: fault)
    finding = examine()[-1]
    assert (finding.what, finding.state, finding.found) == ("sandbox", state, found)
