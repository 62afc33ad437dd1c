"""Who asks for Weights & Biases, and what its run is called."""

from pathlib import Path

import pytest

from prism_nemo.tracking import wandb_settings

OUT = Path("/runs/my_llama/.midtrain.partial")
CALLED = {"project": "prism_nemo", "name": "my_llama-midtrain", "folder": "/runs/my_llama"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"WANDB_PROJECT": "p"}, None),
        ({"WANDB_API_KEY": "k"}, CALLED),
        ({"WANDB_MODE": "offline"}, CALLED),
        ({"WANDB_API_KEY": "k", "WANDB_MODE": "disabled"}, None),
        (
            {"WANDB_MODE": "offline", "WANDB_PROJECT": "p", "WANDB_NAME": "n", "WANDB_DIR": "/d"},
            {"project": "p", "name": "n", "folder": "/d"},
        ),
    ],
)
def test_its_own_variables_ask_for_it(environment: dict[str, str], expected: dict[str, str] | None) -> None:
    assert wandb_settings(OUT, environment) == expected
