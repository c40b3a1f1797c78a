"""RunPod as a Provider. Facts and traps: reference/runpod.md; REST v2 alone, direct ssh alone,
delete and never stop."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from orchestrator.adapters.http import Api, Denied
from orchestrator.adapters.runpod.catalogue import clouds_of, counts_of, to_offers
from orchestrator.adapters.runpod.pods import to_body, to_instance
from orchestrator.core.offer import Need, Offer
from orchestrator.errors import LostAnswer, NoCapacity, ProviderError, Refused, Transient
from orchestrator.ports import Account, Capabilities, Clock, CreateRequest, Listing, SelfStop

CAPABILITIES = Capabilities(
    self_stop=True,
    host_keys=True,
    poll_s=6.0,
    idle_poll_s=30.0,
    # A new pod may be missing from lists for a while, and an answer may be lost.
    listing_lag_s=60.0,
    # A cold pull of the default image took 165 s; RunPod's own tests allow 600 s in all.
    boot_s={"assigning": 180.0, "starting": 900.0, "endpoint": 300.0},
    billing_unit_s=0.001,
    login_file="/etc/rp_environment",
)
MAX_PAGES = 50
LOG_BYTES = 64 * 1024
# RunPod's own smoke tests sort its texts like this. Capacity before anything else: some of those
# end in "please try again later" too (reference/runpod.md §1.2).
_NO_CAPACITY = re.compile(
    r"no longer any instances available|please refresh and try again|does not have the resources"
    r"|try a different machine|no (machines|capacity|hosts|gpus|instances)( are)? available"
    r"|no instances available|insufficient capacity|currently unavailable|out of stock|sold out"
    r"|not enough free gpus",
    re.IGNORECASE,
)
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")


class RunPodProvider:
    """One account. `capabilities` may be what the user set instead of CAPABILITIES."""

    name = "runpod"

    def __init__(
        self, api: Api, clock: Clock, *, capabilities: Capabilities = CAPABILITIES
    ) -> None:
        self._api = api
        self._clock = clock
        self.capabilities = capabilities

    def offers(self, need: Need) -> Sequence[Offer]:
        if not counts_of(need):
            return ()
        centre = self._centre_of(need.volume) if need.volume else ""
        now = self._clock.now()
        return [
            offer
            for cloud in clouds_of(need)
            for count in counts_of(need)
            for offer in to_offers(
                self._catalogue(need, cloud, count),
                need,
                cloud=cloud,
                count=count,
                seen_at=now,
                centre=centre,
            )
        ]

    def create(self, request: CreateRequest) -> str:
        try:
            made = self._api.create("/v2/pods", to_body(request))
        except Denied as error:
            raise _why_not(error, request) from None
        provider_id = made.get("id") if isinstance(made, dict) else None
        if not isinstance(provider_id, str) or not provider_id:
            raise LostAnswer("RunPod answered a create without the pod's id")
        return provider_id

    def list(self) -> Listing:
        """Every page, in one account-wide listing; the time is from before the first."""
        asked_at = self._clock.now()
        found = [to_instance(pod) for pod in self._pods()]
        return Listing(asked_at, tuple(each for each in found if each))

    def terminate(self, provider_id: str) -> None:
        if not _is_id(provider_id):
            return
        try:
            self._api.act("DELETE", f"/v2/pods/{provider_id}")
        except Denied as error:
            if error.status != 404:
                raise _denied(error, "could not be ended") from None

    def ensure_access(self, provider_id: str, public_key: str) -> None:
        """A pod takes its key at birth; there is no way to add one."""

    def host_keys(self, provider_id: str) -> Sequence[str]:
        """Fingerprints that the image's start script printed into the container log; of a
        container that was restarted, those of its last start."""
        lines = self._log_lines(provider_id, "container")
        found = [match for line in lines for match in _FINGERPRINT.findall(line)]
        return tuple(dict.fromkeys(reversed(found)))

    def logs(self, provider_id: str) -> str:
        parts = []
        for source in ("system", "container"):
            with suppress(ProviderError):
                lines = "\n".join(self._log_lines(provider_id, source))
                parts.append(f"== {source} ==\n{lines[-LOG_BYTES // 2 :]}\n")
        return "".join(parts)

    def account(self) -> Account:
        """The list proves the key. What is left on the account only the old GraphQL knows, until
        it is switched off."""
        self._pods_page(None)
        balance, spending = self._balance()
        note = "" if balance is not None else "the balance is not told by RunPod's REST API"
        return Account("runpod", "the key's account", balance, spending, note)

    def self_stop(self, provider_id: str) -> SelfStop | None:
        """With the key that RunPod gives to the pod, for the pod alone. Stopping ends the GPU's
        price and keeps what is on a volume; only a terminate would delete it."""
        url = f"{self._api.base_url}/v2/pods/{provider_id}/action"
        return SelfStop("POST", url, {"action": "stop"}, "RUNPOD_API_KEY")

    def _catalogue(self, need: Need, cloud: str, count: int) -> Any:
        params: dict[str, str | int] = {
            "include": "AVAILABILITY",
            "product": "POD",
            "count": count,
            "cloud": cloud,
        }
        if need.min_cuda:
            params["minCudaVersion"] = need.min_cuda
        try:
            return self._api.get("/v2/catalog/gpus", params)
        except Denied as error:
            raise _denied(error, "the price list was refused") from None

    def _centre_of(self, volume: str) -> str:
        """A volume pins its pods to its data centre."""
        if not _is_id(volume):
            raise Refused(f"resources.volume.id: {volume!r} is no id of RunPod")
        try:
            found = self._api.get(f"/v2/network-volumes/{volume}")
        except Denied as error:
            if error.status == 404:
                raise Refused(
                    f"RunPod has no network volume {volume} in this account",
                    hint="correct resources.volume.id",
                ) from None
            raise _denied(error, "the volume was refused") from None
        return str(found.get("dataCenter", "")) if isinstance(found, dict) else ""

    def _pods(self) -> Iterator[Any]:
        cursor = None
        for _ in range(MAX_PAGES):
            page = self._pods_page(cursor)
            yield from page["pods"]
            more = page.get("pagination")
            cursor = more.get("nextCursor") if isinstance(more, dict) else None
            if not cursor:
                return
        raise Transient(f"RunPod's list of pods goes on after {MAX_PAGES} pages")

    def _pods_page(self, cursor: str | None) -> dict[str, Any]:
        # A pod of a cluster bills as well.
        params: dict[str, str | int] = {"includeClusterPods": "true"}
        if cursor:
            params["cursor"] = cursor
        try:
            page = self._api.get("/v2/pods", params)
        except Denied as error:
            raise _denied(error, "the list of pods was refused") from None
        if not isinstance(page, dict) or not isinstance(page.get("pods"), list):
            # Half a list would make living pods look gone.
            raise Transient("RunPod's list of pods cannot be read")
        return page

    def _log_lines(self, provider_id: str, source: str) -> Sequence[str]:
        if not _is_id(provider_id):
            return []
        try:
            stream = self._api.lines(
                f"/v2/pods/{provider_id}/logs",
                limit_bytes=16 * LOG_BYTES,
                source=source,
                tail=1000,
            )
        except Denied:
            return []
        return [text for line in stream if (text := _log_text(line)) is not None]

    def _balance(self) -> tuple[float | None, float | None]:
        query = {"query": "query { myself { clientBalance currentSpendPerHr } }"}
        try:
            said = self._api.act("POST", "/graphql", query)
        except (ProviderError, Denied):
            return None, None
        me = ((said or {}).get("data") or {}).get("myself") if isinstance(said, dict) else None
        if not isinstance(me, dict):
            return None, None
        return _number(me.get("clientBalance")), _number(me.get("currentSpendPerHr"))


def _why_not(error: Denied, request: CreateRequest) -> ProviderError:
    """What a refused create means for the next offer."""
    where = f"{request.offer.gpu}:{request.offer.count} {request.offer.region}".strip()
    if error.status == 403:
        return NoCapacity(f"RunPod does not let this account into {where}: {error.text}")
    if error.status == 429:
        return Transient(error.text)
    if _NO_CAPACITY.search(error.text):
        return NoCapacity(f"RunPod has no {where} now: {error.text}")
    return Refused(f"RunPod refused the pod ({error.status}): {error.text}")


def _denied(error: Denied, what: str) -> Refused:
    rights = error.status == 403
    hint = "the key lacks the right; make one with read and write access" if rights else None
    message = f"RunPod: {what} ({error.status}): {error.text}"
    return Refused(message, hint=hint, provider_wide=rights)


def _log_text(line: str) -> str | None:
    if not line.startswith("data:"):
        return None
    try:
        said = json.loads(line.removeprefix("data:"))
    except ValueError:
        return None
    return str(said.get("line", "")) if isinstance(said, dict) else None


def _is_id(text: str) -> bool:
    """What goes into a path has to be one segment of it."""
    return re.fullmatch(r"[A-Za-z0-9_-]{1,64}", text) is not None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


__all__ = ["CAPABILITIES", "RunPodProvider"]
