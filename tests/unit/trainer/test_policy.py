"""Log-probabilities and attention over sequences end to end, against one sequence at a time."""

from __future__ import annotations

import copy
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("numpy")

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3Config

from remote.trainer import attention, policy
from remote.trainer.attention import NAME, Segments, segments_attention
from remote.trainer.data.batch import Batch, Layout, collate
from remote.trainer.data.rows import Encoded
from remote.trainer.policy import Policy
from remote.trainer.problems import TrainError

pytestmark = pytest.mark.trainer
LENGTHS = {"even": (6, 6, 6), "uneven": (3, 9, 7), "wasteful": (40, 2, 3, 2), "alone": (11,)}
SMALL: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
CONFIGS = {
    "llama": LlamaConfig(**SMALL),
    "qwen3-sliding": Qwen3Config(
        **SMALL,
        head_dim=8,
        use_sliding_window=True,
        sliding_window=4,
        max_window_layers=1,
        layer_types=["full_attention", "sliding_attention"],
    ),
}


def _sequences(lengths: tuple[int, ...]) -> list[Encoded]:
    random = np.random.default_rng(0)
    made = []
    for length in lengths:
        learned = random.random(length) < 0.6
        learned[0], learned[-1] = False, True
        made.append(Encoded(random.integers(0, 50, length).astype(np.int32), learned))
    return made


def _policy(config: Any, layout: Layout) -> Policy:
    torch.manual_seed(0)
    how = NAME if layout is Layout.FLAT else "sdpa"
    own = copy.deepcopy(config)  # which the model writes its attention into
    return Policy(AutoModelForCausalLM.from_config(own, attn_implementation=how), layout=layout)


@pytest.mark.parametrize("layout", list(Layout), ids=lambda layout: layout.value)
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_each_sequence_sees_itself_alone(
    config: Any, lengths: tuple[int, ...], layout: Layout
) -> None:
    sequences = _sequences(lengths)
    ours = _policy(config, layout)
    batch = collate(sequences, layout=layout)
    torch.testing.assert_close(ours(batch), _one_at_a_time(config, sequences), rtol=0, atol=2e-6)
    hidden = ours.hidden(batch)[batch.ends]
    alone = torch.cat([_last_hidden(config, each) for each in sequences])
    torch.testing.assert_close(hidden, alone, rtol=0, atol=5e-6)


def _one_at_a_time(config: Any, sequences: list[Encoded]) -> Any:
    lm = _policy(config, Layout.PADDED).lm
    parts = []
    for each in sequences:
        chances = lm(torch.from_numpy(each.ids[None]).long()).logits[0].log_softmax(-1)
        parts += [chances[at - 1, int(each.ids[at])] for at in np.flatnonzero(each.learned)]
    return torch.stack(parts)


def _last_hidden(config: Any, sequence: Encoded) -> Any:
    lm = _policy(config, Layout.PADDED).lm
    return lm.model(torch.from_numpy(sequence.ids[None]).long()).last_hidden_state[:, -1]


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_gradients_are_those_of_one_at_a_time(lengths: tuple[int, ...]) -> None:
    config, sequences = CONFIGS["llama"], _sequences(lengths)
    flat = _policy(config, Layout.FLAT)
    flat(collate(sequences, layout=Layout.FLAT)).sum().backward()
    theirs = _policy(config, Layout.PADDED)
    for each in sequences:
        theirs(collate([each], layout=Layout.PADDED)).sum().backward()
    for one, other in zip(flat.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5)


def test_chunks_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = collate(_sequences(LENGTHS["uneven"]), layout=Layout.FLAT)
    whole, chunked = (_policy(CONFIGS["llama"], Layout.FLAT) for _ in range(2))
    expected = whole(batch, 0.8)
    expected.sum().backward()
    monkeypatch.setattr(policy, "CHUNK_ELEMENTS", 120)  # two tokens at once
    given = chunked(batch, 0.8)
    given.sum().backward()
    torch.testing.assert_close(given, expected, rtol=0, atol=1e-6)
    for one, other in zip(whole.parameters(), chunked.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6)


def test_a_model_that_loses_its_segments_is_not_trained() -> None:
    head = torch.zeros(1, 2, 5, 8)
    with pytest.raises(TrainError, match="is not told where sequences end"):
        segments_attention(torch.nn.Identity(), head, head, head, attention.no_mask(head.device))


def test_generation_works_with_our_attention() -> None:
    lm = _policy(CONFIGS["llama"], Layout.FLAT).lm.eval()
    theirs = _policy(CONFIGS["llama"], Layout.PADDED).lm.eval()
    ids = torch.tensor([[0, 0, 3, 4, 5], [7, 8, 9, 10, 11]])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    given = lm.generate(ids, attention_mask=mask, **options)
    assert given.tolist() == theirs.generate(ids, attention_mask=mask, **options).tolist()


def test_grid_and_back_are_inverse() -> None:
    segments = Segments(torch.tensor([0, 3, 4, 9], dtype=torch.int32), (3, 1, 5))
    flat = torch.arange(9)
    assert flat[segments.grid].flatten()[segments.back].tolist() == flat.tolist()


def test_a_batch_points_at_what_is_learned() -> None:
    first = Encoded(np.asarray([5, 6, 7]), np.asarray([False, True, False]))
    second = Encoded(np.asarray([8, 9]), np.asarray([False, True]))
    flat, padded = (collate([first, second], layout=layout) for layout in Layout)
    assert _places(flat) == ([0, 3], [6, 9], [1, 1], [2, 4])
    assert _places(padded) == ([0, 3], [6, 9], [1, 1], [2, 4])
    assert padded.attention_mask is not None
    assert padded.attention_mask.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert flat.position_ids.tolist() == [[0, 1, 2, 0, 1]]
    assert (flat.ids.tolist(), flat.cu_seqlens.tolist()) == ([[5, 6, 7, 8, 9]], [0, 3, 5])


def _places(batch: Batch) -> tuple[list[int], ...]:
    return tuple(each.tolist() for each in (batch.targets, batch.labels, batch.counts, batch.ends))
