"""What `prism doctor`, `plan`, `status` and `run --dry-run` need of a machine without torch: an image, a login node."""

import subprocess
import sys

WITHOUT = """
import sys
for name in ("torch", "megatron", "transformers", "numpy"):
    sys.modules[name] = None
import prism_nemo.launch, prism_nemo.launch.doctor, prism_nemo.recipe.plan
import prism_nemo.cli.main, prism_nemo.stages.status
"""


def test_launching_imports_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
