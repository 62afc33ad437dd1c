"""Cluster profiles: `slurm/profiles/NAME.toml`, or any TOML file. `extends` names the profile it adds to."""

import dataclasses
import difflib
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prism_nemo.errors import InputError

PROFILES = Path(__file__).parents[2] / "slurm" / "profiles"
SIGNAL_MARGIN = 60
"""Seconds that SLURM may send its signal late or early (it looks every 30)."""
SECRET = re.compile(r"(^|_)(TOKEN|KEY|SECRET|PASSWORD|PASSWD|CREDENTIALS?)(_|$)", re.IGNORECASE)
"""Names whose values are nobody else's business."""
UNSAFE = re.compile(r"[\s$`\"'\\;&|<>()*?\[\]{}!#~]")
"""nemo-run puts these values unquoted into the job script (NVIDIA-NeMo/Run pull request 556): they are refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """How jobs are made on one cluster."""

    name: str = ""
    """Of the file; set by `load_profile`."""
    account: str
    """Charged for the jobs."""
    partition: str = ""
    """Empty: the cluster's default."""
    qos: str = ""
    time: str = "04:00:00"
    """Limit of one slice, HH:MM:SS or D-HH:MM:SS."""
    gpus_per_node: int = 8
    """0: none are asked for."""
    cpus_per_task: int = 0
    """0: the cluster's default."""
    mem: str = ""
    """Per node, as sbatch takes it; `0` is all."""
    exclusive: bool = False
    """Whole nodes."""
    container_image: str = ""
    """Enroot .sqsh file or registry name for pyxis; empty: no container."""
    mounts: tuple[str, ...] = ()
    """SRC:DST[:FLAGS] for the container; the run's folder is mounted anyway."""
    python: str = ""
    """Interpreter of the jobs; empty: `python` in a container, this one without."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables of the jobs. They appear in job scripts and logs: no secrets here."""
    secrets: tuple[str, ...] = ()
    """Names of variables that jobs get from the submitting shell, through SLURM's own environment; never written."""
    setup: tuple[str, ...] = ()
    """Shell lines before the work, such as `module load ...`."""
    srun_args: tuple[str, ...] = ()
    """Further options of srun."""
    sbatch: dict[str, str] = field(default_factory=dict)
    """Further options of sbatch, without dashes."""
    save_seconds: int = 300
    """Time a trainer needs to finish its step and save; the signal comes that much and a minute before the limit."""
    max_slices: int = 100
    """Slices of one job at most; then it is left stopped."""
    stalled_slices: int = 3
    """Slices that begin at the same step, after stops or crashes, before the job is given up."""
    nemo_rl: str = ""
    """Checkout of NeMo-RL on the shared file system, whose ray.sub starts reinforcement learning."""
    rl_cluster: dict[str, str] = field(default_factory=dict)
    """Further settings of NeMo-RL's job (`prism_nemo.rl.nemo_rl.cluster.Cluster`): sandbox, setup, reward_workers, ...
    A recipe's `rl.cluster` wins."""
    prepare_jobs: int = 1
    """Jobs of an array that share the making of token files."""
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Stage name, or `cpu` for all stages that need no GPU -> keys above that differ there."""

    def for_stage(self, stage: str, *, gpu: bool) -> "Profile":
        """The profile with what differs for this stage; tables are joined."""
        changes = _over({} if gpu else self.stages.get("cpu", {}), self.stages.get(stage, {}))
        tables = {key: {**getattr(self, key), **value} for key, value in changes.items() if isinstance(value, dict)}
        return dataclasses.replace(self, **_typed({**changes, **tables}, self.name))


def load_profile(name_or_path: str) -> Profile:
    """A profile by name or path. Raises InputError for a missing file, an unknown key or a value that is unsafe."""
    raw = _read(name_or_path, ())
    path = _find(name_or_path)
    if "account" not in raw:
        raise InputError(f"{path}: no key 'account'")
    for stage, changes in raw.get("stages", {}).items():
        _typed(changes, f"{path}: stages.{stage}")
    profile = Profile(name=path.stem, **_typed(raw, str(path)))
    _check(profile, str(path))
    for stage in profile.stages:
        _check(profile.for_stage(stage, gpu=True), f"{path}: stages.{stage}")
    return profile


def _find(name_or_path: str) -> Path:
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = PROFILES / f"{name_or_path}.toml"
    if not path.is_file():
        known = ", ".join(sorted(entry.stem for entry in PROFILES.glob("*.toml")))
        raise InputError(f"no profile '{name_or_path}': neither a .toml file nor one of {known}")
    return path


def _read(name_or_path: str, seen: tuple[Path, ...]) -> dict[str, Any]:
    """The keys of a profile over those it extends; tables, and those in tables, are joined key by key."""
    path = _find(name_or_path).resolve()
    if path in seen:
        raise InputError(f"{path}: extends itself")
    try:
        raw = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is not valid TOML: {error}") from None
    parent = raw.pop("extends", None)
    if parent is None:
        return raw
    beside = path.parent / f"{parent}.toml"
    return _over(_read(str(beside) if beside.is_file() else parent, (*seen, path)), raw)


def _over(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    tables = {key for key, value in own.items() if isinstance(value, dict) and isinstance(base.get(key), dict)}
    return {**base, **own, **{key: _over(base[key], own[key]) for key in tables}}


def _typed(raw: dict[str, Any], where: str) -> dict[str, Any]:
    """Values as the fields want them: lists become tuples. Raises InputError for an unknown key or a wrong type."""
    fields = {entry.name: entry for entry in dataclasses.fields(Profile) if entry.name != "name"}
    values = {}
    for key, value in raw.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            raise InputError(f"{where}: unknown key '{key}'" + (f"; did you mean '{near[0]}'?" if near else ""))
        values[key] = _value(fields[key].type, value, f"{where}: {key}")
    return values


def _value(kind: Any, value: Any, where: str) -> Any:
    if kind == tuple[str, ...]:
        if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
            return tuple(value)
        raise InputError(f"{where} must be a list of texts")
    if kind == dict[str, str]:
        if isinstance(value, dict):
            return {name: str(entry) for name, entry in value.items()}
        raise InputError(f"{where} must be a table")
    wanted = {str: str, int: int, bool: bool}.get(kind, dict)
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        raise InputError(f"{where} is {value!r}; {wanted.__name__} is wanted")
    return value


def _check(profile: Profile, path: str) -> None:
    """Raise InputError for values that would be split or expanded in the job script; `path`: where they stand."""
    if not re.fullmatch(r"(\d+-)?\d+(:\d\d){0,2}", profile.time):
        raise InputError(f"{path}: time {profile.time!r} is not of the form HH:MM:SS or D-HH:MM:SS")
    if seconds(profile.time) <= profile.save_seconds + SIGNAL_MARGIN:
        raise InputError(
            f"{path}: of time {profile.time} nothing is left for work when the signal to save comes"
            f" {profile.save_seconds} + {SIGNAL_MARGIN} seconds before its end; raise time or lower save_seconds"
        )
    unquoted = {
        "container_image": [profile.container_image],
        "mounts": profile.mounts,
        "srun_args": profile.srun_args,
        "environment": [*profile.environment, *profile.environment.values()],
        "python": [profile.python],
        "nemo_rl": [profile.nemo_rl],
    }
    for key, values in unquoted.items():
        for value in values:
            if UNSAFE.search(value):
                raise InputError(f"{path}: {key} has {value!r}; blanks and shell characters cannot be passed on")
    for name in profile.environment:
        if name in profile.secrets or SECRET.search(name):
            raise InputError(
                f"{path}: {name} in `environment` would be written into scripts and logs; set it in your shell and name"
                " it under `secrets`"
            )
        if name != name.upper():
            raise InputError(f'{path}: nemo-run would pass {name} in capitals; use setup = ["export {name}=..."]')


def seconds(time: str) -> int:
    """Of an sbatch time: minutes, MM:SS, HH:MM:SS, or days before a dash."""
    days, _, rest = time.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if days:
        hours, minutes, seconds = (*parts, 0, 0)[:3]
    else:
        hours, minutes, seconds = {1: (0, *parts, 0), 2: (0, *parts), 3: tuple(parts)}[len(parts)]
    return int(days or 0) * 86_400 + hours * 3600 + minutes * 60 + seconds
