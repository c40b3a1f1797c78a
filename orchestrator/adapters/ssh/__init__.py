"""The three ways to a box, all by ssh with a pinned host key: shell, stream, follow."""

from orchestrator.adapters.ssh.boxes import SshBoxes
from orchestrator.adapters.ssh.openssh import agent_command, agent_root

__all__ = ["SshBoxes", "agent_command", "agent_root"]
