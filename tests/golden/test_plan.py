"""What `launch --dry-run` prints, word for word: the value that `launch` executes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from kit.clock import ManualClock
from kit.plans import changed

from orchestrator.adapters.local import LocalProvider
from orchestrator.adapters.tree import LocalTrees
from orchestrator.core.codec import to_json
from orchestrator.core.offer import Need, Offer
from orchestrator.core.plan import Plan, read_plan
from orchestrator.core.run import Limits
from orchestrator.core.spec import load_job
from orchestrator.errors import BadJobFile, NoCapacity
from orchestrator.flows.launch import make_plan, secret_values
from orchestrator.flows.phase_plan import Shop
from orchestrator.views.plan import plan_json, plan_text

JOB = """
name: my-sft
resources: {gpu: [cpu:2, cpu:4]}
budget: {usd: 40, hours: 10}
data: [{from: chat.jsonl, to: data/}]
secrets: [HF_TOKEN]
setup: pip install -r requirements.txt
run: python train.py {resume}
checkpoints: {path: out, resume: {args: "--from {checkpoint}"}}
"""

TEXT = """\
job          my-sft
instance     cpu:2 from local (cpu-2)
price        $1.50/h
  or         cpu:4 from local at $3.00/h
budget       $40.00 in all, 10 instance hours
ceiling      $30.00 for the whole run
code         2 files, 22 B: [HERE] -> .
  not        .env (secrets and keys never travel)
data         1 file, 3 B: [HERE] -> data
secrets      HF_TOKEN (a 0600 file on the box)
setup        pip install -r requirements.txt
run          python train.py {resume}
checkpoints  out on the box -> [HERE]/checkpoints/my-sft/{run_id}/main
disk         not known how large a checkpoint is: `checkpoints.size_gb` says it
recovery     10 lost instances, 2 crashes
alone        local: a box that loses this machine cannot stop its own billing"""


class Priced(LocalProvider):
    """The local provider as if a core cost 75 cents an hour."""

    def offers(self, need: Need) -> Sequence[Offer]:
        return [
            Offer("local", f"cpu-{n}", "cpu", n, 8, 16, need.disk_gb, 0.75 * n)
            for _, n in need.gpus
        ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "job.yaml").write_text(JOB)
    (tmp_path / "train.py").write_text("print()\n")
    (tmp_path / ".gitignore").write_text("job.yaml\n*.jsonl\n")
    (tmp_path / "chat.jsonl").write_text("{}\n")
    (tmp_path / ".env").write_text("HF_TOKEN=from-the-file\n")
    return tmp_path


def shop(folder: Path) -> Shop:
    provider = Priced(folder / "local", clock=ManualClock())
    return Shop(LocalTrees(), {"local": provider}, lambda mirror: None, lambda mirror, run: None)


def plan_of(folder: Path, *overrides: str) -> Plan:
    return make_plan(load_job(folder / "job.yaml", overrides), shop(folder))


def test_the_plan_in_words(folder: Path) -> None:
    text = plan_text(plan_of(folder), ManualClock().now()).replace(str(folder), "[HERE]")
    lines = [line for line in text.splitlines() if not line.startswith("  not")]
    expected = [line for line in TEXT.splitlines() if not line.startswith("  not")]
    assert lines == [line.replace("22 B", "25 B") for line in expected]


SHOP = """\
instance     A40:2 from runpod (x0), EU-RO-1, secure, stock LOW
price        $0.80/h
  or         A40:2 from thunder, stock HIGH at $0.90/h (2h05m old)
  or         A40:2 from runpod, US-1 at $1.10/h
  or         A40:2 from runpod, US-2 at $1.20/h
  or         A40:2 from runpod, US-3 at $1.30/h
  or         2 more, up to $1.50/h
budget       $8.00/h
ceiling      none: set `budget: {usd: …}` to bound what the run may cost"""

ALONE = """\
alone        runpod: a box whose trainer has ended and that hears nothing
             from this machine for 1h00m stops itself, and its GPU bills no more
             thunder: a box that loses this machine cannot stop its own billing"""


def test_what_may_be_rented_where_and_how_old_the_prices_are(folder: Path) -> None:
    now = ManualClock().now()
    first = Offer(
        "runpod", "x0", "A40", 2, 18, 100, 20, 0.8, "EU-RO-1", "secure", "LOW", seen_at=now
    )
    remembered = now - timedelta(hours=2, minutes=5)
    other = Offer("thunder", "t", "A40", 2, 8, 64, 20, 0.9, stock="HIGH", seen_at=remembered)
    far = [replace(first, id=f"x{n}", region=f"US-{n}", cloud="", stock="UNKNOWN",
                   usd_per_hour=1 + n / 10) for n in range(1, 6)]  # fmt: skip
    plan = changed(plan_of(folder), offers=(first, other, *far))
    plan = replace(plan, limits=Limits(budget_usd_per_hour=8))
    text = plan_text(plan, now, {"runpod"})
    assert SHOP in text
    assert text.endswith(ALONE)


def test_the_plan_survives_json_whole(folder: Path) -> None:
    plan = plan_of(folder)
    again = read_plan(json.loads(json.dumps(to_json(plan))))
    assert again == plan
    assert again.phases[0].uploads[0].tree == plan.phases[0].uploads[0].tree


def test_a_plan_of_before_phases_is_one_of_one_phase(folder: Path) -> None:
    plan = changed(plan_of(folder), health={}, hold_s=600.0, key="")
    record = to_json(plan)
    (only,) = record.pop("phases")
    only["phase"] = only.pop("name")
    for new in ("gate", "start", "patch", "health", "hold_s", "key", "recovery"):
        del only[new]
    old = json.loads(json.dumps({**only, **record, "v": 1}))
    assert read_plan(old) == replace(plan, v=1)


def test_the_printed_json_holds_no_file_lists(folder: Path) -> None:
    record = json.loads(plan_json(plan_of(folder)))
    assert record["ceiling_usd"] == 30
    (phase,) = record["phases"]
    assert phase["uploads"][1]["digest"] == plan_of(folder).phases[0].uploads[1].digest
    assert "manifest" not in phase["uploads"][0]


def test_a_price_ceiling_drops_dear_offers(folder: Path) -> None:
    assert [o.id for o in plan_of(folder, "budget.usd_per_hour=2").offers] == ["cpu-2"]
    with pytest.raises(NoCapacity, match=r"the cheapest costs \$1.50/h"):
        plan_of(folder, "budget.usd_per_hour=1")


def test_a_secret_comes_from_the_environment_before_the_file(folder: Path) -> None:
    plan = plan_of(folder)
    assert secret_values(plan, {"HF_TOKEN": "env"}, folder / ".env") == {"HF_TOKEN": "env"}
    assert secret_values(plan, {}, folder / ".env") == {"HF_TOKEN": "from-the-file"}
    with pytest.raises(BadJobFile, match="HF_TOKEN"):
        secret_values(plan, {}, folder / "none")
    with pytest.raises(BadJobFile, match="more than one line") as error:
        secret_values(plan, {"HF_TOKEN": "a\nb"}, folder / ".env")
    assert "a\nb" not in str(error.value)


def test_checkpoints_that_came_home_are_no_code(folder: Path) -> None:
    before = plan_of(folder).phases[0].uploads[0].digest
    (folder / "checkpoints" / "my-sft").mkdir(parents=True)
    (folder / "checkpoints" / "my-sft" / "weights").write_text("x")
    (folder / "out").mkdir()
    (folder / "out" / "weights").write_text("x")
    assert plan_of(folder).phases[0].uploads[0].digest == before
