"""Starts a box and sees it listen, says how it is, ends it and proves the end."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from orchestrator.adapters.local import box, process
from orchestrator.adapters.local.folder import Folder, Record
from orchestrator.errors import Transient
from orchestrator.ports import Clock, InstanceState, ProviderInstance

LISTEN_DEADLINE_S = 15.0
END_DEADLINE_S = 10.0
PORT_TRIES = 5


def start(
    folder: Folder, record: Record, *, lock: int, sshd: str, private_home: bool, clock: Clock
) -> None:
    """Return once the box's own sshd listens; the port is on record before it is tried."""
    for _ in range(PORT_TRIES):
        tried = replace(record, port=_free_port())
        folder.write(tried)
        box.start(folder, tried, lock=lock, sshd=sshd, private_home=private_home)
        if _wait_listening(folder, clock):
            return
        end(folder, record, clock)
        if "Address already in use" not in folder.said():
            break
    raise Transient(
        f"sshd did not start: {folder.said().strip() or 'it said nothing'}. Nothing was rented.",
        hint="gpujob doctor, then try again",
    )


def observe(folder: Folder) -> ProviderInstance | None:
    """The instance as it is; None when it is gone. What never ran is swept here: its maker,
    who would hold the lock, is dead."""
    record, identity = folder.record(), folder.identity()
    if record is None:
        return None
    if identity and identity.alive:
        if folder.listens():
            return _told(record, "RUNNING", str(identity))
        return _told(record, "PENDING")
    with folder.locked() as lock:
        if lock is None:
            return _told(record, "PENDING") if folder.path.exists() else None
        if identity is None and folder.identity() is None:
            folder.remove()
            return None
    return _told(record, "BROKEN") if members(folder, record) else None


def end(folder: Folder, record: Record, clock: Clock) -> None:
    """Kill the one process, then wait until no process of the box is left.

    The kernel ends a pid namespace with its first process; the supervisor's orphans are killed
    one by one. Raises Transient when any is left after 10 s."""
    identity = folder.identity()
    deadline = clock.monotonic() + END_DEADLINE_S
    belongs = _belongs(folder, record)
    if identity and identity.alive:
        _end_first(identity, gently=record.isolation == "supervisor")
    while left := process.living(belongs):
        for pid in left:
            process.kill_if(pid, belongs)
        with process.watched(left[0]) as watched:
            process.wait_end(watched, 0.1)
        if clock.monotonic() > deadline:
            raise Transient(
                f"{record.provider_id}: processes {left} did not end within "
                f"{END_DEADLINE_S:.0f} s of SIGKILL and still use this machine.",
                hint="gpujob teardown tries again",
            )


def members(folder: Folder, record: Record) -> list[int]:
    """The living processes of a box, but for the one outside its namespace."""
    return process.living(_belongs(folder, record))


def _end_first(identity: process.Identity, *, gently: bool) -> None:
    """The supervisor is asked first, since it can end what no marker tells; then no mercy."""
    with process.watched(identity.pid) as watched:
        if gently and process.terminate(identity) and process.wait_end(watched, END_DEADLINE_S / 2):
            return
        process.kill(identity)
        process.wait_end(watched, END_DEADLINE_S)


def _belongs(folder: Folder, record: Record) -> Callable[[int], bool]:
    if record.isolation == "supervisor":
        return partial(_is_marked, record.marker, str(folder.log))
    namespace = _namespace(folder)
    return namespace.holds if namespace else lambda _: False


def _namespace(folder: Folder) -> process.Namespace | None:
    """On record, or asked of the first process when it was killed before it could write."""
    if recorded := folder.namespace():
        return recorded
    identity = folder.identity()
    link = process.link(identity.pid, "ns/pid_for_children") if identity and identity.alive else ""
    return process.Namespace(link) if link else None


def _is_marked(marker: str, log: str, pid: int) -> bool:
    """The marker, or for sshd's own processes, which overwrite their environment, their log."""
    if marker in process.environment(pid):
        return True
    program = Path(process.link(pid, "exe").removesuffix(" (deleted)")).name
    return program.startswith("sshd") and process.link(pid, "fd/2") == log


def _wait_listening(folder: Folder, clock: Clock) -> bool:
    """Whether our sshd says that it listens; a connect could reach somebody else's."""
    deadline = clock.monotonic() + LISTEN_DEADLINE_S
    while clock.monotonic() < deadline:
        identity = folder.identity()
        with process.watched(identity.pid if identity else os.getpid()) as watched:
            process.wait_end(watched, 0.01)
        if identity and not identity.alive:
            return False
        if folder.listens():
            return True
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _told(record: Record, state: InstanceState, marker: str = "") -> ProviderInstance:
    running = state == "RUNNING"
    return ProviderInstance(
        provider_id=record.provider_id,
        mark=record.mark,
        state=state,
        created_at=record.created_at,
        usd_per_hour=record.usd_per_hour,
        host="127.0.0.1" if running else None,
        port=record.port if running else None,
        user=record.user if running else None,
        restart_marker=marker,
        detail="its first process is dead, others live" if state == "BROKEN" else "",
    )
