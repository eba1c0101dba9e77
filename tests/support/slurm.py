"""A real Slurm on this machine alone: munge, controller and one node, all in a folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CONFIGURATION = """
ClusterName=t
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPort={port}
SlurmdPort={node_port}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SchedulerType=sched/backfill
MpiDefault=none
ReturnToService=2
JobRequeue=1
KillWait=5
NodeName=localhost NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=localhost Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """Why no Slurm can be started here; None where one can."""
    for program in ("munged", "slurmctld", "slurmd", "sbatch"):
        if shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None:
            return f"{program} is not installed: apt-get install slurm-wlm munge"
    return None if os.geteuid() == 0 else "Slurm's daemons are started as root"


@contextmanager
def single_node_slurm(folder: Path, port: int) -> Iterator[dict[str, str]]:
    """The variables with which Slurm's commands find it; it and all its jobs end with the block.

    Args:
        folder: For keys, sockets, logs and state; a short path, since one of them is a socket's.
        port: And the next one, on the loopback.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)  # munge refuses what others can write to
    key, file = folder / "munge.key", folder / "slurm.conf"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    file.write_text(CONFIGURATION.format(folder=folder, port=port, node_port=port + 1, cpus=os.cpu_count()))
    environment = {**os.environ, "SLURM_CONF": str(file), "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    commands = [
        ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket",
         f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log", f"--seed-file={folder}/munge.seed"],
        ["slurmctld", "-D", "-f", str(file)],
        ["slurmd", "-D", "-f", str(file), "-N", "localhost"],
    ]  # fmt: skip
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            with (folder / f"{command[0]}.out").open("wb") as out:
                daemons.append(subprocess.Popen(command, env=environment, stdout=out, stderr=out))
            time.sleep(1)
        _wait_for_idle(environment, folder)
        yield {"SLURM_CONF": str(file)}
    finally:
        subprocess.run(["scancel", "--full", "--signal=KILL", "--user=root"], env=environment, check=False)
        subprocess.run(["scancel", "--user=root"], env=environment, check=False)
        time.sleep(1)
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def _wait_for_idle(environment: dict[str, str], folder: Path) -> None:
    for _ in range(60):
        state = subprocess.run(
            ["sinfo", "-h", "-o", "%T"], env=environment, capture_output=True, text=True, check=False
        )
        if state.stdout.strip() == "idle":
            return
        time.sleep(0.5)
    logs = "\n".join(f"{log}:\n{log.read_text()[-2000:]}" for log in folder.glob("*.log"))
    raise AssertionError(f"Slurm did not start: {state.stdout}{state.stderr}\n{logs}")
