"""Whether an API answers at all, and what time it is there. Any HTTP reply will do."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from email.utils import parsedate_to_datetime

from orchestrator.core.checks import Probe
from orchestrator.ports import Clock

TIMEOUT_S = 10.0


def probe(url: str, clock: Clock, user_agent: str) -> Probe:
    """Ask for `url` without a key; the Date of the reply is exact to a second."""
    try:
        request = urllib.request.Request(url, headers={"User-Agent": user_agent})
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
            date = reply.headers.get("Date")
    except urllib.error.HTTPError as error:
        date = error.headers.get("Date")
        error.close()
    except (OSError, ValueError, http.client.HTTPException) as error:
        return Probe(url, trouble=str(getattr(error, "reason", error)) or type(error).__name__)
    try:
        there = parsedate_to_datetime(date or "")
        return Probe(url, (clock.now() - there).total_seconds())
    except (TypeError, ValueError):
        return Probe(url)
