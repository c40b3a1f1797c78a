"""The catalog's routes: types, prices and stock, which are a hint and no promise."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from starlette.responses import JSONResponse, Response

from clouds.cloud import Call, Handler
from clouds.faults import Faults
from clouds.runpod.catalogue import (
    CENTERS,
    GPUS,
    Center,
    Gpu,
    Taken,
    free,
    level,
    version,
)
from clouds.runpod.replies import Refusal

STOCK_ONLY = ("count", "cloud", "countryCodes", "cudaVersions", "minCudaVersion", "product")
LEVELS = ("NONE", "LOW", "MEDIUM", "HIGH")


class Catalog:
    def __init__(self, faults: Faults, taken: Callable[[], Taken]) -> None:
        self._faults = faults
        self._taken = taken

    def routes(self) -> dict[tuple[str, str], Handler]:
        return {
            ("GET", "/v2/catalog/gpus"): self.gpus,
            ("GET", "/v2/catalog/gpus/{id}"): self.gpu,
            ("GET", "/v2/catalog/datacenters"): self.centers,
            ("GET", "/v2/catalog/datacenters/{id}"): self.center,
        }

    async def gpus(self, call: Call) -> Response:
        _check(call.query)
        rows = [self._gpu(gpu, call.query) for gpu in GPUS.values()]
        if "countryCodes" in call.query:
            rows = [row for row in rows if row.get("dataCenters")]
        return JSONResponse({"gpus": rows})

    async def gpu(self, call: Call) -> Response:
        _check(call.query)
        gpu = GPUS.get(call.params["id"])
        if gpu is None:
            raise Refusal(404, "resource not found")
        return JSONResponse(self._gpu(gpu, call.query))

    async def centers(self, call: Call) -> Response:
        regions = call.query["regions"].split(",") if "regions" in call.query else None
        found = [each for each in CENTERS.values() if not regions or each.region in regions]
        return JSONResponse({"dataCenters": [self._center(each, call.query) for each in found]})

    async def center(self, call: Call) -> Response:
        center = CENTERS.get(call.params["id"])
        if center is None:
            raise Refusal(404, "resource not found")
        return JSONResponse(self._center(center, call.query))

    def _gpu(self, gpu: Gpu, query: Mapping[str, str]) -> dict[str, Any]:
        row = {
            "id": gpu.id,
            "name": gpu.name,
            "pool": gpu.pool,
            "manufacturer": "NVIDIA",
            "memory": gpu.memory,
            "secure": True,
            "community": gpu.community_usd > 0,
            "price": {"secure": gpu.secure_usd, "community": gpu.community_usd},
            "maxCount": {
                "secure": gpu.max_count,
                "community": gpu.max_count if gpu.community_usd else 0,
            },
        }
        return {**row, **self._stock(gpu, query)} if "include" in query else row

    def _stock(self, gpu: Gpu, query: Mapping[str, str]) -> dict[str, Any]:
        """Stock of machines that have `count` free, in each data center that offers the type."""
        count, versions = int(query.get("count", "1")), query.get("cudaVersions", "")
        floor = query.get("minCudaVersion", "")
        countries = query["countryCodes"].split(",") if "countryCodes" in query else None
        centers, drivers = [], {}
        for center in CENTERS.values():
            offered = gpu.id in dict(center.free)
            if not offered or (countries and center.country not in countries):
                continue
            if not _fits(center.cuda, versions, floor):
                continue
            word = self._level(center, gpu, count)
            centers.append({"id": center.id, "name": center.name, "availability": word})
            drivers[center.cuda] = drivers.get(center.cuda, False) or word != "NONE"
        words = [each["availability"] for each in centers]
        stock: dict[str, Any] = {
            "availability": max(words, key=LEVELS.index, default="NONE"),
            "cudaVersions": [{"version": v, "available": drivers[v]} for v in sorted(drivers)],
        }
        return {**stock, "dataCenters": centers} if centers else stock

    def _level(self, center: Center, gpu: Gpu, count: int) -> str:
        if count > gpu.max_count or self._faults.peek("catalog-says-none", gpu=gpu.id):
            return "NONE"
        return level(free(center, gpu.id, self._taken()), count)

    def _center(self, center: Center, query: Mapping[str, str]) -> dict[str, Any]:
        row = {
            "id": center.id,
            "name": center.name,
            "region": center.region,
            "globalNetwork": True,
            "networkVolumeTypes": list(center.volumes),
            "compliance": ["SOC_2_TYPE_2"],
        }
        if "GPU_AVAILABILITY" not in query.get("include", "").split(","):
            return row
        stock = [
            {
                "id": name,
                "name": GPUS[name].name,
                "availability": self._level(center, GPUS[name], 1),
            }
            for name, _ in center.free
        ]
        return {**row, "gpuAvailability": stock}


def _check(query: Mapping[str, str]) -> None:
    include = query.get("include")
    if include not in (None, "AVAILABILITY"):
        raise Refusal(422, "Request validation failed.", [f"include: unknown value {include!r}"])
    if include and "product" not in query:
        raise Refusal(400, "product is required with include=AVAILABILITY")
    alone = [name for name in STOCK_ONLY if name in query]
    if alone and not include:
        raise Refusal(400, f"{alone[0]} is valid only with include=AVAILABILITY")
    if "cudaVersions" in query and "minCudaVersion" in query:
        raise Refusal(400, "cudaVersions and minCudaVersion are mutually exclusive")
    _check_values(query)


def _check_values(query: Mapping[str, str]) -> None:
    patterns = {
        "count": r"[1-9]\d*",
        "product": r"(POD|CLUSTER|SERVERLESS)(,(POD|CLUSTER|SERVERLESS))*",
        "cloud": r"SECURE|COMMUNITY",
        "countryCodes": r"[A-Z]{2}(,[A-Z]{2})*",
        "cudaVersions": r"\d+\.\d+(,\d+\.\d+)*",
        "minCudaVersion": r"\d+(\.\d+)?",
    }
    wrong = [n for n, p in patterns.items() if n in query and not re.fullmatch(p, query[n])]
    if wrong:
        errors = [f"{name}: malformed value {query[name]!r}" for name in wrong]
        raise Refusal(422, "Request validation failed.", errors)


def _fits(host: str, exact: str, floor: str) -> bool:
    if exact:
        return host in exact.split(",")
    return not floor or version(host) >= version(floor)
