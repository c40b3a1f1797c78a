"""What trainers write for one checkpoint, in the order in which they do: for layouts whose trainers
do not run here, and for every rule's property tests.

A save is a list of phases, with a barrier after each; a phase is a list of what each rank does in
order, while nothing orders the ranks among themselves."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

Step = int
ONE_CALL_BYTES = 16  # a word is written by one call, whole or not at all


@dataclass(frozen=True)
class Write:
    """Open, write and close a file below the checkpoint folder, in place."""

    path: str
    data: bytes


@dataclass(frozen=True)
class Move:
    """Rename: from then on the target is whole."""

    source: str
    target: str


@dataclass(frozen=True)
class Remove:
    """Delete one file."""

    path: str


Op = Write | Move | Remove
Phase = list[list[Op]]


@dataclass(frozen=True)
class Save:
    """`name` is the checkpoint's; `needed` are the files (as a seal lists them) without which it
    is none; `forget` is what retention deletes of it: a group of files after the other, those of
    a group in any order."""

    layout: str
    name: str
    step: int | None
    world: int
    phases: list[Phase]
    needed: frozenset[str]
    forget: list[list[Remove]] = field(default_factory=list)

    @property
    def ops(self) -> list[Op]:
        """One rank after the other."""
        return [op for phase in self.phases for rank in phase for op in rank]


def apply(root: Path, op: Op) -> None:
    """Do it at once."""
    for _ in pieces(root, op):
        pass


def pieces(root: Path, op: Op) -> Iterator[None]:
    """Do it, and stop where somebody may look: a write is torn half-way."""
    path = root / (op.target if isinstance(op, Move) else op.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(op, Remove):
        path.unlink(missing_ok=True)
    elif isinstance(op, Move):
        (root / op.source).replace(path)
    else:
        path.write_bytes(b"")
        yield
        if len(op.data) > ONE_CALL_BYTES:
            path.write_bytes(op.data[: len(op.data) // 2])
            yield
        path.write_bytes(op.data)
    yield


def torch_file(record: object = None, size: int = 200) -> bytes:
    """What torch.save writes: a zip with a pickle and a tensor's bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(record, protocol=2))
        archive.writestr("archive/data/0", b"\x01" * size)
    return buffer.getvalue()


def safetensors(size: int = 200) -> bytes:
    header = {"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"\x01" * size


def huggingface(step: Step, world: int = 1) -> Save:
    """In place, as 4.39 to 5.x do: rank 0 ends with the state, others with their random state."""
    name = f"checkpoint-{step}"
    rank_0 = [
        ("config.json", b"{}"),
        ("model.safetensors", safetensors()),
        ("training_args.bin", torch_file()),
        ("optimizer.pt", torch_file()),
        ("scheduler.pt", torch_file()),
        (_random(0, world), torch_file()),
        ("trainer_state.json", _state(step)),
    ]
    ranks = [rank_0, *([(_random(rank, world), torch_file())] for rank in range(1, world))]
    optional = {"config.json", "training_args.bin"}
    return _folder("huggingface", name, step, world, [ranks], optional)


def huggingface_sharded(step: Step, world: int = 1) -> Save:
    """Weights in shards that an index names, which is written after them."""
    name = f"checkpoint-{step}"
    index = json.dumps(
        {"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}
    )
    rank_0 = [
        ("model-1-of-2.safetensors", safetensors()),
        ("model-2-of-2.safetensors", safetensors()),
        ("model.safetensors.index.json", index.encode()),
        ("optimizer.pt", torch_file()),
        ("scheduler.pt", torch_file()),
        (_random(0, world), torch_file()),
        ("trainer_state.json", _state(step)),
    ]
    ranks = [rank_0, *([(_random(rank, world), torch_file())] for rank in range(1, world))]
    return _folder("huggingface", name, step, world, [ranks])


def huggingface_staged(step: Step, world: int = 1) -> Save:
    """4.36 to 4.38: into `tmp-checkpoint-<n>`, which is renamed when it is whole."""
    made = huggingface(step, world)
    staged: list[Phase] = [
        [
            [Write(f"tmp-{op.path}", op.data) for op in rank if isinstance(op, Write)]
            for rank in phase
        ]
        for phase in made.phases
    ]
    staged.append([[Move(f"tmp-{made.name}", made.name)]])
    return Save("huggingface", made.name, step, world, staged, made.needed, made.forget)


def huggingface_zero(stage: int) -> Callable[[Step, int], Save]:
    """With DeepSpeed inside: `latest` is written before other ranks' shards are there."""

    def save(step: Step, world: int = 1) -> Save:
        tag = f"global_step{step}"
        zero = _zero(stage, step, world, tag + "/")
        rank_0 = [
            ("adapter_model.safetensors", safetensors()),
            ("adapter_config.json", b"{}"),
            *zero[0],
            ("latest", tag.encode()),
            ("zero_to_fp32.py", b"#"),
            ("scheduler.pt", torch_file()),
            (_random(0, world), torch_file()),
            ("trainer_state.json", _state(step)),
        ]
        others = [[*zero[rank], (_random(rank, world), torch_file())] for rank in range(1, world)]
        optional = {"zero_to_fp32.py", "scheduler.pt"}
        if stage == 3:  # the weights are in the engine's shards too
            optional |= {"adapter_model.safetensors", "adapter_config.json"}
        phases = [[rank_0, *others]]
        return _folder("huggingface", f"checkpoint-{step}", step, world, phases, optional)

    return save


def huggingface_fsdp(step: Step, world: int = 1) -> Save:
    """Sharded state dicts: DCP inside, each ended by its `.metadata`."""
    name = f"checkpoint-{step}"
    phases = [
        *_distcp("pytorch_model_fsdp_0/", world),
        *_distcp("optimizer_0/", world),
        [
            [
                ("scheduler.pt", torch_file()),
                (_random(0, world), torch_file()),
                ("trainer_state.json", _state(step)),
            ],
            *([(_random(rank, world), torch_file())] for rank in range(1, world)),
        ],
    ]
    return _folder("huggingface", name, step, world, phases)


def deepspeed(stage: int) -> Callable[[Step, int], Save]:
    """The engine's own: the pointer `latest` beside it comes first of all."""

    def save(step: Step, world: int = 1) -> Save:
        made = _folder("deepspeed", f"global_step{step}", step, world, [_zero(stage, step, world)])
        made.phases[0][0].insert(1, Write("latest", made.name.encode()))
        return made

    return save


def accelerate(step: Step, world: int = 1) -> Save:
    return _accelerate("accelerate", f"checkpoint_{step}", step, world, last=())


def open_instruct(step: Step, world: int = 1) -> Save:
    """Every rank writes the marker when it is done itself, without a barrier."""
    return _accelerate("open-instruct", f"step_{step}", step, world, last=("COMPLETED",))


def open_instruct_zero3(step: Step, world: int = 1) -> Save:
    """Named by its epoch; the engine inside knows the step."""
    zero = _zero(3, step, world, "pytorch_model/")
    ranks = [
        [
            *zero[rank],
            *([("latest", b"pytorch_model"), ("scheduler.bin", torch_file())] if not rank else []),
            (f"random_states_{rank}.pkl", torch_file()),
            ("COMPLETED", b"COMPLETED"),
        ]
        for rank in range(world)
    ]
    name = f"epoch_{step % 7}"
    return _folder("open-instruct", name, step, world, [ranks], {"scheduler.bin"})


def verl(roles: tuple[str, ...], *, tracked: bool = True) -> Callable[[Step, int], Save]:
    """Role after role, then the data's state, then the tracker; `tracked` False is an
    asynchronous save, after which nothing comes but the next one."""

    def save(step: Step, world: int = 1) -> Save:
        phases: list[list[list[tuple[str, bytes]]]] = [
            [
                [
                    (f"{role}/{kind}_world_size_{world}_rank_{rank}.pt", torch_file())
                    for kind in ("model", "optim", "extra_state")
                ]
                for rank in range(world)
            ]
            for role in roles
        ]
        phases.append([[("data.pt", torch_file())]])
        made = _folder("verl", f"global_step_{step}", step, world, phases)
        last: Op = Write("latest_checkpointed_iteration.txt", str(step).encode())
        if not tracked:
            last = Write(f"global_step_{step + 1}/actor/.begun", b"x")
        made.phases.append([[last]])
        by_role = [[op for op in made.forget[0] if op.path.split("/")[1] == role] for role in roles]
        return Save(made.layout, made.name, step, world, made.phases, made.needed, by_role)

    return save


def dcp(step: Step, world: int = 1) -> Save:
    return _folder("dcp", f"step-{step}", step, world, list(_distcp("", world)))


def lightning(step: Step, world: int = 1) -> Save:
    """Written elsewhere and moved into place."""
    name = f"epoch=0-step={step}.ckpt"
    data = torch_file({"epoch": 0, "global_step": step})
    phases: list[Phase] = [[[Write(".tmpabc", data), Move(".tmpabc", name)]]]
    return Save("lightning", name, step, world, phases, frozenset({name}), [[Remove(name)]])


def lightning_copied(step: Step, world: int = 1) -> Save:
    """Where the temporary folder is another disk, a move is a copy in place."""
    made = lightning(step, world)
    data = torch_file({"epoch": 0, "global_step": step})
    last: list[Phase] = [[[Write(made.name, data)]]]
    return Save("lightning", made.name, step, world, last, made.needed, made.forget)


def torchllms(step: Step, world: int = 1) -> Save:
    name = f"model_{step:07d}.pth"
    phases: list[Phase] = [[[Write("train_args.json", b"{}")]], [[Write(name, torch_file())]]]
    needed = frozenset({name, "train_args.json"})
    return Save("torchllms", name, step, world, phases, needed, [[Remove(name)]])


def torchtune(step: Step, world: int = 1) -> Save:
    """The recipe's state is one file beside all checkpoints, written again after each."""
    made = _folder(
        "torchtune", f"epoch_{step}", step, world, [[[("model.safetensors", safetensors())]]]
    )
    made.phases.append([[Write("recipe_state/recipe_state.pt", torch_file({"step": step}))]])
    needed = made.needed | {"recipe_state/recipe_state.pt"}
    return Save(made.layout, made.name, step, world, made.phases, needed, made.forget)


def nanochat(step: Step, world: int = 1) -> Save:
    first: list[Op] = [
        Write(f"model_{step:06d}.pt", torch_file()),
        Write(f"meta_{step:06d}.json", json.dumps({"step": step}).encode()),
    ]
    shards: list[Op] = [
        Write(f"optim_{step:06d}_rank{rank}.pt", torch_file()) for rank in range(world)
    ]
    phases = [[[*first, shards[0]], *([shard] for shard in shards[1:])]]
    paths = [op.path for op in (*first, *shards) if isinstance(op, Write)]
    forget = [[Remove(path) for path in paths]]
    return Save("nanochat", f"model_{step:06d}", step, world, phases, frozenset(paths), forget)


WRITERS: dict[str, Callable[[Step, int], Save]] = {
    "huggingface": huggingface,
    "huggingface, shards": huggingface_sharded,
    "huggingface 4.36": huggingface_staged,
    "huggingface, zero 0": huggingface_zero(0),
    "huggingface, zero 2": huggingface_zero(2),
    "huggingface, zero 3": huggingface_zero(3),
    "huggingface, fsdp": huggingface_fsdp,
    "deepspeed, zero 0": deepspeed(0),
    "deepspeed, zero 2": deepspeed(2),
    "deepspeed, zero 3": deepspeed(3),
    "accelerate": accelerate,
    "open-instruct": open_instruct,
    "open-instruct, zero 3": open_instruct_zero3,
    "verl": verl(("actor",)),
    "verl, critic": verl(("actor", "critic")),
    "verl, asynchronous": verl(("actor", "critic"), tracked=False),
    "dcp": dcp,
    "lightning": lightning,
    "lightning, copied": lightning_copied,
    "torchllms": torchllms,
    "torchtune": torchtune,
    "nanochat": nanochat,
}


def _folder(
    layout: str,
    name: str,
    step: int,
    world: int,
    phases: list[list[list[tuple[str, bytes]]]],
    optional: set[str] | None = None,
) -> Save:
    """Of files by their path within the checkpoint's folder."""
    ops: list[Phase] = [
        [[Write(f"{name}/{path}", data) for path, data in rank] for rank in phase]
        for phase in phases
    ]
    paths = [path for phase in phases for rank in phase for path, _ in rank]
    needed = frozenset(paths) - (optional or set())
    forget = [[Remove(f"{name}/{path}") for path in dict.fromkeys(paths)]]
    return Save(layout, name, step, world, ops, needed, forget)


def _accelerate(layout: str, name: str, step: int, world: int, *, last: tuple[str, ...]) -> Save:
    """There is no barrier at the end; the main process writes all but the random states."""
    main = ("model.safetensors", "optimizer.bin", "scheduler.bin", "sampler.bin")
    ranks = [
        [
            *(
                (each, safetensors() if each.endswith("tensors") else torch_file())
                for each in main
                if not rank
            ),
            (f"random_states_{rank}.pkl", torch_file()),
            *((each, b"COMPLETED") for each in last),
        ]
        for rank in range(world)
    ]
    return _folder(layout, name, step, world, [ranks], {"scheduler.bin", "sampler.bin"})


def _zero(stage: int, step: int, world: int, prefix: str = "") -> list[list[tuple[str, bytes]]]:
    """What each rank writes, in order."""
    state = {"module": {}, "optimizer": None, "global_steps": step, "dp_world_size": world}
    if stage == 0:
        whole = torch_file({**state, "optimizer": {"state": {}}})
        return [[(f"{prefix}mp_rank_00_model_states.pt", whole)], *([] for _ in range(1, world))]
    ranks = []
    for rank in range(world):
        optim = (f"{prefix}zero_pp_rank_{rank}_mp_rank_00_optim_states.pt", torch_file())
        model = f"{prefix}zero_pp_rank_{rank}_mp_rank_00_model_states.pt"
        if stage == 2:
            model = f"{prefix}mp_rank_00_model_states.pt"
        ranks.append([(model, torch_file(state)), optim] if stage == 3 or not rank else [optim])
    return ranks


def _distcp(prefix: str, world: int) -> Iterator[list[list[tuple[str, bytes]]]]:
    """Shards, a barrier, and the coordinator's description of them."""
    shards = [f"__{rank}_0.distcp" for rank in range(world)]
    yield [[(prefix + shard, torch_file())] for shard in shards]
    yield [[(f"{prefix}.metadata", pickle.dumps({"storage": shards}, protocol=2))]]


def _random(rank: int, world: int) -> str:
    return "rng_state.pth" if world == 1 else f"rng_state_{rank}.pth"


def _state(step: int) -> bytes:
    return json.dumps({"global_step": step, "max_steps": 1000, "log_history": []}).encode()
