"""Diverse beam search (Vijayakumar et al., arXiv:1610.02424), as transformers 4 did it.

The beams of a prompt are in ``num_beam_groups`` groups, each a beam search of its own. At every step the
groups choose one after the other, and a token that n beams of the groups before have just chosen loses ``n *
diversity_penalty`` (the paper's Hamming diversity).
"""

from __future__ import annotations

import torch

from honed.generation.beams import Beams, best
from honed.generation.hypotheses import Hypotheses, rank, sort

_NONE = -1  # the token that a group takes when its search is over


@torch.no_grad()
def group_beam_search(
    model, input_ids, logits_processor, stopping_criteria, generation_config, **model_kwargs
):
    """A decoding method for ``generate``: takes and returns what transformers' own do.

    Raises:
        ValueError: if the groups do not divide the beams, or with ``do_sample``.

    Example:
        >>> model.generate(**inputs, num_beams=6, num_beam_groups=3, diversity_penalty=0.5,
        ...                custom_generate=group_beam_search)
    """
    config = generation_config
    groups, penalty = _options(config)
    beams = Beams(model, input_ids, logits_processor, stopping_criteria, config, model_kwargs)
    size = beams.count // groups
    furthest = beams.max_length - beams.prompt_length
    ended = [[Hypotheses(size, config, furthest) for _ in range(groups)] for _ in range(beams.prompts)]
    # Only the first beam of a group goes on at first: the others are its copies.
    running = torch.full((beams.prompts, groups, size), -1.0e9)
    running[:, :, 0] = 0
    every = torch.arange(len(input_ids)).view(beams.prompts, groups, size)
    while True:
        parents, chosen = torch.zeros_like(every), torch.zeros_like(every)
        processed = torch.empty_like(beams.logits) if beams.keeps_scores else None
        for group in range(groups):
            rows = every[:, group].flatten()
            scores = _scores(beams, rows, chosen[:, :group].flatten(1), penalty, size)
            if processed is not None:
                processed[rows] = scores
            found = best(scores, running[:, group].flatten(), size, beams.candidates * size)
            for prompt, (values, at, tokens) in enumerate(zip(*(x.tolist() for x in found), strict=True)):
                hypotheses = ended[prompt][group]
                first = int(every[prompt, group, 0])
                if hypotheses.done:
                    parents[prompt, group], chosen[prompt, group] = first, _NONE
                    running[prompt, group] = 0
                    continue
                going, ending = sort(values, [first + i for i in at], tokens, beams.eos, size)
                for score, row, token in ending:
                    hypotheses.add(*beams.ended(row, torch.tensor([token])), score)
                for i, (score, row, token) in enumerate(going):
                    running[prompt, group, i], parents[prompt, group, i] = score, row
                    chosen[prompt, group, i] = token
                hypotheses.look_ahead(values[0], beams.length + 1 - beams.prompt_length)
        beams.keep(processed)
        chosen[chosen == _NONE] = max(beams.fill, 0)
        beams.advance(parents.flatten(), chosen.flatten())
        if all(h.done for some in ended for h in some) or beams.all_stop():
            break
        beams.read(chosen.flatten())
    for prompt, some in enumerate(ended):
        for group, hypotheses in enumerate(some):
            if not hypotheses.done:
                for row, score in zip(
                    every[prompt, group].tolist(), running[prompt, group].tolist(), strict=True
                ):
                    hypotheses.add(*beams.ended(row), score)
    return beams.result(
        [sorted((h for each in some for h in each.found), key=rank, reverse=True) for some in ended]
    )


def _options(config) -> tuple[int, float]:
    groups, beams = config.num_beam_groups, config.num_beams
    groups = 1 if groups is None else groups
    if groups < 1 or beams % groups != 0:
        raise ValueError(
            f"group_beam_search: num_beam_groups is {groups}, expected a divisor of num_beams, {beams}"
        )
    if config.do_sample:
        raise ValueError("group_beam_search: do_sample is True, expected False: groups take their best")
    return groups, float(config.diversity_penalty or 0.0)


def _scores(beams, rows, taken, penalty: float, size: int):
    """Log-probabilities for a group's rows, less what the groups before, of (prompts, n), have taken."""

    def spread(scores):
        for some, of_prompt in zip(taken, scores.view(len(taken), size, -1), strict=True):
            tokens = some[some != _NONE]
            of_prompt.index_add_(1, tokens, torch.full((size, len(tokens)), -penalty))
        return scores

    return beams.log_probabilities(rows, spread if penalty else None)
