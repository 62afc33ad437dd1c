"""A machine that has Transformer Engine and Mamba's kernels but no GPU runs the CPU engine as any other does."""

import subprocess
import sys

import pytest

from prism_nemo.engine.cpu.standins import GPU_ONLY

PROGRAM = """
from prism_nemo.engine import prepare
prepare()
import megatron.bridge.training.pretrain
from megatron.core.optimizer import distrib_optimizer
from megatron.core.ssm import mamba_mixer
from transformers.utils.import_utils import is_mamba_2_ssm_available
from prism_nemo.engine.cpu import adam, standins
print(distrib_optimizer.HAVE_APEX_OR_TE, mamba_mixer.HAVE_MAMBA_SSM, is_mamba_2_ssm_available(), len(adam.mend()))
print(*standins.stand_ins())
"""


@pytest.mark.slow
def test_packages_of_a_gpu_are_hidden_where_none_is(tmp_path):
    for name in GPU_ONLY:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit(f'{__name__} was imported')\n")
    environment = {"PYTHONPATH": str(tmp_path), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-2:] == ["False False False 3", "nvidia_resiliency_ext transformer_engine"]
