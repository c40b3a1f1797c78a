"""The cap on transfers: which hours it holds, and what a job file may say of it."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from orchestrator.core.bandwidth import Transfer, Window, rate_at, transfer_words

NIGHT, DAY = Window("22:00", "07:00"), Window("07:00", "22:00", 5)


@pytest.mark.parametrize(
    ("transfer", "at", "rate"),
    [
        (None, "12:00", None),
        (Transfer(40), "12:00", 40e6),
        (Transfer(0), "12:00", 0.0),
        (Transfer(40, (NIGHT, DAY)), "21:59", 5e6),
        (Transfer(40, (NIGHT, DAY)), "22:00", 40e6),
        (Transfer(40, (NIGHT, DAY)), "23:59", 40e6),
        (Transfer(40, (NIGHT, DAY)), "00:00", 40e6),
        (Transfer(40, (NIGHT, DAY)), "06:59", 40e6),
        (Transfer(40, (NIGHT, DAY)), "07:00", 5e6),
        (Transfer(None, (DAY,)), "06:59", None),
        (Transfer(1, (Window("10:00", "12:00", 2), Window("11:00", "13:00", 3))), "11:30", 2e6),
        (Transfer(1, (Window("10:00", "12:00", 0),)), "11:30", 0.0),
        (Transfer(1, (Window("10:00", "12:00", 0),)), "12:00", 1e6),
    ],
)
def test_the_first_window_that_fits_counts(
    transfer: Transfer | None, at: str, rate: float | None
) -> None:
    assert rate_at(transfer, datetime.fromisoformat(f"2026-03-01T{at}")) == rate


def test_every_minute_of_a_day_is_in_one_of_two_windows_that_meet() -> None:
    midnight = datetime.fromisoformat("2026-03-01T00:00")
    day = [midnight + timedelta(minutes=minute) for minute in range(24 * 60)]
    rates = {rate_at(Transfer(40, (NIGHT, DAY)), at) for at in day}
    assert rates == {5e6, 40e6}


def test_a_person_reads_it() -> None:
    assert transfer_words(Transfer(40)) == "at most 40 MB/s"
    assert transfer_words(Transfer(None, (NIGHT, Window("07:00", "22:00", 0)))) == (
        "22:00 to 07:00 no cap, 07:00 to 22:00 paused, else no cap (this machine's time)"
    )
