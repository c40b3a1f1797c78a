"""Thunder Compute's API, /v1 and /v2."""

from __future__ import annotations

from orchestrator.adapters.thunder.provider import CAPABILITIES, ThunderProvider

__all__ = ["CAPABILITIES", "ThunderProvider"]
