"""A shell script of nnU-Net's own commands that runs the trainings under any scheduler."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_guidino.files import write_text
from nnunetv2_guidino.lab.benchmark.job import Job

_HEAD = """#!/bin/sh
# {title}: {count} trainings
#   sh {name} prepare   makes missing plans and data: run it once, before several tasks start
#   sh {name} N         runs the Nth, from 1, as a task of a scheduler's array
#   sh {name}           does all of it, one after the other
# Finished trainings are kept, interrupted ones resume, and a failure does not stop the others.
wanted=${{1:-all}} number=0 failed=0

run() {{  # FOLDER COMMAND...
  number=$((number + 1)) folder=$1; shift
  if [ "$wanted" != all ] && [ "$wanted" != "$number" ]; then return; fi
  if [ -f "$folder/checkpoint_final.pth" ] && [ -s "$folder/validation/summary.json" ]; then return
  elif [ -f "$folder/checkpoint_final.pth" ]; then set -- "$@" --val
  elif [ -f "$folder/checkpoint_latest.pth" ] || [ -f "$folder/checkpoint_best.pth" ]; then set -- "$@" --c
  fi
  "$@" || {{ echo "failed: $*" >&2; failed=1; }}
}}

"""


def write_script(
    file: Path, title: str, preparation: Sequence[tuple[Sequence[str], Path | None]], jobs: Sequence[Job]
) -> None:
    """Write the script; raise GuidinoError if it cannot be written.

    Args:
        preparation: Commands that make missing plans and data, each with the file that makes it unnecessary.
    """
    lines = [_HEAD.format(title=" ".join(title.split()), count=len(jobs), name=shlex.quote(file.name))]
    if preparation:
        lines.append('if [ "$wanted" = prepare ] || { [ "$wanted" = all ] && [ ! -f "$0.prepared" ]; }; then\n')
        for command, made in preparation:
            guard = f"[ -f {shlex.quote(str(made))} ] || " if made else ""
            lines.append(f"  {guard}{shlex.join(command)} || exit 1\n")
        lines.append('  touch "$0.prepared"\nfi\n\n')
    lines += [f"run {shlex.quote(str(job.folder))} {shlex.join(job.command())}\n" for job in jobs]
    lines.append("\nexit $failed\n")
    write_text(file, "".join(lines))
