"""Each problem of a bad job file, with the exact line and words; and all of them at once."""
# ruff: noqa: E501 (a row of a table is one line)

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.core.spec import Job, JobFileError, parse_job

SMALL = """\
name: demo
run: python train.py
checkpoints: {path: output}
"""


def job(text: str, *overrides: str) -> Job:
    return parse_job(text.encode(), file="f.yaml", base=Path("folder"), overrides=overrides)


def problems(text: str, *overrides: str) -> list[str]:
    with pytest.raises(JobFileError) as caught:
        job(text, *overrides)
    assert str(caught.value)
    return [str(problem) for problem in caught.value.problems]


TRAIN = "train: {method: sft, model: m, data: d, lora: true%s}\n"

ONE_PROBLEM = [
    ("budget: {usd_per_hours: 4}", "budget.usd_per_hours: unknown key; did you mean usd_per_hour?"),
    ("resourcs: {}", "resourcs: unknown key; did you mean resources?"),
    ("gpus: 4", "gpus: unknown key; did you mean resources.gpu?"),
    ("usd: 4", "usd: unknown key; did you mean budget.usd?"),
    ("environment: {}", "environment: unknown key; did you mean env?"),
    ("budget: {env: {}}", "budget.env: unknown key; did you mean env, at the top of the file?"),
    ("zzzzz: 1", "zzzzz: unknown key"),
    ("resources: {num_nodes: 1}", "resources.num_nodes: unknown key; did you mean nodes?"),
    ("resources: {providers: lokal}", "resources.providers: must be 'local', 'runpod' or 'thunder', not 'lokal'; did you mean local?"),
    ("resources: {providers: [local, local]}", "resources.providers: names one thing twice"),
    ("resources: {providers: []}", "resources.providers: must not be empty"),
    ("resources: {gpu: [H100, 'A100:0']}", "resources.gpu[1]: write type:count, such as A100-80GB:4 or cpu:2, not 'A100:0'"),
    ("resources: {nodes: true}", "resources.nodes: must be a whole number"),
    ("resources: {disk_gb: 1.5}", "resources.disk_gb: must be a whole number"),
    ("resources: {disk_gb: 0}", "resources.disk_gb: must be at least 1"),
    ("resources: 4", "resources: must be a mapping"),
    ("budget: {usd: -1}", "budget.usd: must be greater than 0"),
    ("budget: {usd: '5'}", "budget.usd: must be a number"),
    ("budget: {hours: .nan}", "budget.hours: must be a finite number"),
    ("budget: {usd: 1e999}", "budget.usd: must be a finite number"),
    ("recovery: {crash: -1}", "recovery.crash: must be at least 0"),
    ("health: {nan: stopp}", "health.nan: must be 'stop', 'warn', 'ask' or 'off', not 'stopp'; did you mean stop?"),
    ("env: {1A: x}", "env.1A: a variable's name is made of letters, digits and _"),
    ("env: {GPUJOB_RUN_ID: x}", "env.GPUJOB_RUN_ID: names that begin with GPUJOB_ are set by gpujob itself"),
    ("env: {A: [1]}", "env.A: must be text; put it in quotes"),
    ("secrets: HF_TOKEN", "secrets: must be a list"),
    ("secrets: ['A B']", "secrets[0]: write the name of a variable, such as HF_TOKEN; this is not a name"),
    ("data: [{from: a, to: ../b}]", "data[0].to: must not hold '..': it would leave the work folder"),
    ("data: [{from: a, to: ~/b}]", "data[0].to: must be relative to the work folder, not to a home folder"),
    ("data: [{from: gs://a, to: b}]", "data[0].from: must be a local path, or begin with s3://, https:// or hf://"),
    ("data: [{from: a}]", "data[0].to: is missing"),
    ("data: [{form: a, to: b}]", "data[0].form: unknown key; did you mean from?"),
    ("data: [{from: a, to: b}, {from: c, to: b}]", "data[1].to: another entry is put there too (line 4)"),
    ("setup: ' '", "setup: must not be empty"),
    (r'setup: "a\0b"', "setup: holds a NUL, which no shell or file name can carry"),
    (TRAIN.strip() % "", "train: run and train exclude each other; keep one"),
    (r'"zz\e[1m": 1', r"zz\x1b[1m: unknown key"),
    (f"{'zq' * 50}: 1", f"{'zq' * 28}z...: unknown key"),
    ("phases: 3", "phases: must be a list"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "expected"), ONE_PROBLEM, ids=[line for line, _ in ONE_PROBLEM])
def test_one_problem_on_line_4(line: str, expected: str) -> None:
    assert problems(SMALL + line + "\n") == [f"f.yaml:4: {expected}"]


OF_TRAIN = [
    (", methd: x", "train.methd: unknown key; did you mean method?"),
    (", learning_rate: 1e-4", "train.learning_rate: unknown key; did you mean train.args.learning_rate?"),
    (", args: {output_dir: x}", "train.args.output_dir: is set from checkpoints.path; remove it here"),
    (", args: {x: [.inf]}", "train.args.x[0]: must be a finite number"),
    (", deepspeed: 2", "train.deepspeed: must be text; put it in quotes"),
    (", packing: 1", "train.packing: must be true or false"),
    (", full: true", "train.full: lora and full exclude each other; keep one"),
]  # fmt: skip


@pytest.mark.parametrize(("more", "expected"), OF_TRAIN, ids=[more for more, _ in OF_TRAIN])
def test_one_problem_of_train(more: str, expected: str) -> None:
    text = SMALL.replace("run: python train.py\n", TRAIN % more)
    assert problems(text) == [f"f.yaml:2: {expected}"]


OF_CHECKPOINTS = [
    ("{path: /out}", "checkpoints.path: must be relative to the work folder, not absolute"),
    ("{path: ~/out}", "checkpoints.path: must be relative to the work folder, not absolute"),
    ("{path: a/../../b}", "checkpoints.path: must not hold '..': it would leave the work folder"),
    ("{path: .}", "checkpoints.path: must name something below the work folder"),
    ("{path: 'a\\b'}", "checkpoints.path: is not a usable path: backslash, line break or a part too long"),
    ("{}", "checkpoints.path: is missing"),
    ("{path: a, layout: hugingface}", "did you mean huggingface?"),
    ("{path: a, layout: {glob: x, step: 'x'}}", "checkpoints.layout.step: needs a group around the step's digits"),
    ("{path: a, layout: {glob: x, step: '('}}", "checkpoints.layout.step: is not a regular expression"),
    ("{path: a, layout: {glob: x}}", "checkpoints.layout.step: is missing"),
    ("{path: a, resume: {args: --r}}", "checkpoints.resume.args: run does not hold {resume}, so a lost box would start from the beginning"),
    ("{path: a, resume: {place: /x}}", "checkpoints.resume.place: must be relative"),
    ("{path: a, also: http://x}", "checkpoints.also: must match ^s3://"),
    ("{path: a, keep: {best: {count: 1}}}", "checkpoints.keep.best.metric: is missing"),
    ("{path: a, transfer: {}}", "checkpoints.transfer: must say how fast"),
    ("{path: a, transfer: {mb_per_s: 0}}", "checkpoints.transfer: lets nothing through at any hour"),
    ("{path: a, transfer: {mb_per_s: 0, windows: [{from: '01:00', to: '02:00'}]}}", "lets nothing through at any hour"),
    ("{path: a, transfer: {mb_per_s: -1}}", "checkpoints.transfer.mb_per_s: must be at least 0"),
    ("{path: a, transfer: {windows: [{from: '24:00', to: '07:00'}]}}", "checkpoints.transfer.windows[0].from: a time of day is written"),
    ("{path: a, transfer: {windows: [{from: '07:00', to: '07:00'}]}}", "checkpoints.transfer.windows[0]: ends when it begins"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "says"), OF_CHECKPOINTS, ids=[v for v, _ in OF_CHECKPOINTS])
def test_a_problem_of_checkpoints(value: str, says: str) -> None:
    found = problems(f"name: demo\nrun: x\ncheckpoints: {value}\n")
    told = [line for line in found if "not supported yet" not in line]
    assert len(told) == 1
    assert told[0].startswith("f.yaml:3: checkpoints")
    assert says in told[0]


@pytest.mark.parametrize("name", ["", "Demo", "-demo", "a_b", "a b", "x" * 41, "../x", "é"])
def test_a_bad_name(name: str) -> None:
    found = problems(SMALL.replace("demo", f"'{name}'"))
    assert len(found) == 1
    assert found[0].startswith("f.yaml:1: name: a name ")


def test_the_longest_name() -> None:
    assert job(SMALL.replace("demo", "x" * 40)).name == "x" * 40


def test_all_problems_at_once_in_the_order_of_the_file() -> None:
    text = "name: Demo\nbudget:\n  usd: 0\n  usd: 1\nresume: x\nenv: {A: {}}\nphases: []\n"
    assert problems(text) == [
        "f.yaml:1: nothing to do: write run (a command of yours) or train (our trainer)",
        "f.yaml:1: checkpoints: is missing",
        "f.yaml:1: name: a name is made of a-z, 0-9 and -, and begins with a letter or digit;"
        " 'Demo' is not",
        "f.yaml:3: budget.usd: must be greater than 0",
        "f.yaml:4: budget.usd: the key stands here and on line 3; keep one",
        "f.yaml:5: resume: unknown key; did you mean checkpoints.resume?",
        "f.yaml:6: env.A: must be text; put it in quotes",
    ]


def test_resume_in_run_needs_something_to_say() -> None:
    assert problems(SMALL.replace("train.py", "train.py {resume}")) == [
        "f.yaml:2: run: {resume} would always be empty: checkpoints.resume.args says nothing"
    ]


def test_a_list_of_problems_is_cut_for_the_eye_but_kept() -> None:
    with pytest.raises(JobFileError) as caught:
        job(SMALL + "".join(f"zz{n}qq: 1\n" for n in range(80)))
    assert len(caught.value.problems) == 80
    assert caught.value.message.endswith("\nand 30 more problems")


OVERRIDES = [
    ("budget.usd=5", lambda j: j.budget.usd == 5),
    ("env.A=1e-5", lambda j: j.env == {"A": "1e-5"}),
    ("resources.gpu=[H100:2, 'cpu:1']", lambda j: j.resources.gpu == ("H100:2", "cpu:1")),
    ("checkpoints.mirror=x y", lambda j: j.checkpoints.mirror == "x y"),
    ("run=a b=c", lambda j: j.run == "a b=c"),
    ("data.0.to=elsewhere", lambda j: j.data[0].to == "elsewhere"),
    ("setup=", lambda j: j.setup is None),
]


@pytest.mark.parametrize(("override", "holds"), OVERRIDES, ids=[o for o, _ in OVERRIDES])
def test_overrides(override: str, holds: object) -> None:
    text = SMALL + "data: [{from: a, to: b}]\nsetup: x\n"
    assert holds(job(text, override))  # type: ignore[operator]


BAD_OVERRIDES = [
    ("budget.usd_per_hours=4", "budget.usd_per_hours: unknown key; did you mean usd_per_hour?"),
    ("budget.usd=x", "budget.usd: must be a number"),
    ("budget", "write key.key=value, not 'budget'"),
    ("a..b=1", "write key.key=value, not 'a..b=1'"),
    ("name.x=1", "name.x: nothing can be set below a single value (x)"),
    ("data.3.to=b", "data.3.to: this is a list of 1; 3 is not an index into it"),
    ("data.x.to=b", "data.x.to: this is a list of 1; x is not an index into it"),
    ("run=[1", "run: not valid YAML: "),
    ("budget={usd: 1, usd: 2}", "budget: the key stands here and on line 1; keep one"),
    ("checkpoints.layout=varl", "checkpoints.layout: must be 'auto', 'huggingface', 'deepspeed', "),
]  # fmt: skip


@pytest.mark.parametrize(("override", "says"), BAD_OVERRIDES, ids=[o for o, _ in BAD_OVERRIDES])
def test_a_bad_override_is_reported_as_such(override: str, says: str) -> None:
    found = problems(SMALL + "data: [{from: a, to: b}]\n", override)
    assert len(found) == 1
    assert found[0].startswith(f"--set: {says}")
