"""Why RunPod said no, from its status and its words: it has no codes for it."""

from __future__ import annotations

import re

from orchestrator.adapters.http import Denied
from orchestrator.errors import LostAnswer, NoCapacity, ProviderError, Refused
from orchestrator.ports import CreateRequest

# RunPod's own smoke tests sort its texts like this. Capacity before anything else: some of those
# end in "please try again later" too (reference/runpod.md §1.2).
_NO_CAPACITY = re.compile(
    r"no longer any instances available|please refresh and try again|does not have the resources"
    r"|no (machines|capacity|hosts|gpus|instances)( are| currently)? available"
    r"|try a different machine|insufficient capacity|\bunavailable|out of stock|sold out"
    r"|not enough free gpus",
    re.IGNORECASE,
)
# The same tests take these for passing trouble of RunPod's own: whether it rented nobody knows.
_UNSURE = re.compile(
    r"something went wrong|please try again later|contact support|internal server error"
    r"|\btimed? ?out\b|\b50[234]\b|connection (reset|refused)",
    re.IGNORECASE,
)
_NO_BALANCE = re.compile(r"\b(balance|funds|credits?|payment|spend(ing)? limit)\b", re.IGNORECASE)
# A 403 is about a pool, unless it is about what the key may do.
_NO_RIGHT = re.compile(r"\b(key|token|permissions?|scopes?|read.?only)\b", re.IGNORECASE)


def why_not(error: Denied, request: CreateRequest) -> ProviderError:
    """What a refused create means for the next offer."""
    where = f"{request.offer.gpu}:{request.offer.count} {request.offer.region}".strip()
    if error.status == 403 and not _NO_RIGHT.search(error.text):
        return NoCapacity(f"RunPod does not let this account into {where}: {error.text}")
    if error.status == 403:
        return denied(error, "the pod was refused")
    if error.status != 422 and _NO_CAPACITY.search(error.text):
        return NoCapacity(f"RunPod has no {where} now: {error.text}")
    if _NO_BALANCE.search(error.text):
        return Refused(
            f"RunPod: the account cannot pay: {error.text}",
            hint="add credit in RunPod's console, then launch again",
            provider_wide=True,
        )
    if error.status != 422 and _UNSURE.search(error.text):
        return LostAnswer(f"RunPod failed over the pod ({error.status}): {error.text}")
    return Refused(f"RunPod refused the pod ({error.status}): {error.text}")


def denied(error: Denied, what: str) -> Refused:
    rights = error.status == 403
    hint = "the key lacks the right; make one with read and write access" if rights else None
    message = f"RunPod: {what} ({error.status}): {error.text}"
    return Refused(message, hint=hint, provider_wide=rights)
