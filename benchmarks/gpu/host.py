"""MB/s of conversion and analysis on the host's cores, of checkpoints with Granite-4.0 Micro's sizes."""

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))


def measure(folder: Path, *, pico: bool) -> dict[str, Any]:
    """Import and export with proof of names and bits, and `prism analyze weights`; bytes of one checkpoint read."""
    from prism_nemo.analysis.weights_output import analyse_weights
    from prism_nemo.checkpoints.exporting import export_hf
    from prism_nemo.checkpoints.importing import import_hf

    a, b = checkpoints(folder, pico)
    size = sum(file.stat().st_size for file in a.glob("*.safetensors"))
    work = {
        "import": lambda: import_hf(a, folder / "megatron", proof="keys"),
        "export": lambda: export_hf(folder / "megatron", folder / "exported", proof="keys"),
        "analyze_weights": lambda: analyse_weights(folder / "weights", {"base": a, "mt": b}),
    }
    found: dict[str, Any] = {"checkpoint_bytes": size}
    for name, do in work.items():
        started = time.perf_counter()
        do()
        seconds = time.perf_counter() - started
        found[name] = {"seconds": seconds, "megabytes_per_second": size / 1e6 / seconds}
    return found


def checkpoints(folder: Path, pico: bool) -> tuple[Path, Path]:
    """Two checkpoints of one architecture: in bf16, the second a little moved."""
    if pico:
        from prism_nemo.models.pico import make_pico

        sizes = {"hidden": 32, "layers": 2, "heads": 4, "ffn": 48}
        a, b = (make_pico("llama_3_1_8b", folder / str(i), vocab_size=64, seed=i, **sizes) for i in range(2))
        return a, b
    from random_checkpoints import make

    return make(folder / "a", 40, 1), make(folder / "b", 40, 1, moved=0.01)
