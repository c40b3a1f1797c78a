"""What of our own code travels: the agent as one file, the trainer as a tree."""

from __future__ import annotations

import io
import zipfile
from importlib.util import find_spec
from pathlib import Path

from orchestrator.adapters.hashes import hash_file
from orchestrator.errors import Missing
from remote.contract import Manifest

REINSTALL = "pip install --force-reinstall gpujob"
# Fixed, so that the same code makes the same bytes; the first moment that a zip can tell.
MOMENT = (1980, 1, 1, 0, 0, 0)
COMMON = ("remote/__init__.py", "remote/contract.py")
# The program that pushes to S3 runs from the same file, under a Python that has boto3.
PUSH = (
    "remote/outbox.py",
    "remote/push.py",
    "remote/pushing.py",
    "remote/restoring.py",
    "remote/s3.py",
    "remote/s3client.py",
)
MAIN = b"""import sys

if sys.argv[1:3] == ["serve", "--root"] and len(sys.argv) == 4:
    from remote.agent.serve import main

    sys.exit(main(sys.argv[3]))
else:
    from remote.agent.__main__ import main

    sys.exit(main())
"""


def build_agent() -> bytes:
    """`agent.pyz`: the installed `remote.agent` and the contract; equal code, equal bytes."""
    root = _root()
    paths = [*COMMON, *PUSH, *_files(root, "remote/agent")]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        _add(archive, "__main__.py", MAIN)
        for path in paths:
            _add(archive, path, (root / path).read_bytes())
    return buffer.getvalue()


def library() -> tuple[Path, Manifest]:
    """The folder above `remote`, and the manifest of what a `train:` job needs of it."""
    root = _root()
    paths = [*COMMON, *_files(root, "remote/trainer")]
    return root, Manifest(tuple(hash_file(root, path) for path in paths))


def _root() -> Path:
    found = find_spec("remote")
    if found is None or not found.submodule_search_locations:
        raise Missing("The installation is damaged: it has no package `remote`.", hint=REINSTALL)
    return Path(next(iter(found.submodule_search_locations))).absolute().parent


def _files(root: Path, folder: str) -> list[str]:
    """Sources and what lies beside them, without what Python compiled."""
    paths = (path for path in (root / folder).rglob("*") if path.is_file())
    names = (path.relative_to(root).as_posix() for path in paths)
    return sorted(name for name in names if "/__pycache__/" not in name)


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, MOMENT)
    entry.create_system = 3
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, data)
