"""Run against a NeMo-RL checkout, in a process of its own:  python -O upstream.py ROOT COMMAND ARGUMENTS

NeMo-RL imports packages that only its container has; what is missing becomes an empty stand-in, but pydantic,
omegaconf, torch and Ray are real. -O leaves out its assertion on the version of transformers.
"""

import builtins
import json
import sys
import types
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

REAL = builtins.__import__


class StandIn(types.ModuleType):
    """A module in which every name is a class that takes anything."""

    __path__ = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        methods = {"__init__": lambda self, *a, **k: None, "__call__": lambda self, f=None, *a, **k: f}
        made = type(name, (), {**methods, "__class_getitem__": classmethod(lambda cls, key: cls)})
        setattr(self, name, made)
        return made


def lenient(name, globals=None, locals=None, fromlist=(), level=0):
    while True:
        try:
            return REAL(name, globals, locals, fromlist, level)
        except ModuleNotFoundError as error:
            asking = (globals or {}).get("__name__", "")
            if not asking.startswith("nemo_rl") or error.name.startswith("nemo_rl"):
                raise
            parts = error.name.split(".")
            for end in range(1, len(parts) + 1):
                sys.modules.setdefault(".".join(parts[:end]), StandIn(".".join(parts[:end])))


def validate(root: Path, files: list[str]) -> dict[str, str]:
    """File -> what the real MasterConfig and VllmConfig say of it, empty when they accept it."""
    from nemo_rl.algorithms.grpo import MasterConfig
    from nemo_rl.models.generation.vllm import VllmConfig
    from nemo_rl.utils.config import load_config, register_omegaconf_resolvers
    from omegaconf import OmegaConf
    from pydantic import TypeAdapter, ValidationError

    register_omegaconf_resolvers()
    said = {}
    for file in files:
        config = OmegaConf.to_container(load_config(file), resolve=True)
        # NeMo-RL fills these two in itself
        generation = {"skip_tokenizer_init": True, **config["policy"]["generation"]["vllm_cfg"]}
        try:
            MasterConfig(**config)
            TypeAdapter(VllmConfig).validate_python({**config["policy"]["generation"], "vllm_cfg": generation})
            said[file] = ""
        except ValidationError as error:
            said[file] = str(error)
    return said


def declared(kind: Any, path: list[str]) -> list[Any]:
    """Types that classes declare for a dotted path, through unions; empty when none does."""
    if not path:
        return [kind]
    options = get_args(kind) if get_origin(kind) is not None else (kind,)
    found = []
    for option in options:
        hints = get_type_hints(option) if hasattr(option, "__annotations__") else {}
        if path[0] in hints:
            found += declared(hints[path[0]], path[1:])
        elif get_origin(option) is not None:
            found += declared(option, path)
    return found


SAMPLES = {int: 3, float: 0.5, str: "x", bool: True, list: [], dict: {}, type(None): None}


def compare() -> dict[str, str]:
    """Our keys that the release declares otherwise, or not at all although the table says so."""
    from nemo_rl.algorithms.grpo import MasterConfig
    from nemo_rl.models.generation.vllm import VllmConfig
    from pydantic import TypeAdapter, ValidationError

    from prism_nemo.rl.nemo_rl.keys import KEYS, UNDECLARED

    wrong = {}
    for key, kind in KEYS.items():
        start, path = MasterConfig, key.split(".")
        if path[:2] == ["policy", "generation"]:
            start, path = VllmConfig, path[2:]
        found = declared(start, path)
        listed = any(key == name or key.startswith(f"{name}.") for name in UNDECLARED)
        if not found or listed:
            if bool(found) == listed and key not in UNDECLARED:
                wrong[key] = "no class declares it" if not found else "a class declares it"
            continue
        for option in getattr(kind, "__args__", (kind,)):
            sample = SAMPLES[type(None) if option is None else option]
            fits = False
            for theirs in found:
                try:
                    TypeAdapter(theirs).validate_python(sample, strict=type(sample) is not int)
                    fits = True
                except ValidationError:
                    pass
            if not fits:
                wrong[key] = f"{option} against {found}"
    return wrong


def judge(config_file: str, answers: str) -> dict[str, Any]:
    """NeMo-RL's own data set-up, environment actor and reward calculation, on texts that a model could have sampled."""
    import ray
    import torch
    import yaml
    from nemo_rl.data.collate_fn import rl_collate_fn
    from nemo_rl.data.utils import setup_response_data
    from nemo_rl.experience.rollouts import calculate_rewards
    from transformers import AutoTokenizer

    import prism_nemo.rl.nemo_rl.train as train

    sys.modules["hydra.utils"].get_object = by_name  # hydra may be absent; this is all that is used of it
    sys.modules["nemo_rl.environments.utils"].get_object = by_name
    train.register()
    config = yaml.safe_load(Path(config_file).read_text())
    ray.init(num_cpus=2, include_dashboard=False, logging_level="error")
    tokenizer = AutoTokenizer.from_pretrained(config["policy"]["model_name"])
    dataset, _, environments, _ = setup_response_data(tokenizer, config["data"], config["env"])
    texts = json.loads(Path(answers).read_text())
    batch = rl_collate_fn([dataset[index] for index in range(len(texts))])
    for log, info, text in zip(batch["message_log"], batch["extra_env_info"], texts, strict=True):
        ids = tokenizer(text.format(**json.loads(info["problem"])))["input_ids"]
        log.append({"role": "assistant", "content": "unused", "token_ids": torch.tensor(ids)})
    returned = calculate_rewards(batch, environments)
    prompts = [log[0]["token_ids"].tolist() for log in batch["message_log"]]
    ray.shutdown()
    return {"rewards": returned.rewards.tolist(), "ended": returned.terminateds.tolist(), "prompts": prompts}


def by_name(name: str) -> Any:
    import importlib

    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def main() -> None:
    root, command, *arguments = sys.argv[1:]
    import transformers

    transformers.__version__ = "5.8.1"  # the newest it takes
    sys.path.insert(0, root)
    builtins.__import__ = lenient
    done = {
        "validate": lambda: validate(Path(root), arguments),
        "compare": compare,
        "judge": lambda: judge(*arguments),
    }[command]()
    print("RESULT " + json.dumps(done))


if __name__ == "__main__":
    main()
