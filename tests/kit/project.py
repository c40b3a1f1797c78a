"""A project of a user's: a trainer in plain Python with its settings file, data and requirements,
that writes what the Hugging Face Trainer does. Tests plant mistakes in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

TRAINER = """
import argparse, io, json, math, os, pathlib, shutil, signal, sys, time, zipfile
import rows

def torch_file():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", b"x")
    return buffer.getvalue()

def weights():
    text = json.dumps({"w": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]}}).encode()
    return len(text).to_bytes(8, "little") + text + b"x" * 8

parser = argparse.ArgumentParser()
parser.add_argument("--config")
parser.add_argument("--resume_from_checkpoint")
options = parser.parse_args()
config = json.load(open(options.config))
assert os.environ["HF_TOKEN"]
examples = rows.read(config["data"]["file"], config["data"]["prompt_column"])
out = pathlib.Path(config["output_dir"])
out.mkdir(parents=True, exist_ok=True)
step, history, saved = 0, [], []
if options.resume_from_checkpoint:
    state = json.load(open(options.resume_from_checkpoint + "/trainer_state.json"))
    step, history = state["global_step"], state["log_history"]
most = config["max_steps"]
while step < most:
    time.sleep(0.1)
    step += 1
    line = {"loss": 2.5 * math.exp(-step / 50), "grad_norm": 1.0, "learning_rate": 1e-5}
    if step % config["eval_steps"] == 0:
        history.append({"eval_loss": line["loss"] + 0.1, "step": step})
    history.append({**line, "step": step})
    print({key: f"{value:.4g}" for key, value in line.items()}, flush=True)
    print(f"{100 * step // most:3d}%|# | {step}/{most} [00:00<00:01,  9.9it/s]", flush=True)
    if step % config["save_steps"] == 0 or step == most:
        folder = out / f"checkpoint-{step}"
        folder.mkdir(exist_ok=True)
        (folder / "model.safetensors").write_bytes(weights())
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
            (folder / name).write_bytes(torch_file())
        state = {"global_step": step, "max_steps": most, "log_history": history}
        (folder / "trainer_state.json").write_text(json.dumps(state))
        saved.append(folder)
        for old in saved[: -config["save_total_limit"]]:
            shutil.rmtree(old, ignore_errors=True)
(out / "config.json").write_text("{}")
(out / "model.safetensors").write_bytes(weights())
print("done", flush=True)
"""
ROWS = """
import json

def read(path, column):
    return [json.loads(line)[column] for line in open(path)]
"""


class Project:
    """In `folder`, where `write` puts it; each part may be changed before, its files `after`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trainer, self.rows = TRAINER, ROWS
        self.after: list[Callable[[], object]] = []
        self.requirements = "torch\ntransformers>=5\n"
        self.settings: dict[str, Any] = {
            "model_name": "Qwen/Qwen2.5-14B-Instruct",
            "data": {"file": "data/train.jsonl", "prompt_column": "prompt"},
            "output_dir": "models/full",
            "max_steps": 11300,
            "save_steps": 500,
            "eval_steps": 500,
            "save_total_limit": 3,
            "lora": {"rank": 32},
        }
        self.data = [{"prompt": f"question {n}", "response": n % 7} for n in range(300)]
        self.job: dict[str, Any] = {
            "name": "study",
            "resources": {"providers": ["local"], "gpu": "cpu:4", "disk_gb": 200},
            "code": {"path": "code"},
            "data": [{"from": "data/train.jsonl", "to": "data/train.jsonl"}],
            "secrets": ["HF_TOKEN"],
            "setup": "pip install -r requirements.txt",
            "run": "python scripts/train.py --config config.json {resume}",
            "checkpoints": {
                "path": "models/full",
                "layout": "huggingface",
                "resume": {"args": "--resume_from_checkpoint {checkpoint}"},
            },
            "phases": [
                {"name": "full", "gate": {"metrics": [{"metric": "eval_loss", "below": 9}]}}
            ],
        }

    def write(self) -> Path:
        code = self.folder / "code"
        texts = {
            code / "scripts" / "train.py": self.trainer,
            code / "scripts" / "rows.py": self.rows,
            code / "requirements.txt": self.requirements,
            code / "config.json": json.dumps(self.settings),
            self.folder / "data" / "train.jsonl": "".join(
                json.dumps(row) + "\n" for row in self.data
            ),
            self.folder / "job.yaml": json.dumps(self.job, indent=1),
        }
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        for change in self.after:
            change()
        return self.folder / "job.yaml"
