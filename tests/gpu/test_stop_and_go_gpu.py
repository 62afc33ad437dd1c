"""The engine's tests of killed, stopped and damaged runs, as they stand, with CUDA and deterministic kernels."""

import pytest
from test_stop_and_go import (  # noqa: F401 - collected here once more
    test_asynchronous_saves_lose_nothing,
    test_damaged_latest_checkpoint_falls_back_to_the_one_before,
    test_killed_runs_end_as_one_that_was_never_interrupted,
    test_stopped_on_request_saves_and_goes_on,
    test_stopped_run_ends_as_one_that_was_not,
)

pytestmark = pytest.mark.gpu
