"""A SLURM cluster of virtual nodes on this machine, for tests: real slurmctld and slurmd, on loopback, as root.

No systemd and no cgroups are needed. Everything lives in one folder; nothing else is changed but Debian packages, which
are installed when they are missing, and empty mount points of container tests, which are removed.
"""

import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

PACKAGES = {"slurmctld": "slurmctld", "slurmd": "slurmd", "srun": "slurm-client", "munged": "munge"}
STUB = Path(__file__).parents[2] / "slurm" / "test_cluster" / "pyxis_stub.c"
WAIT_SECONDS = 60.0
APT_SECONDS = 300.0
NODE = "TEST_CLUSTER_NODE"
"""Environment variable of a node's slurmd and of the step daemons that it starts."""


class UnavailableError(Exception):
    """Why there can be no cluster here, in one line."""


class Cluster:
    """`start`, use `environment` for SLURM's commands, `stop`."""

    def __init__(self, folder: Path, *, nodes: int = 2, cpus: int = 64, gpus: int = 8) -> None:
        self.folder, self.cpus, self.gpus = folder, cpus, gpus
        self.names = [f"n{number}" for number in range(1, nodes + 1)]
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.up = False

    def start(self) -> None:
        """Raises UnavailableError without root or packages, and where a container forbids what the daemons need."""
        if os.geteuid() != 0:
            raise UnavailableError("a SLURM test cluster needs root")
        _install()
        try:
            self._start_daemons()
        except (TimeoutError, OSError) as error:
            raise UnavailableError(f"SLURM cannot be started here: {error}; {self._last_words()}") from None

    def _start_daemons(self) -> None:
        for name in ("state", "spool", "log", "dev", "tmp"):
            (self.folder / name).mkdir(parents=True)
        self._start_munge()
        self._write_configuration()
        self._start("slurmctld", ["slurmctld", "-D", "-c"])
        _wait(lambda: "is UP" in self.ask("scontrol", "ping"), "slurmctld")
        for name in self.names:
            (self.folder / "spool" / name).mkdir()
            self.start_node(name)
        _wait(lambda: all(state.startswith("idle") for state in self.node_states().values()), "slurmd")
        self.up = True
        if said := self.ask("srun", f"--nodes={len(self.names)}", "--immediate=30", "true"):
            raise OSError(f"a step that does nothing says {said.strip()}")

    def _last_words(self) -> str:
        """The last line of each daemon's log."""
        lines = {log.stem: log.read_text(errors="replace").splitlines() for log in (self.folder / "log").glob("*.log")}
        return "; ".join(f"{name}: {said[-1]}" for name, said in lines.items() if said)

    def start_node(self, name: str) -> None:
        self._start(name, ["slurmd", "-D", "-N", name], {NODE: name})

    def kill_node(self, name: str) -> None:
        """As if the machine lost power: its daemon and everything it started."""
        daemon = self.daemons.pop(name)
        daemon.kill()
        daemon.wait()
        for pid in self._left_by(name):
            _kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        jobs = self.ask("squeue", "--noheader", "--format=%A").split() if self.up else []
        if jobs:
            self.ask("scancel", "--signal=KILL", *jobs)
            self.ask("scancel", *jobs)
            deadline = time.monotonic() + 10
            while self.ask("squeue", "--noheader", "--format=%A").split() and time.monotonic() < deadline:
                time.sleep(0.2)
        for process in reversed(self.daemons.values()):
            process.kill()
            process.wait()
        for name in self.names:
            for pid in self._left_by(name):
                _kill(pid, signal.SIGKILL)
        made = self.folder / "mount_points"
        for line in reversed(made.read_text().splitlines() if made.is_file() else []):
            _remove_if_empty(Path(line))

    def ask(self, *command: str) -> str:
        """Output of one of SLURM's commands, standard error included."""
        result = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
        return result.stdout + result.stderr

    def node_states(self) -> dict[str, str]:
        lines = self.ask("sinfo", "--noheader", "--Node", "--format=%N %t").splitlines()
        return {line.split()[0]: line.split()[1] for line in lines if line.startswith("n")}

    def job_state(self, job_id: str) -> tuple[str, int]:
        """(SLURM's word, how often it was requeued)."""
        answer = self.ask("squeue", "--noheader", "--states=all", f"--jobs={job_id}", "--Format=State:|,RestartCnt:|")
        state, restarts, *_ = answer.split("|")
        return state.strip(), int(restarts)

    def minutes_used(self, job_id: str) -> int:
        """Whole minutes that the running slice of a job has had."""
        used = self.ask("squeue", "--noheader", f"--jobs={job_id}", "--Format=TimeUsed").strip()
        *hours, minutes, _ = (int(part) for part in used.split(":"))
        return sum(hours) * 60 + minutes

    def wait_for(self, job_id: str, *states: str, seconds: float = 120.0) -> tuple[str, int]:
        """The job's state and restarts once it is one of `states`."""
        last = ("", 0)

        def reached() -> bool:
            nonlocal last
            last = self.job_state(job_id)
            return last[0] in states

        _wait(reached, f"job {job_id} to be {' or '.join(states)} (it is {self.job_state(job_id)})", seconds)
        return last

    def _start(self, name: str, command: list[str], more: dict[str, str] | None = None) -> None:
        log = (self.folder / "log" / f"{name}.log").open("ab")
        self.daemons[name] = subprocess.Popen(
            command,
            env=self.environment | (more or {}),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def _start_munge(self) -> None:
        folder = self.folder / "munge"
        folder.mkdir(mode=0o700)
        (folder / "key").write_bytes(secrets.token_bytes(1024))
        (folder / "key").chmod(0o600)
        socket_file = self.folder / "munge.sock"
        options = {"key-file": folder / "key", "socket": socket_file, "pid-file": folder / "pid"}
        options |= {"log-file": folder / "log", "seed-file": folder / "seed"}
        self._start("munged", ["munged", "-F", "--force", *(f"--{key}={value}" for key, value in options.items())])
        _wait(lambda: subprocess.run(["munge", "-S", socket_file, "-n"], capture_output=True).returncode == 0, "munged")

    def _write_configuration(self) -> None:
        controller, *ports = _free_ports(1 + len(self.names))
        host, folder = socket.gethostname().split(".")[0], self.folder
        settings = {
            "ClusterName": "test",
            "SlurmctldHost": f"{host}(127.0.0.1)",
            "SlurmctldPort": controller,
            "SlurmUser": "root",
            "SlurmdUser": "root",
            # A requeued job may start again one second after its credential expires: 5 s, by default 120.
            "AuthInfo": f"socket={folder}/munge.sock,cred_expire=5",
            "StateSaveLocation": folder / "state",
            "SlurmdSpoolDir": folder / "spool" / "%n",
            "SlurmctldPidFile": folder / "slurmctld.pid",
            "SlurmdPidFile": folder / "%n.pid",
            "TmpFS": folder / "tmp",
            "ProctrackType": "proctrack/linuxproc",
            "TaskPlugin": "task/none",
            "JobAcctGatherType": "jobacct_gather/none",
            "SwitchType": "switch/none",
            "MpiDefault": "none",
            "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_CPU",
            "SlurmdParameters": "config_overrides",
            "SchedulerParameters": "sched_interval=2,bf_interval=2,batch_sched_delay=0",
            "ReturnToService": 2,
            "SlurmdTimeout": 10,
            "InactiveLimit": 0,
            "MessageTimeout": 60,  # for loaded machines
            "BatchStartTimeout": 60,
            "KillWait": 20,
            "JobRequeue": 1,
            "PreemptType": "preempt/partition_prio",
            "PreemptMode": "REQUEUE",
            "GresTypes": "gpu",
        }
        lines = [f"{key}={value}" for key, value in settings.items()]
        for name, port in zip(self.names, ports, strict=True):
            lines.append(
                f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={self.cpus}"
                f" RealMemory=200000 Gres=gpu:{self.gpus} State=UNKNOWN"
            )
        lines.append("PartitionName=batch Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=1 GraceTime=20 State=UP")
        lines.append("PartitionName=cpu Nodes=ALL State=UP")
        lines.append("PartitionName=urgent Nodes=ALL PriorityTier=10 PreemptMode=OFF State=UP")
        (folder / "slurm.conf").write_text("\n".join(lines) + "\n")
        # slurmd opens a cgroup plugin though nothing uses one; v1 named outright looks at nothing.
        (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        for number in range(self.gpus):
            _make_device(folder / "dev" / f"gpu{number}")
        devices = f"{folder}/dev/gpu[0-{self.gpus - 1}]"
        (folder / "gres.conf").write_text(f"NodeName=n[1-{len(self.names)}] Name=gpu File={devices}\n")

    def load_container_stub(self) -> None:
        """Make srun know pyxis's options; call before `start`. Raises UnavailableError without a compiler."""
        _install({"gcc": "gcc"})
        if not Path("/usr/include/slurm/spank.h").is_file():
            _apt("libslurm-dev", "libc6-dev")
        self.folder.mkdir(parents=True, exist_ok=True)
        library = self.folder / "pyxis_stub.so"
        subprocess.run(["gcc", "-O1", "-Wall", "-fPIC", "-shared", "-o", library, STUB], check=True)
        (self.folder / "plugstack.conf").write_text(f"required {library} {self.folder}/mount_points\n")

    def _left_by(self, node: str) -> list[int]:
        """Step daemons and tasks of a node of this cluster, and what the tasks started."""
        ours = self.environment["SLURM_CONF"]
        found = []
        for pid in _processes():
            values = _environment_of(pid)
            if values.get("SLURM_CONF") == ours and node in (values.get(NODE), values.get("SLURMD_NODENAME")):
                found.append(pid)
        return found


def _make_device(path: Path) -> None:
    """Another /dev/null; a plain file where a container forbids devices."""
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        path.touch()


def has_mount_namespaces() -> bool:
    """Whether the container stand-in can work here."""
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0


def _install(commands: dict[str, str] = PACKAGES) -> None:
    missing = [package for command, package in commands.items() if shutil.which(command) is None]
    if missing:
        _apt(*missing)


def _apt(*packages: str) -> None:
    """Install Debian packages without starting their services."""
    if shutil.which("apt-get") is None:
        raise UnavailableError(f"missing Debian packages: {' '.join(packages)}")
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists() and os.access(policy.parent, os.W_OK)
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        subprocess.run(["apt-get", "update", "-q"], env=environment, capture_output=True, timeout=APT_SECONDS)
        command = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *packages]
        subprocess.run(command, env=environment, capture_output=True, timeout=APT_SECONDS, check=True)
    except subprocess.SubprocessError:
        raise UnavailableError(f"cannot install Debian packages: {' '.join(packages)}") from None
    finally:
        if ours:
            policy.unlink()


def _wait(condition: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for entry in sockets:
            entry.bind(("127.0.0.1", 0))
        return [entry.getsockname()[1] for entry in sockets]
    finally:
        for entry in sockets:
            entry.close()


def _processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _read(pid: int, name: str) -> str:
    try:
        return (Path("/proc") / str(pid) / name).read_text(errors="replace")
    except OSError:
        return ""


def _environment_of(pid: int) -> dict[str, str]:
    return dict(entry.split("=", 1) for entry in _read(pid, "environ").split("\0") if "=" in entry)


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _remove_if_empty(path: Path) -> None:
    try:
        path.rmdir() if path.is_dir() else path.unlink()
    except OSError:
        return
