"""Ranges of sealed files on their way out: by `sendfile` where the stream is a pipe, so that
serving costs next to nothing and holds no payload in memory. Nothing is hashed here: the seal has
the digests, and who receives the bytes holds them against those."""

from __future__ import annotations

import io
import os
from contextlib import suppress
from typing import Any, BinaryIO, List, Tuple

from remote.agent.replies import Refusal
from remote.agent.seal import Seal
from remote.contract import CHUNK_BYTES, MAX_PARTS, ContractError, check_path

Part = Tuple[str, int, int]


class Spoiled(Exception):
    """A file was written while it was sent: what was promised cannot be kept, and the stream has to
    end. Who asks again is told `changed`."""


def check_parts(parts: Any) -> List[Part]:
    """`parts` of a request as (path, offset, length). Raises ContractError."""
    if not isinstance(parts, list) or not 0 < len(parts) <= MAX_PARTS:
        raise ContractError("1 to %d parts fit into a request" % MAX_PARTS)
    checked = [_check_part(part) for part in parts]
    if sum(length for _, _, length in checked) > CHUNK_BYTES:
        raise ContractError("the parts of a request hold more than %d bytes" % CHUNK_BYTES)
    return checked


class Ranges:
    """Ranges of files of one seal, which look as they were sealed when this is made; closed by
    `send` or `read`. Raises Refusal."""

    def __init__(self, seal: Seal, parts: List[Part]) -> None:
        self.size = sum(length for _, _, length in parts)
        self._seal = seal
        self._opened: List[Tuple[int, Part]] = []
        try:
            for part in parts:
                self._opened.append((_open(seal, part), part))
        except BaseException:
            self.close()
            raise

    def send(self, writer: BinaryIO) -> None:
        """Write the bytes. Raises Spoiled when a file is not as it was sealed any more."""
        writer.flush()
        try:
            for file, (path, offset, length) in self._opened:
                _copy(writer, file, offset, length)
                if not self._seal.is_intact(path, os.fstat(file)):
                    raise Spoiled(path)
        finally:
            self.close()

    def read(self) -> bytes:
        """The bytes as `send` would write them."""
        whole = io.BytesIO()
        self.send(whole)
        return whole.getvalue()

    def close(self) -> None:
        while self._opened:
            os.close(self._opened.pop()[0])


def _check_part(part: Any) -> Part:
    if not isinstance(part, list) or len(part) != 3:
        raise ContractError("%r is not [path, offset, length]" % (part,))
    path, offset, length = part
    numbers = [each for each in (offset, length) if type(each) is int and 0 <= each < 2**62]
    if not isinstance(path, str) or len(numbers) != 2 or not 1 <= length <= CHUNK_BYTES:
        raise ContractError("%r is not [path, offset, length]" % (part,))
    return check_path(path), offset, length


def _open(seal: Seal, part: Part) -> int:
    path, offset, length = part
    if path not in seal.tree:
        raise Refusal("not_found", "%s has no file %r" % (seal.name, path))
    if offset + length > seal.tree[path][0]:
        raise Refusal("refused", "%r has %d bytes" % (path, seal.tree[path][0]))
    try:
        file = os.open(seal.folder / "tree" / path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError as error:
        raise Refusal("not_found", "%s is not kept here any more" % seal.folder.name) from error
    if not seal.is_intact(path, os.fstat(file)):
        os.close(file)
        raise Refusal("changed", "%r was written after it was sealed" % path)
    return file


def _copy(writer: BinaryIO, file: int, offset: int, length: int) -> None:
    """Raises Spoiled when the file ends too soon."""
    with suppress(OSError, ValueError):  # no descriptor, or one that takes no sendfile
        out = writer.fileno()
        while length and (sent := os.sendfile(out, file, offset, length)):
            offset, length = offset + sent, length - sent
    if length:
        data = os.pread(file, length, offset)
        if len(data) != length:
            raise Spoiled("cut short")
        writer.write(data)
        writer.flush()
