"""From the arguments of :func:`honed.ops.sample` to ``_core.Sampler``."""

from honed._lib import _core, torch

_MASK = (1 << 64) - 1
_KEPT = 64  # samplers, by their options
_samplers = {}


def sampler_for(options, rules, rows, stateful):
    """The sampler of these options, made once where they are plain numbers; a ``stateful`` one is new."""
    key = None
    if not stateful:
        try:
            key = (*options.items(), None, *rules.items())
            found = _samplers.get(key)
            if found is not None:
                return found
        except TypeError:  # sequences, dicts: not hashable
            key = None
    made = _core.Sampler(_dicts(options, rows), _dicts(rules, rows) if rules else None)
    if key is not None and all(isinstance(v, (bool, int, float, type(None))) for v in options.values()):
        if len(_samplers) >= _KEPT:
            _samplers.clear()
        _samplers[key] = made
    return made


# Options of which a sequence is one value.
_SEQUENCES = {
    "bad_words_ids",
    "begin_suppress_tokens",
    "dry_sequence_breakers",
    "encoder_input_ids",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "logit_bias",
    "sequence_bias",
    "suppress_tokens",
}


def _dicts(options, rows):
    """The options as a dict, or as one a row where any has a value a row."""
    each = {}
    for name, value in options.items():
        if name in _SEQUENCES or isinstance(value, (bool, int, float, str, type(None))):
            continue
        value = value.tolist() if hasattr(value, "tolist") else value
        if isinstance(value, (list, tuple)):
            if len(value) != rows:
                raise ValueError(
                    f"sample: {name} has {len(value)} values, expected one for each of {rows} rows"
                )
            each[name] = value
        else:
            options = {**options, name: value}
    if not each:
        return options
    return [{**options, **{name: value[row] for name, value in each.items()}} for row in range(rows)]


def mask_words(allowed, vocab):
    """Bool ``(B, V)`` as bits, 32 a word; words as they are."""
    if allowed.dtype not in (bool, getattr(torch, "bool", bool)):
        return allowed
    if allowed.shape[-1] != vocab:
        raise ValueError(f"sample: allowed has shape {tuple(allowed.shape)}, expected {vocab} columns")
    import numpy

    bits = numpy.packbits(numpy.asarray(allowed), axis=-1, bitorder="little")
    words = numpy.zeros((bits.shape[0], -(-vocab // 32) * 4), dtype=numpy.uint8)
    words[:, : bits.shape[1]] = bits
    return words.view(numpy.int32)


def whole(numbers):
    """Whole numbers as unsigned 64-bit ones."""
    return [int(each) & _MASK for each in (numbers.tolist() if hasattr(numbers, "tolist") else numbers)]


def fresh_seeds(count):
    if torch is not None:
        return torch.randint(2**63 - 1, (count,)).tolist()
    import numpy

    return numpy.random.randint(2**63 - 1, size=count, dtype=numpy.int64).tolist()
