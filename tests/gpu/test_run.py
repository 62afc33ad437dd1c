"""The one command that proves and measures on a GPU, on a CPU with pico models: every section, the file, its tables."""

import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from prism_nemo.models.facts import BASES, shape
from prism_nemo.recipe.plan.hardware import GIB

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks" / "gpu"))

import cases  # noqa: E402
import run as command  # noqa: E402
import table  # noqa: E402


@pytest.mark.slow
def test_every_section_on_a_cpu(tmp_path, monkeypatch, capsys):
    out = tmp_path / "cpu.json"
    monkeypatch.setattr(cases, "PICO", cases.PICO[1:])
    monkeypatch.setattr(sys, "argv", ["run.py", "--pico", "--device", "cpu", "--only", "chip,steps,memory,host"])
    sys.argv += ["--out", str(out)]
    command.main()
    result = json.loads(out.read_text())
    assert not out.with_name("cpu.json.part").exists()
    assert set(result["steps"]) == {f"nemotron_h_8b {way}" for way in ("bf16", "plain", "stock")}
    for section in ("chip", "steps", "memory", "host"):
        for name, found in result[section].items():
            assert "error" not in found and "left_out" not in found, (section, name, found)
    step = result["steps"]["nemotron_h_8b bf16"]
    assert step["of_matrix_rate"] == pytest.approx(
        step["model_flops_per_second"] / result["chip"]["matrix_product"]["flops_per_second"]
    )
    assert step["tokens_per_second"] == pytest.approx(2 * 64 / step["median_seconds"])
    text = "\n".join(table.tables(result))
    assert "The figures mean nothing" in text
    for words in ("| nemotron_h_8b (6 of 6 layers) | plain |", "| import |", "micro 2 recompute none", "TFLOP/s"):
        assert words in text


def test_a_failure_is_noted_and_the_rest_goes_on(tmp_path, capsys):
    run = command.Run(tmp_path / "x.json", pico=True, minutes=1)
    run.measure("steps", "a bf16", lambda: 1 / 0)
    run.measure("host", "b", lambda: {"seconds": 1.0})
    run.until = 0.0
    run.measure("steps", "c bf16", lambda: pytest.fail("begun after the end of its time"))
    assert not run.out.exists()  # a run that is killed now leaves nothing that looks whole
    again = command.Run(tmp_path / "x.json", pico=True, minutes=1)
    assert again.result["steps"]["a bf16"] == {"error": "ZeroDivisionError: division by zero"}
    assert again.result["steps"]["c bf16"] == {"left_out": "no time left"}
    again.measure("steps", "a bf16", lambda: {"done": 1})
    again.measure("host", "b", lambda: pytest.fail("measured twice"))
    again.finish()
    assert json.loads(run.out.read_text())["steps"]["a bf16"] == {"done": 1}
    assert "| a | bf16 | not measured |" in "\n".join(table.tables(json.loads(run.out.read_text())))


def test_what_the_steps_measured_is_not_measured_again(tmp_path, monkeypatch):
    run = command.Run(tmp_path / "x.json", pico=True, minutes=1)
    case = cases.PICO[0]
    run.result["steps"] = {f"{case.base} bf16": {"peak_bytes": 1 << 20}}
    monkeypatch.setattr(command, "timed", lambda *given, **options: {"peak_bytes": 3 << 20})
    assert command.memory_of(run, case, 1, "none")["peak_bytes"] == 1 << 20
    assert command.memory_of(run, case, 1, "full")["peak_bytes"] == 3 << 20


def test_the_table_says_whether_the_plan_was_right(tmp_path):
    rows = {"good": 1.09, "bad": 0.88, "cpu": None}
    memory = {
        name: {"planned_bytes": GIB, "peak_bytes": GIB, "planned_over_peak": ratio} for name, ratio in rows.items()
    }
    text = "\n".join(table._memory({"memory": memory}))
    assert "| good | 1.0 | 1.0 | 1.09 | yes |" in text
    assert "| bad | 1.0 | 1.0 | 0.88 | **no** |" in text
    assert "| cpu | 1.0 | 1.0 | - | - |" in text


def test_a_proof_that_hangs_fails_and_the_others_count(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(command, "TEST_SECONDS", 2)
    (tmp_path / "test_x.py").write_text(
        "import time\n\ndef test_hangs():\n    time.sleep(60)\n\ndef test_runs():\n    pass\n"
    )
    found = command.tests([str(tmp_path / "test_x.py"), "-p", "no:cacheprovider"], until=command.time.monotonic() + 60)
    assert (found["passed"], found["failed"]) == (1, 1)
    assert "Timeout" in found["failures"]["test_hangs"][0]


def test_pytests_report_is_counted():
    report = ET.fromstring(
        "<testsuites><testsuite><testcase name='a'/><testcase name='b'><skipped/></testcase>"
        "<testcase name='c'><failure message='assert 1 == 2&#10;more'/></testcase></testsuite></testsuites>"
    )
    counted = command.counted(report)
    assert counted == {"passed": 1, "failed": 1, "skipped": 1, "failures": {"c": ["assert 1 == 2"]}}


def test_no_gpu_is_said_in_one_line(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["run.py"])
    monkeypatch.setattr(command.machine, "facts", lambda: {"gpu": None, "date": "2026-01-01"})
    with pytest.raises(SystemExit, match="error: no GPU is visible"):
        command.main()


@pytest.mark.parametrize("case", cases.FULL, ids=lambda case: case.base)
def test_measured_models_fit_one_gpu_by_the_plan_and_are_not_cut_for_nothing(case):
    memory = 139.8 * GIB
    sizes = shape(cases.configuration(case, pico=False, memory=memory))
    whole = shape(BASES[case.base].config)
    assert cases.planned(sizes, case).total <= cases.USABLE * memory
    assert (sizes.layers == whole.layers) == case.whole
    assert sizes.pattern == whole.pattern[: len(sizes.pattern)]
    assert set(sizes.pattern) == set(whole.pattern)
    if not case.whole:
        longer = shape(cases.with_layers(BASES[case.base].config, sizes.layers + 1))
        assert cases.planned(longer, case).total > cases.USABLE * memory
