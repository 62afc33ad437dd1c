"""The Granite bridges: importing them is all it takes, and what they rely on in Megatron holds."""

import subprocess
import sys

import pytest

from prism_nemo.models.facts import base_model

pytestmark = pytest.mark.slow
PLUGIN = """
import sys
from prism_nemo.engine.setup import prepare
prepare()  # on a machine without a GPU Megatron can be imported only so
for name in [name for name in sys.modules if name.startswith("prism_nemo")]:
    del sys.modules[name]
from megatron.bridge import AutoBridge
from transformers import GraniteConfig, GraniteMoeHybridConfig
configs = [kind(architectures=[name]) for kind, name in (
    (GraniteConfig, "GraniteForCausalLM"), (GraniteMoeHybridConfig, "GraniteMoeHybridForCausalLM"))]
for config in configs:
    try:
        AutoBridge.from_hf_config(config)
    except ValueError:
        continue
    sys.exit("known to Megatron-Bridge itself: the bridges here can go")
import prism_nemo.models.bridges
print([type(AutoBridge.from_hf_config(config)._model_bridge).__name__ for config in configs])
print(sorted(name for name in sys.modules if name.startswith("prism_nemo.")))
"""


def test_one_import_registers_them_and_needs_nothing_else_of_this_package():
    done = subprocess.run([sys.executable, "-c", PLUGIN], capture_output=True, text=True, check=True)
    bridges, modules = done.stdout.splitlines()[-2:]
    assert bridges == "['GraniteBridge', 'GraniteHybridBridge']"
    names = ["", ".bridges", ".bridges.granite", ".bridges.granite_hybrid"]
    assert modules == str([f"prism_nemo.models{name}" for name in names])


def test_the_gated_norm_has_the_epsilon_of_granite():
    """Megatron hard-wires it; the stream's norms have eps / r^2 beside it."""
    from prism_nemo.engine.local import call_local

    assert base_model("granite_4_0_h_micro").config["rms_norm_eps"] == 1e-5
    gated, others = call_local(norms_of_a_hybrid)
    assert gated == [1e-5] * 3
    assert others == [pytest.approx(1e-5 / 0.22**2)]


def norms_of_a_hybrid():
    """(epsilons of the gated norms, of all others) of a Granite-4-H as Megatron builds it."""
    import tempfile
    from pathlib import Path

    from prism_nemo.checkpoints.megatron import meta_model
    from prism_nemo.models.pico import make_pico

    with tempfile.TemporaryDirectory() as folder:
        model, _ = meta_model(make_pico("granite_4_0_h_micro", Path(folder), vocab_size=301), None)
    found = {name: module.eps for name, module in model.named_modules() if hasattr(module, "eps")}
    gated = [name for name in found if name.endswith("mixer.norm")]
    return [found[name] for name in gated], [eps for name, eps in found.items() if name not in gated]
