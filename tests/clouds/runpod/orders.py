"""From a create's body to a pod: the rules between fields, then a place for it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any

from clouds.clock import CloudClock
from clouds.cloud import Options
from clouds.faults import Faults
from clouds.runpod import catalogue
from clouds.runpod.faults import FULL
from clouds.runpod.pods import Pod
from clouds.runpod.replies import Refusal
from clouds.runpod.stores import Stores

NO_DISK = "You must either provide a template id or pod configuration parameters"
DEFAULTS: dict[str, Any] = {"args": "", "disk": 0, "mounts": {}, "ports": [], "registry": None}


class Orders:
    """Reads create requests. Raises Refusal: 400, 402, 403, 404."""

    def __init__(
        self,
        options: Options,
        clock: CloudClock,
        faults: Faults,
        stores: Stores,
        taken: Callable[[], catalogue.Taken],
        balance_usd: Callable[[], float],
    ) -> None:
        self._options = options
        self._clock = clock
        self._faults = faults
        self._stores = stores
        self._taken = taken
        self._balance_usd = balance_usd

    def pod(self, body: Mapping[str, Any]) -> Pod:
        sent = self._with_template(body)
        self._check_rules(sent)
        gpu, cloud = sent.get("gpu"), sent.get("cloud", "SECURE")
        center = self._place(sent, gpu, cloud) if gpu else next(iter(catalogue.CENTERS.values()))
        if not sent.get("disk"):
            raise Refusal(400, NO_DISK)
        usd = self._price(sent, gpu, cloud, center.id)
        self._check_balance(gpu, center.id, cloud, usd)
        now, env = self._clock.now(), dict(sent.get("env", {}))
        return Pod(
            id="".join(secrets.choice("abcdefghijkmnpqrstuvwxyz0123456789") for _ in range(14)),
            name=sent["name"],
            config={
                **DEFAULTS,
                **{n: sent[n] for n in DEFAULTS if n in sent},
                "image": sent["image"],
                "env": env,
            },
            gpu=(gpu["id"], gpu["count"]) if gpu else None,
            cpu=(sent["cpu"]["id"], sent["cpu"]["vcpuCount"]) if "cpu" in sent else None,
            cloud=cloud,
            center=center.id,
            cuda=center.cuda,
            usd_per_hour=usd,
            created_at=now,
            key=f"rpa_pod_{secrets.token_hex(16)}",
            keys=self._keys(sent, env),
            boot_s=self._options.boot_s,
            endpoint_s=self._options.endpoint_s,
            sshd_s=self._options.sshd_s,
            boot_at=now,
        )

    def _with_template(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The body over its template's fields; env is merged per key."""
        name = body.get("templateId")
        if name is None:
            return dict(body)
        template = self._stores.templates.get(name)
        if template is None:
            raise Refusal(404, f"template {name} not found")
        if template["serverless"]:
            raise Refusal(422, "Request validation failed.", ["$.templateId: is serverless"])
        base = {n: template[n] for n in ("image", "args", "disk", "mounts", "ports", "startSsh")}
        return {**base, **body, "env": {**template["env"], **body.get("env", {})}}

    def _check_rules(self, sent: Mapping[str, Any]) -> None:
        gpu, mounts = sent.get("gpu", {}), sent.get("mounts", {})
        unknown = "id" in gpu and gpu["id"] not in catalogue.GPUS
        both_cuda = "minCudaVersion" in gpu and "allowedCudaVersions" in gpu
        both_mounts = "persistent" in mounts and bool(mounts.get("network"))
        rules = (
            (("gpu" in sent) == ("cpu" in sent), "exactly one of gpu or cpu must be provided"),
            (unknown, f"gpu type {gpu.get('id')} not found"),
            (both_cuda, "gpu.minCudaVersion and gpu.allowedCudaVersions are mutually exclusive"),
            (both_mounts, "mounts.persistent and mounts.network are mutually exclusive"),
            ("cpu" in sent and "persistent" in mounts, "cpu pods do not support mounts.persistent"),
            (len(sent.get("env", {})) > 50, "a pod has at most 50 environment variables"),
        )
        for broken, detail in rules:
            if broken:
                raise Refusal(400, detail)
        for center in sent.get("dataCenterIds", []):
            if center not in catalogue.CENTERS:
                raise Refusal(400, f"data center {center} not found")
        self._check_cpu(sent.get("cpu"))
        self._check_named(sent)

    def _check_cpu(self, cpu: Mapping[str, Any] | None) -> None:
        if cpu is None:
            return
        if cpu["id"] not in catalogue.FLAVORS:
            raise Refusal(400, f"cpu flavor {cpu['id']} not found")
        if cpu["vcpuCount"] & (cpu["vcpuCount"] - 1):
            raise Refusal(400, "cpu.vcpuCount must be a power of two")

    def _check_named(self, sent: Mapping[str, Any]) -> None:
        """What the body names must be there, and the volume where the pod is to be."""
        registry = sent.get("registry")
        if registry is not None and registry not in self._stores.registries:
            raise Refusal(400, f"container registry auth {registry} not found")
        for mount in sent.get("mounts", {}).get("network", []):
            volume = self._stores.volumes.get(mount["volumeId"])
            if volume is None:
                raise Refusal(400, f"network volume {mount['volumeId']} not found")
            if sent.get("cloud") == "COMMUNITY":
                raise Refusal(400, "network volumes are available on the secure cloud only")
            wanted = sent.get("dataCenterIds") or [volume["dataCenter"]]
            if volume["dataCenter"] not in wanted:
                raise Refusal(
                    400, f"network volume {volume['id']} is in {volume['dataCenter']}, not there"
                )

    def _place(
        self, sent: Mapping[str, Any], gpu: Mapping[str, Any], cloud: str
    ) -> catalogue.Center:
        facts = {"gpu": gpu["id"], "cloud": cloud}
        if self._faults.take("create-500", region=_first(sent), **facts):
            raise Refusal(500, "Something went wrong. Please try again later or contact support.")
        if self._faults.take("pool-forbidden", region=_first(sent), **facts):
            raise Refusal(403, f"this account has no access to {gpu['id']} in this pool")
        wanted = self._wanted(sent, gpu["id"])
        open_ = self._not_full(wanted, facts)
        if elsewhere := self._faults.take("placed-elsewhere", gpu=gpu["id"]):
            open_ = [elsewhere["region"]]
        floor = "minCudaVersion" in gpu
        cuda = gpu.get("minCudaVersion") or ",".join(gpu.get("allowedCudaVersions", []))
        # The count is documented to be 1 when it is left out; in truth no machine matches.
        count = gpu.get("count", 0)
        rented = cloud == "SECURE" or catalogue.GPUS[gpu["id"]].community_usd > 0
        found = (
            rented
            and count
            and catalogue.place(gpu["id"], count, open_, (cuda, floor), self._taken())
        )
        if not found:
            raise Refusal(400, FULL)
        return found

    def _wanted(self, sent: Mapping[str, Any], gpu: str) -> list[str]:
        for mount in sent.get("mounts", {}).get("network", []):
            return [self._stores.volumes[mount["volumeId"]]["dataCenter"]]
        return list(sent.get("dataCenterIds") or catalogue.CENTERS)

    def _not_full(self, wanted: list[str], facts: Mapping[str, Any]) -> list[str]:
        """Those that no fault closes; when none is left, the create has failed."""
        faults = self._faults
        full = [each for each in wanted if faults.peek("no-capacity", region=each, **facts)]
        acted = faults.take("no-capacity", region=full[0], **facts) if full else None
        left = [each for each in wanted if each not in full] if acted else wanted
        if not left:
            raise Refusal(400, acted["detail"] if acted else FULL)
        return left

    def _price(
        self, sent: Mapping[str, Any], gpu: Mapping[str, Any] | None, cloud: str, center: str
    ) -> float:
        if gpu is None:
            cpu = sent["cpu"]
            return round(catalogue.FLAVORS[cpu["id"]] * cpu["vcpuCount"], 4)
        usd = catalogue.price_usd(gpu["id"], gpu["count"], cloud)
        facts = {"gpu": gpu["id"], "region": center, "cloud": cloud}
        differs = self._faults.take("price-differs", **facts)
        return round(usd * float(differs["factor"]), 4) if differs else usd

    def _check_balance(
        self, gpu: Mapping[str, Any] | None, center: str, cloud: str, usd: float
    ) -> None:
        """One hour of credit is needed to deploy."""
        facts = {"gpu": gpu["id"] if gpu else None, "region": center, "cloud": cloud}
        if self._balance_usd() < usd or self._faults.take("short-balance", **facts):
            raise Refusal(402, "Your account balance is too low to deploy this pod.")

    def _keys(self, sent: Mapping[str, Any], env: Mapping[str, str]) -> list[str]:
        """PUBLIC_KEY of the body, else with startSsh every key of the account."""
        if "PUBLIC_KEY" in env:
            return [line for line in env["PUBLIC_KEY"].splitlines() if line.strip()]
        return list(self._stores.keys) if sent.get("startSsh") else []


def _first(sent: Mapping[str, Any]) -> str | None:
    """The data center that was asked for first."""
    return next(iter(sent.get("dataCenterIds") or []), None)
