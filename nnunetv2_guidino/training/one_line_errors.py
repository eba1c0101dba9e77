"""What a user can put right, said in one line by nnU-Net's commands too."""

from __future__ import annotations

import functools
import sys
from types import TracebackType

from nnunetv2_guidino.errors import GuidinoError


@functools.cache
def show_errors_as_one_line() -> None:
    """From now on a GuidinoError that ends this process is printed without its stack; all others as before.

    nnU-Net's commands catch nothing: whatever is raised reaches Python's own hook, which prints it, and the process
    ends with 1.
    """
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, stack: TracebackType | None) -> None:
        if isinstance(error, GuidinoError):
            print(f"nnunetv2-guidino: error: {error}", file=sys.stderr)
        else:
            before(kind, error, stack)

    sys.excepthook = hook
