"""Print errors that a user can correct in one line, in nnU-Net's commands too."""

from __future__ import annotations

import functools
import sys
from types import TracebackType

from nnunetv2_guidino.errors import GuidinoError


@functools.cache
def show_errors_as_one_line() -> None:
    """Print a GuidinoError that ends this process without its stack from now on; other errors print as before.

    nnU-Net's commands catch nothing: every error reaches Python's hook, which prints it, and the process ends with 1.
    """
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, stack: TracebackType | None) -> None:
        if isinstance(error, GuidinoError):
            print(f"nnunetv2-guidino: error: {error}", file=sys.stderr)
        else:
            before(kind, error, stack)

    sys.excepthook = hook
