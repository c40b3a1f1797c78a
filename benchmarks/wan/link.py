"""Starts the emulated link, says how to run a program at one of its ends, and ends it again."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

HERE, THERE = "10.77.0.1", "10.77.0.2"
ETHERNET_PAYLOAD = 1448 / 1538  # of 1,500 + 38 bytes, what is left beside IP, TCP and timestamps
NEEDED = ("cc", "nsenter", "ip")


def why_not() -> str | None:
    """Why this machine cannot emulate a link; None when it can."""
    if os.geteuid() != 0:
        return "it needs root, for network namespaces and TUN devices"
    if missing := [name for name in NEEDED if shutil.which(name) is None]:
        return f"{', '.join(missing)} not installed"
    if not Path("/dev/net/tun").exists():
        return "there is no /dev/net/tun"
    return None


class Link:
    """A link of `rate_mbit` each way with a round trip of `rtt_ms`; a context."""

    def __init__(
        self,
        folder: Path,
        *,
        rtt_ms: float = 80,
        rate_mbit: float = 1000,
        queue_ms: float = 80,
        congestion: str = "cubic",
    ) -> None:
        self.ceiling_mb_s = rate_mbit / 8 * ETHERNET_PAYLOAD
        program = folder / "emulator"
        source = Path(__file__).with_name("emulator.c")
        subprocess.run(["cc", "-O2", "-Wall", "-o", str(program), str(source)], check=True)
        words = [str(program), str(rtt_ms / 2), str(rate_mbit), str(queue_ms)]
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._sides = dict(zip((HERE, THERE), self._said().split(), strict=True))
        for side in self._sides:
            self._set_route(side, congestion)

    def enter(self, side: str) -> list[str]:
        """The words before a command line that is to run at this end."""
        return ["nsenter", f"--net=/proc/{self._process.pid}/fd/{self._sides[side]}", "--"]

    def cpu_s(self) -> float:
        """What the emulator itself has used: the rest of the machine goes without it."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> dict[str, Any]:
        """End it; its counters for each direction."""
        if self._process.stdin:
            self._process.stdin.close()
        said = self._said()
        self._process.wait(10)
        return dict(json.loads(said)) if said else {}

    def __enter__(self) -> Link:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _said(self) -> str:
        output = self._process.stdout
        assert output is not None
        if not select.select([output], [], [], 10)[0]:
            raise TimeoutError("the emulated link says nothing")
        return output.readline()

    def _set_route(self, side: str, congestion: str) -> None:
        """The congestion control of rented boxes, by route: a namespace may not choose it."""
        words = [*self.enter(side), "ip", "route", "change", f"{HERE.rpartition('.')[0]}.0/24"]
        options = ["dev", "wan", "proto", "kernel", "scope", "link", "src", side]
        subprocess.run([*words, *options, "congctl", congestion], check=True)
