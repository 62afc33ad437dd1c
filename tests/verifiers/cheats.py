# ruff: noqa: E501 (the programs are easier to read unbroken)
"""Programs that try to pass tests they should fail, run here or, as a script, by another user: one JSON object a line."""

import json
import os

from prism_nemo import sandbox
from prism_nemo.sandbox import Limits
from prism_nemo.verifiers.code import verify_code
from prism_nemo.verifiers.problem import AssertTest, CallTest, StdinTest

LIMITS = Limits(wall_seconds=8, cpu_seconds=2)

# The task is the sum of two numbers; 7391 is a value no cheat can guess.
TESTS = {
    "stdin": (StdinTest(stdin="7000 391\n", expected="7391\n"), StdinTest(stdin="1 1\n", expected="2\n")),
    "call": (
        CallTest(function="add", arguments=(7000, 391), expected=7391),
        CallTest(function="add", arguments=(1, 1), expected=2),
    ),
    "assert": (
        AssertTest(code="assert add(7000, 391) == 7391"),
        AssertTest(code="def check(f):\n    for n in range(5):\n        assert f(n, n) == 2 * n\ncheck(add)"),
    ),
}
RIGHT = "def add(a, b): return a + b\nimport sys\nif __name__ == '__main__' and (line := sys.stdin.readline()):\n  print(add(*map(int, line.split())))"

CHEATS = {
    "os._exit(0) at once": "import os\nos._exit(0)",
    "sys.exit(0) at once": "import sys\nsys.exit(0)",
    "exit in the function": "import os\ndef add(a, b): os._exit(0)\nif False: pass",
    "SystemExit in the function": "def add(a, b): raise SystemExit(0)",
    "StopIteration in the function": "def add(a, b): raise StopIteration",
    "a group of exceptions in the function": "def add(a, b): raise ExceptionGroup('passed', [ValueError()])",
    "prints that it passed": "import os, sys\nprint('passed')\nsys.stderr.write('passed')\nfor fd in range(1, 64):\n  try: os.write(fd, b'passed')\n  except OSError: pass\nos._exit(0)",
    "always equal": "class E:\n  __eq__ = __le__ = __ge__ = lambda s, o: True\n  __ne__ = lambda s, o: False\n  __hash__ = None\n  def __repr__(s): return '7391'\n  __str__ = __repr__\ndef add(a, b): return E()\nprint(E())",
    "always equal number": "class E(int):\n  __eq__ = lambda s, o: True\n  __ne__ = lambda s, o: False\n  __hash__ = int.__hash__\ndef add(a, b): return E(0)",
    "always equal text": "class E(str):\n  __eq__ = lambda s, o: True\n  __hash__ = str.__hash__\ndef add(a, b): return E('x')",
    "patched builtins": "import builtins\nbuiltins.AssertionError = Exception\nbuiltins.compile = lambda *a, **k: 'pass'\nbuiltins.exec = lambda *a: None\nbuiltins.isinstance = lambda *a: True\ndef add(a, b): return 0",
    "patched json": "import json\njson.dumps = lambda *a, **k: 'true'\njson.loads = lambda *a: {}\ndef add(a, b): return 0",
    "patched encoder": "import sys, plain\nplain.encode = sys.modules['__main__'].encode = lambda *a: True\ndef add(a, b): return 0",
    "patched writer": "import sys, plain\nplain.json_of = sys.modules['__main__'].json_of = lambda *a: 'true'\ndef add(a, b): return 0",
    "patched assert rewriting": "import ast, sys\nast.parse = lambda *a, **k: ast.Module([], [])\nsys.settrace(lambda *a: None)\ndef add(a, b): return 0",
    "searches memory and frames for the expected value": "import gc, sys, os\nfound = []\nframe = sys._getframe()\nwhile frame:\n  found += [repr(v) for v in [*frame.f_locals.values(), *frame.f_globals.values()]]\n  frame = frame.f_back\nfor n in os.listdir('.'):\n  found.append(open(n).read())\nown = open('answer.py' if os.path.exists('answer.py') else 'program.py').read()\nmarker = str(7390 + 1)\nhit = any(marker in text.replace(own, '') for text in found if own not in text)\nhit = hit or any(type(o) in (list, tuple) and 7390 + 1 in o for o in gc.get_objects())\nif hit: print(marker)\ndef add(a, b): return 7391 if hit else 0",
    "reads on and on": "import sys\nsys.stdin.read(); sys.stdin.read()\ndef add(a, b): return 0",
    "floods the link": "import os\ndef add(a, b):\n  for fd in range(64):\n    try:\n      for _ in range(200): os.write(fd, b'{\"value\": 1}\\n' * 1000)\n    except OSError: pass\n  return 0",
    "nested answer": "def add(a, b):\n  x = []\n  for _ in range(900): x = [x]\n  return x",
    "huge answer": "def add(a, b): return 10 ** 100000\nprint('9' * 900000)",
    "not a number": "def add(a, b): return float('nan')\nprint('nan')",
    "is anything": "from unittest.mock import ANY\ndef add(a, b): return ANY",
    "object with every attribute": "class A:\n  def __getattr__(s, n): return lambda *a, **k: True\n  def __call__(s, *a, **k): return True\ndef add(a, b): return A()",
    "kills everything": "import os\nfor pid in (1, -1):\n  try: os.kill(pid, 9)\n  except OSError: pass\ndef add(a, b): return 0",
    "wrong": "def add(a, b): return a - b\nprint(0)",
    "syntax error": "def add(a, b: return",
}


def main() -> None:
    print(json.dumps({"mode": sandbox.active_mode(), "uid": os.getuid()}))
    for kind, tests in TESTS.items():
        for name, program in {"right": RIGHT, **CHEATS}.items():
            outcome = verify_code(tests, program, limits=LIMITS).outcome
            print(json.dumps({"kind": kind, "name": name, "outcome": outcome}), flush=True)


if __name__ == "__main__":
    main()
