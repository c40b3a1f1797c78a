"""The layouts that this agent knows. `docs/layouts.md` says where each row comes from, and what it
cannot see."""

from __future__ import annotations

from typing import Any, Dict, Tuple

from remote.agent.layouts.auto import step_or_epoch
from remote.agent.layouts.custom import custom
from remote.agent.layouts.distcp import SHARDS, dcp
from remote.agent.layouts.files import TRAIN_ARGS, lightning, nanochat, torchllms
from remote.agent.layouts.folders import (
    RECIPE_STATE,
    TRACKER,
    accelerate,
    deepspeed,
    open_instruct,
    outranks,
    torchtune,
    verl,
)
from remote.agent.layouts.huggingface import huggingface
from remote.agent.layouts.model import ANY, FILE, GROUP, Layout, Pointer
from remote.agent.layouts.zero import LATEST, STATES

_STEP_OR_EPOCH = r"^(?:step|epoch)_(\d{1,15})$"
_ACCELERATE = (
    r"^random_states_\d+\.pkl$|^(?:optimizer|scheduler|sampler)\.bin$|^pytorch_model(?:_fsdp_\d+)?$"
)

HUGGINGFACE = Layout(
    "huggingface",
    r"^checkpoint-(\d{1,15})$",
    huggingface,
    staging=r"^tmp-checkpoint-\d+$",  # transformers 4.36 to 4.38 saved there first
    ends_at_root=True,
)
VERL = Layout(
    "verl",
    r"^global_step_(\d{1,15})$",
    verl,
    pointer=Pointer(TRACKER, lambda name, step: str(step)),
)
DEEPSPEED = Layout(
    "deepspeed",
    r"^global_step(\d{1,15})$",
    deepspeed,
    sign=STATES,
    pointer=Pointer(LATEST, lambda name, step: name),
)
OPEN_INSTRUCT = Layout(
    "open-instruct", _STEP_OR_EPOCH, open_instruct, outranks=outranks, ends_at_root=True
)
ACCELERATE = Layout(
    "accelerate", r"^checkpoint_(\d{1,15})$", accelerate, sign=_ACCELERATE, alone=True
)
TORCHTUNE = Layout(
    "torchtune",
    _STEP_OR_EPOCH,
    torchtune,
    shared=(RECIPE_STATE,),
    rewritten=(RECIPE_STATE,),
)
DCP = Layout("dcp", r"^step-(\d{1,15})$", dcp, sign=SHARDS)
LIGHTNING = Layout("lightning", r"(?s)^(?:.*step=(\d{1,15}))?.*\.ckpt$", lightning, kind=ANY)
TORCHLLMS = Layout(
    "torchllms",
    r"^model_(?:(\d{7})|final)\.pth$",
    torchllms,
    kind=FILE,
    shared=(TRAIN_ARGS, "params.json", "lora_args.json"),
    final=r"^model_final\.pth$",
    resumes=False,
)
NANOCHAT = Layout(
    "nanochat",
    r"^(?:model|meta|optim)_(\d{6})(?:(?:_rank\d+)?\.(?:pt|json))?$",
    nanochat,
    kind=GROUP,
    group="model_{step}",
)
_SHARED_NAMES = Layout(
    "auto",
    _STEP_OR_EPOCH,
    step_or_epoch,
    shared=(RECIPE_STATE,),
    rewritten=(RECIPE_STATE,),
    outranks=outranks,
    ends_at_root=True,
)

NAMED = (
    HUGGINGFACE,
    VERL,
    DEEPSPEED,
    OPEN_INSTRUCT,
    ACCELERATE,
    TORCHTUNE,
    DCP,
    LIGHTNING,
    TORCHLLMS,
    NANOCHAT,
)
# `deepspeed` before those whose folders may hold one of its own.
AUTO = (
    HUGGINGFACE,
    VERL,
    _SHARED_NAMES,
    DEEPSPEED,
    ACCELERATE,
    DCP,
    LIGHTNING,
    TORCHLLMS,
    NANOCHAT,
)
_TABLE: Dict[str, Tuple[Layout, ...]] = {
    "auto": AUTO,
    **{layout.name: (layout,) for layout in NAMED},
}


def layouts_of(said: Any) -> Tuple[Layout, ...]:
    """The layouts that spec.json means: a name of the table, or a mapping of the job's own. What
    appears is taken for the first one that it fits.

    Raises ValueError, KeyError or TypeError for anything else."""
    if isinstance(said, dict):
        return (custom(said),)
    if said not in _TABLE:
        raise ValueError("the layout %r is not known to this agent" % (said,))
    return _TABLE[said]
