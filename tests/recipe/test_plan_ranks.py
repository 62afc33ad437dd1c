"""Parameter, gradient and optimizer bytes of the plan against Megatron models that two ranks share, to the byte."""

import sys
from pathlib import Path

import pytest

from prism_nemo.models.facts import BASES, shape
from prism_nemo.models.limits import legal_pipeline, legal_tensor
from prism_nemo.models.pico import make_pico, pico_config
from prism_nemo.recipe.parts import Parallel, Training
from prism_nemo.recipe.plan.memory import stage_memory

sys.path.insert(0, str(Path(__file__).parent))  # ranks import the functions of plan_ranks by name

import plan_ranks

SIZES = {"vocab_size": 511, "hidden": 64, "layers": 4, "heads": 4, "kv_heads": 2, "ffn": 96, "chunk": 32}


def planned(name: str, tensor: int, pipeline: int, precision: str) -> list[dict[str, int]]:
    """Per pipeline stage."""
    parallel = Parallel(nodes=1, devices_per_node=2, tensor=tensor, pipeline=pipeline)
    training = Training(seq_length=32, global_batch=2)
    sizes = shape(pico_config(name, **SIZES))
    keys = ("parameters", "weights", "gradients", "optimizer")
    stages = stage_memory(sizes, training, parallel, precision)  # type: ignore[arg-type]
    return [{key: getattr(stage, key) for key in keys} for stage in stages]


@pytest.mark.slow
def test_bytes_of_every_rank(tmp_path: Path) -> None:
    from prism_nemo.engine.local import call_local

    cases = []
    for name in BASES:
        sizes = shape(pico_config(name, **SIZES))
        make_pico(name, tmp_path / name, **SIZES)
        layouts = [(2, 1)] * (2 in legal_tensor(sizes)) + [(1, 2)] * (2 in legal_pipeline(sizes)) + [(1, 1)]
        cases += [(name, *layout, precision) for layout in layouts for precision in ("fp32", "bf16")]
    assert sum(tensor == 2 for _, tensor, *_ in cases) >= 12
    assert sum(pipeline == 2 for _, _, pipeline, _ in cases) >= 12

    found = call_local(plan_ranks.held, [(tmp_path / name, *rest) for name, *rest in cases], processes=2)
    for case, ranks in zip(cases, found, strict=True):
        stages = planned(*case)
        if case[1] == 2:
            assert ranks == stages * 2, case
        elif case[2] == 2:
            assert ranks == stages, case
        else:  # two copies of the model share the optimizer; where the cut falls depends on Megatron's padding
            (alone,) = stages
            for key in ("parameters", "weights", "gradients"):
                assert [rank[key] for rank in ranks] == [alone[key]] * 2, case
            each = 12 if case[3] == "bf16" else 8
            assert sum(rank["optimizer"] for rank in ranks) == each * alone["parameters"], case
            assert max(rank["optimizer"] for rank in ranks) == pytest.approx(alone["optimizer"], rel=0.02), case
