"""The port Stream: trees of files by manifest, over parallel connections to the agent's `serve`.

Byte ranges of all files travel at once; what was verified is never sent again, whatever ends the
transfer, and a connection that breaks is replaced while the others go on.
"""

from orchestrator.adapters.stream.pace import Pace
from orchestrator.adapters.stream.pool import Way
from orchestrator.adapters.stream.port import FrameStream
from orchestrator.adapters.stream.tuning import Tuning

__all__ = ["FrameStream", "Pace", "Tuning", "Way"]
