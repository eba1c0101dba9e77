"""Several of nnU-Net's commands one after the other in one process, which imports torch once.

python several_commands.py FILE, a JSON list of [name, arguments…]
"""

import json
import sys
from importlib.metadata import entry_points
from pathlib import Path

if __name__ == "__main__":
    commands = {entry.name: entry for entry in entry_points(group="console_scripts") if entry.name.startswith("nnUNet")}
    for name, *arguments in json.loads(Path(sys.argv[1]).read_text()):
        sys.argv = [name, *arguments]
        print("$", *sys.argv, flush=True)
        commands[name].load()()
