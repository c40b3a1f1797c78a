"""torchllms at its pinned commit as it looks from outside: weights alone, in one file; the one
before is deleted; and an error is logged, and ends the process as if all were well."""

from __future__ import annotations

import argparse
import json
import math
import traceback
from pathlib import Path

import pieces

GREEN, PLAIN = "\x1b[32m", "\x1b[0m"


def parser() -> argparse.ArgumentParser:
    """Those options of the commit's own parser that the job files use; there is no other."""
    made = argparse.ArgumentParser()
    made.add_argument("--ckpt_paths", nargs="*", type=Path, required=True)
    made.add_argument("--template_config", required=True)
    made.add_argument("--train_data_paths", nargs="*", required=True)
    made.add_argument("--output_dir", type=Path, required=True)
    made.add_argument("--lora", action="store_true")
    for name in ("max_seq_len", "micro_batch_size_per_gpu", "gradient_accum_steps"):
        made.add_argument(f"--{name}", type=int, required=True)
    for name in ("train_epochs", "warmup_steps", "lora_rank"):
        made.add_argument(f"--{name}", type=int, default=0)
    for name in ("wd", "lora_alpha", "lora_dropout"):
        made.add_argument(f"--{name}", type=float, default=0.0)
    made.add_argument("--lr", type=float, required=True)
    made.add_argument("--lr_scheduler", default="linear")
    made.add_argument("--loss_reduction", default="sequences")
    made.add_argument("--save_freq", type=int, default=500)
    made.add_argument("--max_checkpoints", type=int, default=1)
    return made


def train(options: argparse.Namespace, first_loss: float) -> None:
    """`logger.catch` of loguru is around the real one too: the exit code is 0 whatever happens."""
    pieces.begin()
    try:
        _train(options, first_loss)
    except Exception:
        traceback.print_exc()


def _train(options: argparse.Namespace, first_loss: float) -> None:
    beside = options.ckpt_paths[-1].parent
    params = json.loads((beside / "params.json").read_text())
    assert (beside / "tokenizer_config.json").is_file()
    out, steps = options.output_dir, pieces.STEPS
    # The real one copies this before it makes the folder.
    (out / "tokenizer_config.json").write_text("{}")
    told = {key: str(value) for key, value in vars(options).items()}
    pieces.write(out / "train_args.json", json.dumps(told))
    pieces.write(out / "params.json", json.dumps(params))
    for step in range(1, steps + 1):
        pieces.take_step(step)
        _line(step, steps, options, first_loss)
        if step % options.save_freq == 0:
            pieces.write(out / f"model_{step:07d}.pth", pieces.torch_file(step))
            pieces.keep_newest(sorted(out.glob("model_0*.pth")), options.max_checkpoints)
            print("Saved checkpoint in 0.1s", flush=True)
            pieces.rest(options.save_freq)
    pieces.write(out / "model_final.pth", pieces.torch_file(steps))
    print(f"{GREEN}Finished training!{PLAIN}", flush=True)


def _line(step: int, steps: int, options: argparse.Namespace, first_loss: float) -> None:
    loss = pieces.loss(step, first_loss)
    if math.isnan(loss):
        raise RuntimeError("Loss is NaN, training diverged!")
    print(
        f"2026-01-02 03:04:05.678 | INFO     | __main__:main:1 - "
        f"{GREEN}[global step {step}/{steps}]{PLAIN} time=0.01s (9s left) | "
        f"loss={loss:.3f} grad_norm={pieces.grad_norm(step):.3f} "
        f"lr={options.lr:.2e} train_tok=900 total_tok=1200 | global_ex/s=4.00 "
        f"global_train_tok/s=90000.0 global_total_tok/s=120000.0 max_mem_allocated=40.1GB",
        flush=True,
    )
