"""What an account keeps besides pods: its ssh keys, network volumes, templates, registries."""

from __future__ import annotations

import secrets
from typing import Any

from starlette.responses import JSONResponse, Response

from clouds.cloud import Call, Handler
from clouds.runpod import catalogue, validate
from clouds.runpod.replies import Refusal, checked

Rows = dict[str, dict[str, Any]]
PLAIN_TEMPLATE: dict[str, Any] = {
    "args": "",
    "disk": 20,
    "mounts": {},
    "ports": [],
    "env": {},
    "registry": None,
    "serverless": False,
    "public": False,
    "category": "NVIDIA",
    "startSsh": True,
    "startJupyter": True,
    "allowedCudaVersions": [],
}


class Stores:
    def __init__(self) -> None:
        self.keys: list[str] = []
        self.volumes: Rows = {}
        self.templates: Rows = {}
        self.registries: Rows = {}

    def routes(self) -> dict[tuple[str, str], Handler]:
        return {
            ("GET", "/v2/account/ssh-keys"): self.list_keys,
            ("PUT", "/v2/account/ssh-keys"): self.replace_keys,
            ("GET", "/v2/network-volumes"): self.list_volumes,
            ("POST", "/v2/network-volumes"): self.create_volume,
            ("GET", "/v2/network-volumes/{id}"): self.get_volume,
            ("PATCH", "/v2/network-volumes/{id}"): self.update_volume,
            ("DELETE", "/v2/network-volumes/{id}"): self.delete_volume,
            ("GET", "/v2/templates"): self.list_templates,
            ("POST", "/v2/templates"): self.create_template,
            ("GET", "/v2/templates/{id}"): self.get_template,
            ("PATCH", "/v2/templates/{id}"): self.update_template,
            ("DELETE", "/v2/templates/{id}"): self.delete_template,
        }

    async def list_keys(self, call: Call) -> Response:
        return JSONResponse({"keys": self.keys})

    async def replace_keys(self, call: Call) -> Response:
        self.keys = list(checked(call, lambda body: validate.KEYS("$", body))["keys"])
        return JSONResponse({"keys": self.keys})

    async def list_volumes(self, call: Call) -> Response:
        return JSONResponse({"networkVolumes": list(self.volumes.values())})

    async def create_volume(self, call: Call) -> Response:
        body = checked(call, lambda body: validate.VOLUME("$", body))
        center = catalogue.CENTERS.get(body["dataCenter"])
        kind = body.get("type", "STANDARD")
        if center is None or kind not in center.volumes:
            raise Refusal(400, f"data center {body['dataCenter']} has no {kind} volumes")
        return JSONResponse(_keep(self.volumes, {**body, "type": kind}), 201)

    async def get_volume(self, call: Call) -> Response:
        return JSONResponse(_named(self.volumes, call))

    async def update_volume(self, call: Call) -> Response:
        body = checked(call, lambda body: validate.VOLUME_UPDATE("$", body))
        if not body:
            raise Refusal(422, "Request validation failed.", ["$: minProperties: got 0, want 1"])
        volume = _named(self.volumes, call)
        if body.get("size", volume["size"]) < volume["size"]:
            raise Refusal(400, "network volume size cannot be reduced")
        volume.update(body)
        return JSONResponse(volume)

    async def delete_volume(self, call: Call) -> Response:
        return _dropped(self.volumes, call)

    async def list_templates(self, call: Call) -> Response:
        return JSONResponse({"templates": list(self.templates.values())})

    async def create_template(self, call: Call) -> Response:
        body = checked(call, lambda body: validate.TEMPLATE_CREATE("$", body))
        return JSONResponse(_keep(self.templates, {**PLAIN_TEMPLATE, **body}), 201)

    async def get_template(self, call: Call) -> Response:
        return JSONResponse(_named(self.templates, call))

    async def update_template(self, call: Call) -> Response:
        body = checked(call, lambda body: validate.TEMPLATE_UPDATE("$", body))
        template = _named(self.templates, call)
        template.update(body)
        return JSONResponse(template)

    async def delete_template(self, call: Call) -> Response:
        return _dropped(self.templates, call)


def _keep(rows: Rows, row: dict[str, Any]) -> dict[str, Any]:
    made = {"id": secrets.token_hex(5), **row}
    rows[made["id"]] = made
    return made


def _named(rows: Rows, call: Call) -> dict[str, Any]:
    row = rows.get(call.params["id"])
    if row is None:
        raise Refusal(404, "resource not found")
    return row


def _dropped(rows: Rows, call: Call) -> Response:
    del rows[_named(rows, call)["id"]]
    return Response(status_code=204)
