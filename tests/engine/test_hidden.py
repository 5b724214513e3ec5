"""Hidden states out of the engine: transformers' own, of any states and positions."""

import pytest
import torch
from tests.hf.conftest import pair, prompt

STATES = [0, 1, 2]


def _engine_forward(model, ids, **options):
    assert model._honed.ready(model, thorough=True)
    cache = model._honed.new_cache(model).open(model._honed, *ids.shape)
    return model._honed.engine.forward(cache, ids, None, None, 1, **options)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize("length", [1, 11, 100])
def test_states_are_those_of_transformers(name, length):
    plain, fast = pair(name)
    ids = prompt(2 if length < 50 else 7, length)  # 7 x 100 rows: more than the engine takes at once
    with torch.no_grad():
        expected = plain(ids, output_hidden_states=True).hidden_states
    alone = _engine_forward(fast, ids)
    logits, hidden = _engine_forward(fast, ids, hidden=STATES)
    assert torch.equal(logits, alone)
    assert hidden.shape == (3, *ids.shape, 64)
    for got, state in zip(hidden, STATES, strict=True):
        assert (got - expected[state]).abs().max() < 1e-4 * expected[state].abs().max()


@pytest.mark.parametrize("keep", [1, 30])
def test_only_the_positions_and_states_asked_for(keep):
    _, fast = pair("llama")
    ids = prompt(7, 100)
    _, every = _engine_forward(fast, ids, hidden=STATES)
    _, some = _engine_forward(fast, ids, hidden=[2, 0, 2], hidden_keep=keep)
    assert torch.equal(some, every[[2, 0, 2], :, -keep:])


def test_refusals():
    fast = pair("llama")[1]
    with pytest.raises(ValueError, match="hidden state 3, expected 0 to 2"):
        _engine_forward(fast, prompt(), hidden=[3])
    with pytest.raises(ValueError, match="hidden state -1, expected 0 to 2"):
        _engine_forward(fast, prompt(), hidden=[-1])
