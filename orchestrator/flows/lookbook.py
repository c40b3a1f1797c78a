"""What one box's agent saw (`sights.jsonl`), and its log beside it, read in the order in which both
came: what a GPU did is worth knowing together with what the trainer was doing then.

A box is hostile input: what does not fit is passed over, and everything is bounded."""

from __future__ import annotations

import base64
import binascii
import json
import math
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator.core.health.watch import Gpu, Quiet, busiest
from orchestrator.core.signatures.lifecycle import Doing
from orchestrator.core.signatures.structured import progress_report, trainer_log_lines
from orchestrator.flows.curves import Kept, read_at
from orchestrator.flows.logbook import Logbook
from remote.contract import ContractError, check_name, check_path

READ_BYTES = 4 * 1024**2
MOST_LINE = 2 * 1024**2
MOST_LOOKS = 4000
QUIET_LOOKS = 4  # a GPU is looked at for an instant: between two bursts it idles
MOST_FILES = 64
MOST_DUMPED = 8 * 1024**2
MOST_DUMPS = 64
Keep = Callable[[int, str, bytes], None]


@dataclass
class Page:
    """What is known of one attempt. `log` is None until its beginning in the log was told."""

    log: Logbook | None = None
    reports: Kept = field(default_factory=Kept)
    told: Kept = field(default_factory=Kept)
    gpus: deque[Gpu] = field(default_factory=lambda: deque(maxlen=MOST_LOOKS))
    quiet: Quiet | None = None
    looked_at: datetime | None = None
    _idles: deque[Quiet] = field(default_factory=lambda: deque(maxlen=QUIET_LOOKS))
    _bar: Any = None
    _bar_at: datetime | None = None

    @property
    def last_step(self) -> int | None:
        steps = [self.reports.last_step, self.told.last_step]
        steps += [self.log.samples.last_step if self.log else None]
        return max((each for each in steps if each is not None), default=None)

    def look(self, at: datetime, record: Mapping[str, Any]) -> None:
        """One look at the machine."""
        self.looked_at = at
        doing = self.log.life.doing if self.log else Doing.TRAIN
        if record.get("ended") is True:
            doing = Doing.DONE
        gpus = list(_gpus(record.get("gpus"), doing))
        self.gpus.extend(gpus)
        if doing is not Doing.DONE:
            now = Quiet(
                silent_s=_number(record.get("silent_s")) or 0.0,
                bar_still_s=self._bar_still_s(at, doing),
                gpu_percent=max((each.percent for each in gpus), default=None),
                cpu_percent=_number(record.get("cpu_percent")),
                disk_bytes_per_s=_number(record.get("disk_bytes_per_s")),
                network_bytes_per_s=_number(record.get("passed_bytes_per_s")),
            )
            self._idles.append(now)
            self.quiet = busiest(self._idles)

    def _bar_still_s(self, at: datetime, doing: Doing) -> float | None:
        bar = (doing, self.log.life.bar if self.log else None)
        if bar != self._bar or self._bar_at is None:
            self._bar, self._bar_at = bar, at
        return (at - self._bar_at).total_seconds() if bar[1] else None


class Lookbook:
    """One box's pages, by attempt. `keep` gets the files of a dump."""

    def __init__(self, folder: Path, keep: Keep) -> None:
        self._folder = folder
        self._keep = keep
        self._at = 0
        self._dumps = 0
        self.pages: dict[int, Page] = {}
        self.files: dict[str, tuple[datetime, Mapping[str, Any]]] = {}
        self.is_behind = False

    def read(self, newest: int, *, ended: bool) -> bool:
        """Take in what has come; `newest` is the last attempt that was asked for on this box, and
        `ended` whether it has. Whether anything was new."""
        data = read_at(self._folder / "sights.jsonl", self._at, READ_BYTES)
        whole = data[: data.rfind(b"\n") + 1]
        if not whole and len(data) > MOST_LINE:
            whole = data
        self._at += len(whole)
        for line in whole.split(b"\n"):
            self._take(line, newest)
        is_new = self._read_log(newest, ended=ended) or bool(whole)
        logs = [page.log for page in self.pages.values() if page.log]
        self.is_behind = len(data) == READ_BYTES or any(log.is_behind for log in logs)
        return is_new

    def page(self, attempt: int) -> Page:
        return self.pages.get(attempt) or Page()

    def _take(self, line: bytes, newest: int) -> None:
        record = _object(line)
        attempt, at = _count(record.get("attempt")), _time(record.get("at"))
        if attempt is None or attempt > newest or at is None:
            return
        page = self.pages.setdefault(attempt, Page())
        match record.get("kind"):
            case "began":
                self._began(page, attempt, _count(record.get("log_from")))
            case "machine":
                self._machine(page, at, record)
            case "report":
                report = progress_report(json.dumps(record.get("body")))
                page.reports.extend([report.sample] if report and report.sample else [])
            case "trainer_log":
                lines = record.get("lines")
                texts = [x for x in lines if isinstance(x, str)] if isinstance(lines, list) else []
                page.told.extend(trainer_log_lines(texts))
            case "file":
                self._file(at, record)
            case "dump":
                self._dumped(attempt, record)

    def _began(self, page: Page, attempt: int, log_from: int | None) -> None:
        """Where an attempt's log begins the one's before it ends."""
        if page.log is not None or log_from is None:
            return
        page.log = Logbook(self._folder / "log", log_from)
        for number, before in self.pages.items():
            if number < attempt and before.log and before.log.ends is None:
                before.log.ends = max(log_from, before.log.offset)

    def _machine(self, page: Page, at: datetime, record: Mapping[str, Any]) -> None:
        until = _count(record.get("log_bytes"))
        if page.log and until is not None:
            page.log.read(until, page.looked_at)
        page.look(at, record)

    def _read_log(self, newest: int, *, ended: bool) -> bool:
        """The next piece of it, the oldest first."""
        for number, page in sorted(self.pages.items()):
            is_over = number < newest or ended
            if page.log and page.log.is_behind:
                return page.log.read(None, page.looked_at)
            if page.log and is_over:
                page.log.end()
        return False

    def _file(self, at: datetime, record: Mapping[str, Any]) -> None:
        name, data = record.get("name"), record.get("data")
        if not isinstance(name, str) or not isinstance(data, dict):
            return
        try:
            check_path(name)
        except ContractError:
            return
        if name in self.files or len(self.files) < MOST_FILES:
            self.files[name] = (at, data)

    def _dumped(self, attempt: int, record: Mapping[str, Any]) -> None:
        self._dumps += 1
        try:
            name = check_name(str(record.get("name")))
            packed = base64.b64decode(str(record.get("data")), validate=True)
            data = zlib.decompressobj().decompress(packed, MOST_DUMPED)
        except (ContractError, binascii.Error, ValueError, zlib.error):
            return
        if self._dumps <= MOST_DUMPS:
            self._keep(attempt, name, data)


def _gpus(told: Any, doing: Doing) -> Iterator[Gpu]:
    for each in told if isinstance(told, list) else []:
        index = _count(each.get("index")) if isinstance(each, dict) else None
        if index is None:
            continue
        numbers = [_number(each.get(key)) for key in ("percent", "used_gb", "total_gb")]
        percent, used_gb, total_gb = numbers
        if percent is not None and used_gb is not None and total_gb is not None:
            yield Gpu(index, percent, used_gb, total_gb, doing)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and value >= 0 else None


def _count(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value < 2**53 else None


def _time(value: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found and found.tzinfo is None else found


def _object(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line) if line else None
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
