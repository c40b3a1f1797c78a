"""RunPod as a Provider. Facts and traps: reference/runpod.md; REST v2 alone, direct ssh alone,
delete and never stop."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from orchestrator.adapters.http import Api, Denied
from orchestrator.adapters.replies import amount_of
from orchestrator.adapters.runpod.catalogue import clouds_of, counts_of, to_offers
from orchestrator.adapters.runpod.pods import to_body, to_instance
from orchestrator.adapters.runpod.refusals import denied, why_not
from orchestrator.core.offer import Need, Offer
from orchestrator.errors import LostAnswer, ProviderError, Refused, Transient
from orchestrator.ports import Account, Capabilities, Clock, CreateRequest, Listing, SelfStop

CAPABILITIES = Capabilities(
    self_stop=True,
    host_keys=True,
    poll_s=6.0,
    idle_poll_s=30.0,
    # A new pod may be missing from lists for a while, and an answer may be lost.
    listing_lag_s=60.0,
    # Not listed and 404 was seen of pods that lived: no proof until it has lasted.
    absent_s=20.0,
    # A cold pull of the default image took 165 s; RunPod's own tests allow 600 s in all.
    boot_s={"assigning": 180.0, "starting": 900.0, "endpoint": 300.0},
    billing_unit_s=0.001,
    login_file="/etc/rp_environment",
    volume_s3="https://s3api-{region}.runpod.io",
)
MAX_PAGES = 50
LOG_BYTES = 64 * 1024
# As `ssh-keygen -l` prints a host key, and not whatever else is logged of other keys.
_FINGERPRINT = re.compile(r"\d+ (SHA256:[A-Za-z0-9+/]{43}) .*\((?:ED25519|ECDSA|RSA)\)\s*")


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
        centre = self._centre_of(need) if need.volume else ""
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
            raise why_not(error, request) from None
        provider_id = made.get("id") if isinstance(made, dict) else None
        if not isinstance(provider_id, str) or not _is_id(provider_id):
            raise LostAnswer("RunPod answered a create without the pod's id")
        return provider_id

    def list(self) -> Listing:
        """Every page, in one account-wide listing; the time is from before the first."""
        asked_at, key_id = self._clock.now(), self.key_id()
        # A pod may move to the next page while they are read.
        pods = {pod["id"]: pod for pod in self._pods()}
        found = {name: to_instance(pod) for name, pod in pods.items()}
        living = {
            name for name, pod in pods.items() if str(pod.get("status")).upper() != "TERMINATED"
        }
        others = frozenset(name for name in living if found[name] is None)
        return Listing(asked_at, tuple(each for each in found.values() if each), others, key_id)

    def terminate(self, provider_id: str) -> None:
        if not _is_id(provider_id):
            return
        try:
            self._api.act("DELETE", f"/v2/pods/{provider_id}")
        except Denied as error:
            if error.status != 404:
                raise denied(error, "could not be ended") from None

    def ensure_access(self, provider_id: str, public_key: str) -> None:
        """A pod takes its key at birth; there is no way to add one."""

    def host_keys(self, provider_id: str) -> Sequence[str]:
        """Fingerprints that the image's start script printed into the container log; of a
        container that was restarted, those of its last start."""
        lines = self._log_lines(provider_id, "container")
        found = [match[1] for line in lines if (match := _FINGERPRINT.fullmatch(line))]
        return tuple(dict.fromkeys(reversed(found)))

    def logs(self, provider_id: str) -> str:
        """The last 30 KiB of each of the two logs; one that cannot be had is left out."""
        parts = []
        for source in ("system", "container"):
            with suppress(ProviderError):
                text = "\n".join(self._log_lines(provider_id, source)).encode(errors="replace")
                tail = text[-LOG_BYTES // 2 + 2048 :].decode(errors="ignore")
                parts.append(f"== {source} ==\n{tail}\n" if tail else "")
        return "".join(parts)

    def account(self) -> Account:
        """The list proves the key. What is left on the account only the old GraphQL knows, until
        it is switched off."""
        self._pods_page(None)
        balance, spending = self._balance()
        note = "" if balance is not None else "the balance is not told by RunPod's REST API"
        return Account("runpod", "the key's account", balance, spending, note)

    def key_id(self) -> str:
        return self._api.key_id()

    def self_stop(self, provider_id: str) -> SelfStop | None:
        """With the key that RunPod gives to the pod, for the pod alone. Stopping ends the GPU's
        price and keeps what is on a volume; only a terminate would delete it."""
        url = f"{self._api.base_url}/v2/pods/{quote(provider_id, safe='')}/action"
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
            raise denied(error, "the price list was refused") from None

    def _centre_of(self, need: Need) -> str:
        """A volume pins its pods to its data centre."""
        volume = need.volume
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
            raise denied(error, "the volume was refused") from None
        centre = found.get("dataCenter") if isinstance(found, dict) else None
        if not isinstance(centre, str) or not centre:
            raise Transient(f"RunPod does not say where the network volume {volume} is")
        if need.region.upper() not in ("", centre.upper()):
            raise Refused(
                f"the network volume {volume} is in {centre}, and the job asks for {need.region}",
                hint="leave resources.region out: a volume is mounted where it is",
            )
        return centre

    def _pods(self) -> Iterator[dict[str, Any]]:
        cursor = None
        for _ in range(MAX_PAGES):
            page = self._pods_page(cursor)
            yield from page["pods"]
            cursor = _next_cursor(page)
            if cursor is None:
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
            raise denied(error, "the list of pods was refused") from None
        pods = page.get("pods") if isinstance(page, dict) else None
        if not isinstance(pods, list) or not all(_is_pod(pod) for pod in pods):
            # Half a list would make living pods look gone.
            raise Transient("RunPod's list of pods cannot be read")
        return dict(page)

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
        data = said.get("data") if isinstance(said, dict) else None
        me = data.get("myself") if isinstance(data, dict) else None
        if not isinstance(me, dict):
            return None, None
        return _number(me.get("clientBalance")), _number(me.get("currentSpendPerHr"))


def _log_text(line: str) -> str | None:
    if not line.startswith("data:"):
        return None
    try:
        said = json.loads(line.removeprefix("data:"))
    except (ValueError, RecursionError):
        return None
    return str(said.get("line", "")) if isinstance(said, dict) else None


def _next_cursor(page: dict[str, Any]) -> str | None:
    """Where the list goes on; None at its end. Lists of before pagination name none."""
    more = page.get("pagination")
    if not isinstance(more, dict):
        return None
    cursor = more.get("nextCursor")
    if isinstance(cursor, str) and cursor:
        return cursor
    if more.get("hasNextPage"):
        raise Transient("RunPod's list of pods goes on and does not say where")
    return None


def _is_pod(pod: Any) -> bool:
    return isinstance(pod, dict) and isinstance(pod.get("id"), str) and pod["id"] != ""


def _is_id(text: str) -> bool:
    """What goes into a path has to be one segment of it."""
    return re.fullmatch(r"[A-Za-z0-9_-]{1,64}", text) is not None


def _number(value: Any) -> float | None:
    """A balance may be below 0."""
    if not isinstance(value, int | float):
        return None
    amount = amount_of(abs(value))
    return None if math.isnan(amount) else math.copysign(amount, value)


__all__ = ["CAPABILITIES", "RunPodProvider"]
