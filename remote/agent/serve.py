"""The agent's side of the stream: frames in, frames out. Whatever is asked, an answer follows;
what is wrong with a request is said and changes nothing."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import sys
from typing import Any, BinaryIO, Callable, Dict, Optional, Tuple, Union

from remote.agent import VERSION
from remote.agent.heard import Heard
from remote.agent.paths import Root
from remote.agent.ranges import Ranges, Spoiled, check_parts
from remote.agent.replies import Refusal
from remote.agent.restore import Restores
from remote.agent.seal import Seal, seal_folder
from remote.agent.uploads import Uploads
from remote.contract import (
    MAGIC,
    ContractError,
    check_name,
    read_frame,
    write_frame,
    write_header,
)

Header = Dict[str, Any]
Reply = Tuple[Header, Union[bytes, Ranges]]
PIPE_BYTES = 1024 * 1024
_SET_PIPE_SIZE = 1031  # F_SETPIPE_SZ, which Python names from 3.10 on
_FULL = (errno.ENOSPC, errno.EDQUOT)


def main(folder: str) -> int:
    """`serve` by itself. It is begun for each connection, and most of the agent's code, which
    takes longer to load than a round trip, is none of its business."""
    root = Root.at(folder)
    root.path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return serve(root, sys.stdin.buffer, sys.stdout.buffer)


def serve(root: Root, reader: BinaryIO, writer: BinaryIO) -> int:
    """Answer until the other side ends. A frame that is none ends it too: what follows it could
    be anything."""
    server, heard = Server(root), Heard(root)
    _widen(writer)
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
            _send(writer, *server.answer(*frame))
    except BrokenPipeError:
        os._exit(0)  # nobody reads: nothing to flush, and nothing to say about it
    except (Spoiled, OSError):
        return 1  # in the midst of a payload: whatever is said now would be taken for bytes of it


def _send(writer: BinaryIO, header: Header, payload: Union[bytes, Ranges]) -> None:
    if isinstance(payload, Ranges):
        write_header(writer, header, payload.size)
        payload.send(writer)
    else:
        write_frame(writer, header, payload)


def _widen(writer: BinaryIO) -> None:
    """Fewer turns between us and sshd; where it is no pipe, or may not grow, it stays."""
    with contextlib.suppress(OSError, ValueError):
        fcntl.fcntl(writer.fileno(), _SET_PIPE_SIZE, PIPE_BYTES)


class Server:
    """Answers one connection's requests."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._uploads = Uploads(root)
        self._restores = Restores(root)
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
            said = _error(error.kind, error)
            return ({**said, "need": error.need} if error.need else said), b""
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
        return {}, Ranges(self._seal(header), check_parts(header["parts"]))

    def _ack(self, header: Header, payload: bytes) -> Reply:
        self._known_seal(header).acknowledge()
        return {}, b""

    def _restore(self, header: Header, payload: bytes) -> Reply:
        name, digest = check_name(_text(header["name"])), _text(header["digest"])
        return self._restores.ask(name, digest, _text(header["dest"])), b""

    def _offer(self, header: Header, payload: bytes) -> Reply:
        dest, mode = _text(header["dest"]), _text(header["mode"])
        return self._uploads.offer(dest, mode, payload), b""

    def _write(self, header: Header, payload: bytes) -> Reply:
        self._uploads.write(_text(header["upload"]), check_parts(header["parts"]), payload)
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
            seal = self._load(*key)
        if seal is None:
            raise Refusal("not_found", "no checkpoint %s of generation %d is sealed here" % key)
        self._seals[key] = seal
        return seal

    def _load(self, name: str, generation: int) -> Optional[Seal]:
        try:
            return Seal.load(seal_folder(self._root.seals, name, generation))
        except ContractError as error:
            raise Refusal("not_found", "%s cannot be read here: %s" % (name, error)) from error


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
