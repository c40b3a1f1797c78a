"""Job files: what a good one becomes, and files that are none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from orchestrator.core.spec import GpuNeed, Job, load_job, parse_gpu, parse_job
from orchestrator.errors import BadJobFile

SMALL = """\
name: demo
run: python train.py
checkpoints: {path: output}
"""

DEMO = """\
name: demo
resources: {providers: [local], gpu: "cpu:2", disk_gb: 5, order: listed, image: auto}
budget: {usd: 1, usd_per_hour: 0.5, hours: 2}
code: {path: ., exclude: ["*.bin"]}
data:
  - {from: chat.parquet, to: data/chat.parquet}
secrets: [HF_TOKEN]
env: {THREADS: 007, LR: 1e-5, FLAG: true, NAME: on}
setup: |
  pip install -r requirements.txt
train:
  method: sft
  model: model/
  template: chatml
  data: data/chat.parquet
  lora: {rank: 8, target_modules: [q_proj, v_proj]}
  deepspeed: deepspeed/zero2.json
  max_seq_length: 256
  packing: true
  args: {learning_rate: 1e-3, save_steps: 10, report_to: [none]}
checkpoints:
  path: ./output/run/
  layout: huggingface
  resume: {env: {FROM: "{checkpoint}"}, place: "{checkpoints.path}/x"}
  mirror: here/
recovery: {host_loss: 3, crash: 0, hang_minutes: 20, keep_failed_minutes: 0}
health: {nan: stop, oom: stop, loss_flat: warn, grad_explosion: warn, low_gpu: warn}
"""


def job(text: str, *overrides: str) -> Job:
    return parse_job(text.encode(), file="f.yaml", base=Path("folder"), overrides=overrides)


def test_a_small_job_has_the_documented_defaults() -> None:
    small = job(SMALL)
    assert small.resources.providers == ("local",)
    assert small.resources.needs == (GpuNeed("cpu", 1),)
    assert (small.budget.usd, small.budget.hours) == (None, None)
    assert (small.code.path, small.data, small.secrets, small.env) == (".", (), (), {})
    assert (small.recovery.host_loss, small.recovery.crash) == (10, 2)
    assert (small.recovery.hang_minutes, small.recovery.keep_failed_minutes) == (20, 0)
    assert small.checkpoints.layout == "auto"
    assert small.checkpoints.resume.args == ""
    assert small.checkpoints.mirror is None
    assert small.health.nan == "stop"
    assert small.train is None


def test_everything_this_release_does_is_read() -> None:
    demo = job(DEMO)
    assert demo.resources.needs == (GpuNeed("cpu", 2),)
    assert demo.data[0].source == "chat.parquet"
    assert demo.env == {"THREADS": "007", "LR": "1e-5", "FLAG": "true", "NAME": "on"}
    assert demo.setup == "pip install -r requirements.txt\n"
    assert demo.train is not None
    assert demo.train.data == ("data/chat.parquet",)
    assert demo.train.lora is not None
    assert (demo.train.lora.rank, demo.train.lora.alpha) == (8, 32)
    assert demo.train.args == {"learning_rate": 1e-3, "save_steps": 10, "report_to": ["none"]}
    assert demo.checkpoints.path == "output/run"
    assert demo.recovery.crash == 0


def test_a_job_survives_json() -> None:
    demo = job(DEMO)
    text = json.dumps(demo.model_dump(mode="json", by_alias=True))
    again = Job.model_validate(json.loads(text)).at(demo.base)
    assert again == demo
    assert "folder" not in text


def test_a_job_is_frozen() -> None:
    with pytest.raises(ValidationError):
        job(SMALL).name = "other"  # type: ignore[misc]


def test_paths_begin_at_the_folder_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(SMALL)
    loaded = load_job(tmp_path / "job.yaml")
    assert loaded.base == tmp_path
    assert loaded.local("data/x") == tmp_path / "data/x"
    assert loaded.local("/data/x") == Path("/data/x")
    assert loaded.local("~/x") == Path.home() / "x"


@pytest.mark.parametrize(
    "text", ["lora: true", "lora: {}", "full: true", "lora: {}\n  full: false"]
)
def test_forms_of_training(text: str) -> None:
    train = f"train:\n  method: sft\n  model: m\n  data: [a, b]\n  {text}\n"
    read = job(SMALL.replace("run: python train.py\n", train)).train
    assert read is not None
    assert (read.lora is not None, read.full) == ("lora" in text, "full: true" in text)


def test_a_key_with_nothing_after_it_is_absent() -> None:
    assert job(SMALL + "env:\n  # A: b\nbudget:\nsetup:\n") == job(SMALL)


@pytest.mark.parametrize(
    ("text", "need"),
    [
        ("A100-80GB:4", GpuNeed("A100-80GB", 4)),
        ("H100", GpuNeed("H100", 1)),
        ("cpu:2", GpuNeed("cpu", 2)),
        ("CPU", GpuNeed("cpu", 1)),
    ],
)
def test_gpu_syntax(text: str, need: GpuNeed) -> None:
    assert parse_gpu(text) == need
    assert parse_gpu(str(need)) == need


@pytest.mark.parametrize(
    "text", ["", ":4", "A100:0", "A100:-1", "A100:x", "A 100", "A100:4:4", "4x A"]
)
def test_gpu_syntax_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write type:count"):
        parse_gpu(text)


BAD_FILES = {
    "empty": (b"", "is empty"),
    "only a comment": (b"# x\n", "is empty"),
    "a list": (b"- a\n", "a job file is a mapping"),
    "a word": (b"hello\n", "a job file is a mapping"),
    "binary": (b"\x7fELF\x00\x01\x02\xff", "is not a text file (UTF-8)"),
    "NUL": (b"a: \x00\n", "is a binary file"),
    "UTF-16": ("name: x\n".encode("utf-16"), "is not a text file (UTF-8)"),
    "too large": (b"# " + b"x" * 1_000_000, "is larger than 1 MB"),
    "tab": (b"a:\n\t- b\n", "a tab; YAML wants spaces here"),
}


@pytest.mark.parametrize(("data", "says"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_file_that_is_no_job_file(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(data)
    with pytest.raises(BadJobFile) as caught:
        load_job(path)
    assert caught.value.exit_code == 2
    assert caught.value.hint
    assert caught.value.message.count("\n") == 0
    assert caught.value.message.startswith(f"{path}:")
    assert says in caught.value.message


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nothing-here.yaml", "there is no such file"),
        (".", "is not a regular file"),
        ("x" * 300, "cannot be read"),
        ("a\0b", "cannot be read|there is no such file"),
    ],
    ids=["missing", "folder", "name too long", "NUL in the name"],
)
def test_a_path_that_is_no_file(tmp_path: Path, name: str, says: str) -> None:
    with pytest.raises(BadJobFile, match=says):
        load_job(tmp_path / name)


def test_a_byte_order_mark_is_read_over() -> None:
    assert parse_job(b"\xef\xbb\xbf" + SMALL.encode(), file="f", base=Path()) == job(SMALL).at(
        Path()
    )


def test_reading_a_job_loads_no_heavy_library() -> None:
    code = (
        "import sys, orchestrator.core.spec, orchestrator.core.placeholders;"
        "print([m for m in ('torch', 'fabric', 'paramiko', 'httpx', 'boto3') if m in sys.modules])"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env
    )
    assert done.stdout.strip() == "[]"
