"""Pages that rows share: the same bits as rows that read all of it themselves, and no copies."""

import pytest
import torch
from tests.engine.test_engine import Plain, close

from honed import _core

PAGE = 128
PER_TOKEN = 2 * 2 * 2 * 10 * 4  # bytes: layers, key and value, heads, head size of the plain model, f32


@pytest.fixture(scope="module")
def engine():
    return Plain("llama").engine()


def read(engine, ids, dtype="f32"):
    """A cache that has read every token of its rows, one forward a column."""
    cache = _core.Cache(engine, len(ids), 0, dtype)
    for t in range(ids.shape[1]):
        logits = engine.forward(cache, ids[:, t : t + 1].contiguous(), None, None, 1)
    return cache, logits


def draw(rows, length, seed):
    return torch.randint(101, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("length", [1, 63, 127, 128, 129, 131])
def test_rows_that_forked_equal_rows_that_read_alone(engine, length, dtype):
    text = draw(5, length, 1)
    cache, _ = read(engine, text, dtype)
    generator = torch.Generator().manual_seed(length)
    for step in range(5):
        rows = torch.randint(5, (5,), generator=generator)
        cache.reorder(rows)
        text = torch.cat((text[rows], draw(5, 1, step)), 1)
        got = engine.forward(cache, text[:, -1:].contiguous(), None, None, 1)
        assert torch.equal(got, read(engine, text, dtype)[1]), step


def test_more_and_fewer_rows(engine):
    plain, text = Plain("llama"), draw(1, 70, 2)
    cache, _ = read(engine, text)
    for step, rows in enumerate(([0, 0, 0], [2, 0, 1, 1, 2], [4, 3], [1], [0, 0])):
        cache.reorder(torch.tensor(rows))
        text = torch.cat((text[rows], draw(len(rows), 1, step)), 1)
        close(engine.forward(cache, text[:, -1:].contiguous(), None, None, 1), plain.logits(text)[:, -1:])


def test_rows_that_forked_within_their_padding(engine):
    ids, mask = draw(2, 70, 3), torch.ones(2, 70, dtype=torch.bool)
    mask[0, :66] = mask[1, :1] = False
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    rows = torch.tensor([1, 0, 0, 1, 0])
    cache = _core.Cache(engine, 2, 0, "f32")
    engine.forward(cache, ids, positions, mask, 1)
    cache.reorder(rows)
    more = draw(5, 3, 4)
    wide = torch.cat((mask[rows], torch.ones(5, 3, dtype=torch.bool)), 1)
    got = engine.forward(cache, more, positions[rows][:, -1:] + torch.arange(1, 4), wide, 3)
    alone = _core.Cache(engine, 5, 0, "f32")
    engine.forward(alone, ids[rows], positions[rows], mask[rows], 1)
    assert torch.equal(
        got, engine.forward(alone, more, positions[rows][:, -1:] + torch.arange(1, 4), wide, 3)
    )


def test_crop_into_what_is_shared(engine):
    text = draw(3, 100, 5)
    cache, _ = read(engine, text)
    cache.reorder(torch.tensor([1, 1, 1]))
    cache.crop(40)
    tails = draw(3, 50, 6)
    for t in range(50):
        got = engine.forward(cache, tails[:, t : t + 1].contiguous(), None, None, 1)
    assert torch.equal(got, read(engine, torch.cat((text[[1, 1, 1], :40], tails), 1))[1])
    cache.crop(64)
    cache.reorder(torch.tensor([2, 1, 1]))
    got = engine.forward(cache, tails[:, :1].contiguous(), None, None, 1)
    whole = torch.cat((text[[1, 1, 1], :40], tails[[2, 1, 1], :24], tails[:, :1]), 1)
    assert torch.equal(got, read(engine, whole)[1])


def test_sharing_takes_no_memory(engine):
    cache, _ = read(engine, draw(1, 130, 7))
    before = cache.nbytes
    cache.reorder(torch.zeros(50, dtype=torch.int64))
    assert (cache.batch, cache.length, cache.nbytes) == (50, 130, before)
    engine.forward(cache, draw(50, 1, 8), None, None, 1)
    assert cache.nbytes <= before + 51 * PAGE * PER_TOKEN  # a page of its own for every row
    cache.reorder(torch.tensor([49]))
    for t in range(20):  # pages come back: no growth
        cache.reorder(torch.tensor([0, 0, 0]))
        engine.forward(cache, draw(3, 1, t), None, None, 1)
        cache.crop(130)
    assert cache.nbytes <= before + 51 * PAGE * PER_TOKEN


def test_a_refused_call_leaves_the_cache(engine):
    cache, _ = read(engine, draw(2, 5, 9))
    with pytest.raises(ValueError, match="161 tokens, expected at most 160"):
        engine.forward(cache, draw(2, 156, 10), None, None, 1)
    assert cache.length == 5
    got = engine.forward(cache, draw(2, 1, 11), None, None, 1)
    assert torch.equal(got, read(engine, torch.cat((draw(2, 5, 9), draw(2, 1, 11)), 1))[1])
