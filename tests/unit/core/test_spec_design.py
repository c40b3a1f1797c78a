"""The job file of the design: every key is in the schema, and what this release refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.spec import Job, JobFileError, job_schema, parse_job
from orchestrator.core.spec.later import LATER
from orchestrator.errors import BadJobFile

EXAMPLE = """\
name: socrates-full
resources:
  providers: [thunder, runpod]
  gpu: [A100-80GB:4, H100:4]
  nodes: 1
  disk_gb: 500
  image: auto
budget: {usd: 400, usd_per_hour: 8, hours: 60}
code: {path: ., exclude: [models/, data/]}
data:
  - {from: data/socsci210_full/, to: data/socsci210_full/}
secrets: [HF_TOKEN, WANDB_API_KEY]
env: {CUDA_VISIBLE_DEVICES: "0,1,2,3"}
patch:
  configs/sft.yaml: {use_8bit_optimizer: false}
setup: pip install -r requirements.txt
run: deepspeed --num_gpus {gpus} scripts/train.py --config config.json {resume}
checkpoints:
  path: models/socrates-qwen-full-dataset
  layout: auto
  resume: {args: "--resume_from_checkpoint {checkpoint}"}
  mirror: models/socrates-qwen-full-dataset
  also: s3://bucket/prefix
  keep: {last: 3, best: {metric: eval_loss, count: 1}, every: 2000}
outputs: ["runs/**", "evaluation_results/**"]
recovery: {host_loss: 10, crash: 2, hang_minutes: 20, keep_failed_minutes: 0}
health: {nan: stop, oom: stop, loss_flat: warn, grad_explosion: warn, low_gpu: warn}
notify: ["slack://team", "mailto://me@example.org"]
phases:
  - name: sanity
    resources: {gpu: A100-80GB:1}
    stop_after_steps: 200
    gate: {loss_drop: {percent: 10, within_steps: 100, extend_to: 200}, no_red_flags: true}
  - name: full
"""

SMALL = "name: demo\ncheckpoints: {path: output%s}\n"
SFT = "train: {method: sft, model: m, data: d, lora: true%s}\n"


def told(text: str) -> list[str]:
    with pytest.raises(JobFileError) as caught:
        parse_job(text.encode(), file="f.yaml", base=Path())
    return [str(problem) for problem in caught.value.problems]


def test_the_example_is_refused_only_for_what_comes_later() -> None:
    assert told(EXAMPLE) == [
        "f.yaml:25: outputs: mirroring other files is not supported yet",
        "f.yaml:28: notify: notification is not supported yet",
    ]


def test_the_example_without_those_is_a_job() -> None:
    data = yaml.safe_load(EXAMPLE)
    data["resources"]["providers"] = ["local"]
    for key in ("outputs", "notify"):
        del data[key]
    job = parse_job(json.dumps(data).encode(), file="f", base=Path())
    assert [str(need) for need in job.resources.needs] == ["A100-80GB:4", "H100:4"]
    assert job.budget.usd == 400


# One job file a row of the table; the row's pattern must be the only one that complains.
REFUSED = {
    "resources.nodes": "resources: {nodes: 2}",
    "resources.volume.size_gb": "resources: {volume: {size_gb: 10, path: /data}}",
    "data[].from": "data: [{from: s3://bucket/x, to: x}]",
    "data[].to": "data: [{from: x, to: /data/x}]",
    "outputs": "outputs: [runs/**]",
    "recovery.keep_failed_minutes": "recovery: {keep_failed_minutes: 5}",
    "notify": "notify: [mailto://me@example.org]",
    "train.data": ", data: hf://org/set",
    "train.data[]": ", data: [a, hf://org/set]",
    "train.evaluate.data": ", evaluate: {data: s3://bucket/x.jsonl}",
    "train.evaluate.data[]": ", evaluate: {data: [x.jsonl, hf://org/set]}",
    "checkpoints.resume.patch": ", resume: {patch: {a.json: {b: '{checkpoint}'}}}",
}


TAKEN = {
    "a hang limit": "recovery: {hang_minutes: 5}",
    "health": "health: {oom: ask, hang: stop, low_gpu: off, slow: stop, recipe: stop}",
    "an evaluation": (
        "phases: [{name: one, gate: {evaluation: {file: a.json, metric: x, baseline: b.json}}}]"
    ),
}


@pytest.mark.parametrize("text", TAKEN.values(), ids=TAKEN)
def test_what_came_since_is_taken(text: str) -> None:
    parse_job((SMALL % "" + "run: x\n" + text + "\n").encode(), file="f", base=Path())


def refused_file(pattern: str) -> str:
    text = REFUSED[pattern]
    if pattern.startswith("checkpoints."):
        return SMALL % text + "run: x\n"
    if pattern.startswith("train."):
        keys = {"method": "sft", "model": "m", "data": "d", "lora": True}
        keys |= yaml.safe_load("{" + text.removeprefix(", ") + "}")
        return SMALL % "" + f"train: {json.dumps(keys)}\n"
    return SMALL % "" + "run: x\n" + text + "\n"


def test_every_row_of_the_table_is_tried() -> None:
    assert set(REFUSED) == set(LATER)


@pytest.mark.parametrize("pattern", REFUSED)
def test_what_comes_later_is_refused_when_set(pattern: str) -> None:
    found = told(refused_file(pattern))
    assert len(found) == 1
    assert found[0].endswith("is not supported yet")
    assert f": {pattern}: " in re.sub(r"\[\d\]", "[]", found[0])


PHASED = """\
name: demo
resources: {gpu: H100:8}
checkpoints: {layout: auto}
phases:
  - name: sft
    run: a
    checkpoints: {path: one}
  - name: dpo
    train: {method: dpo, model: m, data: d, full: true}
    checkpoints: {path: two}
"""


def test_phases_are_laid_over_the_job_and_checked_whole() -> None:
    later = "is not supported yet"
    job = parse_job(PHASED.encode(), file="f.yaml", base=Path())
    assert [phase.name for phase, _ in job.parts] == ["sft", "dpo"]
    wrong = PHASED.replace("    run: a\n", "    rum: a\n").replace("path: two", "path: /two")
    assert [line for line in told(wrong + "    resources: {nodes: x}\n") if later not in line] == [
        "f.yaml:5: phases[0]: nothing to do: write run (a command of yours) or train (our trainer)",
        "f.yaml:6: phases[0].rum: unknown key; did you mean run?",
        "f.yaml:10: phases[1].checkpoints.path: must be relative to the work folder, not absolute",
        "f.yaml:11: phases[1].resources.nodes: must be a whole number",
    ]


def test_a_phase_that_trains_replaces_the_command_of_the_job() -> None:
    train = "{method: sft, model: m, data: d, lora: true}"
    text = SMALL % "" + f"run: x\nphases: [{{name: a}}, {{name: b, train: {train}}}]\n"
    job = parse_job(text.encode(), file="f.yaml", base=Path("/jobs"))
    (first, one), (second, two) = job.parts
    assert (first.name, one.run, one.train) == ("a", "x", None)
    assert (second.name, two.run, two.train and two.train.method) == ("b", None, "sft")
    assert (one.base, two.base) == (Path("/jobs"), Path("/jobs"))


def test_a_job_without_phases_is_its_only_one() -> None:
    job = parse_job((SMALL % "" + "run: x\n").encode(), file="f.yaml", base=Path("/jobs"))
    ((phase, whole),) = job.parts
    assert (phase.name, whole) == ("main", job)


def test_what_phases_alone_bring_does_not_pass_from_one_to_the_next() -> None:
    text = "name: demo\nphases:\n- {name: a, run: x, env: {A: 012}, checkpoints: {path: one}}\n"
    text += "- {name: b, run: y, checkpoints: {path: two, layout: verl}}\n"
    (_, one), (_, two) = parse_job(text.encode(), file="f", base=Path()).parts
    assert (one.run, dict(one.env), one.checkpoints.path) == ("x", {"A": "012"}, "one")
    assert (two.run, dict(two.env), two.checkpoints.layout) == ("y", {}, "verl")


def test_a_gate_requires_rules_by_id_by_flag_and_the_users_own() -> None:
    rules = "{metric: kl, above: 5}, {name: calm, metric: loss, below: 9}"
    require = "[M10, S16, oom, rules, kl above 5, calm]"
    text = SMALL % "" + f"run: x\nhealth: {{rules: [{rules}]}}\n"
    text += f"phases: [{{name: a, gate: {{require: {require}}}}}]\n"
    found = parse_job(text.encode(), file="f.yaml", base=Path())
    gate = found.phases[0].gate
    assert gate and len(gate.require) == 6


def test_what_comes_later_is_refused_in_a_phase_too() -> None:
    text = SMALL % "" + "run: x\nphases: [{name: a, outputs: [runs/**]}]\n"
    assert told(text) == ["f.yaml:4: phases[0].outputs: mirroring other files is not supported yet"]


@pytest.mark.parametrize(
    ("phases", "says"),
    [
        ("[{run: x}]", "phases[0].name: is missing"),
        ("[{name: A}]", "phases[0].name: a name is made of"),
        ("[{name: a}, {name: a}]", "phases[1].name: another phase has this name"),
        ("[{name: a, phases: []}]", "phases[0].phases: a phase has no phases of its own"),
        ("[{name: a, stop_after_steps: 0}]", "phases[0].stop_after_steps: must be at least 1"),
        ("[{name: a, gate: {los_drop: {}}}]", "phases[0].gate.los_drop: unknown key; did you"),
        (
            "[{name: a, gate: {loss_drop: {percent: 10, within_steps: 9, extend_to: 8}}}]",
            "phases[0].gate.loss_drop.extend_to: must not be below within_steps (9)",
        ),
        (
            "[{name: a, gate: {require: [M5, grad_explode]}}]",
            "phases[0].gate.require[1]: no rule has this id or name; did you mean grad_explosion?",
        ),
        (
            "[{name: a, gate: {require: [m10]}}]",
            "phases[0].gate.require[0]: no rule has this id or name; did you mean M10?",
        ),
        (
            "[{name: a, gate: {require: [zzzz]}}]",
            "phases[0].gate.require[0]: no rule has this id or name; docs/health.md lists them",
        ),
        (
            r'[{name: a, gate: {require: [calm]}, health: {rules: [{name: "calm\e", metric: x,'
            " above: 1}]}}]",
            "phases[0].gate.require[0]: no rule has this id or name; docs/health.md lists them",
        ),
        (
            "[{name: a, gate: {require: [calm]}, health: {rules: []}}]",
            "phases[0].gate.require[0]: no rule has this id or name",
        ),
        (
            "[{name: a, gate: {require: [M6]}, health: {grad_explosion: off}}]",
            "phases[0].gate.require[0]: health.grad_explosion is off, so this could never pass",
        ),
        (
            "[{name: a, gate: {require: [calm]},"
            " health: {rules: [{name: calm, metric: kl, above: 1, action: off}]}}]",
            "phases[0].gate.require[0]: its action is off, so this could never pass",
        ),
        ("[{name: a, resources: {volume: {path: /x}}}]", "phases[0].resources.volume: write id"),
        ("[3]", "phases[0]: must be a mapping"),
        ("[{name: a, budget: {usd: 3}}]", "phases[0].budget: belongs to the whole run"),
        (
            "[{name: a, checkpoints: {also: 's3://bucket/x'}}]",
            "phases[0].checkpoints.also: belongs to the whole run",
        ),
        ("[{name: a, git: {}}]", "phases[0].git: write branch or commit"),
        ("[{name: a, git: {commit: main}}]", "phases[0].git.commit: must match"),
        ("[{name: a, hold_minutes: -1}]", "phases[0].hold_minutes: must be at least 0"),
        ("[{name: a, start_from: {}}]", "phases[0].start_from: no phase comes before this one"),
        (
            "[{name: a}, {name: b, start_from: {phase: c}}]",
            "phases[1].start_from.phase: must be a phase before this one: a",
        ),
        (
            "[{name: a}, {name: b, start_from: {}}]",
            "phases[1].start_from: checkpoints.resume says nothing",
        ),
        (
            "[{name: a}, {name: b, start_from: {as: path}}]",
            "phases[1].start_from.as: nothing holds {start}",
        ),
        ("[{name: a, run: 'x {start}'}]", "phases[0]: {start} would always be empty"),
        (
            "[{name: a}, {name: b, start_from: {as: path, checkpoint: a/b}, run: 'x {start}'}]",
            "phases[1].start_from.checkpoint: write latest, best, final",
        ),
    ],
)
def test_a_problem_of_a_phase(phases: str, says: str) -> None:
    found = told(SMALL % "" + f"run: x\nphases: {phases}\n")
    kept = [line for line in found if "not supported yet" not in line]
    assert len(kept) == 1
    assert kept[0].startswith(f"f.yaml:4: {says}")


def reached(schema: dict[str, Any], rule: dict[str, Any], value: Any) -> bool:
    """Whether `rule` has a place for every key of `value` (a small reader of our own schema)."""
    rule = schema["$defs"][rule["$ref"].rpartition("/")[2]] if "$ref" in rule else rule
    choices = rule.get("anyOf") or rule.get("oneOf")
    if choices:
        return any(reached(schema, choice, value) for choice in choices)
    if isinstance(value, dict):
        properties = rule.get("properties", {})
        free = next(iter(rule.get("patternProperties", {}).values()), None)
        free = free or rule.get("additionalProperties")
        return rule.get("type") == "object" and all(
            reached(schema, properties[key], item)
            if key in properties
            else isinstance(free, dict) and reached(schema, free, item)
            for key, item in value.items()
        )
    if isinstance(value, list):
        return rule.get("type") == "array" and all(
            reached(schema, rule["items"], item) for item in value
        )
    return rule.get("type") not in ("object", "array")


def test_the_schema_has_a_place_for_every_key_of_the_example() -> None:
    schema = json.loads(json.dumps(job_schema()))
    example = yaml.safe_load(EXAMPLE)
    assert reached(schema, schema, example)
    assert not reached(schema, schema, {**example, "zzz": 1})
    example["phases"][0]["gate"]["loss_drop"]["zzz"] = 1
    assert not reached(schema, schema, example)


def test_every_key_of_the_schema_is_described_and_every_default_is_there() -> None:
    schema = job_schema()
    assert set(schema["required"]) == {"name", "checkpoints"}
    rules = [schema, *(rule for rule in schema["$defs"].values() if "properties" in rule)]
    assert len(rules) > 20
    for rule in rules:
        for name, key in rule["properties"].items():
            assert key.get("description"), name
    for name, key in schema["properties"].items():
        assert ("default" in key) != (name in schema["required"]), name


def test_references_of_the_schema_lead_somewhere() -> None:
    schema = job_schema()
    text = json.dumps(schema)
    names = {part.partition('"')[0] for part in text.split('"#/$defs/')[1:]}
    assert names <= set(schema["$defs"])


def test_the_overlays_of_a_phase_require_nothing_but_a_name() -> None:
    schema = job_schema()
    assert schema["$defs"]["Phase"]["required"] == ["name"]
    assert "required" not in schema["$defs"]["Checkpoints.InPhase"]
    assert schema["$defs"]["DataItem"]["required"] == ["from", "to"]


KEYS = st.sampled_from([*Job.model_fields, "path", "from", "to", "gpu", "usd", "name", "args"])
TEXT = st.one_of(st.text(max_size=20), st.sampled_from(["x", "{resume}", "s3://a", "cpu:2", "/"]))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(KEYS, TEXT), inner, max_size=4)
    ),
    max_leaves=12,
)


def read(data: bytes, *overrides: str) -> Job | None:
    """The job, or None where the file was refused; anything else raised fails the test."""
    try:
        return parse_job(data, file="f.yaml", base=Path(), overrides=overrides)
    except BadJobFile as error:
        assert error.message
        error.message.encode()
        return None


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_job_or_a_bad_job_file(data: bytes) -> None:
    read(data)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab:-[]{}#&*!|>'\"%@`?,. \n\t\\x0U~", max_size=60))
def test_any_yaml_punctuation_is_a_job_or_a_bad_job_file(text: str) -> None:
    read(text.encode())


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=6))
def test_any_tree_is_a_job_or_a_bad_job_file(tree: dict[str, Any]) -> None:
    read(json.dumps(tree).encode("utf-8", "surrogatepass"))


@settings(max_examples=100, deadline=None)
@given(KEYS, VALUES)
def test_any_value_of_one_key_keeps_a_good_file_good_or_is_named(key: str, value: Any) -> None:
    text = (SMALL % "") + "run: x\n"
    job = read(text.encode(), f"{key}={json.dumps(value)}")
    if job is not None:
        again = Job.model_validate(json.loads(job.model_dump_json(by_alias=True)))
        assert again.model_dump() == job.model_dump()


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=40))
def test_any_override_is_a_job_or_a_bad_job_file(override: str) -> None:
    read((SMALL % "" + "run: x\n").encode(), override)
