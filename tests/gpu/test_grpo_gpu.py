"""The tests of GRPO with TRL, as they stand, on a GPU."""

import pytest
from test_trl import (  # noqa: F401 - collected here once more, with their fixtures
    model,
    prompts,
    test_a_dense_model_learns_and_the_output_is_whole,
    test_every_family_trains,
)

pytestmark = pytest.mark.gpu
