"""Run a command in a process group of its own, which ends with the process that started it, even after a kill.

    python leave_with_parent.py COMMAND ARGUMENT…     with a pipe as its standard input, held open by the parent

A killed parent cannot signal its children, but its end of the pipe closes. The file imports nothing of this package.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading


def main(command: list[str]) -> int:
    """Run the command and return its exit code, or 128 plus its signal."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=_watch, args=(child,), daemon=True).start()
    # Ctrl-C reaches the parent's group only; a signal to this process is for the command.
    signal.signal(signal.SIGTERM, lambda *_: _end(child))
    code = child.wait()
    return code if code >= 0 else 128 - code


def _watch(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 1024):  # not through sys.stdin, whose lock would be held at exit
            pass
    _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    child.kill()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
