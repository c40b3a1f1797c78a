"""This trainer beside TRL's on the same model and data, in one run: `benchmarks/trainer.py`.

On a CPU a tiny model; `--size 1b` (3b, 8b) on a GPU, `--lora` for what does not fit otherwise.
Every contestant is a process of its own, and they take turns `-n` times. A row is the median."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from trainer_shop import SIZES, stock
from transformers import AutoConfig, AutoModelForCausalLM

from remote.trainer import flops

ROOT = Path(__file__).parents[1]
WARM_UP = 3  # steps that are not measured: caches fill, memory is found
LORA = {"r": 16, "alpha": 32}
REFERENCE = "reference log-probabilities of"


@dataclass(frozen=True)
class Contestant:
    """`ours`: this trainer with `options` over its mapping; else TRL's with its own options."""

    name: str
    ours: bool
    options: dict[str, Any]
    best: bool = False


@dataclass(frozen=True)
class Taken:
    """One run: trained tokens, none of them padding, in so many seconds."""

    tokens_per_s: float
    memory_gb: float
    loss: float


def main() -> None:
    asked = _asked()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        rows = asked.steps * asked.batch
        stock(folder, SIZES[asked.size], rows=rows)
        for method in asked.method:
            _tell(method, _measure(folder, method, asked), folder, asked)


def _measure(folder: Path, method: str, asked: argparse.Namespace) -> dict[str, list[Taken]]:
    taken: dict[str, list[Taken]] = {}
    for turn in range(asked.n):
        for each in contestants(method, asked.device):
            run = _run_ours if each.ours else _run_trl
            done = run(folder, method, each, asked)
            taken.setdefault(each.name, []).append(done)
            print(f"{method} {turn + 1}/{asked.n} {each.name}: {done}", file=sys.stderr)
    return taken


def contestants(method: str, device: str) -> list[Contestant]:
    """TRL's defaults, and what its documentation offers to be faster; ours as it comes.

    In float32 on a CPU, where TRL's bfloat16 by default would only be emulated."""
    precision = {"bf16": device == "cuda"}
    quick = {**precision, "gradient_checkpointing": False}
    flash = {"model_init_kwargs": {"attn_implementation": "flash_attention_2"}}
    found = [
        Contestant("gpujob", True, {}),
        Contestant("TRL, defaults", False, precision),
        Contestant("TRL, no checkpointing", False, quick, best=True),
    ]
    by_length = {**quick, "train_sampling_strategy": "group_by_length"}
    if method == "sft":
        found.append(Contestant("TRL, no checkpointing, by length", False, by_length, best=True))
    else:
        once = {**quick, "precompute_ref_log_probs": True}
        found.append(Contestant("TRL, reference precomputed", False, once, best=True))
    if device == "cuda" and _has("flash_attn"):
        free = {**quick, **flash, "padding_free": True}
        found.append(Contestant("TRL, padding-free", False, free, best=True))
    if device == "cuda" and _has("liger_kernel"):
        liger = {**quick, "use_liger_kernel": True}
        found.append(Contestant("TRL, liger", False, liger, best=True))
        found.append(Contestant("gpujob, liger", True, {"use_liger_kernel": True}))
    return found


def _run_ours(folder: Path, method: str, each: Contestant, asked: argparse.Namespace) -> Taken:
    out = folder / "ours"
    metrics = folder / "ours.jsonl"
    metrics.unlink(missing_ok=True)
    args = {**_shared(asked), "save_strategy": "no", "output_dir": str(out), **each.options}
    train = {
        "method": method,
        "model": str(folder / "model"),
        "data": str(folder / ("chat.jsonl" if method == "sft" else "pairs.jsonl")),
        **({"lora": LORA} if asked.lora else {"full": True}),
        "max_seq_length": asked.length,
        "args": {**args, "bf16": asked.device == "cuda"},
    }
    (folder / "train.json").write_text(json.dumps(train))
    log = _python(folder, asked, "-m", "remote.trainer", "train.json", GPUJOB_METRICS=str(metrics))
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    first, last = lines[WARM_UP - 1], lines[-1]
    spent = (_time(last) - _time(first)).total_seconds()
    rate = (last["tokens"] - first["tokens"]) / spent
    found = next((line for line in log.splitlines() if line.startswith(REFERENCE)), None)
    reference_s = float(found.split()[-2]) if found else 0.0
    return Taken(_with(rate, reference_s, last["tokens"]), last["memory_gb"], last["loss"])


def _run_trl(folder: Path, method: str, each: Contestant, asked: argparse.Namespace) -> Taken:
    options = {
        **_shared(asked),
        "use_cpu": asked.device == "cpu",
        "max_length": asked.length,
        **({"assistant_only_loss": True} if method == "sft" else {}),
        **each.options,
    }
    out = str(folder / "theirs")
    lora = LORA if asked.lora else None
    spec = {"method": method, "folder": str(folder), "out": out, "options": options, "lora": lora}
    (folder / "spec.json").write_text(json.dumps(spec))
    program = str(Path(__file__).parent / "trainer_trl.py")
    said = _python(folder, asked, program, "spec.json")
    line = next(line for line in said.splitlines() if line.startswith("RESULT "))
    record = json.loads(line.removeprefix("RESULT "))
    ends, tokens = record["ends"], record["tokens"]
    rate = sum(tokens[WARM_UP:]) / (ends[-1] - ends[WARM_UP - 1])
    rate = _with(rate, record["reference_s"], sum(tokens))
    return Taken(rate, record["memory_gb"], record["loss"])


def _shared(asked: argparse.Namespace) -> dict[str, Any]:
    return {
        "per_device_train_batch_size": asked.batch,
        "max_steps": asked.steps,
        "learning_rate": 1e-5,
        "logging_steps": 1,
    }


def _with(rate: float, reference_s: float, tokens: int) -> float:
    """Tokens a second when the pass for the reference, once over all of them, is counted."""
    return 1 / (1 / rate + reference_s / tokens)


def _python(folder: Path, asked: argparse.Namespace, *words: str, **more: str) -> str:
    threads = {"OMP_NUM_THREADS": str(asked.threads)} if asked.device == "cpu" else {}
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if asked.device == "cpu" else {}
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
        | threads
        | hidden
        | more,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"{' '.join(words)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


def _tell(
    method: str, taken: dict[str, list[Taken]], folder: Path, asked: argparse.Namespace
) -> None:
    flops_per_token, peak = _work(folder, asked)
    ours = _median(taken["gpujob"])
    how = "lora" if asked.lora else "all weights"
    print(
        f"\n{method}, {asked.size}, {how}, {asked.device}, batch {asked.batch}, {asked.steps} steps"
    )
    print("| | tokens/s | MFU | peak memory, GB | gpujob is |\n|---|---|---|---|---|")
    for name, runs in taken.items():
        rate = _median(runs)
        memory = statistics.median(each.memory_gb for each in runs)
        mfu = f"{100 * rate * flops_per_token / peak:.1f} %"
        print(f"| {name} | {rate:,.0f} | {mfu} | {memory:.2f} | {ours / rate:.2f}x |")
    best = [each.name for each in contestants(method, asked.device) if each.best]
    strongest = max(best, key=lambda name: _median(taken[name]))
    print(
        f"against TRL's best ({strongest.removeprefix('TRL, ')}):"
        f" {ours / _median(taken[strongest]):.2f}x; against its defaults:"
        f" {ours / _median(taken['TRL, defaults']):.2f}x"
    )
    if asked.json:
        record = {name: [vars(each) for each in runs] for name, runs in taken.items()}
        Path(asked.json).with_suffix(f".{method}.json").write_text(json.dumps(record, indent=1))


def _work(folder: Path, asked: argparse.Namespace) -> tuple[float, float]:
    """FLOPs a token, and the peak: of the GPU's data sheet, or what this CPU does in a product."""
    config = AutoConfig.from_pretrained(folder / "model")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    model.requires_grad_(not asked.lora)
    needed = flops.per_token(model, config, length=asked.length / 2)
    known = flops.peak() if asked.device == "cuda" else None
    return needed, known or _product_flops(asked.threads)


def _product_flops(threads: int, size: int = 1024) -> float:
    torch.set_num_threads(threads)
    one, other = torch.randn(size, size), torch.randn(size, size)
    took = []
    for _ in range(20):
        began = time.perf_counter()
        one @ other
        took.append(time.perf_counter() - began)
    return 2 * size**3 / min(took)


def _median(runs: list[Taken]) -> float:
    return statistics.median(each.tokens_per_s for each in runs)


def _time(line: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(line["at"])


def _has(module: str) -> bool:
    done = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True)
    return done.returncode == 0


def _asked() -> argparse.Namespace:
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if cuda else "cpu")
    parser.add_argument("--size", choices=tuple(SIZES), default="1b" if cuda else "tiny")
    parser.add_argument("--method", nargs="+", choices=("sft", "dpo"), default=["sft", "dpo"])
    parser.add_argument("--steps", type=int, default=30 if cuda else 15)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=2048 if cuda else 512)
    parser.add_argument("--lora", action="store_true", help="adapters, not all weights")
    parser.add_argument("--threads", type=int, default=1, help="of a CPU (default 1)")
    parser.add_argument("-n", type=int, default=3, help="turns (default 3)")
    parser.add_argument("--json", metavar="FILE", help="keep each run, in FILE.METHOD.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
