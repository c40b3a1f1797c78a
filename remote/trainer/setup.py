"""The process's surroundings, put in order before transformers, TRL and DeepSpeed read them."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from remote.trainer.settings import Settings


def prepare(settings: Settings) -> None:
    """Set what the libraries read at import. Must run before any of them is imported."""
    if Path(settings.model).is_dir() and not settings.args.get("push_to_hub"):
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    ranks = local_ranks()
    if ranks > 1:  # torchrun sees to it, the deepspeed launcher does not
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // ranks)))
    if settings.deepspeed is not None and "RANK" not in os.environ:
        _be_the_only_rank()
    prepare_libraries()


def prepare_libraries() -> None:
    """The part of `prepare` that depends on no settings."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    _keep_caches_here()
    _choose_accelerator()


def rank() -> int:
    """This process's rank in the whole run, 0 without a launcher."""
    return int(os.environ.get("RANK", "0"))


def local_ranks() -> int:
    """Ranks on this machine: torchrun and the deepspeed launcher name it differently."""
    return int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or "1")


def free_port() -> int:
    """A TCP port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_deepspeed_on_cpu() -> None:
    """Start DeepSpeed's collectives over gloo, without compiling anything.

    By itself it would compile a shared-memory collective at first use, which takes a compiler, a
    minute and a cache in the home folder. And on a CPU transformers starts torch's process group
    but not DeepSpeed's, so that ZeRO-3 takes itself for a run of one while it loads the model.
    """
    import deepspeed.ops  # only where it is used: it is not light

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend="gloo", verbose=False)


def _keep_caches_here() -> None:
    """Compiled kernels go below the work folder, not into the home folder and /tmp."""
    here = Path(".trainer-cache").absolute()
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(here / "inductor"))
    os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(here / "extensions"))
    os.environ.setdefault("TRITON_CACHE_DIR", str(here / "triton"))


def _choose_accelerator() -> None:
    """DeepSpeed, which TRL imports, guesses an accelerator unless it is told."""
    import torch  # a second of import: not before the settings are known to be good

    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


def _be_the_only_rank() -> None:
    """DeepSpeed wants a process group even for one process; without these it looks for MPI."""
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", LOCAL_WORLD_SIZE="1")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()))
