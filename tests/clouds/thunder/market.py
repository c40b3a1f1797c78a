"""What anybody may ask: specs, prices, what is available, templates; and whose the token is."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from clouds.cloud import Call, Routes
from clouds.faults import Faults
from clouds.thunder import catalogue
from clouds.thunder.catalogue import SPECS

# Answered without a token (§1.1).
PUBLIC = (
    "/v1/pricing",
    "/v1/specs",
    "/v1/thunder-templates",
    "/v2/pricing",
    "/v2/specs",
    "/v2/status",
)


class Market:
    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    def routes(self) -> Routes:
        return {
            ("GET", "/v2/specs"): self.specs,
            ("GET", "/v2/pricing"): self.pricing,
            ("GET", "/v2/status"): self.status,
            ("GET", "/v1/specs"): self.old_specs,
            ("GET", "/v1/pricing"): self.old_pricing,
            ("GET", "/v1/thunder-templates"): self.templates,
            ("GET", "/v1/auth/validate"): self.validate,
        }

    async def specs(self, call: Call) -> Response:
        return JSONResponse(catalogue.specs_json())

    async def pricing(self, call: Call) -> Response:
        changes = {key: self._faults.peek("price-changes", spec=key) for key in SPECS}
        factors = {key: float(change["factor"]) for key, change in changes.items() if change}
        missing = [key for key in SPECS if self._faults.peek("price-missing", spec=key)]
        return JSONResponse(catalogue.pricing_json(factors, missing))

    async def status(self, call: Call) -> Response:
        if self._faults.peek("status-map-missing"):
            return JSONResponse({})
        return JSONResponse(catalogue.status_json([key for key in SPECS if self._is_out(key)]))

    async def old_specs(self, call: Call) -> Response:
        return JSONResponse(catalogue.old_specs_json())

    async def old_pricing(self, call: Call) -> Response:
        return JSONResponse(catalogue.old_pricing_json())

    async def templates(self, call: Call) -> Response:
        return JSONResponse(catalogue.templates_json())

    async def validate(self, call: Call) -> Response:
        valid = self._faults.peek("token-told-invalid") is None
        return JSONResponse({"valid": valid, "email": "you@example.org", "org_name": "example"})

    def _is_out(self, spec: str) -> bool:
        """Every armed refusal counts: one that is not told must not hide another that is."""
        out = self._faults.peek("no-capacity", spec=spec, told=True)
        return out is not None
