"""The engine's own loop: its tokens, its draws, the records it writes."""

import weakref

import torch
from tests.engine.test_engine import Plain

from honed import _core


def test_generate_is_greedy_forward():
    plain = Plain("llama")
    engine = plain.engine()
    options = {"sampling": {"do_sample": False}, "seeds": []}
    ids = torch.randint(101, (2, 5))
    seen = []
    got = engine.generate(
        _core.Cache(engine, 2, 0, "f32"), ids, None, None, 8, [], 0, options, lambda t: bool(seen.append(t))
    )
    text = ids
    for _ in range(8):
        text = torch.cat((text, plain.logits(text)[:, -1].argmax(-1, keepdim=True)), 1)
    assert torch.equal(got, text)
    assert torch.tensor(seen).T.tolist() == got[:, 5:].tolist()
    stop = int(text[0, 6])
    stopped = engine.generate(_core.Cache(engine, 2, 0, "f32"), ids, None, None, 8, [stop], 99, options, None)
    row = stopped[0, 5:].tolist()
    end = row.index(stop)
    assert set(row[end + 1 :]) <= {99}
    cut = engine.generate(
        _core.Cache(engine, 2, 0, "f32"), ids, None, None, 8, [], 0, options, lambda _: True
    )
    assert cut.shape == (2, 6)


def test_generate_writes_into_what_it_holds():
    """A recorder that keeps no tensor: nothing is written to memory that was freed."""
    engine = Plain("llama").engine()
    gone, held = [], []

    class Nothing:
        def append(self, tensor):
            gone.append(weakref.ref(tensor))

    def look(_):
        held.append(all(each() is not None for each in gone[-2:]))

    options = {"sampling": {"do_sample": False}, "seeds": [], "logits": Nothing(), "scores": Nothing()}
    ids = torch.randint(101, (2, 5))
    engine.generate(_core.Cache(engine, 2, 0, "f32"), ids, None, None, 6, [], 0, options, look)
    assert held == [True] * 6 and len(gone) == 12


def test_sampling_repeats_with_its_seeds():
    engine = Plain("llama").engine()
    options = {"sampling": {"temperature": 2.0, "top_p": 0.9}, "seeds": [5, 6]}
    ids = torch.randint(101, (2, 5))
    first, again = (
        engine.generate(_core.Cache(engine, 2, 0, "f32"), ids, None, None, 20, [], 0, options, None)
        for _ in range(2)
    )
    assert torch.equal(first, again)
    alone = engine.generate(
        _core.Cache(engine, 1, 0, "f32"), ids[1:], None, None, 20, [], 0, {**options, "seeds": [6]}, None
    )
    assert torch.equal(alone[0], first[1])
