"""The mark of the virtualised kind, 1 or 2 GPUs: a library that is loaded into every process of the
box and sends its CUDA calls elsewhere (§3.1). Ours is loaded and does nothing."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

SHIM = "/etc/thunder/libthunder.so"
# Since glibc 2.34 an empty library, kept for old programs.
HARMLESS = "libutil.so.1"


def install(etc: Path, *, noisy: bool) -> None:
    """Write into the box's own /etc. `noisy`: the library is not there, so that the dynamic loader
    says on stderr of every command that it is ignored, as field reports have it. Nothing is
    written where this machine has no harmless library to load."""
    found = next(chain(Path("/lib").glob(f"*/{HARMLESS}"), Path("/lib64").glob(HARMLESS)), None)
    if found is None and not noisy:
        return
    if found and not noisy:
        (etc / "thunder").mkdir(exist_ok=True)
        (etc / "thunder" / "libthunder.so").write_bytes(found.read_bytes())
    (etc / "ld.so.preload").write_text(f"{SHIM}\n")
