"""What `train:` names is looked for among what is uploaded, and the DeepSpeed file is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.adapters.hashes import hash_file
from orchestrator.core.plan import Upload
from orchestrator.core.spec import Job, parse_job
from orchestrator.errors import BadJobFile
from orchestrator.flows.train_files import check_train_files
from remote.contract import Manifest

FILES = {
    "chat.jsonl": "{}",
    "sets/a/one.parquet": "",
    "chat.jinja": "",
    "zero2.json": json.dumps({"zero_optimization": {"stage": 2}}),
    "lion.json": json.dumps({"optimizer": {"type": "Lion"}}),
    "list.json": "[]",
    "torn.json": "{",
    "deep.json": "[" * 100_000,
}
TRAIN = (
    "name: demo\ncheckpoints: {path: out}\ntrain: {method: %s, model: m, full: true, data: %s}\n"
)


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> list[Upload]:
    """One tree at the work folder itself, and the same again below `more/`."""
    source = tmp_path_factory.mktemp("code")
    for name, text in FILES.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text)
    manifest = Manifest(tuple(hash_file(source, name) for name in FILES))
    return [
        Upload("code", str(source), dest, len(FILES), 1, manifest.digest, manifest.to_json())
        for dest in (".", "more")
    ]


def job(data: str, extra: str = "", method: str = "sft") -> Job:
    text = TRAIN % (method, data) + extra
    return parse_job(text.encode(), file="f.yaml", base=Path())


GOOD = [
    ("chat.jsonl", ""),
    ("./chat.jsonl", ""),
    ("sets", ""),
    ("sets/", ""),
    ("more/sets/a", ""),
    ("sets/*/*.parquet", ""),
    ("[more/chat.jsonl, 'more/s*/**']", ""),
    ("/data/elsewhere.jsonl", ""),
    ("chat.jsonl, template: chat.jinja, deepspeed: more/zero2.json", ""),
    ("chat.jsonl, evaluate: {data: more/chat.jsonl}", ""),
    ("made-by-setup.jsonl", "setup: make data\n"),
    ("on-the-volume.jsonl", "resources: {volume: {id: v, path: /v}}\n"),
]


@pytest.mark.parametrize(("data", "extra"), GOOD, ids=[each for each, _ in GOOD])
def test_what_will_be_there(uploads: list[Upload], data: str, extra: str) -> None:
    check_train_files(job(data, extra), uploads)


BAD = [
    ("none.jsonl", "train.data: none.jsonl is not among"),
    ("[chat.jsonl, set]", "train.data: set is not among"),
    ("'*.parquet.gz'", "train.data: *.parquet.gz is not among"),
    ("chat.jsonl, evaluate: {data: [chat.jsonl, e.jsonl]}", "train.evaluate.data: e.jsonl is not"),
    ("chat.jsonl, template: chatml", "train.template: chatml is not among"),
    ("chat.jsonl, deepspeed: zero9.json", "train.deepspeed: zero9.json is not among"),
    ("chat.jsonl, deepspeed: list.json", "train.deepspeed: list.json does not hold a JSON object"),
    ("chat.jsonl, deepspeed: torn.json", "train.deepspeed: torn.json does not hold a JSON object"),
    ("chat.jsonl, deepspeed: deep.json", "train.deepspeed: deep.json does not hold a JSON object"),
    ("chat.jsonl, deepspeed: lion.json", "lion.json: deepspeed.optimizer: Lion would replace"),
]


@pytest.mark.parametrize(("data", "says"), BAD, ids=[each for each, _ in BAD])
def test_what_will_not_is_named(uploads: list[Upload], data: str, says: str) -> None:
    with pytest.raises(BadJobFile) as caught:
        check_train_files(job(data), uploads)
    problem, *rest = caught.value.message.splitlines()
    assert problem.startswith(says)
    assert rest == ["nothing was rented"]


def test_the_warm_up_too_and_all_at_once(uploads: list[Upload]) -> None:
    more = "x.jsonl, gad: {stage: adversarial, warmup_from: warm}, deepspeed: lion.json"
    with pytest.raises(BadJobFile) as caught:
        check_train_files(job(more, method="gad"), uploads)
    keys = [line.partition(": ")[0] for line in caught.value.message.splitlines()]
    assert keys == ["lion.json", "train.data", "train.gad.warmup_from", "nothing was rented"]


def test_setup_does_not_excuse_what_the_file_says(uploads: list[Upload]) -> None:
    with pytest.raises(BadJobFile, match="Lion"):
        check_train_files(job("x, deepspeed: lion.json", "setup: make data\n"), uploads)


def test_a_command_of_yours_names_no_files(uploads: list[Upload]) -> None:
    text = b"name: demo\nrun: x\ncheckpoints: {path: out}\n"
    check_train_files(parse_job(text, file="f.yaml", base=Path()), uploads)
