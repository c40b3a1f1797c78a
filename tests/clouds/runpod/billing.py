"""What the pods cost, in the buckets and with the delay of /v2/billing/pods."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from clouds.account import Account
from clouds.clock import iso, parse_iso
from clouds.cloud import Call
from clouds.runpod.replies import Refusal

LAG = timedelta(hours=1)
SIZES = ("hour", "day", "week", "month", "year")
UNBOUNDED_DAYS = 30


def pod_billing(call: Call, account: Account, now: datetime) -> dict[str, Any]:
    """One record for each pod and bucket in which it cost anything that is known by now."""
    start, end, size = _window(call.query, now)
    pod = call.query.get("podId")
    records = [
        _record(bucket, bucket_end, name, usd)
        for bucket, bucket_end in _buckets(start, end, size)
        for name, usd in _costs(account, bucket, min(bucket_end, now - LAG)).items()
        if pod is None or name == pod
    ]
    query = {"startTime": iso(start), "endTime": iso(end), "bucketSize": size}
    metadata = {
        "query": {**query, "podId": pod},
        "recordCount": len(records),
        "uniquePodCount": len({each["podId"] for each in records}),
        "totals": _amounts(sum(each["totalAmount"] for each in records)),
    }
    return {"records": records, "metadata": metadata}


def _window(query: Mapping[str, str], now: datetime) -> tuple[datetime, datetime, str]:
    size = query.get("bucketSize", "day")
    if size not in SIZES:
        raise Refusal(422, "Request validation failed.", ["bucketSize: unknown"])
    try:
        if "lastN" in query:
            return _last(int(query["lastN"]), size, query, now)
        start = parse_iso(query["startTime"]) if "startTime" in query else None
        end = parse_iso(query["endTime"]) if "endTime" in query else now
    except ValueError as error:
        raise Refusal(422, "Request validation failed.", [str(error)]) from error
    floor = _floor(start or now - timedelta(days=UNBOUNDED_DAYS), size)
    ceiling = _floor(end, size)
    return floor, ceiling if ceiling == end else _next(ceiling, size), size


def _last(
    n: int, size: str, query: Mapping[str, str], now: datetime
) -> tuple[datetime, datetime, str]:
    if "startTime" in query or "endTime" in query:
        raise Refusal(400, "lastN and startTime/endTime are mutually exclusive")
    if n < 1:
        raise ValueError("lastN: minimum: want 1")
    start = _floor(now, size)
    end = _next(start, size)
    for _ in range(n - 1):
        start = _floor(start - timedelta(seconds=1), size)
    return start, end, size


def _buckets(start: datetime, end: datetime, size: str) -> Iterator[tuple[datetime, datetime]]:
    while start < end:
        following = _next(start, size)
        yield start, following
        start = following


def _floor(at: datetime, size: str) -> datetime:
    at = at.replace(minute=0, second=0, microsecond=0)
    if size == "hour":
        return at
    at = at.replace(hour=0)
    if size == "week":
        return at - timedelta(days=at.weekday())
    if size in ("month", "year"):
        at = at.replace(day=1)
    return at.replace(month=1) if size == "year" else at


def _next(start: datetime, size: str) -> datetime:
    """The next bucket: more than the longest of its kind, snapped back."""
    days = {"hour": 1 / 24, "day": 1, "week": 7, "month": 31, "year": 366}[size]
    return _floor(start + timedelta(days=days), size)


def _costs(account: Account, start: datetime, end: datetime) -> dict[str, float]:
    costs: dict[str, float] = {}
    for each in account.log:
        since, until = max(each.since, start), min(each.until or end, end)
        if since < until:
            cut = replace(each, since=since, until=until)
            costs[each.instance] = costs.get(each.instance, 0.0) + cut.usd(until, account.unit_s)
    return costs


def _record(start: datetime, end: datetime, pod: str, usd: float) -> dict[str, Any]:
    return {"startTime": iso(start), "endTime": iso(end), "podId": pod, **_amounts(usd)}


def _amounts(usd: float) -> dict[str, float]:
    usd = round(usd, 6)
    return {"totalAmount": usd, "gpuAmount": usd, "cpuAmount": 0.0, "diskAmount": 0.0}
