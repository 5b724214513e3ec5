"""One token from each row of logits."""

from honed._lib import _core, torch

_MASK = (1 << 64) - 1


def sample(logits, *, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, do_sample=True, seeds=None, counter=0):
    """Draws one token a row: temperature, top-k, top-p, min-p, in transformers' order and meaning.

    With ``x = logits / temperature``, weights ``exp(x - max(x))`` and ``u`` uniform in [0, 1), the token is
    the first kept one, in vocabulary order, at which the running sum of kept weights exceeds ``u`` times
    their total. Kept, each step judging what the one before left:

    - ``top_k``: the ``top_k`` largest ``x`` and all that tie with the last of them;
    - ``top_p``: the smallest weights are dropped while their sum is at most ``1 - top_p`` of the total; of
      equal weights the one with the lower index goes first; the largest is always kept;
    - ``min_p``: weights of at least ``min_p`` times the largest.

    Weights and sums are float64 (transformers' are float32: a token whose cumulative probability lies within
    float32 rounding of ``1 - top_p`` may be judged differently). No sort of the vocabulary.

    Args:
        logits: ``(B, V)``, float32, float16 or bfloat16; a torch tensor or NumPy array. No gradient flows.
        temperature: at least 0; 0 takes the largest logit.
        top_k: 0 is off. top_p: in (0, 1], 1 is off. min_p: in [0, 1], 0 is off.
        do_sample: False takes the first largest logit.
        seeds: ``B`` whole numbers; ``u`` of a row is ``honed._core.random_uniform(seed, counter)``, so a
            row's token depends on its own logits and seed only. ``None`` draws seeds from torch's generator.
        counter: the number of the draw; raise it by one a step.

    Returns:
        ``(B,)`` int64. A row with +inf gives the first +inf.

    Raises:
        ValueError: NaN logits (row and index are named), a row of -inf only, options out of range.
        TypeError: a type without a kernel.

    Source: transformers' TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper, MinPLogitsWarper;
    Holtzman et al., https://arxiv.org/abs/1904.09751; Nguyen et al., https://arxiv.org/abs/2407.01082

    >>> import numpy as np
    >>> logits = np.array([[0.0, 5.0, 4.0]], dtype=np.float32)
    >>> sample(logits, do_sample=False).tolist(), sample(logits, top_k=1, seeds=[7]).tolist()
    ([1], [1])
    """
    draws = do_sample and temperature != 0
    if not draws:
        seeds = ()
    elif seeds is None:
        seeds = _fresh_seeds(logits.shape[0])
    else:
        seeds = [int(seed) & _MASK for seed in (seeds.tolist() if hasattr(seeds, "tolist") else seeds)]
    if torch is not None and isinstance(logits, torch.Tensor) and logits.is_neg():
        logits = logits.resolve_neg()
    return _core.sample(logits, temperature, top_k, top_p, min_p, do_sample, seeds, counter & _MASK)


def _fresh_seeds(count):
    if torch is not None:
        return torch.randint(2**63 - 1, (count,)).tolist()
    import numpy

    return numpy.random.randint(2**63 - 1, size=count, dtype=numpy.int64).tolist()
