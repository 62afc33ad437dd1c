"""`prism doctor`: what it says of the sandbox and of SLURM."""

import os
from pathlib import Path

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


@pytest.mark.parametrize(
    ("options", "state", "found"), [("--container-image=PATH", "good", "work"), ("--mem", "note", "not there")]
)
def test_whether_srun_starts_containers_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str, state: str, found: str
) -> None:
    for name, says in (("sbatch", "slurm 22.05.8"), ("srun", options)):
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{says}'\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    findings = {finding.what: finding for finding in examine()}
    assert (findings["SLURM"].found, findings["pyxis"].state) == ("slurm 22.05.8", state)
    assert found in findings["pyxis"].found


def test_a_slurm_without_a_cluster_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sbatch").write_text("#!/bin/sh\necho 'error: no configuration' >&2; exit 1\n")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    findings = {finding.what: finding for finding in examine()}
    assert (findings["SLURM"].found, findings["SLURM"].state) == ("error: no configuration", "missing")
    assert "pyxis" not in findings
