"""Checkpoints, what is wrong with a mirror, and the forecast of the disks, word for word."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from kit.history import (
    BOX,
    DIGEST,
    T0,
    TRAINING,
    Told,
    drain,
    mirrored,
    run_of,
    sealed,
)
from kit.plans import phase_plan

from orchestrator.core.codec import to_json
from orchestrator.core.forecast import Size, forecast
from orchestrator.core.keep import Keep
from orchestrator.core.metrics import Metric
from orchestrator.core.offer import Need
from orchestrator.core.plan import CheckpointPlan, PhasePlan, ResumePlan
from orchestrator.core.run import Event, Run
from orchestrator.views.disk import disk_rows
from orchestrator.views.event import event_line
from orchestrator.views.flags import red_flags
from orchestrator.views.progress import Picture
from orchestrator.views.runs import checkpoint_record, checkpoints_table, run_record, runs_table
from orchestrator.views.screen import Screen
from orchestrator.views.verify import Verdict, verdict_record, verdicts_text
from orchestrator.views.words import transfer_words

NOW = T0 + timedelta(hours=2)
PAUSED: Told = (
    "mirror.paused",
    {
        "reason": "full",
        "message": "The disk that holds /mirror is full. Nothing is lost: the box keeps the "
        "checkpoint until it is held here. To do: free some space: df -h /mirror; it is tried "
        "again by itself.",
    },
)
LOW: Told = (
    "disk.low",
    {"where": "box", "free_bytes": 3_000_000_000, "needed_bytes": 96_000_000_000,
     "full_at": "2026-01-01T05:30:00+00:00"},
)  # fmt: skip


def acked(step: int) -> Told:
    return "checkpoint.acked", {"instance": BOX, "name": f"checkpoint-{step}", "generation": 1}


def here(step: int, **metrics: float) -> tuple[Told, Told, Told]:
    kind, data = mirrored(step)
    return sealed(step), (kind, {**data, "metrics": metrics}), acked(step)


def a_run() -> Run:
    pruned = {"instance": BOX, "name": "checkpoint-10", "generation": 1, "digest": DIGEST[10],
              "path": "/mirror/checkpoint-10"}  # fmt: skip
    failed = {"instance": BOX, "name": "checkpoint-50", "generation": 1,
              "reason": "'A' and 'a' are one name"}  # fmt: skip
    return run_of(
        *TRAINING, *here(10, eval_loss=1.5), *here(20, eval_loss=0.98765), *here(30),
        *here(40, eval_loss=1.25), sealed(50), ("checkpoint.failed", failed),
        ("checkpoint.pruned", pruned), sealed(60), sealed(60, final=True),
        mirrored(60, final=True),
    )  # fmt: skip


TABLE = """\
CHECKPOINT     STEP  SIZE    EVAL_LOSS      GEN  STATE       WHERE
checkpoint-10  10    1.0 kB  1.5            1    let go      nowhere
checkpoint-20  20    1.0 kB  0.9877 (best)  1    verified    /mirror/checkpoint-20
checkpoint-30  30    1.0 kB                 1    verified    /mirror/checkpoint-30
checkpoint-40  40    1.0 kB  1.25           1    verified    /mirror/checkpoint-40
checkpoint-50  50    1.0 kB                 1    refused     'A' and 'a' are one name
checkpoint-60  60    1.0 kB                 1    on its way  on demo-1-1
final          60    1.0 kB                 1    verified    /mirror/final, on demo-1-1"""


def test_checkpoints() -> None:
    assert checkpoints_table(a_run()) == TABLE


def test_a_checkpoint_for_a_program() -> None:
    run = replace(a_run(), pushed={DIGEST[20]: "s3://b/p/checkpoint-20.0"})
    seal = next(seal for seal in run.seals if seal.step == 20)
    assert json.loads(json.dumps(to_json(checkpoint_record(run, seal)))) == {
        "name": "checkpoint-20",
        "step": 20,
        "size_bytes": 1000,
        "digest": DIGEST[20],
        "final": False,
        "attempt": 1,
        "phase": "main",
        "generation": 1,
        "state": "verified",
        "failed": None,
        "metrics": {"eval_loss": 0.98765},
        "best": True,
        "here": "/mirror/checkpoint-20",
        "places": [
            {"kind": "here", "at": "/mirror/checkpoint-20"},
            {"kind": "s3", "at": "s3://b/p/checkpoint-20.0"},
        ],
    }


def test_a_paused_mirror_says_what_it_costs_and_what_to_do() -> None:
    assert red_flags(run_of(*TRAINING, sealed(10), PAUSED, LOW), NOW) == [
        "the mirror takes nothing since 1h59m: The disk that holds /mirror is full. Nothing is "
        "lost: the box keeps the checkpoint until it is held here. To do: free some space: "
        "df -h /mirror; it is tried again by itself. Training goes on, which costs $0.02 a minute "
        "($1.00/h).",
        "the box's disk has 3.0 GB left and the checkpoints to come need 96.0 GB, full at about "
        "2026-01-01 05:30 UTC: let the trainer keep fewer checkpoints, or ask for more "
        "`resources.disk_gb`",
    ]
    (flag,) = red_flags(run_of(*TRAINING, sealed(10), PAUSED, drain()), NOW)
    assert "The run is over and waits for this alone, which costs $0.02 a minute" in flag


def test_red_flags_in_the_list_of_runs() -> None:
    run = replace(run_of(*TRAINING, PAUSED, LOW), push_trouble="denied")
    row = runs_table([run], NOW).splitlines()[1]
    assert row.endswith("RED FLAG: mirror paused (full), disk low (box), S3 push fails")
    assert len(run_record(run, NOW)["red_flags"]) == 3
    well: Told = ("disk.eased", {"where": "box"})
    resumed = run_of(*TRAINING, PAUSED, LOW, well, ("mirror.resumed", {}))
    assert red_flags(resumed, NOW) == []
    assert "RED FLAG" not in runs_table([resumed], NOW)


@pytest.mark.parametrize(
    ("told", "line"),
    [
        (PAUSED, "RED FLAG: the mirror takes nothing: The disk that holds /mirror is full."),
        (LOW, "RED FLAG: the box's disk has 3.0 GB left, and 96.0 GB are needed, full at about "
              "2026-01-01T05:30"),
        (("disk.eased", {"where": "here"}), "the disk here has room again"),
        (("requested.fetch", {"name": "checkpoint-10", "digest": "d"}),
         "checkpoint-10 is asked for again: it is not here as it was verified"),
        (("drain.begun", {"outcome": "FAILED", "reason": "over", "code": "budget",
                          "expected_s": 90.0, "until": "2026-01-02T10:00:00+00:00"}),
         "draining: over; what is missing takes about 1m30s, until 2026-01-02T10:00"),
        (("drain.ended", {"complete": False, "missing": ["final"], "why": "24h are over"}),
         "drained without final: 24h are over"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)  # fmt: skip
def test_event_lines(told: Told, line: str) -> None:
    assert line in event_line(Event("demo-1", 1, T0, told[0], 1, told[1]))


def test_a_transfer_shows_rate_and_time_left() -> None:
    assert transfer_words("checkpoint-20", 12 * 10**8, 28 * 10**8, 10**8) == (
        "checkpoint-20: 43%, 1.2 GB of 2.8 GB, 100.0 MB/s, 16s left"
    )
    assert transfer_words("x", 0, 0, None) == "x: 100%, 0 B of 0 B"


def test_without_a_terminal_a_transfer_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, screen = run_of(*TRAINING, sealed(10), PAUSED), Screen(live=False)
    for second in range(12):
        moving = {"name": "checkpoint-10", "received": second * 100, "size_bytes": 1200,
                  "bytes_per_s": 100.0}  # fmt: skip
        screen.show(run, Picture((), {"transfer": moving}), T0 + timedelta(seconds=second))
    lines = capsys.readouterr().out.splitlines()
    assert [line.strip() for line in lines if "checkpoint-10" in line] == [
        "checkpoint-10: 42%, 500 B of 1.2 kB, 100 B/s, 7s left",
        "checkpoint-10: 83%, 1.0 kB of 1.2 kB, 100 B/s, 2s left",
    ]
    assert sum("RED FLAG: the mirror takes nothing" in line for line in lines) == 1


VERIFIED = """\
CHECKPOINT     SIZE             PATH
checkpoint-20  1.0 kB  ok       /mirror/checkpoint-20
checkpoint-40  1.0 kB  DAMAGED  /mirror/checkpoint-40
  weights: other bytes than were verified in chunk 3 (from byte 50331648)
  -> nobody else has it any more: restore the folder from a copy of yours
final          1.0 kB  DAMAGED  /mirror/final
  the folder is gone
  -> `gpujob pull demo-1:final` fetches it again from demo-1-1"""


def verdicts() -> list[Verdict]:
    wrong = "weights: other bytes than were verified in chunk 3 (from byte 50331648)"
    return [
        Verdict("checkpoint-20", "/mirror/checkpoint-20", DIGEST[20], 1000, ()),
        Verdict("checkpoint-40", "/mirror/checkpoint-40", DIGEST[40], 1000, (wrong,)),
        Verdict("final", "/mirror/final", DIGEST[160], 1000, ("the folder is gone",)),
    ]


def test_verify() -> None:
    assert verdicts_text(a_run(), verdicts()) == VERIFIED
    assert verdicts_text(a_run(), []) == "no checkpoint is published here yet"
    record = verdict_record(a_run(), verdicts()[2])
    assert (record["ok"], record["problems"]) == (False, ["the folder is gone"])
    in_s3 = replace(a_run(), pushed={DIGEST[40]: "s3://b/p/x"})
    assert "fetches it again from s3://b/p/x" in verdicts_text(in_s3, verdicts())


def plan(keep: Keep | None = None, free_bytes: int | None = None, **args: int) -> PhasePlan:
    found = forecast(
        Size(48 * 10**9, 112 * 10**9), Size(16 * 10**9, 32 * 10**9),
        "8.03 billion parameters, 8.03 trained", args, keep,
    )  # fmt: skip
    checkpoints = CheckpointPlan("out", "huggingface", "/mirror", ResumePlan("", {}, ""), keep=keep)
    need = Need((("A100", 1),), 500)
    return phase_plan(need=need, checkpoints=checkpoints, disk=found, here_free_bytes=free_bytes)


FORECASTS = {
    "unknown": (plan(), [
        "an unknown number of checkpoints of 48.0 GB to 112.0 GB (8.03 billion parameters, 8.03 "
        "trained)",
        "64.0 GB to 144.0 GB of 500.0 GB with one; the trainer may keep them all",
        "64.0 GB to 144.0 GB with one; all stay without checkpoints.keep",
    ]),
    "known": (plan(max_steps=100, save_steps=10, save_total_limit=2, free_bytes=900 * 10**9), [
        "10 checkpoints of 48.0 GB to 112.0 GB (8.03 billion parameters, 8.03 trained)",
        "160.0 GB to 368.0 GB of 500.0 GB, 3 at once",
        "496.0 GB to 1.2 TB of 900.0 GB that can be used, 10 stay: MAY NOT FIT",
    ]),
    "kept": (plan(Keep(3, Metric("eval_loss", "min"), 1, 2000), max_steps=100, save_steps=10), [
        "the newest 3, the best 1 by eval_loss (lowest is best), every one at a multiple of 2000 "
        "steps, and always the newest and the final; the others go from here",
        "10 checkpoints of 48.0 GB to 112.0 GB (8.03 billion parameters, 8.03 trained)",
        "496.0 GB to 1.2 TB of 500.0 GB, 10 at once: MAY NOT FIT, ask for more "
        "resources.disk_gb",
        "160.0 GB to 368.0 GB, 3 stay",
    ]),
}  # fmt: skip


@pytest.mark.parametrize(("planned", "rows"), FORECASTS.values(), ids=FORECASTS)
def test_the_forecast_of_a_plan(planned: PhasePlan, rows: list[str]) -> None:
    assert [value for _, value in disk_rows(planned)] == rows
