"""What a sandboxed program may do, what comes back, and that no weaker mode is used unasked."""

import shutil
import sys

import pytest

from prism_nemo import sandbox
from prism_nemo.errors import InputError
from prism_nemo.sandbox import Limits, Mode, modes

needs_sandbox = pytest.mark.skipif(sandbox.active_mode() is None, reason=f"needs a sandbox: {sandbox.why_not()}")
CPP = "#include <iostream>\nint main() { long a, b; std::cin >> a >> b; std::cout << a * b; }"


@needs_sandbox
def test_runs_a_program_with_input_and_files():
    code = "import data\nprint(input(), open('more/x.txt').read(), data.value)"
    result = sandbox.run(code, stdin="één\n", files={"more/x.txt": "zwei", "data.py": b"value = 3"})
    assert (result.outcome, result.exit_code, result.stdout) == ("ok", 0, "één zwei 3\n")


@needs_sandbox
def test_is_the_same_python_with_its_library_and_no_packages():
    result = sandbox.run("import sys, json, decimal, asyncio, random\nprint(sys.version)\nimport torch")
    assert result.stdout.strip() == sys.version
    assert "No module named 'torch'" in result.stderr


@needs_sandbox
@pytest.mark.parametrize(
    ("code", "outcome", "exit_code"),
    [
        ("exit(3)", "failed", 3),
        ("import os; os._exit(0)", "ok", 0),
        ("1/0", "failed", 1),
        ("import os; os.abort()", "failed", 134),
    ],
)
def test_exit_codes(code, outcome, exit_code):
    result = sandbox.run(code)
    assert (result.outcome, result.exit_code) == (outcome, exit_code)


@needs_sandbox
def test_nothing_stays_between_runs():
    assert sandbox.run("open('left', 'w').write('x')").ok
    assert sandbox.run("import os; print(os.listdir('.'))").stdout == "['program.py']\n"


@needs_sandbox
def test_threads_and_deep_recursion_work():
    code = (
        "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(1 << 27)\n"
        "def depth(n): return 0 if n == 0 else 1 + depth(n - 1)\n"
        "t = threading.Thread(target=lambda: print(depth(50_000)))\nt.start()\nt.join()"
    )
    assert sandbox.run(code).stdout == "50000\n"


@needs_sandbox
def test_classes_of_the_program_can_be_pickled():
    assert (
        sandbox.run("import pickle\nclass A: pass\nprint(type(pickle.loads(pickle.dumps(A()))).__name__)").stdout
        == "A\n"
    )


@needs_sandbox
def test_text_that_is_no_unicode_does_not_raise():
    assert sandbox.run("print('\ud800')").ok


@needs_sandbox
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_cpp():
    assert sandbox.run(CPP, stdin="6 7", language="cpp").stdout == "42"
    wrong = sandbox.run("int main() { return missing; }", language="cpp")
    assert wrong.outcome == "failed"
    assert "missing" in wrong.stderr


@needs_sandbox
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_the_compiler_is_walled_in_too():
    assert sandbox.compile_cpp('#include "/dev/zero"\nint main() {}').outcome != "ok"
    assert "root" not in sandbox.compile_cpp('#include "/etc/passwd"\nint main() {}').stderr
    bomb = "template<int N> struct A { A<N+1> a; A<N+2> b; }; A<0> x; int main() {}"
    assert sandbox.compile_cpp(bomb).outcome != "ok"


@needs_sandbox
@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", ""])
def test_file_names_stay_inside(name):
    with pytest.raises(InputError, match="relative name"):
        sandbox.run("", files={name: ""})


@needs_sandbox
def test_pair_speaks_only_through_its_link():
    judge = "import sys\nprint('7', flush=True)\nsys.stderr.write(input())"
    program = "print(int(input()) * 6, flush=True)\nprint('extra')"
    result = sandbox.run_pair(judge, program, judge_files={}, program_files={})
    assert (result.outcome, result.stdout) == ("ok", "42")
    silent = sandbox.run_pair(
        judge, "while True: pass", judge_files={}, program_files={}, limits=Limits(wall_seconds=1)
    )
    assert silent.outcome == "timeout"


@pytest.fixture
def fresh_probe():
    sandbox._fault.cache_clear()
    yield
    sandbox._fault.cache_clear()


def test_no_silent_downgrade(monkeypatch, fresh_probe):
    monkeypatch.delenv(modes.VARIABLE, raising=False)
    monkeypatch.setattr(modes.shutil, "which", lambda tool: None if tool == "bwrap" else f"/usr/bin/{tool}")
    assert sandbox.active_mode() is None
    assert "apt-get install bubblewrap" in str(sandbox.why_not())
    with pytest.raises(InputError, match="PRISM_SANDBOX=rlimits"):
        sandbox.run("print(1)")


def test_the_weaker_mode_must_be_asked_for_by_name(monkeypatch, fresh_probe):
    monkeypatch.setenv(modes.VARIABLE, "rlimits")
    assert sandbox.active_mode() is Mode.RLIMITS
    assert sandbox.run("import os; print('PRISM_SANDBOX' in os.environ, input())", stdin="x").stdout == "False x\n"
    assert sandbox.run("x = bytearray(4 << 30)").outcome == "failed"
    assert sandbox.run("while True: pass", limits=Limits(cpu_seconds=1, wall_seconds=9)).outcome == "timeout"


def test_the_weaker_mode_leaves_no_folder(monkeypatch, fresh_probe, tmp_path):
    """Neither thousands of nested folders nor one that is closed to its owner; shutil.rmtree raises on the first."""
    monkeypatch.setenv(modes.VARIABLE, "rlimits")
    monkeypatch.setattr(modes.tempfile, "tempdir", str(tmp_path))
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    code = (
        "import os\nopen('x', 'w')\nfor _ in range(3000): os.mkdir('d'); os.chdir('d')\nos.chmod('.', 0)\nprint('made')"
    )
    assert sandbox.run(code).stdout == "made\n"
    assert not list(tmp_path.glob("prism-box-*"))


def test_an_unknown_mode_is_an_error(monkeypatch):
    monkeypatch.setenv(modes.VARIABLE, "none")
    with pytest.raises(InputError, match="known modes are bubblewrap, rlimits"):
        sandbox.active_mode()
