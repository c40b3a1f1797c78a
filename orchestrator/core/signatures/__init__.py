"""What a trainer says, read: lines, steps, phases, and why it ended.

Only what every command needs is imported here; the parsers are imported by who watches a run.
"""

from orchestrator.core.signatures.errors import classify
from orchestrator.core.signatures.faults import Why

__all__ = ["Why", "classify"]
