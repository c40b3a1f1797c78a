"""Takes the progress reports that transformers >= 5.4 sends by itself to whoever is named in its
environment (its KubeflowCallback): steps and losses without a line of the user's code."""

from __future__ import annotations

import contextlib
import hmac
import json
import secrets
import threading
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, Callable, Dict, Optional

from remote.agent.durable import read_json, write_bytes, write_json
from remote.agent.paths import Root
from remote.contract import PROTOCOL

HOST = "127.0.0.1"
URL = "KUBEFLOW_TRAINER_SERVER_URL"
TOKEN = "KUBEFLOW_TRAINER_SERVER_TOKEN"
MOST_BYTES = 64 * 1024
TIMEOUT_S = 5.0
Take = Callable[[Dict[str, Any]], None]


class Receiver:
    """Listens on the loopback from its birth on, at the port of the receiver before it where that
    is free: a trainer keeps what it was told. Where nothing can listen it does nothing."""

    def __init__(self, root: Root, take: Take) -> None:
        """`take` gets each report, from any thread."""
        self._server: Optional[_Server] = None
        before = read_json(root.reports) or {}
        token = str(before.get("token") or secrets.token_hex(16))
        for port in (before.get("port"), 0):
            with contextlib.suppress(OSError, TypeError, OverflowError):
                self._server = _Server((HOST, port), take, token)
                break
        if self._server is None:
            return
        write_bytes(root.report_token, token.encode(), durable=False)
        record = {"v": PROTOCOL, "port": self._server.server_address[1], "token": token}
        write_json(root.reports, record, durable=False)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        if self._server:
            self._server.shutdown()
            self._server.server_close()


def report_env(root: Root, env: Dict[str, str]) -> Dict[str, str]:
    """What makes a trainer report here: nothing where `env` has another receiver already, or sends
    everything through a proxy, which would not find us."""
    told = read_json(root.reports) or {}
    port = told.get("port")
    if not isinstance(port, int) or URL in env or "DISABLE_KUBEFLOW_INTEGRATION" in env:
        return {}
    proxies = {name.lower() for name, value in env.items() if value}
    exempt = (env.get("no_proxy") or env.get("NO_PROXY") or "").replace(" ", "").split(",")
    if proxies & {"http_proxy", "all_proxy"} and not {HOST, "*"} & set(exempt):
        return {}
    return {URL: "http://%s:%d/" % (HOST, port), TOKEN: str(root.report_token)}


class _Server(ThreadingMixIn, TCPServer):
    """Not http.server's own, which asks DNS for its name."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: Any, take: Take, token: str) -> None:
        self.take = take
        self.token = token
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A trainer that hung up is nobody's fault."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = TIMEOUT_S

    def do_POST(self) -> None:
        self.send_response(self._take())
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass

    def _take(self) -> int:
        given = self.headers.get("Authorization", "").encode()
        if not hmac.compare_digest(given, ("Bearer %s" % self.server.token).encode()):
            return 403
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > MOST_BYTES:
            return 413
        try:
            body = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            return 400
        if not isinstance(body, dict) or "trainerStatus" not in body:
            return 400
        self.server.take(body)
        return 200
