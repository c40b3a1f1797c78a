"""RunPod's REST API v2."""

from __future__ import annotations

from orchestrator.adapters.runpod.provider import CAPABILITIES, RunPodProvider

__all__ = ["CAPABILITIES", "RunPodProvider"]
