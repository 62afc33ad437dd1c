"""Profiles: inheritance, and every mistake found before anything is submitted."""

from pathlib import Path

import pytest

from prism_nemo.errors import InputError
from prism_nemo.launch.profile import PROFILES, load_profile


def written(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", sorted(path.stem for path in PROFILES.glob("*.toml")))
def test_shipped_profiles_load(name: str) -> None:
    assert load_profile(name).account


def test_extends_adds_and_joins_tables(tmp_path: Path) -> None:
    profile = load_profile(written(tmp_path, 'extends = "base"\naccount = "a"\n[environment]\nNCCL_DEBUG = "INFO"\n'))
    assert (profile.account, profile.time) == ("a", "04:00:00")
    assert profile.environment == {"NCCL_DEBUG": "INFO", "TOKENIZERS_PARALLELISM": "false"}


def test_a_profile_changes_one_key_of_a_stage_and_keeps_the_others(tmp_path: Path) -> None:
    text = 'extends = "enroot"\n[stages.cpu]\npartition = "small"\n[stages.rl.environment]\nA = "1"\n'
    profile = load_profile(written(tmp_path, text))
    blend, rl = profile.for_stage("blend", gpu=False), profile.for_stage("rl", gpu=True)
    assert (blend.partition, blend.mem, blend.exclusive) == ("small", "128G", False)
    assert (rl.container_image, rl.mem) == ("/shared/images/nemo-rl.sqsh", "2G")
    assert rl.environment == {**profile.environment, "A": "1"}


def test_stage_differs() -> None:
    profile = load_profile("enroot")
    assert profile.for_stage("rl", gpu=True).container_image.endswith("nemo-rl.sqsh")
    assert profile.for_stage("blend", gpu=False).partition == "cpu"
    assert profile.for_stage("midtrain", gpu=True).partition == "batch"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('account = "a"\nntask_per_node = 1\n', "unknown key 'ntask_per_node'"),
        ('account = "a"\npartiton = "x"\n', "did you mean 'partition'"),
        ('account = "a"\n[stages.rl]\ncontainer = "x"\n', "stages.rl: unknown key 'container'"),
        ('partition = "a"\n', "no key 'account'"),
        ('account = "a"\ngpus_per_node = "8"\n', "gpus_per_node is '8'; int is wanted"),
        ('account = "a"\nmounts = "/a:/b"\n', "mounts must be a list"),
        ('account = "a"\nmounts = ["/a b:/c"]\n', "blanks and shell characters"),
        ('account = "a"\ntime = "4h"\n', "time '4h' is not of the form"),
        ('account = "a"\nsecrets = ["T"]\n[environment]\nT = "x"\n', "T in `environment` would be written"),
        ('account = "a"\n[environment]\nWANDB_API_KEY = "x"\n', "WANDB_API_KEY in `environment` would be written"),
        ('account = "a"\n[environment]\nhttp_proxy = "x"\n', "pass http_proxy in capitals"),
        ('account = "a"\n[stages.rl.environment]\nHF_TOKEN = "x"\n', "stages.rl: HF_TOKEN in `environment`"),
        ('account = "a"\n[stages.rl]\ncontainer_image = "/a b"\n', "stages.rl: container_image has '/a b'"),
        ('account = "a"\n[stages.cpu]\ntime = "5"\n', "stages.cpu: of time 5 nothing is left"),
        ('account = "a"\nextends = "mine"\n', "extends itself"),
        ('account = "a"\nextends = "basse"\n', "no profile 'basse'"),
        ("account = \n", "is not valid TOML"),
    ],
)
def test_mistakes(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words.replace("(", r"\(")):
        load_profile(written(tmp_path, text))
