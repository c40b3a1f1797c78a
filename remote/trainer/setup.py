"""The process's surroundings, put in order before transformers and DeepSpeed read them."""

from __future__ import annotations

import os
import socket
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from remote.trainer.settings import Settings


def prepare(settings: Settings) -> None:
    """Set what the libraries read at import. Must run before any of them is imported."""
    if settings.args.use_cpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # CUDA is not there, for all libraries alike
    if Path(settings.model).is_dir() and "HF_HUB_OFFLINE" not in os.environ:
        os.environ["HF_HUB_OFFLINE"] = "1"
    ranks = local_ranks()
    if ranks > 1:  # torchrun sees to it, the deepspeed launcher does not
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // ranks)))
    if settings.deepspeed is not None and "RANK" not in os.environ:
        _be_the_only_rank()
    prepare_libraries()


def prepare_libraries() -> None:
    """The part of `prepare` that depends on no settings."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    _keep_caches_here()
    _choose_accelerator()


def rank() -> int:
    """This process's rank in the whole run, 0 without a launcher."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """This process's rank on its machine, which is also the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_ranks() -> int:
    """Ranks on this machine: torchrun and the deepspeed launcher name it differently."""
    return int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or "1")


def free_port() -> int:
    """A TCP port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_ranks(settings: Settings) -> None:
    """Let the ranks find each other; a run of one without DeepSpeed has nobody to find."""
    import torch  # only once the settings are known to be good
    import torch.distributed as dist

    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(local_rank())
    timeout = timedelta(seconds=settings.args.ddp_timeout)
    if settings.deepspeed is not None:
        _start_deepspeed(on_gpu, timeout)
    elif int(os.environ.get("WORLD_SIZE", "1")) > 1:
        dist.init_process_group("nccl" if on_gpu else "gloo", timeout=timeout)


def start_deepspeed_on_cpu() -> None:
    """The part of `start_ranks` for who uses DeepSpeed on a CPU without settings of ours."""
    _start_deepspeed(False, timedelta(minutes=30))


def _start_deepspeed(on_gpu: bool, timeout: timedelta) -> None:
    """Start DeepSpeed's collectives, on a CPU over gloo without compiling anything.

    By itself it would compile a shared-memory collective at first use, which takes a compiler, a
    minute and a cache in the home folder.
    """
    import deepspeed.ops  # only where it is used: it is not light

    if not on_gpu:
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    backend = "nccl" if on_gpu else "gloo"
    deepspeed.init_distributed(dist_backend=backend, verbose=False, timeout=timeout)


def _keep_caches_here() -> None:
    """Compiled kernels go below the work folder, not into the home folder and /tmp."""
    here = Path(".trainer-cache").absolute()
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(here / "inductor"))
    os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(here / "extensions"))
    os.environ.setdefault("TRITON_CACHE_DIR", str(here / "triton"))


def _choose_accelerator() -> None:
    """DeepSpeed guesses an accelerator unless it is told."""
    import torch  # a second of import: not before the settings are known to be good

    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


def _be_the_only_rank() -> None:
    """DeepSpeed wants a process group even for one process; without these it looks for MPI."""
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", LOCAL_WORLD_SIZE="1")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()))
