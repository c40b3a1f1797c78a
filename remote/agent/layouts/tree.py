"""A checkpoint's files as a rule sees them: names and sizes at once, content when it asks."""

from __future__ import annotations

import json
import os
import re
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, Callable, Dict, Iterator, Mapping, Optional, cast

MAX_TEXT_BYTES = 256 * 1024 * 1024
_NUMBER = (  # how a pickle holds a small integer, after the optional memo of its key
    rb"(?:q.|r....|\x94)?"
    rb"(?:K(?P<one>.)|M(?P<two>..)|J(?P<four>....)|\x8a(?P<length>.)(?P<long>.{1,8}))"
)


class Tree:
    """Files by relative path. `open_file` opens one of them for reading.

    What cannot be read (gone, torn, too large) is as if it were empty: a rule never raises."""

    def __init__(self, sizes: Mapping[str, int], open_file: Callable[[str], BinaryIO]) -> None:
        self.sizes = sizes
        self._open = open_file

    @staticmethod
    def below(folder: Path, sizes: Mapping[str, int]) -> Tree:
        def open_file(path: str) -> BinaryIO:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
            return cast(BinaryIO, os.fdopen(os.open(folder / path, flags), "rb"))

        return Tree(sizes, open_file)

    def __contains__(self, path: str) -> bool:
        return path in self.sizes

    def __iter__(self) -> Iterator[str]:
        return iter(self.sizes)

    def inside(self, folder: str) -> Tree:
        """The files below `folder`, by their path from there."""
        prefix = folder + "/"
        sizes = {
            path[len(prefix) :]: size
            for path, size in self.sizes.items()
            if path.startswith(prefix)
        }
        return Tree(sizes, lambda path: self._open(prefix + path))

    def matches(self, pattern: str) -> Dict[int, str]:
        """The files whose whole path matches, by the number in the pattern's first group."""
        found = ((re.fullmatch(pattern, path), path) for path in self.sizes)
        return {int(match[1]): path for match, path in found if match}

    def text(self, path: str) -> bytes:
        if not 0 < self.sizes.get(path, 0) <= MAX_TEXT_BYTES:
            return b""
        try:
            with self._open(path) as stream:
                return stream.read(MAX_TEXT_BYTES)
        except OSError:
            return b""

    def word(self, path: str) -> str:
        return self.text(path).decode("utf-8", "replace").strip()

    def record(self, path: str) -> Optional[Dict[str, Any]]:
        """The JSON object in `path`; None when it is not there whole."""
        try:
            found = json.loads(self.text(path))
        except ValueError:
            return None
        return found if isinstance(found, dict) else None

    def pickled(self, path: str) -> bytes:
        """The pickle inside a torch file: to be searched, never to be loaded."""
        try:
            with self._open(path) as stream, zipfile.ZipFile(stream) as archive:
                name = next(each for each in archive.namelist() if each.endswith("/data.pkl"))
                with archive.open(name) as member:
                    return member.read(MAX_TEXT_BYTES)
        except (OSError, StopIteration, ValueError, zipfile.BadZipFile, NotImplementedError):
            return b""


def pickled_number(data: bytes, key: str) -> Optional[int]:
    """The integer that a pickle's dictionary holds under `key`, found by its bytes."""
    name = key.encode()
    found = re.search(_key(name) + _NUMBER, data, re.DOTALL)
    if not found:
        return None
    if found["long"] is not None:
        return int.from_bytes(found["long"][: found["length"][0]], "little", signed=True)
    digits = found["one"] or found["two"] or found["four"]
    return int.from_bytes(digits, "little", signed=found["four"] is not None)


def pickled_none(data: bytes, key: str) -> bool:
    """Whether a pickle's dictionary holds None under `key`."""
    return re.search(_key(key.encode()) + rb"(?:q.|r....|\x94)?N", data, re.DOTALL) is not None


def _key(name: bytes) -> bytes:
    short = b"\x8c" + bytes([len(name)])
    return (
        b"(?:X" + re.escape(len(name).to_bytes(4, "little")) + b"|" + re.escape(short) + b")" + name
    )
