"""One token from each row of logits."""

from collections import namedtuple

from honed._lib import torch
from honed.ops._sample_options import fresh_seeds, mask_words, sampler_for, whole

Sampled = namedtuple("Sampled", "tokens logprobs top_tokens top_logprobs scores", defaults=(None,) * 4)
Sampled.__doc__ = "What :func:`sample` gives where more than tokens is asked for; None: not asked for."


def sample(
    logits,
    *,
    temperature=1.0,
    top_k=0,
    top_p=1.0,
    min_p=0.0,
    do_sample=True,
    seeds=None,
    counter=0,
    dynatemp_range=0.0,
    dynatemp_exponent=1.0,
    top_n_sigma=0.0,
    top_h=0.0,
    typical_p=1.0,
    epsilon_cutoff=0.0,
    eta_cutoff=0.0,
    xtc_probability=0.0,
    xtc_threshold=0.1,
    mirostat=0,
    mirostat_tau=5.0,
    mirostat_eta=0.1,
    mirostat_mu=None,
    min_tokens_to_keep=1,
    history=None,
    allowed=None,
    return_logprobs=False,
    top_logprobs=0,
    processed_logprobs=False,
    return_scores=False,
    **rules,
):
    """Draws one token a row. Steps, options and their meaning are those of transformers, in its order.

    With ``y`` the logits after ``rules`` and the mask, ``x = y / temperature``, weights ``exp(x - max(x))``
    and ``u`` uniform in [0, 1), the token is the first kept one, in vocabulary order, at which the running
    sum of kept weights exceeds ``u`` times their total. With ``p`` the weights over their total and ``H``
    their entropy, each filter keeps, of what the one before it left:

    - ``dynatemp_range``: temperature is ``low + (high - low) * (H(y) / log n) ** dynatemp_exponent``, ``low``
      and ``high`` being the temperature less and plus the range (at least 0), ``n`` the tokens above -inf;
    - ``top_n_sigma``: ``x >= max(x) - top_n_sigma * std(x)`` (of the population);
    - ``top_h``: of the 100 largest those, from the largest down, whose ``-p log p`` sum to at most ``top_h``
      of all of it; the largest always;
    - ``top_k``: the ``top_k`` largest ``x`` and all that tie with the last of them;
    - ``top_p``: the smallest weights are dropped while their sum is at most ``1 - top_p`` of the total;
    - ``min_p``: ``p >= min_p * max(p)``;
    - ``typical_p``: those of least ``abs(-log(p) - H)`` until their ``p`` reach ``typical_p``, and ties;
    - ``epsilon_cutoff``: ``p >= epsilon_cutoff``;
    - ``eta_cutoff``: ``p >= min(eta_cutoff, sqrt(eta_cutoff) * exp(-H))``;
    - ``xtc_probability``: so often, all tokens of ``p >= xtc_threshold`` but the least likely of them are
      dropped;
    - ``mirostat`` 1 or 2: replaces all of these. The tokens that keep the surprise ``-log2 p`` near
      ``mirostat_tau``: 1 by a top-k from the Zipf exponent of the 100 likeliest, 2 those of surprise at most
      ``mu``; then ``mu -= mirostat_eta * (surprise - mirostat_tau)``.

    ``min_tokens_to_keep`` bounds all filters but top_n_sigma, top_h and mirostat. Where equal ``x`` must be
    told apart, the lower index counts as the smaller. Weights and sums are float64: the token is the same on
    every CPU level and thread count. (transformers' sums are float32: a token that lies within their rounding
    of a bound may be judged differently.) No sort of the vocabulary.

    Args:
        logits: ``(B, V)``, float32, float16 or bfloat16; a torch tensor or NumPy array. No gradient flows.
        temperature: at least 0; 0 takes the largest logit, as ``do_sample=False`` does: the first of them.
        top_k, dynatemp_range, top_n_sigma, top_h, min_p, epsilon_cutoff, eta_cutoff, xtc_probability,
            mirostat: 0 is off. top_p, typical_p: 1 is off. Every option may be a sequence with a value a row.
        seeds: ``B`` whole numbers; ``u`` of a row is ``honed._core.random_uniform(seed, counter)``, so a
            row's token depends on its own logits, options and seed only. ``None`` draws seeds from torch's
            generator. XTC has uniform numbers of its own from the same seed and counter.
        counter: the number of the draw, of all rows or one a row; raise it by one a step.
        mirostat_mu: ``(B,)`` float64, read and written; ``None`` starts at ``2 * mirostat_tau``.
        history: ``(B, T)`` int64 or ``B`` lists: the tokens so far, which the rules read.
        allowed: the tokens that may be chosen: bool ``(B, V)``, or int32 ``(B, ceil(V / 32))`` with bit
            ``t % 32`` of word ``t // 32`` for token ``t``, as grammar libraries make them.
        return_logprobs: also the log-probability of each token. top_logprobs: that and those of the so many
            likeliest tokens (ties: lower index first; -1 and -inf where there are fewer).
        processed_logprobs: of the kept tokens after all steps; otherwise ``log_softmax(logits)``.
            Either is within 3e-7 of itself.
        return_scores: also ``(B, V)`` float32: ``x`` of kept tokens, -inf of all others.
        **rules: ``repetition_penalty``, ``presence_penalty``, ``frequency_penalty``, ``penalty_window``,
            ``no_repeat_ngram_size``, ``dry_multiplier``, ``dry_base``, ``dry_allowed_length``,
            ``dry_window``, ``dry_sequence_breakers``, ``sequence_bias``, ``logit_bias``, ``bad_words_ids``,
            ``suppress_tokens``, ``begin_suppress_tokens``, ``min_length``, ``min_new_tokens``,
            ``forced_bos_token_id``, ``forced_eos_token_id``, ``remove_invalid_values``,
            ``exponential_decay_length_penalty`` and the encoder's, with ``eos_token_id``, ``prompt_length``
            and ``encoder_input_ids`` where they need it: as in transformers' generation config; ours: x -
            presence_penalty * (n > 0) - frequency_penalty * n for a token that stands ``n`` times among the
            last ``penalty_window`` tokens (0: all).

    Returns:
        ``(B,)`` int64, or a named tuple (tokens, logprobs, top_tokens, top_logprobs, scores) where any of
        these is asked for. A row with +inf gives the first +inf.

    Raises:
        ValueError: NaN logits (row and index are named), a row of -inf only, options out of range.
        TypeError: a type without a kernel. An unknown option is a ValueError that names it.

    Source: transformers' logits processors; Holtzman et al., https://arxiv.org/abs/1904.09751 (top-p); Nguyen
    et al., https://arxiv.org/abs/2407.01082 (min-p); Meister et al., https://arxiv.org/abs/2202.00666
    (typical); Hewitt et al., https://arxiv.org/abs/2210.15191 (epsilon, eta); Tang et al.,
    https://arxiv.org/abs/2411.07641 (top-n-sigma); Potraghloo et al., https://arxiv.org/abs/2509.02510
    (top-h); Basu et al., https://arxiv.org/abs/2007.14966 (mirostat); llama.cpp for XTC and dynamic
    temperature.

    >>> import numpy as np
    >>> logits = np.array([[0.0, 5.0, 4.0]], dtype=np.float32)
    >>> sample(logits, do_sample=False).tolist(), sample(logits, top_k=1, seeds=[7]).tolist()
    ([1], [1])
    >>> likely = sample(logits, do_sample=False, top_logprobs=2)
    >>> likely.top_tokens.tolist(), np.round(likely.top_logprobs, 3).tolist()
    ([[1, 2]], [[-0.3179999887943268, -1.3179999589920044]])
    """
    options = (
        ("do_sample", do_sample, True),
        ("temperature", temperature, 1.0),
        ("dynatemp_range", dynatemp_range, 0.0),
        ("dynatemp_exponent", dynatemp_exponent, 1.0),
        ("top_n_sigma", top_n_sigma, 0.0),
        ("top_h", top_h, 0.0),
        ("top_k", top_k, 0),
        ("top_p", top_p, 1.0),
        ("min_p", min_p, 0.0),
        ("typical_p", typical_p, 1.0),
        ("epsilon_cutoff", epsilon_cutoff, 0.0),
        ("eta_cutoff", eta_cutoff, 0.0),
        ("xtc_probability", xtc_probability, 0.0),
        ("xtc_threshold", xtc_threshold, 0.1),
        ("min_tokens_to_keep", min_tokens_to_keep, 1),
        ("mirostat", mirostat, 0),
        ("mirostat_tau", mirostat_tau, 5.0),
        ("mirostat_eta", mirostat_eta, 0.1),
    )
    given = {name: value for name, value, default in options if value is not default}
    if allowed is not None:
        allowed = mask_words(allowed, logits.shape[-1])
        if rules:
            rules["constrained"] = True
    stateful = mirostat_mu is None and "mirostat" in given
    draw = sampler_for(given, rules, logits.shape[0], stateful)
    if do_sample is False or temperature == 0:
        seeds = [0] * logits.shape[0] if seeds is None else whole(seeds)
    else:
        seeds = fresh_seeds(logits.shape[0]) if seeds is None else whole(seeds)
    if torch is not None and isinstance(logits, torch.Tensor) and logits.is_neg():
        logits = logits.resolve_neg()
    counters = whole([counter] if isinstance(counter, int) else counter)
    wants = return_logprobs or top_logprobs > 0, processed_logprobs, top_logprobs, return_scores
    result = draw(logits, history, seeds, counters, allowed, mirostat_mu, *wants)
    return Sampled(*result) if type(result) is tuple else result
