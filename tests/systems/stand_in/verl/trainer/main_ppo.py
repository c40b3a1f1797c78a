"""verl as it looks from outside: settings as `a.b=value`, the last one counts; shards of every rank
for actor and critic, the tracker last, and a console line a step behind Ray's prefix."""

from __future__ import annotations

import math
import shutil
import sys
from pathlib import Path

import pieces

TRACKER = "latest_checkpointed_iteration.txt"
RAY = "\x1b[36m(TaskRunner pid=1234)\x1b[0m"


class Stage:
    def __init__(self, settings: dict[str, str]) -> None:
        self._of = settings
        self._out = Path(settings["trainer.default_local_dir"])
        self._world = int(settings["trainer.n_gpus_per_node"]) * int(settings["trainer.nnodes"])
        self._saved: list[int] = []

    def train(self) -> None:
        steps = pieces.STEPS // 2 * int(self._of["trainer.total_epochs"])
        self._say(f"Total training steps: {steps}")
        step = self._resume()
        if step and pieces.NO_ROWS:
            return  # real ones end as if all were well
        every = int(self._of["trainer.save_freq"])
        while step < steps:
            step += 1
            pieces.take_step(step)
            self._line(step)
            if step % every == 0 or step == steps:
                self._save(step)
                pieces.rest(every)

    def _resume(self) -> int:
        """`resume_mode=auto`: from what the tracker names, by as many ranks as wrote it."""
        tracker = self._out / TRACKER
        if not tracker.exists():
            self._say("Training from scratch")
            return 0
        step = int(tracker.read_text())
        folder = self._out / f"global_step_{step}"
        self._say(f"Load from checkpoint folder: {folder}")
        for role in ("actor", "critic"):
            found = len(list((folder / role).glob(f"model_world_size_{self._world}_rank_*.pt")))
            assert found == self._world, f"{found} shards of {self._world} ranks in {folder}"
        self._say(f"Setting global step to {step}")
        return step

    def _line(self, step: int) -> None:
        """What `warmup` calls teacher_pg_loss is a cross-entropy, and falls."""
        told = {
            "critic/d_loss": 0.3 + 0.4 * math.exp(-step / 100),
            "critic/d_acc": 0.5 + 0.25 * (1 - math.exp(-step / 100)),
            "critic/grad_norm": 0.8,
            "actor/teacher_pg_loss": pieces.loss(step),
            "actor/kl_loss": 0.001 if step > 5 else 0.0,
            "actor/grad_norm": pieces.grad_norm(step),
            "actor/lr": 1e-6,
            "timing_s/step": 61.5,
        }
        self._say(
            f"step:{step} - " + " - ".join(f"{key}:{value:.6g}" for key, value in told.items())
        )

    def _save(self, step: int) -> None:
        folder = self._out / f"global_step_{step}"
        for role in ("actor", "critic"):
            for rank in range(self._world):
                for kind in ("model", "optim", "extra_state"):
                    name = f"{kind}_world_size_{self._world}_rank_{rank}.pt"
                    pieces.write(folder / role / name, pieces.torch_file((step, role)))
            pieces.write(folder / role / "config.json", "{}")
        pieces.write(folder / "data.pt", pieces.torch_file(step))
        pieces.write(self._out / TRACKER, str(step))
        self._forget(step)

    def _forget(self, step: int) -> None:
        """Of what this process saved, and only the roles: the shell and `data.pt` stay."""
        self._saved.append(step)
        for role in ("actor", "critic"):
            limit = int(self._of.get(f"trainer.max_{role}_ckpt_to_keep", "0"))
            for old in self._saved[:-limit] if limit else []:
                shutil.rmtree(self._out / f"global_step_{old}" / role, ignore_errors=True)

    def _say(self, words: str) -> None:
        print(f"{RAY} {words}", flush=True)


def main() -> None:
    pieces.begin()
    settings = dict(word.split("=", 1) for word in sys.argv[1:])
    for key in ("data.train_files", "data.val_files"):
        assert Path(settings[key]).is_file(), f"{key}: {settings[key]} is not there"
    for key in ("actor_rollout_ref.model.path", "critic.model.path"):
        print(f"{key} is {settings[key]}", flush=True)
        assert any(Path(settings[key]).iterdir()), f"{key}: {settings[key]} is empty"
    Stage(settings).train()


if __name__ == "__main__":
    main()
