"""When a checkpoint is complete, for every family of trainers that is known: a table, and pure
functions over the names, the sizes and a little of the content of a pinned tree."""

from remote.agent.layouts.huggingface import SENTINEL, STATE, final, weights
from remote.agent.layouts.marker import Marker, read_marker
from remote.agent.layouts.model import Context, Layout, Pointer, Verdict
from remote.agent.layouts.order import fetch_order
from remote.agent.layouts.table import AUTO, NAMED, layouts_of
from remote.agent.layouts.tree import MAX_TEXT_BYTES, Tree

__all__ = [
    "AUTO",
    "MAX_TEXT_BYTES",
    "NAMED",
    "SENTINEL",
    "STATE",
    "Context",
    "Layout",
    "Marker",
    "Pointer",
    "Tree",
    "Verdict",
    "fetch_order",
    "final",
    "layouts_of",
    "read_marker",
    "weights",
]
