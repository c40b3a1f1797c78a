"""S3 servers for tests, each a process of its own on a free port: moto for what S3 means, rclone
for signatures and real files; and a proxy before them that does what networks do."""

from __future__ import annotations

import http.client
import random
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

from remote.s3 import Bucket, Keys, Server

KEYS = Keys("AKIATESTKEY", "secret-of-the-tests")
BUCKET = "checkpoints"
RCLONE = shutil.which("rclone", path=str(Path(sys.executable).parent)) or shutil.which("rclone")
Fault = Literal["500", "503", "slow", "reset", "truncated", "flipped", "etag", "403"]


@contextmanager
def moto() -> Iterator[str]:
    """The address of a moto server with an empty bucket."""
    program = Path(__file__).with_name("moto_program.py")
    command = [sys.executable, "-W", "ignore", str(program)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdin and process.stdout
    try:
        url = f"http://127.0.0.1:{int(process.stdout.readline())}"
        make_bucket(url)
        yield url
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(10)


@contextmanager
def rclone(folder: Path) -> Iterator[str]:
    """The address of `rclone serve s3` over `folder`, a folder a bucket; it checks signatures."""
    (folder / BUCKET).mkdir(parents=True)
    assert RCLONE
    command = [RCLONE, "serve", "s3", "--addr", "127.0.0.1:0", "--config", "/dev/null"]
    command += ["--auth-key", f"{KEYS.key_id},{KEYS.secret}", "--no-cleanup", str(folder)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    try:
        for line in process.stderr:
            found = re.search(r"http://127\.0\.0\.1:\d+", line)
            if found:
                break
        else:
            raise AssertionError("rclone did not start")
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield found[0]
    finally:
        process.kill()  # its own end waits for connections that are kept open
        process.wait(10)


def make_bucket(url: str, name: str = BUCKET) -> None:
    bucket = open_bucket(url, name)
    bucket._client.create_bucket(Bucket=name)


def open_bucket(url: str, name: str = BUCKET, keys: Keys = KEYS, *, attempts: int = 10) -> Bucket:
    server = Server(url, "us-east-1", patience_s=5.0, pause_s=0.01, attempts=attempts)
    return Bucket(server, keys, name, streams=4)


def keys_of(bucket: Bucket) -> dict[str, int]:
    """Every object by key, with its size."""
    found = bucket._client.list_objects_v2(Bucket=bucket.name).get("Contents", [])
    return {each["Key"]: each["Size"] for each in found}


@dataclass
class Weather:
    """What the proxy does to a request: `share` of them get one of `faults`, by a seeded die.
    `plan` decides instead where it is given. `asked` is what came through, in order."""

    seed: int = 0
    faults: tuple[Fault, ...] = ()
    share: float = 0.0
    plan: Callable[[str, str], Fault | None] | None = None
    slow_s: float = 0.2
    asked: list[tuple[str, str]] = field(default_factory=list)
    sent_bytes: int = 0

    def __post_init__(self) -> None:
        self._dice = random.Random(self.seed)
        self._lock = threading.Lock()

    def fault(self, method: str, path: str) -> tuple[Fault | None, float]:
        with self._lock:
            self.asked.append((method, path))
            if self.plan:
                return self.plan(method, path), 0.5
            bad = self._dice.random() < self.share
            return (self._dice.choice(self.faults) if bad else None), self._dice.random()

    def count(self, method: str) -> int:
        return sum(1 for each, _ in self.asked if each == method)


@contextmanager
def proxy(url: str, weather: Weather) -> Iterator[str]:
    """An address that passes everything on to `url`, through the weather."""
    port = int(url.rpartition(":")[2])

    class Handler(_Handler):
        pass

    Handler.port, Handler.weather = port, weather
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    port: int
    weather: Weather

    def handle(self) -> None:
        with suppress(ConnectionError, socket.timeout):
            super().handle()

    def log_message(self, *_: Any) -> None:
        return

    def _pass(self) -> None:
        fault, die = self.weather.fault(self.command, self.path)
        if self.headers.get("Expect") == "100-continue" and fault not in ("500", "503", "403"):
            pass  # BaseHTTPRequestHandler has sent the 100 already
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if fault == "reset" and self.command in ("PUT", "POST"):
            self._break()
            return
        if fault in ("500", "503", "403"):
            self._refuse(int(fault))
            return
        if fault == "slow":
            time.sleep(self.weather.slow_s)
        self.weather.sent_bytes += len(body)
        answer, data = self._ask(body)
        self._answer(answer, data, fault, die)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass

    def _ask(self, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            headers = {name: value for name, value in self.headers.items() if name != "Expect"}
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            return answer, answer.read()
        finally:
            connection.close()

    def _answer(
        self, answer: http.client.HTTPResponse, data: bytes, fault: Fault | None, die: float
    ) -> None:
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() in ("connection", "transfer-encoding", "content-length", "server"):
                continue
            self.send_header(name, '"0123"' if fault == "etag" and name == "ETag" else value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(data)))
        self.end_headers()
        if self.command == "HEAD":
            return
        is_object = self.command == "GET" and answer.status in (200, 206)
        at = int(die * len(data))
        if fault in ("truncated", "reset") and is_object:
            self.wfile.write(data[:at])
            self._break()
            return
        if fault == "flipped" and is_object and data:
            at = min(at, len(data) - 1)
            data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        self.wfile.write(data)

    def _refuse(self, status: int) -> None:
        code = {500: "InternalError", 503: "SlowDown", 403: "AccessDenied"}[status]
        body = b"" if self.command == "HEAD" else f"<Error><Code>{code}</Code></Error>".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _break(self) -> None:
        self.wfile.flush()
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True
