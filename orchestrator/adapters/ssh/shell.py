"""The port Shell over a fabric connection that trusts one pinned key and nothing else."""

from __future__ import annotations

import re
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

import paramiko
from fabric import Config, Connection

from orchestrator.adapters.ssh.openssh import CONNECT_TIMEOUT_S, check_endpoint
from orchestrator.errors import CommandFailed, HostKeyChanged, Locked, Unreachable
from orchestrator.ports import Completed, Endpoint
from remote.contract import shell_words

OUTPUT_BYTES = 1024 * 1024
PUT_BYTES = 8 * 1024 * 1024
_BLOCK = 32768
_BROKE = re.compile("timeout|transport shut down|EOF")
KILLED = 255  # by a signal, of which paramiko tells no number

# A link that breaks ends the input early, and `cat` calls that success: hence the count.
_PUT = """umask 077
mkdir -p -- {folder} || exit 1
if cat >{part} && [ "$(wc -c <{part})" -eq {size} ] && chmod {mode:o} {part}
then mv -f -- {part} {path}; else rm -f -- {part}; exit 1; fi"""


class FabricShell:
    """Connects at first use, and again after a failure; never again once it was closed."""

    def __init__(self, endpoint: Endpoint, *, key: Path, pinned: list[str]) -> None:
        self._endpoint = check_endpoint(endpoint)
        self._connection = _connection(endpoint, key, pinned)
        self._closed = False

    def run(
        self, command: str, *, stdin: bytes = b"", timeout_s: float = 60.0, check: bool = True
    ) -> Completed:
        with self._mapped():
            self._open()
            done = _exchange(self._connection, command, stdin, timeout_s)
        if check and done.rc != 0:
            raise CommandFailed(
                f"A command on {self._endpoint.instance} ended with {done.rc}: "
                f"{done.stderr.strip()[-500:] or 'it said nothing'}",
                done.rc,
                done.stderr[-4096:],
            )
        return done

    def put(self, data: bytes, path: str, *, mode: int = 0o600) -> None:
        if len(data) > PUT_BYTES:
            raise ValueError(f"put is for files of at most {PUT_BYTES} bytes, not {len(data)}")
        self.run(put_command(path, size=len(data), mode=mode), stdin=data)

    def close(self) -> None:
        """From any thread: a command that runs is cut off, and none is run any more."""
        self._closed = True
        self._drop()

    def _open(self) -> None:
        self._refuse_when_closed()
        if self._connection.is_connected:
            return
        self._connection.close()
        self._connection.open()
        # It may have been closed while it was being opened.
        self._refuse_when_closed()
        transport = self._connection.transport
        transport.set_keepalive(5)
        # paramiko leaves Nagle on, which stalls small exchanges for 40 ms each.
        transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise Unreachable(f"the connection to {self._endpoint.instance} was closed")

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        """Every failure of the link as ours; the connection is dropped, to be made anew."""
        try:
            yield
        except (HostKeyChanged, Unreachable):
            self._drop()
            raise
        except paramiko.BadHostKeyException as error:
            self._drop()
            raise _changed(self._endpoint.instance) from error
        except paramiko.AuthenticationException as error:
            self._drop()
            raise self._refused(error) from error
        except (paramiko.SSHException, OSError, EOFError) as error:
            self._drop()
            raise Unreachable(f"{self._where} cannot be reached: {error or 'closed'}.") from error

    @property
    def _where(self) -> str:
        return f"{self._endpoint.instance} ({self._endpoint.host}:{self._endpoint.port})"

    def _refused(self, error: Exception) -> Unreachable:
        """paramiko says the same of a key that is refused and of a link that broke meanwhile."""
        if _BROKE.search(str(error)):
            return Unreachable(f"{self._where} broke off while we entered: {error}")
        return Locked(f"{self._where} answers and does not take our key.")

    def _drop(self) -> None:
        with suppress(Exception):  # a connection that failed may fail to close as well
            self._connection.close()


def put_command(path: str, *, size: int, mode: int) -> str:
    """The command that makes its input the file at `path`, if it is `size` bytes long."""
    target = PurePosixPath(path)
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    return _PUT.format(**_paths(target, part), size=size, mode=mode)


class _Reject(paramiko.MissingHostKeyPolicy):
    """No key of this kind is pinned: somebody else answers."""

    def __init__(self, instance: str) -> None:
        self._instance = instance

    def missing_host_key(self, client: Any, hostname: str, key: Any) -> None:
        raise _changed(self._instance)


def _connection(endpoint: Endpoint, key: Path, pinned: list[str]) -> Any:
    connection = Connection(
        host=endpoint.host,
        user=endpoint.user,
        port=endpoint.port,
        config=Config(lazy=True, ssh_config=paramiko.SSHConfig()),
        connect_timeout=CONNECT_TIMEOUT_S,
        connect_kwargs={
            "key_filename": str(key),
            "look_for_keys": False,
            "allow_agent": False,
            "banner_timeout": CONNECT_TIMEOUT_S,
            "auth_timeout": CONNECT_TIMEOUT_S,
        },
    )
    connection.client.set_missing_host_key_policy(_Reject(endpoint.instance))
    name = endpoint.host if endpoint.port == 22 else f"[{endpoint.host}]:{endpoint.port}"
    for line in pinned:
        entry = paramiko.hostkeys.HostKeyEntry.from_line(f"{name} {line}")
        if entry is not None and entry.key is not None:
            connection.client.get_host_keys().add(name, entry.key.get_name(), entry.key)
    return connection


def _exchange(connection: Any, command: str, stdin: bytes, timeout_s: float) -> Completed:
    """One command on a channel of its own; both outputs are read on and cut at 1 MiB."""
    channel = connection.transport.open_session(timeout=CONNECT_TIMEOUT_S)
    expired = threading.Event()
    late = threading.Timer(timeout_s, _expire, (channel, expired))
    late.start()
    try:
        channel.exec_command(command)
        with ThreadPoolExecutor(2) as threads:
            threads.submit(_feed, channel, stdin)
            errors = threads.submit(_read, channel.recv_stderr)
            output = _read(channel.recv)
        rc = channel.recv_exit_status()
    finally:
        late.cancel()
        _close(channel)
    if expired.is_set():
        raise Unreachable(f"A command did not end within {timeout_s:.0f} s; its link was closed.")
    if rc < 0 and _has_ended(connection.transport):
        raise Unreachable("The link broke before a command had ended.")
    return Completed(KILLED if rc < 0 else rc, output, errors.result())


def _has_ended(transport: Any) -> bool:
    """Whether the link itself ended; its thread wakes the channels a moment before it does."""
    transport.join(1.0)
    return not transport.is_alive()


def _expire(channel: Any, expired: threading.Event) -> None:
    expired.set()
    _close(channel)


def _close(channel: Any) -> None:
    """Wakes whoever waits on the channel; its link may have ended before."""
    with suppress(paramiko.SSHException, OSError, EOFError):
        channel.close()


def _feed(channel: Any, data: bytes) -> None:
    """A command that ends without reading its input is no error."""
    with suppress(OSError):
        channel.sendall(data)
    channel.shutdown_write()


def _read(receive: Callable[[int], bytes]) -> str:
    kept = bytearray()
    while block := receive(_BLOCK):
        kept += block[: OUTPUT_BYTES - len(kept)]
    return kept.decode(errors="replace")


def _paths(target: PurePosixPath, part: PurePosixPath) -> dict[str, str]:
    names = {"folder": str(target.parent), "part": str(part), "path": str(target)}
    return {key: shell_words([_no_option(name)]) for key, name in names.items()}


def _no_option(path: str) -> str:
    return path if path.startswith("/") else f"./{path}"


def _changed(instance: str) -> HostKeyChanged:
    return HostKeyChanged(
        f"{instance} answers with another host key than the one pinned. Nothing was sent to it.",
        hint="gpujob status shows what the provider says of this instance",
    )
