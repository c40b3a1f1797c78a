"""What must not change the result: how a global batch is cut, laid out or recomputed."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")


from trainer_place import Place

from remote.trainer.data.packing import pack
from remote.trainer.data.prepare import prepare
from remote.trainer.data.rows import Request
from remote.trainer.model import load_tokenizer

pytestmark = pytest.mark.trainer
STEPS = 6


@pytest.fixture(scope="module")
def whole(trainer_place: Place) -> dict[str, list[dict[str, Any]]]:
    """Eight sequences a step, in one micro batch, by method and reduction."""
    methods: dict[str, dict[str, Any]] = {
        "tokens": {},
        "sequences": {"loss_reduction": "sequences"},
        "dpo": {"method": "dpo"},
        "simpo": {"method": "simpo"},
    }
    for name, changes in methods.items():
        args = {"max_steps": STEPS, "per_device_train_batch_size": 8}
        trainer_place.run(f"whole-{name}", args=args, **changes)
    return {name: trainer_place.history(f"whole-{name}") for name in methods}


@pytest.mark.parametrize("micro", [1, 4], ids=lambda micro: f"micro-{micro}")
@pytest.mark.parametrize("name", ["tokens", "sequences", "dpo", "simpo"])
def test_micro_batches(
    trainer_place: Place, whole: dict[str, list[dict[str, Any]]], name: str, micro: int
) -> None:
    changes: dict[str, Any] = {
        "tokens": {},
        "sequences": {"loss_reduction": "sequences"},
        "dpo": {"method": "dpo"},
        "simpo": {"method": "simpo"},
    }[name]
    args = {
        "max_steps": STEPS,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": 8 // micro,
    }
    trainer_place.run("micro", args=args, **changes)
    _equal(trainer_place.history("micro"), whole[name])


@pytest.mark.parametrize("name", ["tokens", "simpo"])
def test_gradient_checkpointing(
    trainer_place: Place, whole: dict[str, list[dict[str, Any]]], name: str
) -> None:
    method = {"method": "simpo"} if name == "simpo" else {}
    args = {"max_steps": STEPS, "per_device_train_batch_size": 8, "gradient_checkpointing": True}
    trainer_place.run("again", args=args, **method)
    _equal(trainer_place.history("again"), whole[name])


@pytest.mark.parametrize("how", ["sdpa", "eager"])
def test_padded_is_flat(
    trainer_place: Place, whole: dict[str, list[dict[str, Any]]], how: str
) -> None:
    args = {
        "max_steps": STEPS,
        "per_device_train_batch_size": 8,
        "attn_implementation": how,
    }
    trainer_place.run("padded", args=args)
    _equal(trainer_place.history("padded"), whole["tokens"])


def test_packed_is_unpacked(trainer_place: Place) -> None:
    """A step takes all rows: then it matters to neither in which packs they are."""
    folder = trainer_place.folder
    tokenizer = load_tokenizer(str(folder / "tiny"), None)
    request = Request((str(folder / "chat.jsonl"),), "chat", 128, None, folder / "cache")
    store = prepare(request, tokenizer)
    packs = len(pack(store.lengths[:, 0], size=128, seed=42))
    assert packs < len(store) / 2
    for out, changes, batch in (("packed", {"packing": True}, packs), ("bare", {}, len(store))):
        args = {"max_steps": STEPS, "global_batch_size": batch}
        trainer_place.run(out, args=args, max_seq_length=128, **changes)
    _equal(trainer_place.history("packed"), trainer_place.history("bare"))


def _equal(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    assert len(ours) == len(theirs) == STEPS
    for key in ("loss", "grad_norm"):
        expected = pytest.approx([record[key] for record in theirs], abs=1e-5, rel=1e-4)
        assert [record[key] for record in ours] == expected, key
    assert [record["tokens"] for record in ours] == [record["tokens"] for record in theirs]
