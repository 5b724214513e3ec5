"""transformers' processors in their order, and ours in plain Python."""

import torch
from transformers.generation import logits_process

VOCAB = 45  # no multiple of 32: the mask has bits to spare
PROMPT = 5
EOS = [3, 7]
# In transformers' order, ours where they belong.
ORDER = (
    "sequence_bias",
    "logit_bias",
    "encoder_repetition_penalty",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size",
    "dry_multiplier",
    "bad_words_ids",
    "min_length",
    "min_new_tokens",
    "constrained",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "remove_invalid_values",
    "exponential_decay_length_penalty",
    "suppress_tokens",
    "begin_suppress_tokens",
)


def bits(allowed, vocab=VOCAB):
    """The rows of token sets as int32 words."""
    words = torch.zeros(len(allowed), (vocab + 31) // 32, dtype=torch.int64)
    for row, tokens in zip(words, allowed, strict=True):
        for token in set(tokens):
            row[token // 32] += 1 << token % 32
    return torch.where(words >= 1 << 31, words - (1 << 32), words).to(torch.int32)


def repeated(history, token, options):
    """DRY's n by trying every length, or 0."""
    window = options.get("dry_window", 0)
    history = history[-window:] if window else history
    if [token] in (breakers := [b if isinstance(b, list) else [b] for b in options["dry_sequence_breakers"]]):
        return 0
    limit = len(history)
    for start in range(len(history) - 1, -1, -1):
        found = [len(b) for b in breakers if history[start : start + len(b)] == b]
        if found:
            limit = len(history) - start - max(found)
            break
    best = 0
    for place in range(1, len(history)):
        if history[place] != token:
            continue
        n = 0
        while n < place and history[place - 1 - n] == history[-1 - n]:
            n += 1
        best = max(best, min(n, limit))
    return best


def dry(history, row, options):
    allowed_length = options.get("dry_allowed_length", 2)
    for token in set(history):
        n = repeated(history, token, options)
        if n >= allowed_length:
            row[token] -= options["dry_multiplier"] * options.get("dry_base", 1.75) ** (n - allowed_length)


def frequencies(history, row, options):
    window = options.get("penalty_window", 0)
    history = history[-window:] if window else history
    for token in set(history):
        if token < len(row):
            count = torch.tensor(float(history.count(token)))
            frequency = torch.tensor(options.get("frequency_penalty", 0.0))
            row[token] -= count * frequency + options.get("presence_penalty", 0.0)


def of_rows(change):
    def process(history, scores, options, ignored):
        scores = scores.clone()
        for row, tokens, skip in zip(scores, history.tolist(), ignored, strict=True):
            change(tokens[skip:], row, options)
        return scores

    return process


def add_bias(tokens, row, options):
    for token, bias in options["logit_bias"].items():
        row[token] += bias


def processor(name, options, ignored, encoder, allowed):
    value = options[name]
    p = logits_process
    if name == "repetition_penalty":
        return p.RepetitionPenaltyLogitsProcessor(value, torch.tensor(ignored))
    make = {
        "sequence_bias": lambda: p.SequenceBiasLogitsProcessor(value),
        "encoder_repetition_penalty": lambda: p.EncoderRepetitionPenaltyLogitsProcessor(value, encoder),
        "no_repeat_ngram_size": lambda: p.NoRepeatNGramLogitsProcessor(value),
        "encoder_no_repeat_ngram_size": lambda: p.EncoderNoRepeatNGramLogitsProcessor(value, encoder),
        "bad_words_ids": lambda: p.NoBadWordsLogitsProcessor(value, EOS),
        "min_length": lambda: p.MinLengthLogitsProcessor(value, EOS),
        "min_new_tokens": lambda: p.MinNewTokensLengthLogitsProcessor(PROMPT, value, EOS),
        "constrained": lambda: p.PrefixConstrainedLogitsProcessor(lambda row, _: allowed[row], 1),
        "forced_bos_token_id": lambda: p.ForcedBOSTokenLogitsProcessor(value),
        "forced_eos_token_id": lambda: p.ForcedEOSTokenLogitsProcessor(options["max_length"], value),
        "remove_invalid_values": lambda: p.InfNanRemoveLogitsProcessor(),
        "exponential_decay_length_penalty": lambda: p.ExponentialDecayLengthPenalty(value, EOS, PROMPT),
        "suppress_tokens": lambda: p.SuppressTokensLogitsProcessor(value),
        "begin_suppress_tokens": lambda: p.SuppressTokensAtBeginLogitsProcessor(value, PROMPT),
    }
    return make[name]()


def reference(logits, history, options, *, ignored=(0, 0), encoder=None, allowed=None):
    scores = logits.float()
    ours = {
        "logit_bias": of_rows(add_bias),
        "presence_penalty": of_rows(frequencies),
        "dry_multiplier": of_rows(dry),
    }
    names = [name for name in ORDER if name in options]
    if "presence_penalty" in names and "frequency_penalty" in names:
        names.remove("frequency_penalty")
    for name in names:
        if name == "frequency_penalty":
            scores = of_rows(frequencies)(history, scores, options, ignored)
        elif name in ours:
            scores = ours[name](history, scores, options, ignored)
        else:
            scores = processor(name, options, ignored, encoder, allowed)(history, scores)
    return scores
