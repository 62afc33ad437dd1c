# ruff: noqa: E501 (the programs are easier to read unbroken)
"""Attacks on the sandbox, run here or, as a script, by another user: `attacks.py` prints one JSON object a line.

A program that gets where it must not prints ESCAPED; what it must still be able to do it proves by printing `survived`.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prism_nemo import sandbox

SECRET = "c0ffee-secret-of-the-caller"
LISTENER = f"\0prism-test-{os.getpid()}"
"""Abstract name of a socket on which the caller listens."""
LIMITS: dict[str, Any] = {"cpu_seconds": 2, "memory_bytes": 256 << 20, "disk_bytes": 16 << 20}


@dataclass(frozen=True, kw_only=True)
class Attack:
    name: str
    code: str
    outcomes: tuple[str, ...] = ("ok",)
    """What the sandbox may say about it."""
    limits: dict[str, Any] = field(default_factory=dict)
    says: str = ""
    """Text that must come out, where one must."""

    @property
    def wall_seconds(self) -> float:
        """Short where the limit is what is attacked; else long enough for a loaded machine."""
        return 3.0 if "timeout" in self.outcomes else 30.0


TRY = """
import os, sys
def attempt(what, function, *arguments):
    try:
        value = function(*arguments)
    except BaseException as error:
        return
    print("ESCAPED", what, repr(value)[:200])
"""
CALL = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def call(what, number, *arguments):
    if libc.syscall(number, *arguments) >= 0: print("ESCAPED", what)
"""
MANY = {"processes": 8, "threads": 12}

ATTACKS = [
    Attack(
        name="fork bomb", code="import os\nwhile True:\n  try: os.fork()\n  except OSError: pass", outcomes=("timeout",)
    ),
    Attack(
        name="fork bomb where processes are allowed",
        code="import os, time\nn = 0\ntry:\n  while n < 500:\n    if os.fork() == 0: time.sleep(60)\n    n += 1\n"
        "except OSError: pass\nprint('ESCAPED' if n > 12 else 'survived', n, flush=True)\nos._exit(0)",
        limits=MANY,
        says="survived",
    ),
    Attack(
        name="thread bomb",
        code="import threading, time, os\nn = 0\ntry:\n  while True:\n"
        "    threading.Thread(target=time.sleep, args=(60,), daemon=True).start(); n += 1\n"
        "except RuntimeError: print('ESCAPED' if n > 16 else 'survived', n, flush=True); os._exit(0)",
        says="survived",
    ),
    Attack(
        name="memory bomb",
        code="x = []\ntry:\n  while True: x.append(bytearray(1 << 24))\n"
        "except MemoryError: print('ESCAPED' if len(x) > 16 else 'survived')",
        says="survived",
    ),
    Attack(
        name="memory in anonymous files",
        code=TRY + "attempt('memfd', os.memfd_create, 'x')\n" + CALL + "call('shmget', 29, 0, 1 << 20, 0o1666)",
    ),
    Attack(name="endless output", code="while True: print('x' * 1000)", outcomes=("output_limit",)),
    Attack(name="endless errors", code="import os\nwhile True: os.write(2, b'x' * 1000)", outcomes=("output_limit",)),
    Attack(name="endless computing", code="while True: pass", outcomes=("timeout",)),
    Attack(
        name="deaf to signals",
        code="import signal, time\nfor n in range(1, 65):\n  try: signal.signal(n, signal.SIG_IGN)\n"
        "  except (OSError, ValueError): pass\nwhile True: time.sleep(60)",
        outcomes=("timeout",),
    ),
    Attack(
        name="stopped",
        code="import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)",
        outcomes=("timeout",),
    ),
    Attack(
        name="output closed, still there",
        code="import os, time\nos.close(1); os.close(2)\ntime.sleep(60)",
        outcomes=("timeout",),
    ),
    Attack(
        name="the caller's environment",
        code=TRY
        + f"if {SECRET!r} in str(os.environ): print('ESCAPED')\n"
        + "for p in ['self', 'thread-self', *range(100)]:\n  attempt('proc', lambda: open(f'/proc/{p}/environ').read())\n"
        + "attempt('proc list', os.listdir, '/proc')",
    ),
    Attack(
        name="files of the caller",
        code=TRY
        + "for p in ['/root', '/home', '/etc/passwd', '/etc/shadow', '/etc/hostname', '/var', '/run', '/sys', '/proc', "
        + f"'/mnt', '/opt', '/srv', {str(Path(__file__).resolve().parents[2])!r}, '/box/../root', '/tmp/../home', "
        + f"{str(Path.home() / '.ssh')!r}, {str(Path.home() / '.netrc')!r}]:\n"
        + "  attempt(p, lambda: os.listdir(p) if os.path.isdir(p) else open(p).read())",
    ),
    Attack(
        name="writing outside",
        code=TRY
        + "for p in ['/', '/usr', '/usr/lib', '/etc', '/dev', '/dev/shm', '/python', '/python/lib', '/box/..', '/var/tmp']:\n"
        + "  attempt(p, lambda: open(p + '/written', 'w'))\n  attempt(p, os.mkdir, p + '/made')\n"
        + "attempt('chmod', os.chmod, '/usr/bin', 0o777)\nattempt('unlink', os.unlink, '/usr/bin/env')",
    ),
    Attack(
        name="full disk",
        code=TRY + "def fill():\n  for n in range(100):\n    with open(f'f{n}', 'wb') as f: f.write(bytes(1 << 20))\n"
        "attempt('disk', fill)",
    ),
    Attack(
        name="a million empty files",
        code="import os\nn = 0\nwhile True:\n  os.close(os.open(f'f{n}', os.O_CREAT | os.O_WRONLY))\n  n += 1",
        outcomes=("timeout",),
    ),
    Attack(
        name="folders thousands deep",
        code="import os\nfor _ in range(3000): os.mkdir('d'); os.chdir('d')\nopen('x', 'w').write('y')\n"
        "os.chmod('.', 0)\nprint('survived')",
        says="survived",
    ),
    Attack(
        name="sockets",
        code=TRY
        + "import socket\nfor family in range(0, 46):\n  for kind in (1, 2, 3):\n"
        + "    attempt(f'socket {family} {kind}', socket.socket, family, kind)\n"
        + "attempt('connect', socket.create_connection, ('127.0.0.1', 22))\n"
        + f"attempt('abstract', lambda: socket.socket(socket.AF_UNIX).connect({LISTENER!r}))",
    ),
    Attack(
        name="signals to others",
        code=TRY + "import signal\nfor pid in range(3, 300):\n"
        "  if pid != os.getpid(): attempt(f'signal {pid}', os.kill, pid, 9)\n"
        "os.kill(1, 9)\nprint('survived', flush=True)\nos.kill(-1, 9)",
        outcomes=("ok", "failed"),
        says="survived",
    ),
    Attack(
        name="a child that stays",
        code="import os, subprocess\nsubprocess.Popen(['/bin/sh', '-c', 'sleep 61.5 # MARK'], start_new_session=True)\n"
        "if os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0:\n    os.execv('/usr/bin/sleep', ['sleep', '61.5'])\n"
        "  os._exit(0)\nprint('survived')",
        limits=MANY,
        says="survived",
    ),
    Attack(
        name="symlinks",
        code=TRY + "os.symlink('/etc/shadow', 'a'); attempt('a', lambda: open('a').read())\n"
        "os.symlink('/../../../root', 'b'); attempt('b', os.listdir, 'b')\n"
        "os.symlink('/proc/1/root', 'c'); attempt('c', os.listdir, 'c')\nattempt('chroot', os.chroot, '.')",
    ),
    Attack(
        name="inherited file descriptors",
        code=TRY + "for n in range(3, 64): attempt(f'fd {n}', os.fstat, n)\n"
        "attempt('fchdir', os.fchdir, 0)\nattempt('terminal', os.ttyname, 0)",
    ),
    Attack(
        name="stdin as a file of the caller's",
        code=TRY
        + "os.lseek(0, 0, 0)\nattempt('write', os.write, 0, b'x')\nattempt('truncate', os.ftruncate, 0, 1 << 30)\n"
        "print('survived' if os.read(0, 10) == b'input' else 'ESCAPED')",
        says="survived",
    ),
    Attack(
        name="kernel doors",
        code=CALL
        + "for what, number, *rest in [('ptrace', 101, 0, 0, 0, 0), ('mount', 165, b'x', b'/box', b'tmpfs', 0, 0),\n"
        "  ('unshare', 272, 0x10000000), ('setns', 308, 0, 0), ('bpf', 321, 0, 0, 0), ('keyctl', 250, 0, 0),\n"
        "  ('io_uring', 425, 1, 0), ('perf', 298, 0, 0, 0, 0), ('userfaultfd', 323, 0), ('kexec', 246, 0, 0, 0, 0),\n"
        "  ('process_vm_readv', 310, 1, 0, 0, 0, 0, 0), ('open_by_handle', 304, 0, 0, 0), ('init_module', 175, 0, 0, 0),\n"
        "  ('clone3', 435, 0, 0), ('clone into a user namespace', 56, 0x10000000 | 17, 0, 0, 0, 0),\n"
        "  ('thread in a network namespace', 56, 0x40000000 | 0x10f00, 0, 0, 0, 0), ('setuid', 105, 0),\n"
        "  ('pidfd_open', 434, 1, 0), ('personality', 135, 0x0040000), ('swapon', 167, b'x', 0), ('reboot', 169, 0, 0, 0)]:\n"
        "  call(what, number, *rest)",
    ),
    Attack(
        name="32-bit system calls",  # other numbers for the same doors; here getpid by `int 0x80`
        code="import ctypes, mmap\nm = mmap.mmap(-1, 4096, prot=7)\nm.write(bytes.fromhex('b814000000cd80c3'))\n"
        "print('survived', flush=True)\nctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(m)))()\n"
        "print('ESCAPED', flush=True)",
        outcomes=("failed",),
        says="survived",
    ),
    Attack(
        name="x32 system calls",
        code="print('survived', flush=True)\n" + CALL + "call('getpid', 0x40000000 | 39)",
        outcomes=("ok", "failed"),  # killed, or refused by a kernel without them
        says="survived",
    ),
    Attack(
        name="raising its own limits",
        code=TRY + "import resource\nfor name in ('AS', 'CPU', 'NPROC', 'NOFILE', 'FSIZE', 'CORE'):\n"
        "  attempt(name, resource.setrlimit, getattr(resource, 'RLIMIT_' + name), (1 << 40, 1 << 40))",
    ),
    Attack(
        name="set-user-id programs",
        code=TRY + "import subprocess\nfor p in ('su', 'mount', 'passwd', 'newgrp'):\n"
        "  r = subprocess.run(['/bin/sh', '-c', f'command -v {p} >/dev/null && {p} -c id </dev/null'], capture_output=True)\n"
        "  if b'uid=0' in r.stdout: print('ESCAPED', p)\nif os.getuid() == 0 or os.geteuid() == 0: print('ESCAPED root')",
        limits=MANY,
    ),
    Attack(name="bytes that are no text", code="import os\nos.write(1, bytes(range(256)))"),
    Attack(
        name="deep recursion in C",
        code="x = []\nfor _ in range(10**6): x = [x]\nrepr(x)",
        outcomes=("failed", "timeout"),
    ),
]


def strike(attack: Attack) -> dict[str, Any]:
    """Run one attack; everything the tests look at."""
    begun = time.monotonic()
    limits = sandbox.Limits(**{**LIMITS, "wall_seconds": attack.wall_seconds, **attack.limits})
    result = sandbox.run(attack.code, stdin="input", limits=limits)
    return {
        "name": attack.name,
        "outcome": result.outcome,
        "stdout": result.stdout[-500:],
        "stderr": result.stderr[-500:],
        "output": max(len(result.stdout), len(result.stderr)),
        "seconds": time.monotonic() - begun,
    }


@contextlib.contextmanager
def caller_with_secrets():  # type: ignore[no-untyped-def]
    """What an attack would like to reach: a variable, a file descriptor, a listening socket, a process."""
    os.environ["PRISM_TEST_SECRET"] = SECRET
    leaked = os.open("/etc/passwd", os.O_RDONLY)
    os.set_inheritable(leaked, True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(LISTENER)
    listener.listen()
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        yield bystander
    finally:
        bystander.kill()
        bystander.wait()
        listener.close()
        os.close(leaked)
        del os.environ["PRISM_TEST_SECRET"]


def survivors() -> list[str]:
    """Command lines on this machine of what the child that stays left behind."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if "sleep 61.5" in line:
                found.append(line)
    return found


def main() -> None:
    print(json.dumps({"mode": sandbox.active_mode(), "why_not": sandbox.why_not(), "uid": os.getuid()}))
    with caller_with_secrets() as bystander:
        for attack in ATTACKS:
            print(json.dumps(strike(attack)), flush=True)
        print(json.dumps({"bystander_lives": bystander.poll() is None}))


if __name__ == "__main__":
    main()
    sys.exit(0)
