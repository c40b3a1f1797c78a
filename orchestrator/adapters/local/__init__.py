"""The embedded provider: an instance is a private OpenSSH server on this machine."""

from orchestrator.adapters.local.provider import LocalProvider

__all__ = ["LocalProvider"]
