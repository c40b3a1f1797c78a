"""The agent's side of the stream: frames in, frames out. Whatever is asked, an answer follows;
what is wrong with a request is said and changes nothing."""

from __future__ import annotations

import errno
import os
import shutil
from typing import Any, BinaryIO, Callable, Dict, Optional, Tuple

from remote.agent import VERSION
from remote.agent.durable import utc_now, write_json
from remote.agent.heard import Heard
from remote.agent.paths import Root
from remote.agent.replies import Refusal
from remote.agent.restore import restore
from remote.agent.seal import Seal, seal_folder
from remote.agent.uploads import Uploads
from remote.contract import (
    CHUNK_BYTES,
    MAGIC,
    PROTOCOL,
    ContractError,
    check_name,
    check_path,
    read_frame,
    write_frame,
)

Header = Dict[str, Any]
Reply = Tuple[Header, bytes]
_FULL = (errno.ENOSPC, errno.EDQUOT)


def serve(root: Root, reader: BinaryIO, writer: BinaryIO) -> int:
    """Answer until the other side ends. A frame that is none ends it too: what follows it could
    be anything."""
    server, heard = Server(root), Heard(root)
    try:
        writer.write(MAGIC)
        writer.flush()
        while True:
            try:
                frame = read_frame(reader)
            except ContractError as error:
                write_frame(writer, _error("refused", error))
                return 1
            if frame is None:
                return 0
            heard.note()
            write_frame(writer, *server.answer(*frame))
    except BrokenPipeError:
        os._exit(0)  # nobody reads: nothing to flush, and nothing to say about it


class Server:
    """Answers one connection's requests."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._uploads = Uploads(root.incoming)
        self._seals: Dict[Tuple[str, int], Seal] = {}
        self._ops: Dict[str, Callable[[Header, bytes], Reply]] = {
            "hello": self._hello,
            "manifest": self._manifest,
            "read": self._read,
            "ack": self._ack,
            "restore": self._restore,
            "offer": self._offer,
            "write": self._write,
            "commit": self._commit,
        }

    def answer(self, header: Header, payload: bytes) -> Reply:
        """The reply, or an error reply; never raises."""
        op = header.get("op")
        run = self._ops.get(op) if isinstance(op, str) else None
        if run is None:
            return _error("refused", "no such op: %r" % (op,)), b""
        try:
            return run(header, payload)
        except Refusal as error:
            return _error(error.kind, error), b""
        except ContractError as error:
            return _error("refused", error), b""
        except KeyError as error:
            return _error("refused", "%s needs %s" % (op, error)), b""
        except OSError as error:
            return _error("no_space" if error.errno in _FULL else "io", error), b""
        except Exception as error:  # a mistake of ours must not end the connection
            return _error("io", "%s: %s" % (type(error).__name__, error)), b""

    def _hello(self, header: Header, payload: bytes) -> Reply:
        return {"agent": VERSION, "free_bytes": shutil.disk_usage(self._root.path).free}, b""

    def _manifest(self, header: Header, payload: bytes) -> Reply:
        seal = self._seal(header)
        return {}, (seal.folder / "manifest.json").read_bytes()

    def _read(self, header: Header, payload: bytes) -> Reply:
        seal, path = self._seal(header), check_path(_text(header["path"]))
        offset = _number(header["offset"], 0)
        length = _number(header["length"], 1, CHUNK_BYTES)
        if path not in seal.tree:
            raise Refusal("not_found", "%s has no file %r" % (seal.name, path))
        if offset + length > seal.tree[path][0]:
            raise Refusal("refused", "%r has %d bytes" % (path, seal.tree[path][0]))
        return {}, _read_range(seal, path, offset, length)

    def _ack(self, header: Header, payload: bytes) -> Reply:
        seal = self._known_seal(header)
        write_json(seal.folder / "acked", {"v": PROTOCOL, "at": utc_now()})
        return {}, b""

    def _restore(self, header: Header, payload: bytes) -> Reply:
        name, digest = check_name(_text(header["name"])), _text(header["digest"])
        restore(self._root, name, digest, _text(header["dest"]))
        return {"digest": digest}, b""

    def _offer(self, header: Header, payload: bytes) -> Reply:
        dest, mode = _text(header["dest"]), _text(header["mode"])
        digest, need = self._uploads.offer(dest, mode, payload)
        return {"upload": digest, "need": need}, b""

    def _write(self, header: Header, payload: bytes) -> Reply:
        path, chunk = check_path(_text(header["path"])), _number(header["chunk"], 0)
        self._uploads.write(_text(header["upload"]), path, chunk, payload)
        return {}, b""

    def _commit(self, header: Header, payload: bytes) -> Reply:
        return {"digest": self._uploads.commit(_text(header["upload"]))}, b""

    def _seal(self, header: Header) -> Seal:
        seal = self._known_seal(header)
        if not seal.is_held:
            raise Refusal("not_found", "%s is not kept here any more" % seal.folder.name)
        return seal

    def _known_seal(self, header: Header) -> Seal:
        key = check_name(_text(header["name"])), _number(header["generation"], 1)
        seal: Optional[Seal] = self._seals.get(key)
        if seal is None:
            seal = Seal.load(seal_folder(self._root.seals, *key))
        if seal is None:
            raise Refusal("not_found", "no checkpoint %s of generation %d is sealed here" % key)
        self._seals[key] = seal
        return seal


def _read_range(seal: Seal, path: str, offset: int, length: int) -> bytes:
    """Size and mtime are looked at before and after: what is not as it was sealed is not sent."""
    try:
        file = os.open(seal.folder / "tree" / path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError as error:
        raise Refusal("not_found", "%s is not kept here any more" % seal.folder.name) from error
    try:
        intact = seal.is_intact(path, os.fstat(file))
        data = os.pread(file, length, offset) if intact else b""
        if len(data) != length or not seal.is_intact(path, os.fstat(file)):
            raise Refusal("changed", "%r was written after it was sealed" % path)
        return data
    finally:
        os.close(file)


def _error(kind: str, error: object) -> Header:
    return {"error": kind, "message": str(error)[:1000]}


def _text(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ContractError("%r is not text" % (value,))
    return value


def _number(value: Any, low: int, high: int = 2**62) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ContractError("%r is not a number from %d to %d" % (value, low, high))
    return value
