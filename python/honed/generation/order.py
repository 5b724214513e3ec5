"""In which order processors stand: transformers', and ours among them."""

from __future__ import annotations

from transformers.generation import logits_process as theirs

from honed.generation import processors as ours

RULES = (
    theirs.UnbatchedClassifierFreeGuidanceLogitsProcessor,
    theirs.SequenceBiasLogitsProcessor,
    ours.LogitBias,
    theirs.EncoderRepetitionPenaltyLogitsProcessor,
    theirs.RepetitionPenaltyLogitsProcessor,
    ours.FrequencyPenalty,
    theirs.NoRepeatNGramLogitsProcessor,
    theirs.EncoderNoRepeatNGramLogitsProcessor,
    ours.Dry,
    theirs.NoBadWordsLogitsProcessor,
    theirs.MinLengthLogitsProcessor,
    theirs.MinNewTokensLengthLogitsProcessor,
    theirs.PrefixConstrainedLogitsProcessor,
    ours.Allowed,
    theirs.ForcedBOSTokenLogitsProcessor,
    theirs.ForcedEOSTokenLogitsProcessor,
    theirs.InfNanRemoveLogitsProcessor,
    theirs.ExponentialDecayLengthPenalty,
    theirs.SuppressTokensLogitsProcessor,
    theirs.SuppressTokensAtBeginLogitsProcessor,
)
_TEMPERATURES = (theirs.TemperatureLogitsWarper, ours.DynamicTemperature)
FILTERS = (
    *_TEMPERATURES,
    ours.TopNSigma,
    theirs.TopHLogitsWarper,
    theirs.TopKLogitsWarper,
    theirs.TopPLogitsWarper,
    theirs.MinPLogitsWarper,
    theirs.TypicalLogitsWarper,
    theirs.EpsilonLogitsWarper,
    theirs.EtaLogitsWarper,
    ours.Xtc,
    ours.Mirostat,
)
_LAST = (
    theirs.WatermarkLogitsProcessor,
    theirs.SynthIDTextWatermarkLogitsProcessor,
    theirs.LogitNormalization,
)
_ALL = RULES + FILTERS + _LAST


def _rank(processor) -> int:
    """Its place in the order; -1 for a class that is none of these."""
    return _ALL.index(type(processor)) if type(processor) in _ALL else -1


def place_rule(processors: list, rule) -> None:
    """Right behind the last one that it comes after: before the caller's own."""
    before = [i for i, each in enumerate(processors) if -1 < _rank(each) < _rank(rule)]
    processors.insert(before[-1] + 1 if before else 0, rule)


def place_filter(processors: list, kind) -> None:
    """Right before the first one that it comes before: behind the caller's own."""
    behind = [i for i, each in enumerate(processors) if _rank(each) > _rank(kind)]
    processors.insert(behind[0] if behind else len(processors), kind)


def is_temperature(processor) -> bool:
    return type(processor) in _TEMPERATURES


def is_filter(processor) -> bool:
    """A filter that mirostat takes the place of."""
    return type(processor) in FILTERS and type(processor) not in (*_TEMPERATURES, ours.Mirostat)
