"""The transformers backend on a GPU: likelihoods against a CPU's fp32.

Bands, of the nats of single tokens: fp32 1e-3 (kernels differ), bf16 0.05 on average.
"""

import numpy as np
import pytest

from prism_nemo.evaluation.backends.hf import HfBackend
from prism_nemo.models.facts import BASES

PAIRS = [([5, 9, 13, 17, 21, 3], [8, 7]), ([40, 41], [42, 43, 44, 45]), ([7], [6]), (list(range(10, 60)), [1, 2, 3])]


def nats(model, device: str, dtype: str) -> np.ndarray:
    """Of every token of the continuations of PAIRS."""
    found = dict(HfBackend(model, device=device, dtype=dtype).likelihoods(PAIRS))
    return np.concatenate([found[place].nats for place in range(len(PAIRS))])


@pytest.mark.parametrize(
    ("device", "base"),
    [("cpu", "granite_4_0_h_micro"), *(pytest.param("cuda", base, marks=pytest.mark.gpu) for base in BASES)],
)
def test_likelihoods_of_a_device_are_those_of_fp32_on_a_cpu(pico, device, base):
    expected = nats(pico(base), "cpu", "float32")
    assert expected.std() > 0.1  # a model that says something
    assert nats(pico(base), device, "float32") == pytest.approx(expected, abs=1e-3)
    rounded = nats(pico(base), device, "bfloat16")
    assert 0 < np.abs(rounded - expected).mean() < 0.05
