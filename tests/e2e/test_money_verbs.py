"""offers, plan, doctor, gc and cost as a person types them, with real local boxes."""

from __future__ import annotations

import json
import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest
from kit.gpujob import Place, wait_until

from orchestrator.adapters.clock import SystemClock
from orchestrator.adapters.local import LocalProvider
from orchestrator.adapters.remembered import RememberedOffers
from orchestrator.core.marks import make_mark
from orchestrator.core.offer import Need, Offer
from orchestrator.ports import CreateRequest

pytestmark = pytest.mark.e2e
SECRET = "rpa_VERYSECRET0123456789"
NOBODY = "http://127.0.0.1:1"


def test_offers_of_what_has_a_key_cheapest_first(place: Place) -> None:
    done = place.run("offers", "cpu:4", "cpu:1")
    head, *rows = done.stdout.splitlines()
    assert head.split() == [
        "PROVIDER", "GPU", "COUNT", "VCPUS", "RAM", "REGION", "CLOUD", "STOCK", "$/H", "AGE",
    ]  # fmt: skip
    assert [row.split()[:3] for row in rows] == [["local", "cpu", "1"], ["local", "cpu", "4"]]
    for name in ("runpod", "thunder"):
        assert f"{name} is not asked: there is no key for {name}" in done.stderr
    told = [json.loads(line) for line in place.run("offers", "cpu:2", "--json").stdout.splitlines()]
    assert [(each["provider"], each["gpu"], each["count"]) for each in told] == [
        ("local", "cpu", 2)
    ]


@pytest.mark.parametrize(
    ("words", "rc", "said"),
    [
        (["Abacus:9", "--provider", "local"], 3, "no offer fits"),
        (["A100:x"], 2, "write type:count"),
        (["--provider", "runpot"], 2, "runpod"),
    ],
    ids=["no such GPU", "no count", "no such provider"],
)
def test_offers_that_do_not_fit(place: Place, words: list[str], rc: int, said: str) -> None:
    done = place.run("offers", *words, check=rc)
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_offers_of_nobody(place: Place) -> None:
    done = place.run("offers", "--provider", "thunder", check=1)
    assert "export TNR_API_TOKEN" not in done.stdout
    assert "thunder told nothing" in done.stderr


def test_offers_under_a_ceiling(place: Place) -> None:
    (place.state / "config.toml").write_text("[local]\nusd_per_hour = 3\n")
    place.run("offers", "cpu", "--provider", "local", "--max-usd-per-hour", "3")
    done = place.run("offers", "cpu", "--max-usd-per-hour", "2", check=3)
    assert "1 offers cost more" in done.stderr


def test_plan_rents_and_keeps_nothing(place: Place) -> None:
    job = place.job()
    said = place.run("plan", str(job), "--set", "resources.gpu=cpu:2").stdout
    assert "instance     cpu:2 from local (cpu-2)" in said
    assert json.loads(place.run("plan", str(job), "--json").stdout)["name"] == "demo"
    assert not (place.state / "runs").exists()
    assert not (place.state / "ledger.db").exists()


class Yesterday(LocalProvider):
    """RunPod as it was asked two hours ago."""

    name = "runpod"

    def offers(self, need: Need) -> list[Offer]:
        then = SystemClock().now() - timedelta(hours=2)
        return [
            Offer("runpod", "x", "A40", 2, 0, 0, 20, 0.8, "EU-RO-1", "secure", "LOW", then),
            Offer("runpod", "y", "A40", 2, 0, 0, 20, 0.9, "US-1", "secure", "HIGH", then),
        ]


@pytest.fixture
def remembering(place: Place) -> Place:
    clock = SystemClock()
    memory = RememberedOffers(Yesterday(place.state, clock=clock), place.state / "prices", clock)
    memory.offers(Need((("A40", 2),), 1))
    return place


def test_offers_with_the_network_down_are_those_of_last_time(remembering: Place) -> None:
    env = {"RUNPOD_API_KEY": SECRET, "RUNPOD_API_URL": NOBODY}
    rows = remembering.run("offers", "A40:2", "--provider", "runpod", **env).stdout.splitlines()
    assert [(row.split()[5], row.split()[-1]) for row in rows[1:]] == [
        ("EU-RO-1", "2h00m"),
        ("US-1", "2h00m"),
    ]
    done = remembering.run("offers", "H100", "--provider", "runpod", check=1, **env)
    assert "127.0.0.1:1 cannot be reached" in done.stderr
    assert SECRET not in done.stderr


@pytest.mark.parametrize("key", ["", SECRET], ids=["no key", "no network"])
def test_plan_works_offline_and_says_how_old_its_prices_are(remembering: Place, key: str) -> None:
    words = ("--set", "resources.providers=[runpod]", "--set", "resources.gpu=A40:2")
    env = {"RUNPOD_API_KEY": key, "RUNPOD_API_URL": NOBODY}
    said = remembering.run("plan", str(remembering.job()), *words, **env).stdout
    assert "A40:2 from runpod (x), EU-RO-1, secure, stock LOW" in said
    assert "price        $0.80/h (2h00m old)" in said
    assert "A40:2 from runpod, US-1, secure, stock HIGH at $0.90/h (2h00m old)" in said
    assert "runpod: a box whose trainer has ended" in said
    if not key:
        refused = remembering.run("launch", str(remembering.job()), *words, "--yes", check=1)
        assert "there is no key for runpod" in refused.stderr


def test_doctor_says_what_is_missing_and_never_a_key(place: Place) -> None:
    done = place.run("doctor")
    assert "warn  runpod key" in done.stdout
    assert "export RUNPOD_API_KEY=" in done.stdout
    broken = place.run("doctor", check=1, RUNPOD_API_KEY=SECRET, RUNPOD_API_URL=NOBODY)
    assert "found in RUNPOD_API_KEY" in broken.stdout
    assert f"{NOBODY} does not answer" in broken.stdout
    (place.state / "credentials.toml").write_text(f'[thunder]\nkey = "{SECRET}"\n')
    (place.state / "credentials.toml").chmod(0o644)
    open_to_all = place.run("doctor", "--json", check=1)
    failed = [json.loads(line) for line in open_to_all.stdout.splitlines()]
    assert [each["what"] for each in failed if each["state"] == "fail"] == [
        "runpod key",
        "thunder key",
    ]
    assert "chmod 600" in failed[-1]["advice"]
    for each in (done, broken, open_to_all):
        assert SECRET not in each.stdout + each.stderr
        assert "Traceback" not in each.stderr


def test_a_launch_without_a_key_says_so_and_rents_nothing(place: Place) -> None:
    words = ("--set", "resources.providers=[runpod]", "--set", "resources.gpu=A40:1", "--yes")
    done = place.run("launch", str(place.job()), *words, check=1)
    assert "there is no key for runpod" in done.stderr
    assert "RUNPOD_API_KEY" in done.stderr
    assert not (place.state / "runs").exists()


def rent(place: Place, mark: str) -> str:
    provider = LocalProvider(place.state / "local", clock=SystemClock())
    offer = provider.offers(Need((("cpu", 1),), 1))[0]
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1qF7v9tq3rJc3sFZ9cY9v4i9m7rW0O9mZr2vJt7T0x gc"
    return provider.create(CreateRequest("demo-1a2b3c-1", mark, offer, key, 1))


def rented(place: Place) -> set[str]:
    provider = LocalProvider(place.state / "local", clock=SystemClock())
    return {each.provider_id for each in provider.list().instances}


def ledger_id(place: Place) -> str:
    place.run("ps")
    with sqlite3.connect(place.state / "ledger.db") as db:
        return str(db.execute("SELECT value FROM meta WHERE key = 'ledger_id'").fetchone()[0])


def test_gc_ends_orphans_of_this_ledger_and_touches_nothing_else(place: Place) -> None:
    orphan = rent(place, make_mark(ledger_id(place), "lost-1a2b3c-1"))
    foreign = rent(place, make_mark("ffffffff", "theirs-1a2b3c-1"))
    other = rent(place, "my-own-box")
    seen = place.run("gc")
    assert orphan in seen.stdout
    assert foreign in seen.stdout
    assert other not in seen.stdout + seen.stderr
    assert rented(place) == {orphan, foreign, other}
    told = [json.loads(line) for line in place.run("gc", "--json").stdout.splitlines()]
    assert {each["provider_id"]: each["owner"] for each in told} == {
        orphan: "orphan",
        foreign: "foreign",
    }
    assert (
        f"gone, proven by the list of its provider: local {orphan}"
        in place.run("gc", "--yes").stderr
    )
    assert rented(place) == {foreign, other}


def test_gc_leaves_a_live_run_alone_and_does_nothing_without_a_ledger(place: Place) -> None:
    job = place.job("--steps 400 --step-s 0.2")
    run = place.launch(job)
    place.wait_for(run, "instance.running")
    before = rented(place)
    assert "nothing was ended" in place.run("gc", "--yes").stderr
    assert rented(place) == before != set()
    place.run("teardown", run)
    assert rented(place) == set()


def test_a_teardown_that_is_not_proven_in_time_says_what_bills_and_goes_on(place: Place) -> None:
    (place.state / "config.toml").write_text("[local]\nusd_per_hour = 2.5\n")
    run = place.launch(place.job("--steps 400 --step-s 0.2"))
    place.wait_for(run, "instance.running")
    done = place.run("teardown", run, "--wait", "0", check=8)
    assert f"still billing: {run}-1 (local, $2.50/h)" in done.stderr
    assert "the daemon keeps trying" in done.stderr
    assert place.wait_end(run)["still_billing"] == []
    assert "still billing      nothing" in place.run("teardown", run).stdout


@pytest.mark.parametrize("ledger", [b"no database at all" * 200, None], ids=["broken", "a folder"])
def test_gc_does_nothing_when_the_ledger_cannot_be_read(place: Place, ledger: bytes | None) -> None:
    box = rent(place, make_mark("0123abcd", "demo-1a2b3c-1"))
    path: Path = place.state / "ledger.db"
    path.write_bytes(ledger) if ledger else path.mkdir()
    done = place.run("gc", "--yes", check=1)
    assert "nothing was ended" in done.stderr
    assert rented(place) == {box}


def test_gc_names_a_provider_that_it_could_not_list(place: Place) -> None:
    (place.state / "local").write_text("in the way")
    done = place.run("gc", check=1)
    assert "local is UNKNOWN, something may bill there" in done.stderr
    assert "local could not be listed" in done.stderr


def test_the_cost_of_a_run(place: Place) -> None:
    (place.state / "config.toml").write_text("[local]\nusd_per_hour = 3600\n")
    run = place.launch(place.job("--steps 10"))
    wait_until(lambda: place.record(run)["finished_at"] is not None, 60, "the end")
    told = json.loads(place.run("cost", run, "--json").stdout)
    assert told["cost_usd"] == pytest.approx(place.record(run)["cost_usd"], abs=0.01)
    assert told["cost_usd"] == pytest.approx(sum(each["cost_usd"] for each in told["attempts"]))
    assert told["cost_usd"] == pytest.approx(told["hours"] * 3600, rel=0.001)
    assert told["cost_usd"] > 0
    assert "local" in place.run("cost", run).stdout
