"""Starts an emulated cloud, or tells a running one what to do:

python -m clouds runpod --folder DIR [--port N] [--driven ISO] [--boxes none] …
python -m clouds fault URL no-capacity gpu="NVIDIA A40" times=2
python -m clouds faults|bill|instances|audit|violations URL
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import secrets
import socket
import sys
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from clouds.clock import parse_iso
from clouds.cloud import Cloud, Options
from clouds.serving import application

VENDORS = ("runpod", "thunder")
LOOKS = ("faults", "bill", "instances", "audit", "violations")


def main(words: list[str] | None = None) -> int:
    options = _parser().parse_args(words)
    if options.command in VENDORS:
        return serve(options)
    if options.command == "fault":
        wanted = {"name": options.name, **dict(_pair(each) for each in options.params)}
        return _show(httpx.post(f"{options.url}/_control/faults", json=wanted))
    return _show(httpx.get(f"{options.url}/_control/{options.command}"))


def serve(asked: argparse.Namespace) -> int:
    """Until SIGTERM, SIGINT or, with --until-eof, the end of standard input; ends every box."""
    module = importlib.import_module(f"clouds.{asked.command}.app")
    cloud: Cloud = module.cloud(_options(asked))
    # Named TCP, or asyncio does not know it for TCP, and every answer waits 40 ms for an ACK.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", asked.port))
    cloud.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    config = uvicorn.Config(
        application(cloud),
        log_level="error",
        timeout_graceful_shutdown=1,
        timeout_keep_alive=60,
        server_header=False,
        date_header=False,
    )
    Server(config, cloud, until_eof=asked.until_eof).run(sockets=[listening])
    return 0


class Server(uvicorn.Server):
    """Says where it listens once it does."""

    def __init__(self, config: uvicorn.Config, cloud: Cloud, *, until_eof: bool) -> None:
        super().__init__(config)
        self._cloud = cloud
        self._until_eof = until_eof

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.should_exit:
            return
        if self._until_eof:
            asyncio.get_running_loop().add_reader(sys.stdin.fileno(), self._stdin)
        url = self._cloud.url
        line = {"url": url, "control": f"{url}/_control", "key": self._cloud.account.key}
        print(json.dumps(line), flush=True)

    def _stdin(self) -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            self.should_exit = True


def _options(asked: argparse.Namespace) -> Options:
    return Options(
        folder=asked.folder.absolute(),
        boot_s=asked.boot_s,
        endpoint_s=asked.endpoint_s,
        sshd_s=asked.sshd_s,
        requests_per_minute=asked.requests_per_minute,
        driven=parse_iso(asked.driven) if asked.driven else None,
        boxes=asked.boxes,
        balance_usd=asked.balance,
        key=asked.key or f"{asked.command}_{secrets.token_hex(16)}",
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="clouds", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for vendor in VENDORS:
        _add_serve(commands.add_parser(vendor, help=f"serve an emulated {vendor}"))
    fault = commands.add_parser("fault", help="arm a fault")
    fault.add_argument("url")
    fault.add_argument("name")
    fault.add_argument("params", nargs="*", metavar="KEY=VALUE")
    for look in LOOKS:
        commands.add_parser(look, help=f"show the {look}").add_argument("url")
    return parser


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--folder", type=Path, required=True, help="where the boxes live")
    parser.add_argument("--boot-s", type=float, default=0.5)
    parser.add_argument("--endpoint-s", type=float, default=0.3)
    parser.add_argument("--sshd-s", type=float, default=0.2)
    parser.add_argument("--requests-per-minute", type=int)
    parser.add_argument("--driven", metavar="ISO", help="a clock that moves only when told")
    parser.add_argument("--boxes", choices=("real", "none"), default="real")
    parser.add_argument("--balance", type=float, default=100.0, metavar="USD")
    parser.add_argument("--key", default="", help="the account's key; made up unless given")
    parser.add_argument("--until-eof", action="store_true", help="end with standard input")


def _pair(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise SystemExit(f"{text!r} is not KEY=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _show(reply: httpx.Response) -> int:
    print(json.dumps(reply.json(), indent=1))
    return 0 if reply.is_success else 1


if __name__ == "__main__":
    sys.exit(main())
