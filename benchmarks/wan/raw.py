"""What a link alone carries: bytes over bare TCP connections, with nothing read or written.

`raw.py serve ADDRESS` prints its port and sends to whoever connects, until its input ends.
`raw.py pull HOST PORT BYTES` prints JSON: MB/s after the slow start, and how long
the first BYTES took."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from contextlib import suppress

BLOCK = bytes(1024 * 1024)
STREAMS = 8
RAMP_S, STEADY_S = 4.0, 8.0
LOOK_S = 0.05


def serve(address: str) -> None:
    with socket.create_server((address, 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        threading.Thread(target=_accept, args=(listener,), daemon=True).start()
        sys.stdin.read()


def pull(host: str, port: int, *, streams: int = STREAMS, first: int) -> dict[str, float]:
    """`steady_mb_s` (10^6) once the slow start is over, `first_s` for the first bytes."""
    received = [0] * streams
    began = time.monotonic()
    for number in range(streams):
        words = (host, port, received, number)
        threading.Thread(target=_receive, args=words, daemon=True).start()
    first_s = ramp_s = 0.0
    ramp = 0
    while (now := time.monotonic() - began) < RAMP_S + STEADY_S or not first_s:
        total = sum(received)
        if not first_s and total >= first:
            first_s = now
        if not ramp_s and now >= RAMP_S:
            ramp, ramp_s = total, now
        time.sleep(LOOK_S)
    steady = (sum(received) - ramp) / (time.monotonic() - began - ramp_s)
    return {"steady_mb_s": steady / 1e6, "first_s": first_s}


def _accept(listener: socket.socket) -> None:
    while True:
        taken, _ = listener.accept()
        threading.Thread(target=_send, args=(taken,), daemon=True).start()


def _send(taken: socket.socket) -> None:
    with taken, suppress(OSError):
        while True:
            taken.sendall(BLOCK)


def _receive(host: str, port: int, received: list[int], number: int) -> None:
    buffer = bytearray(len(BLOCK))
    with socket.create_connection((host, port)) as link:
        while count := link.recv_into(buffer):
            received[number] += count


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        host, port, first = sys.argv[2:]
        print(json.dumps(pull(host, int(port), first=int(first))))
