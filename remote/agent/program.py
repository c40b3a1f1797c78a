"""How the agent starts itself again: as a supervisor, as the trainer's wrapper."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import List

from remote.agent.paths import Root


def agent_command(command: str, root: Root, *words: str) -> List[str]:
    """The same archive under the same Python, isolated from the user's site packages."""
    archive = str(Path(sys.argv[0]).absolute())
    python = sys.executable or "python3"
    return [python, "-I", "-S", archive, command, "--root", str(root.path), *words]
