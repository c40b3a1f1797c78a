"""What every emulated cloud is made of, and what it must answer for itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

from starlette.responses import Response

from clouds.account import Account, Window
from clouds.boxes import Boxes
from clouds.clock import CloudClock
from clouds.faults import Fault, Faults
from clouds.schema import Schema


@dataclass(frozen=True)
class Options:
    """How a cloud is started. The three delays are from create to running, from running to the
    address being told, and from there to sshd accepting."""

    folder: Path
    boot_s: float = 0.5
    endpoint_s: float = 0.3
    sshd_s: float = 0.2
    requests_per_minute: int | None = None
    driven: datetime | None = None
    boxes: str = "real"
    balance_usd: float = 100.0
    key: str = ""


@dataclass(frozen=True)
class Call:
    """One request to the vendor's API, read whole. `body` is parsed JSON, `raw` its bytes;
    `who` is filled in by `guard`. `malformed` when there are bytes that are no JSON."""

    method: str
    path: str
    template: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bytes = b""
    body: Any = None
    malformed: bool = False
    url: str = ""


Handler = Callable[[Call], Awaitable[Response]]
Routes = Mapping[tuple[str, str], Handler]  # ("GET", "/v2/pods/{id}") to who answers it


class Cloud(ABC):
    """One vendor. The server calls `settle` before every request, every 0.1 s in real time and
    whenever a driven clock moves; `guard` then sees each vendor request before its handler."""

    name: str

    def __init__(
        self,
        options: Options,
        *,
        faults: Sequence[Fault],
        schema: Schema,
        unit_s: float,
        windows: tuple[Window, ...] = (),
    ) -> None:
        self.options = options
        self.clock = CloudClock(options.driven)
        self.account = Account(self.clock, options.key, options.balance_usd, unit_s, windows)
        self.faults = Faults(faults)
        self.schema = schema
        self.boxes = Boxes(options.folder / "boxes", real=options.boxes == "real")
        self.url = ""

    @abstractmethod
    def routes(self) -> Routes: ...

    @abstractmethod
    async def settle(self) -> None:
        """Bring every instance, box and bill to now. Repeatable."""

    @abstractmethod
    def instances(self) -> list[dict[str, Any]]:
        """The truth about each instance that exists, whatever the API says: at least `id`,
        `mark`, `status`, `usd_per_hour`, and of its box `pid`, `folder`, `port`."""

    @abstractmethod
    async def end(self, instance: str) -> bool:
        """End an instance as a person does in the console; whether there was one."""

    @abstractmethod
    async def guard(self, call: Call) -> Response | None:
        """The edge, the key and the rate limit; None lets the call through."""

    @abstractmethod
    def who(self, call: Call) -> str:
        """Whose key it carries, for the audit; never the key."""

    @abstractmethod
    def problem(
        self, status: int, detail: str, headers: Mapping[str, str] | None = None
    ) -> Response:
        """An error in the vendor's shape; for unknown paths (404) and methods (405)."""

    def finish(self, call: Call, response: Response) -> None:
        """A last touch to every vendor reply: the cloud's own time, for one."""
        response.headers["Date"] = format_datetime(self.clock.now(), usegmt=True)

    async def close(self) -> None:
        await self.boxes.close()
