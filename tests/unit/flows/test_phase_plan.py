"""From a job of several phases to its plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from kit.clock import ManualClock
from kit.history import DIGEST, TRAINING, Told, begun, drain, mirrored, run_of, sealed

from orchestrator.adapters.local import LocalProvider
from orchestrator.adapters.tree import LocalTrees
from orchestrator.core.codec import to_json
from orchestrator.core.gate import LossDrop
from orchestrator.core.offer import Need, Offer
from orchestrator.core.plan import Given, Plan, StartPlan, read_plan
from orchestrator.core.run import Run, Source
from orchestrator.core.settings import Batch
from orchestrator.core.spec import load_job
from orchestrator.errors import BadJobFile
from orchestrator.flows.launch import make_plan, record
from orchestrator.flows.phase_plan import Shop
from orchestrator.ports import Account, Checkout
from orchestrator.views.plan import plan_json, plan_text

JOB = """
name: climb
budget: {usd: 40}
resources: {gpu: cpu:1}
secrets: [A]
run: python train.py --config sft.yaml {resume}
checkpoints: {path: out, resume: {args: "--from {checkpoint}"}}
phases:
  - name: sanity
    stop_after_steps: 200
    gate: {loss_drop: {percent: 10, within_steps: 100, extend_to: 200}, no_red_flags: true}
    recovery: {host_loss: 1, crash: 0}
    hold_minutes: 5
  - name: full
    secrets: [B]
    resources: {gpu: [cpu:2, cpu:4]}
    patch: {sft.yaml: {use_8bit_optimizer: false, out: "{checkpoints.path}/{start}"}}
    start_from: {checkpoint: best}
  - name: dpo
    start_from: {phase: full, checkpoint: final, as: path}
    run: python dpo.py --model {start} {resume}
"""


class Priced(LocalProvider):
    def offers(self, need: Need) -> Sequence[Offer]:
        return [Offer("local", f"cpu-{n}", "cpu", n, 8, 16, need.disk_gb, n) for _, n in need.gpus]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "job.yaml").write_text(JOB)
    (tmp_path / "train.py").write_text("print()\n")
    (tmp_path / "sft.yaml").write_text("use_8bit_optimizer: true\nout: x\n")
    (tmp_path / ".gitignore").write_text("job.yaml\n/state/\n")
    return tmp_path


def shop_of(folder: Path, **changes: object) -> Shop:
    providers = {"local": Priced(folder / "state" / "local", clock=ManualClock())}
    made = Shop(LocalTrees(), providers, lambda mirror: None, lambda mirror, run: None)
    return replace(made, **changes)  # type: ignore[arg-type]


def plan_of(folder: Path, *overrides: str, **changes: object) -> Plan:
    return make_plan(load_job(folder / "job.yaml", overrides), shop_of(folder, **changes))


def refused(folder: Path, *overrides: str, **changes: object) -> str:
    with pytest.raises(BadJobFile) as error:
        plan_of(folder, *overrides, **changes)
    return error.value.message


def test_each_phase_is_the_job_with_its_own_keys_laid_over(folder: Path) -> None:
    plan = plan_of(folder)
    sanity, full, dpo = plan.phases
    assert [each.name for each in plan.phases] == ["sanity", "full", "dpo"]
    assert [[o.id for o in each.offers] for each in plan.phases] == [
        ["cpu-1"], ["cpu-2", "cpu-4"], ["cpu-1"],
    ]  # fmt: skip
    assert sanity.gate and sanity.gate.loss_drop == LossDrop(10, 100, 200)
    assert (sanity.stop_after_steps, sanity.hold_s, sanity.recovery.crash) == (200, 300.0, 0)
    assert (full.gate, full.stop_after_steps, full.hold_s, full.recovery.crash) == (
        None, None, 600.0, 2,
    )  # fmt: skip
    assert full.start == StartPlan("sanity", "best", "resume", "gpujob_start/sanity")
    assert dpo.start == StartPlan("full", "final", "path", "gpujob_start/full")
    assert plan.secrets == ("A", "B")
    assert (plan.limits.crash, plan.limits.budget_usd) == (0, 40)
    mirrors = [each.checkpoints.mirror for each in plan.phases]
    assert mirrors == [f"{folder}/checkpoints/climb/{{run_id}}/{each.name}" for each in plan.phases]
    assert read_plan(to_json(plan)) == plan


def test_a_mirror_of_ones_own_has_a_folder_for_each_phase(folder: Path) -> None:
    plan = plan_of(folder, "checkpoints.mirror=kept")
    assert [each.checkpoints.mirror for each in plan.phases] == [
        f"{folder}/kept/{name}" for name in ("sanity", "full", "dpo")
    ]
    plan = plan_of(folder, "checkpoints.mirror=kept-{phase}/x")
    assert plan.phases[1].checkpoints.mirror == f"{folder}/kept-full/x"


def test_a_patched_file_has_its_new_text_and_is_uploaded_as_it_was(folder: Path) -> None:
    sanity, full, _ = plan_of(folder).phases
    (patch,) = full.patch
    assert sanity.patch == ()
    assert patch.text == "use_8bit_optimizer: false\nout: out/\n"
    assert patch.changed == ("use_8bit_optimizer", "out")
    assert sanity.uploads[0].digest == full.uploads[0].digest
    assert "use_8bit_optimizer: false" not in plan_json(plan_of(folder))


@pytest.mark.parametrize(
    ("patch", "says"),
    [
        ("{none.yaml: {a: 1}}", "none.yaml is not among the files of the code"),
        ("{../sft.yaml: {a: 1}}", "../sft.yaml is not among the files of the code"),
        ("{job.yaml: {name: x}}", "job.yaml is not among the files of the code"),
        ("{sft.yaml: {lr: 1}}", "sft.yaml has no key lr"),
        ("{train.py: {lr: 1}}", "train.py is neither"),
    ],
)
def test_a_patch_of_what_is_not_there_is_refused(folder: Path, patch: str, says: str) -> None:
    assert says in refused(folder, f"phases.1.patch={patch}")


def test_what_is_run_makes_the_key_and_where_it_runs_does_not(folder: Path) -> None:
    before = [each.key for each in plan_of(folder).phases]
    assert len(set(before)) == 3 and all(before)
    assert [each.key for each in plan_of(folder, "resources.gpu=cpu:2").phases] == before
    assert [each.key for each in plan_of(folder, "budget.usd=50").phases] == before
    patched = [each.key for each in plan_of(folder, "phases.1.patch={}").phases]
    assert (patched[0], patched[2]) == (before[0], before[2]) and patched[1] != before[1]
    image = [each.key for each in plan_of(folder, "resources.image=other").phases]
    assert not set(image) & set(before)
    (folder / "train.py").write_text("print(1)\n")
    assert not {each.key for each in plan_of(folder).phases} & set(before)


@pytest.mark.parametrize(
    ("wanted", "found", "says"),
    [
        ("{branch: main}", None, "is in no git repository"),
        ("{branch: main}", Checkout("dev", "a" * 40), "is at branch dev"),
        ("{branch: main}", Checkout("", "a" * 40), "is at commit aaaaaaaaaaaa, no branch"),
        ("{commit: bbbbbbb}", Checkout("main", "a" * 40), "and"),
        ("{branch: main, commit: aaaaaaa}", Checkout("main", "a" * 40), ""),
    ],
)
def test_the_code_must_be_at_what_the_phase_asks(
    folder: Path, wanted: str, found: Checkout | None, says: str
) -> None:
    changes = {"checkout": lambda asked: found}
    if says:
        assert says in refused(folder, f"phases.1.git={wanted}", **changes)
    else:
        assert plan_of(folder, f"phases.1.git={wanted}", **changes)


def test_one_run_has_one_volume(folder: Path) -> None:
    volume = "phases.1.resources.volume={id: v1, path: /data}"
    assert "resources.volume differs between phases" in refused(folder, volume)


TRAIN = "train={method: sft, model: '{start}', data: d.jsonl, full: true}"


def test_our_own_trainer_resumes_with_other_ranks_where_they_share_its_batch(folder: Path) -> None:
    (folder / "d.jsonl").write_text("{}\n")
    base = ["checkpoints.resume={}", "phases=[{name: a, stop_after_steps: 5}, {name: b}]"]
    both = [*base, "run=null", TRAIN.replace("{start}", "m")]
    resumes = "phases.1.start_from={as: resume}"
    assert plan_of(folder, *both, resumes)
    assert plan_of(folder, *both, resumes, "phases.1.resources={gpu: cpu:2}")
    odd = refused(folder, *both, resumes, "phases.1.resources={gpu: cpu:3}")
    assert "phase b: 3 GPUs cannot share the 8 sequences a step of a" in odd
    batch = "phases.1.train={args: {global_batch_size: 16}}"
    assert "which a resume keeps" in refused(folder, *both, resumes, batch)
    other = refused(folder, *both, resumes, "phases.1.train={packing: true}")
    assert "phase b: train.packing differs from that of a" in other
    final = refused(folder, *both, "phases.1.start_from={as: resume, checkpoint: final}")
    assert "phase b: our trainer cannot resume `final`, which is weights alone" in final
    path = "phases.1.start_from={as: path}"
    told = plan_of(folder, *base, "run=null", TRAIN, path, "phases.1.resources={gpu: cpu:2}")
    assert told.phases[1].train and told.phases[1].train["model"] == "gpujob_start/a"


def earlier(folder: Path, name: str, *told: Told, key: str | None = None) -> Run:
    """A run of the job whose phase `sanity` sealed and brought home a checkpoint at step 200."""
    (folder / name / "checkpoint-200").mkdir(parents=True)
    key = plan_of(folder).phases[0].key if key is None else key
    kind, data = mirrored(200)
    here = (kind, {**data, "path": f"{folder}/{name}/checkpoint-200"})
    run = run_of(begun("sanity", key=key), *TRAINING, sealed(200), here, *told)
    return replace(run, id=name, name="climb", folder=str(folder))


def begin(folder: Path, name: str, *runs: Run) -> Plan:
    job = load_job(folder / "job.yaml")
    return make_plan(job, shop_of(folder), begin=name, earlier=runs)


def refused_at(folder: Path, name: str, *runs: Run) -> str:
    with pytest.raises(BadJobFile) as error:
        begin(folder, name, *runs)
    assert "nothing was rented" in error.value.message
    return error.value.message


PASSED: Told = ("phase.ended", {"phase": "sanity", "verdict": "GO"})
FAILED: Told = ("gate.judged", {"phase": "sanity", "verdict": "NO-GO", "reasons": []})
BEST: Told = ("checkpoint.measured", {"digest": DIGEST[200], "metrics": {"eval_loss": 1.0}})
DEAD = drain("FAILED", "gate")


def test_a_launch_may_begin_later_with_what_an_earlier_run_left(folder: Path) -> None:
    plan = begin(folder, "full", earlier(folder, "climb-1", BEST, PASSED))
    assert [each.name for each in plan.phases] == ["full", "dpo"]
    source = Source("checkpoint-200", 200, DIGEST[200])
    first, second = plan.phases
    assert first.start and first.start.given == Given("climb-1", f"{folder}/climb-1", source)
    assert second.start and second.start.given is None
    assert plan.limits.crash == 2
    assert plan.secrets == ("B", "A"), "of the phases that it runs"
    assert "from run climb-1" in plan_text(plan, ManualClock().now())
    with pytest.raises(BadJobFile, match="no phase ful") as error:
        begin(folder, "ful")
    assert error.value.hint == "its phases are sanity, full, dpo"


def test_a_launch_that_begins_later_looks_at_the_verdict_of_before(folder: Path) -> None:
    """Of the newest run that came to one on what the file, code, data and image are now."""
    says = "comes after the gate of sanity, and"
    assert f"{says} no earlier run of this job passed it" in refused_at(folder, "full")
    undecided = earlier(folder, "climb-1", BEST)
    assert "no earlier run of this job passed it" in refused_at(folder, "full", undecided)
    passed = earlier(folder, "climb-2", BEST, PASSED)
    assert begin(folder, "full", undecided, passed)
    failed = earlier(folder, "climb-3", BEST, FAILED, DEAD)
    assert "climb-3 was NO-GO" in refused_at(folder, "full", failed, passed)
    assert begin(folder, "full", passed, failed)
    stranger = replace(passed, folder="/elsewhere")
    assert "no earlier run" in refused_at(folder, "full", stranger)
    (folder / "train.py").write_text("print(1)\n")
    said = refused_at(folder, "full", passed)
    assert "climb-2 passed it with other code, data, settings or image than now" in said


def test_a_gate_that_was_made_harder_is_judged_anew(folder: Path) -> None:
    passed = earlier(folder, "climb-1", BEST, PASSED)
    (folder / "job.yaml").write_text(JOB.replace("percent: 10", "percent: 20"))
    assert "than now" in refused_at(folder, "full", passed)


def test_without_a_gate_the_checkpoint_of_the_right_run_is_taken(folder: Path) -> None:
    """Of the same work before other work, of a phase that has ended before one that has not."""
    (folder / "job.yaml").write_text(JOB.replace("    gate: {", "    health: {rules: []} #"))
    other = earlier(folder, "climb-4", BEST, PASSED, key="another")
    cut, done = earlier(folder, "climb-3", BEST), earlier(folder, "climb-2", BEST, PASSED)

    def given(*runs: Run) -> str:
        start = begin(folder, "full", *runs).phases[0].start
        assert start and start.given
        return f"{start.given.run} {start.given.note}".strip()

    assert given(other, cut, done) == "climb-2"
    assert given(other, cut) == "climb-3 which was not ended there"
    assert given(other) == "climb-4 which ran other code, data, settings or image than now"
    assert "no earlier run of this job has it here" in refused_at(folder, "full")
    (folder / "climb-2" / "checkpoint-200").rmdir()
    assert "no earlier run of this job has it here" in refused_at(folder, "full", done)


class Kept:
    """A ledger that takes a run."""

    def create(self, run: str, plan: object, planned: object) -> None:
        self.made = (run, plan, planned)


def test_equal_code_is_kept_once_and_every_mirror_is_claimed(folder: Path) -> None:
    (folder / "other").mkdir()
    (folder / "other" / "dpo.py").write_text("print()\n")
    claimed: list[str] = []
    shop = shop_of(folder, claim_mirror=lambda mirror, run: claimed.append(mirror.name))
    job = load_job(folder / "job.yaml", ["phases.2.code={path: other}"])
    ledger = Kept()
    run, plan = record(
        make_plan(job, shop),
        {},
        ledger=ledger,  # type: ignore[arg-type]
        shop=shop,
        state=folder / "state",
    )
    kept = sorted(path.name for path in (folder / "state" / "runs" / run).iterdir())
    digest = plan.phases[2].uploads[0].digest
    assert kept == ["code", f"code-{digest[:12]}", "patched"]
    assert (folder / "state" / "runs" / run / f"code-{digest[:12]}" / "dpo.py").is_file()
    assert claimed == ["sanity", "full", "dpo"]
    patched = folder / "state" / "runs" / run / "patched" / "1" / "sft.yaml"
    assert patched.read_text() == "use_8bit_optimizer: false\nout: out/\n"
    assert patched.stat().st_mode & 0o777 == 0o600
    assert "use_8bit_optimizer: false" not in str(ledger.made[1])
    assert plan.phases[0].checkpoints.mirror == f"{folder}/checkpoints/climb/{run}/sanity"


TEXT = """\
job          climb
budget       $40.00 in all
ceiling      $40.00 for the whole run

phase 1      sanity
stops        after 200 steps
gate         the loss falls by 10 % within 100 steps, looked at again at 200
             no red flag
             while a person is waited for, its box is kept for 5m00s and bills
instance     cpu:1 from local (cpu-1)
price        $1.00/h
code         3 files, 57 B: [HERE] -> .
secrets      A (a 0600 file on the box)
run          python train.py --config sft.yaml {resume}
checkpoints  out on the box -> [HERE]/checkpoints/climb/{run_id}/sanity
disk         not known how large a checkpoint is: `checkpoints.size_gb` says it
recovery     1 lost instances, 0 crashes

phase 2      full
starts from  best of sanity: the trainer goes on from it
instance     cpu:2 from local (cpu-2)
price        $2.00/h
  or         cpu:4 from local at $4.00/h
patch        sft.yaml: use_8bit_optimizer, out
secrets      B (a 0600 file on the box)
checkpoints  out on the box -> [HERE]/checkpoints/climb/{run_id}/full
recovery     10 lost instances, 2 crashes

phase 3      dpo
starts from  final of full: at gpujob_start/full
instance     cpu:1 from local (cpu-1)
price        $1.00/h
secrets      A (a 0600 file on the box)
run          python dpo.py --model {start} {resume}
checkpoints  out on the box -> [HERE]/checkpoints/climb/{run_id}/dpo

alone        local: a box that loses this machine cannot stop its own billing"""


def test_the_plan_in_words(folder: Path) -> None:
    text = plan_text(plan_of(folder), ManualClock().now()).replace(str(folder), "[HERE]")
    assert text == TEXT
    assert '"manifest"' not in plan_json(plan_of(folder))


EIGHT = "deepspeed train.py --config sft.yaml {resume}"
TWO = "resources.gpu=cpu:2"


def test_an_optimizer_of_eight_bits_is_refused_with_deepspeed_on_two_gpus(folder: Path) -> None:
    said = refused(folder, f"run={EIGHT}", TWO)
    assert said.startswith("patch: sft.yaml has use_8bit_optimizer: true, and phase sanity")
    assert "nothing was rented" in said
    off = "phases.0.patch={sft.yaml: {use_8bit_optimizer: false}}"
    assert plan_of(folder, f"run={EIGHT}", TWO, off)
    assert plan_of(folder, f"run={EIGHT}", TWO, "phases.0.health={recipe: off}")
    assert plan_of(folder, f"run={EIGHT}"), "on one GPU"
    assert plan_of(folder, TWO), "without DeepSpeed"
    (folder / "train.sh").write_text("accelerate launch --use_deepspeed train.py $1\n")
    assert "patch: sft.yaml" in refused(folder, "run=sh train.sh sft.yaml {resume}", TWO)


def test_the_rows_of_a_step_are_what_the_files_of_the_phase_say(folder: Path) -> None:
    rows = "per_device_train_batch_size: 2\ngradient_accumulation_steps: 8\n"
    (folder / "sft.yaml").write_text(rows)
    plan = plan_of(folder, "phases.1.patch={sft.yaml: {gradient_accumulation_steps: 4}}")
    assert [each.batch for each in plan.phases] == [Batch(2, 8), Batch(2, 4), None]
    assert read_plan(to_json(plan)) == plan
    (folder / "more.yaml").write_text(rows.replace("8", "1"))
    more = "phases.0.patch={more.yaml: {per_device_train_batch_size: 3}}"
    free = "phases.1.patch={}"
    named = plan_of(folder, more, free)
    assert named.phases[0].batch == Batch(2, 8), "of the file that the command names"
    script = plan_of(folder, more, free, "phases.0.run=sh train.sh {resume}")
    assert script.phases[0].batch == Batch(3, 1), "a script may read what is patched"


def test_a_full_run_is_compared_with_the_validation_it_goes_on_from(folder: Path) -> None:
    assert [each.changed for each in plan_of(folder).phases] == [None, (), None]
    (folder / "sft.yaml").write_text("training: {lr: 1, save_steps: 5}\n")
    free = plan_of(folder, "phases.1.patch={sft.yaml: {training: {save_steps: 9}}}")
    assert free.phases[1].changed == ()
    rate = "phases.1.patch={sft.yaml: {training: {lr: 2}}}"
    plan = plan_of(folder, rate)
    assert plan.phases[1].changed == ("training.lr",)
    assert "from what was validated: training.lr" in plan_text(plan, ManualClock().now())
    other = plan_of(folder, "phases.1.patch={}", "phases.1.run=python train.py {resume}")
    assert other.phases[1].changed == ("run", "training.lr")
    first = plan_of(folder, "phases.1.patch={}", "phases.0.stop_after_steps=null")
    assert first.phases[1].changed is None, "no validation"


class Paid(Priced):
    """An account with so much on it; None is not told."""

    def __init__(self, folder: Path, usd: float | None) -> None:
        super().__init__(folder / "state" / "local", clock=ManualClock())
        self.usd = usd

    def account(self) -> Account:
        return Account("local", "me", balance_usd=self.usd)


def test_a_phase_that_the_account_cannot_pay_is_refused(folder: Path) -> None:
    cost = "phases.0.gate={cost: {usd: 30}}"
    said = refused(folder, cost, providers={"local": Paid(folder, 29.0)})
    assert said.startswith("gate.cost.usd: phase sanity is to cost $30.00, and the account at")
    assert "local has $29.00; nothing was rented" in said
    for usd in (30.0, None):
        assert plan_of(folder, cost, providers={"local": Paid(folder, usd)})
    assert plan_of(folder, providers={"local": Paid(folder, 1.0)}), "no price is said"
