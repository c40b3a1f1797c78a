"""What doctor says of a provider, whatever is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from kit.clock import ManualClock

from orchestrator.adapters.local import LocalProvider
from orchestrator.core.checks import Probe
from orchestrator.errors import GpujobError, Missing, Refused, Transient
from orchestrator.flows.doctor import check_rented
from orchestrator.ports import Account

URL = "https://api.example"
RICH = Account("x", "me@example.com", balance_usd=50.0, spend_usd_per_hour=1.5)


class Bank(LocalProvider):
    """A provider with an account, or with trouble."""

    answer: Account | GpujobError = RICH

    def account(self) -> Account:
        if isinstance(self.answer, GpujobError):
            raise self.answer
        return self.answer


CASES: dict[str, tuple[Probe, Account | GpujobError, list[tuple[str, str, str]]]] = {
    "all is well": (
        Probe(URL, 2.0),
        RICH,
        [
            ("ok", "x API", f"{URL} answers"),
            ("ok", "clock", "2 s ahead of x"),
            ("ok", "x account", "me@example.com, balance $50.00, spending $1.50/h"),
        ],
    ),
    "a wrong clock": (
        Probe(URL, -90.0),
        Account("x", "me"),
        [
            ("ok", "x API", f"{URL} answers"),
            ("warn", "clock", "90 s behind x"),
            ("ok", "x account", "me"),
        ],
    ),
    "no answer": (
        Probe(URL, trouble="refused"),
        RICH,
        [("fail", "x API", f"{URL} does not answer: refused")],
    ),
    "a wrong key": (
        Probe(URL),
        Refused("401"),
        [("ok", "x API", f"{URL} answers"), ("fail", "x account", "the key is refused: 401")],
    ),
    "an API that stumbles": (
        Probe(URL),
        Transient("500"),
        [("ok", "x API", f"{URL} answers"), ("fail", "x account", "500")],
    ),
    "no money": (
        Probe(URL),
        Account("x", "me", balance_usd=0.1),
        [("ok", "x API", f"{URL} answers"), ("warn", "x account", "me, balance $0.10")],
    ),
}


def checks(
    tmp_path: Path,
    find: Callable[[], str | None],
    probe: Callable[[], Probe],
    answer: Account | GpujobError = RICH,
) -> list[tuple[str, str, str, str]]:
    bank = Bank(tmp_path, clock=ManualClock())
    bank.answer = answer
    found = check_rented("x", find, probe, lambda: bank, "set X_KEY")
    return [(each.state, each.what, each.found, each.advice) for each in found]


@pytest.mark.parametrize("case", CASES)
def test_a_provider_with_a_key(tmp_path: Path, case: str) -> None:
    probe, answer, expected = CASES[case]
    told = checks(tmp_path, lambda: "X_KEY", lambda: probe, answer)
    assert [each[:3] for each in told] == [("ok", "x key", "found in X_KEY"), *expected]
    assert all(advice for state, _, _, advice in told if state != "ok")


def test_without_a_key_nobody_is_asked(tmp_path: Path) -> None:
    told = checks(tmp_path, lambda: None, lambda: pytest.fail("was asked"))
    assert told == [("warn", "x key", "none; nothing can be rented from x", "set X_KEY")]


def test_a_key_file_that_is_open_to_others_fails(tmp_path: Path) -> None:
    def find() -> str:
        raise Missing("others may read it", hint="chmod 600 f")

    told = checks(tmp_path, find, lambda: pytest.fail("was asked"))
    assert told == [("fail", "x key", "others may read it", "chmod 600 f")]
