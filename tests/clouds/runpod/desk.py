"""The routes of pods: create, look, change, act, end."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from starlette.responses import JSONResponse, Response

from clouds.cloud import Call, Handler
from clouds.runpod import validate
from clouds.runpod.faults import WRONG
from clouds.runpod.fleet import Fleet
from clouds.runpod.listing import paged
from clouds.runpod.logs import follow
from clouds.runpod.orders import Orders
from clouds.runpod.pods import ACTIONS, Pod
from clouds.runpod.replies import Refusal, by_fault, checked, problem
from clouds.runpod.view import pod_json
from clouds.serving import CutShort

RESETS = {"image", "args", "disk", "env", "ports", "registry"}
NO_GPUS = "not enough free GPUs on the host machine"


class Desk:
    def __init__(self, fleet: Fleet, orders: Orders) -> None:
        self._fleet = fleet
        self._orders = orders
        self._faults = fleet.faults

    def routes(self) -> dict[tuple[str, str], Handler]:
        return {
            ("GET", "/v2/pods"): self.list,
            ("POST", "/v2/pods"): self.create,
            ("GET", "/v2/pods/{id}"): self.get,
            ("PATCH", "/v2/pods/{id}"): self.update,
            ("DELETE", "/v2/pods/{id}"): self.delete,
            ("POST", "/v2/pods/{id}/action"): self.act,
            ("GET", "/v2/pods/{id}/logs"): self.logs,
        }

    async def list(self, call: Call) -> Response:
        pods = sorted(self._fleet.pods.values(), key=lambda pod: pod.created_at, reverse=True)
        rows = [self._view(pod) for pod in pods if self._told(pod)]
        return JSONResponse(paged(call, self._faults, "pods", rows))

    async def create(self, call: Call) -> Response:
        body = checked(call, validate.errors_of_create)
        pod = self._orders.pod(body)
        self._fleet.add(pod)
        gpu = pod.gpu[0] if pod.gpu else None
        facts = {"gpu": gpu, "region": pod.center, "cloud": pod.cloud}
        if self._faults.take("create-500-but-created", **facts):
            return by_fault(problem(500, WRONG))
        if self._faults.take("create-answer-lost", **facts):
            return by_fault(CutShort(status_code=201))
        if hangs := self._faults.take("create-hangs-but-created", **facts):
            await asyncio.sleep(float(hangs["hang_s"]))
        return JSONResponse(self._view(pod), 201)

    async def get(self, call: Call) -> Response:
        return JSONResponse(self._view(self._named(call)))

    async def update(self, call: Call) -> Response:
        pod = self._named(call)
        body = checked(call, lambda body: validate.UPDATE("$", body))
        if "mounts" in body or "templateId" in body:
            raise Refusal(400, "mounts and template of a pod cannot be changed here")
        pod.name, pod.locked = body.get("name", pod.name), body.get("locked", pod.locked)
        changed = {name: body[name] for name in RESETS if name in body}
        pod.config.update(changed)
        if changed and pod.status(self._now()) == "RUNNING":
            self._fleet.boot(pod, start=False)
        return JSONResponse(self._view(pod))

    async def delete(self, call: Call) -> Response:
        pod = self._named(call)
        facts = {"instance": pod.id, "mark": pod.name}
        young = self._faults.peek("delete-404-while-propagating", **facts)
        if young and self._age(pod) < float(young["for_s"]):
            return by_fault(problem(404, "resource not found"))
        if not self._faults.take("delete-ignored", **facts):
            self._end(pod)
        return Response(status_code=204)

    async def act(self, call: Call) -> Response:
        pod = self._named(call)
        action = checked(call, lambda body: validate.ACTION("$", body))["action"]
        status = pod.status(self._now())
        if action not in ACTIONS[status]:
            raise Refusal(409, f"action {action} is not valid for status {status}")
        if pod.locked and action in ("stop", "restart"):
            raise Refusal(409, "pod is locked")
        if action == "terminate":
            return await self.delete(call)
        if action == "start" and (refused := self._refused_start(pod)):
            return refused
        if action == "stop":
            self._fleet.stop(pod)
        else:
            self._fleet.boot(pod, start=action == "start")
        facts = {"instance": pod.id, "mark": pod.name}
        if action == "start" and self._faults.take("start-500-but-started", **facts):
            return by_fault(problem(500, WRONG))
        return JSONResponse(self._view(pod))

    async def logs(self, call: Call) -> Response:
        return follow(call, self._named(call), self._skew_s())

    def _refused_start(self, pod: Pod) -> Response | None:
        """The host has no room any more: told in a shape of its own."""
        if self._faults.take("start-not-enough-gpus", instance=pod.id, mark=pod.name):
            return by_fault(JSONResponse({"error": NO_GPUS}, 400))
        if self._fleet.account.balance_usd < pod.usd_per_hour:
            raise Refusal(402, "Your account balance is too low to start this pod.")
        return None

    def _end(self, pod: Pod) -> None:
        lingers = self._faults.take("delete-lingers", instance=pod.id, mark=pod.name)
        self._fleet.end(pod)
        if lingers:
            pod.told_status = str(lingers["status"])
            pod.told_until = self._now() + timedelta(seconds=float(lingers["for_s"]))

    def _named(self, call: Call) -> Pod:
        pod = self._fleet.pods.get(call.params["id"])
        if pod is None or not self._told(pod):
            raise Refusal(404, "resource not found")
        return pod

    def _told(self, pod: Pod) -> bool:
        """Whether the API knows of it at this moment, true or not."""
        now = self._now()
        if pod.ended_at is not None:
            return pod.told_until is not None and now < pod.told_until
        if pod.hidden_until is not None and now < pod.hidden_until:
            return False
        new = self._faults.peek("invisible-after-create", instance=pod.id, mark=pod.name)
        return not new or self._age(pod) >= float(new["for_s"])

    def _view(self, pod: Pod) -> dict[str, Any]:
        facts = {"instance": pod.id, "mark": pod.name}
        return pod_json(
            pod,
            self._now(),
            skew_s=self._skew_s(),
            clear=self._faults.peek("env-in-clear", **facts) is not None,
            stale=self._faults.peek("stale-runtime", **facts) is not None,
        )

    def _skew_s(self) -> float:
        skew = self._faults.peek("clock-skew")
        return float(skew["skew_s"]) if skew else 0.0

    def _age(self, pod: Pod) -> float:
        return (self._now() - pod.created_at).total_seconds()

    def _now(self) -> Any:
        return self._fleet.clock.now()
