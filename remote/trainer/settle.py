"""What a run is, settled before its model is loaded: data, order, batch, schedule, identity.

Every mistake that can be found without the weights is found here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remote.trainer import batching, resume, zero
from remote.trainer.data.files import expand
from remote.trainer.data.order import Order
from remote.trainer.data.packing import pack
from remote.trainer.data.prepare import prepare
from remote.trainer.data.rows import Kind, Request, Store
from remote.trainer.model import load_config, load_tokenizer
from remote.trainer.problems import TrainError
from remote.trainer.ranks import barrier, rank, together, world
from remote.trainer.resume import Origin
from remote.trainer.schedule import Schedule
from remote.trainer.settings import Settings
from remote.trainer.zero import Batch

CACHE = Path(".trainer-cache/data")
KINDS: dict[str, Kind] = {"sft": "chat", "dpo": "pairs", "simpo": "pairs", "gad": "distill"}


@dataclass(frozen=True)
class Run:
    """One run. `last` is the number of steps that it ends after; `identity` is what has to be
    the same for another to go on with it; `origin` is None when it begins."""

    settings: Settings
    config: Any
    tokenizer: Any
    store: Store
    held_out: Store | None
    order: Order
    batch: Batch
    output: Path
    origin: Origin | None
    last: int
    identity: Mapping[str, Any]

    @property
    def first(self) -> int:
        return self.origin.step if self.origin else 0

    @property
    def schedule(self) -> Schedule:
        args = self.settings.args
        horizon = args.schedule_steps or self.last
        return Schedule(
            name=args.lr_scheduler_type,
            peak=self.settings.learning_rate,
            warmup_steps=batching.warmup_steps(args, horizon),
            horizon=horizon,
            options=args.lr_scheduler_kwargs,
        )

    @property
    def save_every(self) -> int | None:
        """Steps from one checkpoint to the next; None for no checkpoints."""
        args = self.settings.args
        if args.save_strategy == "no":
            return None
        if args.save_strategy == "steps":
            return args.save_steps
        return max(1, round(self.order.steps_per_epoch))


def settle(settings: Settings, folder: Path | None) -> Run:
    """Everything but the model; `folder` is the checkpoint to go on with. Raises TrainError on
    all ranks alike."""
    output = together(lambda: _output_dir(settings))
    origin = together(lambda: resume.read(folder) if folder else None)
    batch = batching.plan(settings.args, world(), held=origin.batch if origin else None)
    zero.check_total(settings.deepspeed or {}, batch)
    together(lambda: _expand_all(settings))  # a second, before a model is fetched
    tokenizer = together(lambda: load_tokenizer(settings.model, settings.template))
    config = together(lambda: load_config(settings.model, tokenizer))
    store, held_out = _data(settings, tokenizer, config)
    _check_positions(settings, config, store)
    order = _order(settings, store, batch)
    last = batching.total_steps(settings.args, order.items, order.batch)
    identity = resume.identity(
        settings, config=config, data=store.fingerprint, seed=_seed(settings)
    )
    if origin is not None:
        resume.check(origin, identity)
        _check_not_past(origin, last)
    return Run(
        settings=settings,
        config=config,
        tokenizer=tokenizer,
        store=store,
        held_out=held_out,
        order=order,
        batch=batch,
        output=output,
        origin=origin,
        last=last,
        identity=identity,
    )


def _expand_all(settings: Settings) -> None:
    expand(settings.train_files, key="data")
    if settings.evaluation is not None:
        expand(settings.evaluation.files, key="evaluate.data")


def _data(settings: Settings, tokenizer: Any, config: Any) -> tuple[Store, Store | None]:
    def stored(files: tuple[str, ...], key: str, limit: int | None = None) -> Store:
        request = Request(
            files=files,
            kind=KINDS[settings.method],
            max_length=settings.max_seq_length,
            template=settings.template,
            cache=CACHE,
            limit=limit,
            key=key,
            vocabulary=int(config.vocab_size),
        )
        return prepare(request, tokenizer, rank=rank(), ranks=world(), barrier=barrier)

    evaluation = settings.evaluation
    held_out = None
    if evaluation is not None:
        held_out = stored(evaluation.files, "evaluate.data", evaluation.max_examples)
    return stored(settings.train_files, "data"), held_out


def _check_positions(settings: Settings, config: Any, store: Store) -> None:
    known = getattr(config, "max_position_embeddings", None)
    longest = int(store.lengths.max()) if len(store) else 0
    if known is not None and longest > known:
        raise TrainError(
            [
                f"max_seq_length: the longest example has {longest} tokens and the model knows"
                f" {known} positions; set max_seq_length to {known} or less"
            ]
        )


def _order(settings: Settings, store: Store, batch: Batch) -> Order:
    if len(store) == 0:
        raise TrainError(["max_seq_length: no example has an assistant's word within it"])
    seed = _seed(settings)
    packs = None
    if settings.packing:
        packs = pack(store.lengths[:, 0], size=settings.max_seq_length, seed=seed)
    total = batch.micro * batch.accumulation * batch.ranks
    return Order(store, batch=total, seed=seed, packs=packs)


def _check_not_past(origin: Origin, last: int) -> None:
    if origin.step > last:
        raise TrainError(
            [f"args.max_steps: is {last}, and {origin.folder} has {origin.step} steps already"]
        )


def _seed(settings: Settings) -> int:
    data_seed = settings.args.data_seed
    return settings.args.seed if data_seed is None else data_seed


def _output_dir(settings: Settings) -> Path:
    name = os.environ.get("GPUJOB_CHECKPOINT_DIR") or settings.args.output_dir
    if not name:
        raise TrainError(["args.output_dir: is missing, and GPUJOB_CHECKPOINT_DIR is not set"])
    try:
        Path(name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainError([f"args.output_dir: {name}: {error.strerror}"]) from error
    return Path(name)
