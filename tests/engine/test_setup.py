"""Models of all seven families against transformers; refusals."""

import json
import os
import subprocess
import sys
from pathlib import Path

import engine_ranks
import pytest
import torch

from prism_nemo.engine import build_model, local, prepare
from prism_nemo.engine.setup import join_process_group
from prism_nemo.errors import InputError, Stopped

FAMILIES = ["llama", "mistral", "mistral_small", "granite", "granite_4", "granite_4_h", "nemotron_h"]


@pytest.fixture(scope="module")
def ids() -> list[list[int]]:
    # transformers 5.12.1 scans Nemotron-H wrongly beyond one chunk (32 here); 30 is more than four sliding windows.
    return torch.randint(0, 256, (2, 30), generator=torch.Generator().manual_seed(1)).tolist()


def reference(path: str, ids: list[list[int]]) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()(torch.tensor(ids)).logits


@pytest.mark.slow
@pytest.mark.parametrize("kind", FAMILIES)
def test_logits_equal_transformers(models, ids, kind):
    expected = reference(models[kind], ids)
    ours = torch.tensor(local.call_local(engine_ranks.logits, models[kind], ids))[..., : expected.shape[-1]]
    assert (ours - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.slow
def test_parameter_names_are_known_without_building_the_model(models):
    from prism_nemo.models.facts import read_config, shape
    from prism_nemo.models.megatron_names import parameter_names

    paths = [models[kind] for kind in FAMILIES]
    for path, names in zip(paths, local.call_local(engine_ranks.parameter_names, paths), strict=True):
        assert sorted(parameter_names(shape(read_config(Path(path))))) == sorted(names), path


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mistral", "nemotron_h"])
def test_logits_of_two_tensor_parallel_ranks(models, ids, kind):
    expected = reference(models[kind], ids)
    ours = torch.tensor(local.call_local(engine_ranks.logits, models[kind], ids, 2, processes=2))
    assert (ours[..., : expected.shape[-1]] - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.slow
def test_sliding_window_matters(models, ids, tmp_path):
    """The window of 7 is seen: without it the logits are others, and both agree with transformers."""
    import shutil

    shutil.copytree(models["mistral"], tmp_path / "full")
    config = json.loads((tmp_path / "full/config.json").read_text())
    (tmp_path / "full/config.json").write_text(json.dumps(config | {"sliding_window": None}))
    full, windowed = (
        torch.tensor(local.call_local(engine_ranks.logits, str(path), ids))
        for path in (tmp_path / "full", models["mistral"])
    )
    assert torch.equal(full[:, :7], windowed[:, :7])
    assert (full[:, 8:] - windowed[:, 8:]).abs().max() > 1e-2 * full.abs().max()
    assert (full - reference(str(tmp_path / "full"), ids)).abs().max() <= 1e-5 * full.abs().max()


def test_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no config\.json"):
        build_model(tmp_path)


def test_other_versions_are_refused(monkeypatch):
    from prism_nemo.engine import setup

    monkeypatch.setitem(setup.VERSIONS, "megatron-core", "0.18.0")
    with pytest.raises(InputError, match=r"megatron-core 0\.19\.2 is installed, the engine is made for 0\.18\.0"):
        setup._check_versions()


def test_patches_are_few_and_listed():
    from prism_nemo.engine.cpu import inventory

    prepare()
    from prism_nemo.engine.cpu import adam, collectives, layers, mamba, writer

    replaced = [
        adam.mend(),
        mamba.lend(),
        layers.lend_rotary_embedding(),
        collectives.skip_alone(),
        writer.stay_in_process(),
        writer.fork_to_save(),
    ]
    in_megatron = {name for names in replaced for name in names} | {"setup.initialize_megatron"}
    assert in_megatron == set(inventory.IN_MEGATRON)
    names = inventory.patched_names()
    assert "torch.cuda.current_device" in names
    assert len(names) == len(set(names)) <= 40
    assert inventory.stand_ins() == ["nvidia_resiliency_ext", "transformer_engine"]


def test_engine_is_cheap_to_import():
    """The command line imports jobs and the local runner; torch and Megatron must wait."""
    code = "import sys, prism_nemo.engine.local, prism_nemo.engine.job; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, check=False).returncode == 0


@pytest.mark.slow
def test_call_local_runs_prepared_ranks_and_reports_errors(tmp_path):
    assert local.call_local(engine_ranks.whoami, "hello", processes=2) == ("hello", "0/2", True)
    with pytest.raises(Exception, match=r"^rank 1 failed: ValueError: the pipe is broken; see .*rank1\.log$"):
        local.call_local(engine_ranks.fail_in_rank, 1, processes=2, logs=tmp_path)
    assert "fail_in_rank" in (tmp_path / "rank1.log").read_text()
    with pytest.raises(Exception, match=r"rank 1 died: signal SIGKILL \(out of memory\?\)"):
        local.call_local(engine_ranks.die_in_rank, 1, processes=2)


@pytest.mark.slow
def test_a_stop_that_the_ranks_do_not_hear_is_not_lost():
    with pytest.raises(Stopped, match="stopped on request"):
        local.call_local(engine_ranks.ask_to_stop, os.getpid())


def test_more_ranks_than_gpus_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr("prism_nemo.engine.setup.has_gpu", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError, match=r"2 ranks and 1 GPU\(s\): lower parallel.processes"):
        join_process_group(0, 2, tmp_path / "rendezvous")
