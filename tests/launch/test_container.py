"""The image: linted, its versions checked, and built for real on a stand-in base where buildah is there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from prism_nemo.engine.setup import VERSIONS
from prism_nemo.launch import versions

ROOT = Path(__file__).parents[2]
PYTHON = Path(sys.base_prefix)
BUILDAH = ["buildah", "--storage-driver", "vfs"]


def test_hadolint_is_clean() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    result = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "")


def test_everything_that_is_copied_gets_past_dockerignore() -> None:
    copied = re.findall(r"^COPY (.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    allowed = (ROOT / ".dockerignore").read_text().splitlines()
    assert {f"!{name}" for line in copied for name in line.split()} <= set(allowed)


def test_container_requirements_are_pinned_as_elsewhere_and_touch_nothing_of_the_base() -> None:
    pins = {name: _pins(ROOT / "requirements" / f"{name}.txt") for name in ("main", "container")}
    assert pins["container"].items() <= pins["main"].items()
    kept = {"torch", "numpy", "transformers", "megatron-core", "megatron-bridge", "triton", "tokenizers", "packaging"}
    kept |= {"antlr4-python3-runtime", "omegaconf", "hydra-core"}
    assert not kept & set(pins["container"])


def _pins(path: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", path.read_text(), re.MULTILINE))


def test_supported_versions_are_the_engines() -> None:
    assert versions.SUPPORTED == VERSIONS


def test_wrong_and_missing_versions_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed = {**versions.SUPPORTED, "megatron-core": "0.18.0", "torch": "2.11", "transformer-engine": "2.9"}
    monkeypatch.setattr(versions, "_version", installed.get)
    assert versions.problems() == ["mamba-ssm is not installed", "megatron-core is 0.18.0, supported is 0.19.2"]
    assert versions.main() == 2
    assert "choose another BASE_IMAGE" in capsys.readouterr().err


@pytest.fixture
def base(tmp_path: Path) -> str:
    """An image with a shell and this Python, in the place of the NeMo container."""
    if shutil.which("buildah") is None or os.geteuid() != 0:
        pytest.skip("building an image needs buildah and root")
    folder = tmp_path / "base"
    extensions = [str(path) for path in PYTHON.glob("lib/python3.12/lib-dynload/*.so")]
    _copy_programs(
        folder, ["/bin/bash", "/bin/sh", "/bin/cat", "/bin/rm", "/usr/bin/env", f"{PYTHON}/bin/python3.12", *extensions]
    )
    expected = ["libgcc_s.so.1", "libstdc++.so.6", "librt.so.1", "libpthread.so.0", "libdl.so.2", "libutil.so.1"]
    for library in expected:  # what wheels expect of a system
        _copy_if_there(next(Path("/lib").glob(f"*-linux-gnu/{library}")), folder / "lib" / library)
    unneeded = shutil.ignore_patterns("__pycache__", "test", "tests", "idlelib", "tkinter", "site-packages", "*.a")
    shutil.copytree(PYTHON / "lib", folder / PYTHON.relative_to("/") / "lib", ignore=unneeded, dirs_exist_ok=True)
    packages = Path("lib/python3.12/site-packages")
    for found in (PYTHON / packages).glob("pip*"):
        shutil.copytree(found, folder / PYTHON.relative_to("/") / packages / found.name)
    for name in ("etc/ssl", "etc/pip.conf", "root/.config/pip", "usr/local/share/ca-certificates", "usr/lib/ssl"):
        _copy_if_there(Path("/") / name, folder / name)
    (folder / "tmp").mkdir()
    (folder / "usr" / "bin" / "apt-get").write_text('#!/bin/sh\necho "$@" >> /apt.log\n')  # no Debian to install from
    (folder / "usr" / "bin" / "apt-get").chmod(0o755)
    passed = [name for name in os.environ if re.match(r"PIP_|SSL_CERT|REQUESTS_CA|HTTPS?_PROXY|NO_PROXY", name.upper())]
    lines = ["FROM scratch", "COPY . /", f"ENV PATH={PYTHON}/bin:/usr/bin:/bin"]
    lines += [f'ENV {name}="{os.environ[name]}"' for name in passed]
    lines.append("RUN python3.12 -m pip install --no-cache-dir pyyaml pydantic numpy")  # the NeMo container has them
    (tmp_path / "Basefile").write_text("\n".join(lines) + "\n")
    tag = ["--tag", "localhost/prism-base", "--file", str(tmp_path / "Basefile")]
    try:
        _buildah(tmp_path, "bud", "--network", "host", *tag, str(folder))
    except AssertionError as error:  # the stand-in itself: a container without the rights, or no package index
        pytest.skip(f"no image can be built here: {str(error).strip().splitlines()[-1]}")
    return "localhost/prism-base"


def _copy_programs(folder: Path, programs: list[str]) -> None:
    listed = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=True).stdout
    for name in {*programs, *re.findall(r"^\s+(?:\S+ => )?(/\S+)", listed, re.MULTILINE)}:
        target = folder / name.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(name, target)


def _copy_if_there(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    elif source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)


def _buildah(folder: Path, *arguments: str) -> str:
    storage = ["--root", str(folder / "storage"), "--runroot", str(folder / "runroot")]
    isolation = ["--isolation", "chroot"] if arguments[0] in ("bud", "run") else []
    command = [*BUILDAH, *storage, arguments[0], *isolation, *arguments[1:]]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    return result.stdout


@pytest.mark.slow
def test_image_builds_and_its_doctor_runs(base: str, tmp_path: Path) -> None:
    options = ["--build-arg", f"BASE_IMAGE={base}", "--build-arg", "CHECK=0", "--build-arg", "PYTHON=python3.12"]
    _buildah(tmp_path, "bud", "--pull-never", "--network", "host", *options, "--tag", "localhost/prism", str(ROOT))
    container = _buildah(tmp_path, "from", "--pull-never", "localhost/prism").strip()
    assert "prism" in _buildah(tmp_path, "run", container, "--", "prism", "--help")
    installed = _buildah(tmp_path, "run", container, "--", "cat", "/apt.log")
    assert installed.splitlines() == ["update", "install -y --no-install-recommends bubblewrap libseccomp2 g++"]
    doctor = _buildah(tmp_path, "run", container, "--", "prism", "doctor", "--json")
    assert '"not installed; training needs it"' in doctor
    plan = _buildah(tmp_path, "run", container, "--", "prism", "plan", "llama_3_1_8b")
    assert "8,030,261,248 parameters" in plan
