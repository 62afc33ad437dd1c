"""A checkpoint is the same model on both sides: what one trained, the other computes and trains on.

Tolerances (checkpoints/proof.py): fp32 logits 1e-4, absolute and of the largest; fp32 gradients 1e-3 of each tensor's
norm; bf16 a mean KL divergence of 1e-3 nats per token and 0.9 of the first choices. The judge is transformers on the
CPU, whose Nemotron-H mixer is replaced by the recurrence in fp64 (checkpoints/reference.py).
"""

import conversion_ranks
import pytest
import torch
from sides import compare, on, train, train_and_export

from prism_nemo.checkpoints.reference import hf_logits, load_hf
from prism_nemo.engine.local import call_local
from prism_nemo.engine.setup import has_gpu
from prism_nemo.models.facts import BASES

FEW = ["llama", "granite_4_h"]
ALL = ["llama", "mistral", "mistral_small", "granite", "granite_4", "granite_4_h", "nemotron_h"]
SIDES = [
    pytest.param("cpu", "cpu", FEW, marks=pytest.mark.slow),
    pytest.param("cpu", "cuda", ALL, marks=pytest.mark.gpu),
    pytest.param("cuda", "cpu", ALL, marks=pytest.mark.gpu),
    pytest.param("cuda", "cuda", ALL, marks=pytest.mark.gpu),
]


@pytest.fixture(scope="session")
def trained(models, blend, tmp_path_factory):
    """Folders of runs of three steps per kind, made on a device when first asked for: start, run, hf."""
    made: dict[tuple[str, str], str] = {}

    def make(device: str, kinds: list[str]) -> list[str]:
        missing = [kind for kind in kinds if (device, kind) not in made]
        for kind in missing:
            made[device, kind] = str(tmp_path_factory.mktemp(f"{device}_{kind}"))
        jobs = [short(models[kind], blend).to_json() for kind in missing]
        if missing:
            on(device, train_and_export, jobs, [made[device, kind] for kind in missing])
        return [made[device, kind] for kind in kinds]

    return make


def short(model: str, blend: str, **changes):
    from prism_nemo.engine.job import TrainJob

    values = {"model": model, "blend": blend, "checkpoints": "-", "seq_length": 48, "global_batch": 4, "steps": 3}
    values |= {"micro_batch": 2, "learning_rate": 3e-3, "min_learning_rate": 3e-4, "threads": 1}
    return TrainJob(**(values | changes))


@pytest.mark.parametrize(("trains", "computes", "kinds"), SIDES)
def test_trained_checkpoints_give_the_same_logits_and_gradients(trained, trains, computes, kinds):
    for kind, figures in zip(kinds, on(computes, compare, trained(trains, kinds)), strict=True):
        assert min(figures["lengths"]) < max(figures["lengths"]), kind
        assert figures["fp32"]["logits_max"] <= 1e-4, kind
        assert figures["fp32"]["gradient_relative"] <= 1e-3, kind
        assert 0 <= figures["bf16"]["kl_mean"] <= 1e-3, kind  # 0 would be fp32 on both sides
        assert figures["bf16"]["top1"] >= 0.9, kind


@pytest.mark.parametrize(
    ("begins", "ends", "kind"),
    [
        pytest.param("cpu", "cpu", "llama", marks=pytest.mark.slow),
        *(
            pytest.param(begins, ends, kind, marks=pytest.mark.gpu)
            for begins, ends in (("cpu", "cuda"), ("cuda", "cpu"))
            for kind in ("llama", "nemotron_h")
        ),
    ],
)
def test_a_run_begun_on_one_side_goes_on_on_the_other(models, blend, tmp_path, begins, ends, kind):
    """Optimizer state included: eight steps with a change of machine after four are the eight steps of one machine.

    The first half is a run stopped after its checkpoint of step 4: a folder without what came later.
    """
    whole, moved = (
        short(models[kind], blend, steps=8, save_every=4, keep_last=2, checkpoints=str(tmp_path / name))
        for name in ("whole", "moved")
    )
    (expected,) = on(begins, train, [whole.to_json()])
    on(begins, train, [moved.to_json()])
    forget_after(tmp_path / "moved", 4)
    (losses,) = on(ends, train, [moved.to_json()])
    assert losses[:4] == expected[:4]
    assert losses[4:] == pytest.approx(expected[4:], rel=1e-4)
    assert expected[-1] < expected[0]


def forget_after(folder, step: int) -> None:
    """Leave a run as it was when checkpoint `step` had been sealed."""
    import shutil

    from prism_nemo.engine.resume import saved_steps

    for later in [saved for saved in saved_steps(folder) if saved > step]:
        shutil.rmtree(folder / f"iter_{later:07d}")
    (folder / "DONE").unlink()


STEP = {  # losses, gradient norm (relative), weights (absolute; updates are of 1e-3)
    "cpu": (1e-5, 1e-4, 2e-6),
    "cuda": (1e-4, 1e-3, 2e-5),
}
HERE = "cuda" if has_gpu() else "cpu"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("granite_4_0_micro", marks=pytest.mark.slow),
        *(pytest.param(name, marks=pytest.mark.gpu) for name in BASES),
    ],
)
def test_a_training_step_equals_transformers_and_adamw(conversions, name):
    """Two steps in fp32 with Megatron's loss, clipping and optimizer: losses, gradient norm, every weight after."""
    losses_within, norm_within, weights_within = STEP[HERE]
    generator = torch.Generator().manual_seed(3)
    batches = [torch.randint(1, 511, (2, 41), generator=generator) for _ in range(2)]
    hf = conversions.hf(name)
    folder = conversions[name].megatron / "iter_0000000"
    losses, weights, norm = call_local(conversion_ranks.steps, hf, folder, batches)
    model = load_hf(hf)
    expected, expected_norm = conversion_ranks.hf_steps(model, batches, hf_logits)
    assert losses == pytest.approx(expected, rel=losses_within)
    assert norm == pytest.approx(expected_norm, rel=norm_within)
    named = {key.removeprefix("model.").removeprefix("backbone."): value for key, value in weights.items()}
    after = {key.removeprefix("model."): value for key, value in model.named_parameters()}
    assert named.keys() == after.keys()
    for key, value in after.items():
        assert (named[key] - value).abs().max() <= weights_within, key
