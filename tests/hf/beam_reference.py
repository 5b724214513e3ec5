"""Diverse and constrained beam search of one prompt as published, in plain PyTorch: slow, obvious, no cache.

``score(texts)`` gives the log-probabilities (N, V) of what follows each text, a list of token ids.
"""

import torch


def norm(total, new_tokens, penalty):
    return total / new_tokens**penalty


class Finished:
    """Keeps the best ``count`` texts that ended."""

    def __init__(self, count, penalty, early, furthest):
        self.count, self.penalty, self.early, self.furthest = count, penalty, early, furthest
        self.kept, self.done = [], False  # (fulfils, score, text)

    def add(self, text, total, new_tokens, fulfils=True):
        self.kept.append((fulfils, norm(total, new_tokens, self.penalty), text))
        self.kept.sort(key=lambda one: one[:2], reverse=True)
        del self.kept[self.count :]

    def check(self, best_total, new_tokens):
        if len(self.kept) < self.count or self.done:
            return
        if self.early is True:
            self.done = True
            return
        if self.early == "never" and self.penalty > 0:
            new_tokens = self.furthest
        self.done = self.kept[-1][1] >= norm(best_total, new_tokens, self.penalty)


def candidates(totals, logps, count):
    every = (logps + torch.tensor(totals)[:, None]).flatten().sort(descending=True, stable=True)
    found = zip(every.values[:count].tolist(), every.indices[:count].tolist(), strict=True)
    return [(total, at // logps.shape[1], at % logps.shape[1]) for total, at in found]


def diverse(score, prompt, beams, groups, penalty, max_new, eos=(), length_penalty=1.0, early=False):
    """Vijayakumar et al., arXiv:1610.02424, algorithm 1, Hamming diversity. Texts, best first, and scores."""
    size = beams // groups
    texts = [[list(prompt)] * size for _ in range(groups)]
    totals = [[0.0] + [-1e9] * (size - 1) for _ in range(groups)]
    ended = [Finished(size, length_penalty, early, max_new) for _ in range(groups)]
    for made in range(1, max_new + 1):
        taken = []
        for g in range(groups):
            if ended[g].done:
                continue
            logps = score(texts[g]).clone()
            for token in taken:
                logps[:, token] -= penalty
            found = candidates(totals[g], logps, max(2, 1 + len(eos)) * size)
            going = []
            for place, (total, i, token) in enumerate(found):
                if token in eos:
                    if place < size:
                        ended[g].add([*texts[g][i], token], total, made)
                else:
                    going.append((total, [*texts[g][i], token]))
                    if len(going) == size:
                        break
            totals[g], texts[g] = [list(x) for x in zip(*going, strict=True)]
            taken += [text[-1] for text in texts[g]]
            ended[g].check(found[0][0], made)
        if all(e.done for e in ended):
            break
    for g in range(groups):
        if not ended[g].done:
            for total, text in zip(totals[g], texts[g], strict=True):
                ended[g].add(text, total, len(text) - len(prompt))
    every = sorted((one for e in ended for one in e.kept), key=lambda one: one[:2], reverse=True)
    return [text for _, _, text in every], [total for _, total, _ in every]


def progress(tokens, constraints):
    """(constraints fulfilled, tokens into the one that was begun, tokens that go on, all fulfilled).

    A constraint is a list of phrases, one of which must appear. Those that are to come are tried in order.
    """
    waiting, fulfilled, current, inside = list(constraints), 0, None, ()
    for token in tokens:
        if not waiting and current is None:
            break
        if current is None:
            for c in waiting:
                if any(phrase[0] == token for phrase in c):
                    waiting.remove(c)
                    current, inside = c, (token,)
                    break
        elif any(tuple(p[: len(inside) + 1]) == (*inside, token) for p in current):
            inside = (*inside, token)
        else:
            waiting.append(current)
            current, inside = None, ()
        if current is not None and any(tuple(p) == inside for p in current):
            fulfilled, current, inside = fulfilled + 1, None, ()
    if current is None:
        next_tokens = [p[0] for c in waiting for p in c]
    else:
        next_tokens = [p[len(inside)] for p in current if tuple(p[: len(inside)]) == inside]
    return fulfilled, inside, current, list(dict.fromkeys(next_tokens)), not waiting and current is None


def constrained(score, prompt, constraints, beams, max_new, eos=(), length_penalty=1.0, early=False):
    """Dynamic beam allocation, Post and Vilar, arXiv:1804.06609. Texts, best first, scores, fulfilment."""
    longest = max(len(p) for c in constraints for p in c)

    def bank(text):
        fulfilled, inside, current, _, _ = progress(text[len(prompt) :], constraints)
        height = max(len(p) for p in current) if current else 0
        return fulfilled * longest + (longest - (height - len(inside)) if current else 0)

    def complete(text):
        return progress(text[len(prompt) :], constraints)[4]

    texts, totals = [list(prompt)] * beams, [0.0] + [-1e9] * (beams - 1)
    ended = Finished(beams, length_penalty, early, max_new)
    for made in range(1, max_new + 1):
        logps = score(texts)
        found = candidates(totals, logps, max(2, 1 + len(eos)) * beams)
        going = []
        for place, (total, i, token) in enumerate(found):
            if token in eos:
                if place < beams and complete(texts[i]):
                    ended.add([*texts[i], token], total, made)
            else:
                going.append((total, [*texts[i], token]))
                if len(going) == beams:
                    break
        for i, text in enumerate(texts):
            own = [int(t) for t in logps[i].argsort(descending=True) if int(t) not in eos][:1]
            for token in progress(text[len(prompt) :], constraints)[3] + own:
                if [*text, token] not in [t for _, t in going]:
                    going.append((totals[i] + float(logps[i, token]), [*text, token]))
        going.sort(key=lambda one: one[0], reverse=True)
        banks = sorted({bank(text) for _, text in going}, reverse=True)
        lists = [[one for one in going if bank(one[1]) == b] for b in banks]
        chosen = []
        while len(chosen) < beams:  # the best of each bank in turn
            for some in lists:
                if some:
                    chosen.append(some.pop(0))
        totals, texts = [list(x) for x in zip(*chosen[:beams], strict=True)]
        ended.check(found[0][0], made)
        if ended.done:
            break
    if not ended.done:
        for total, text in zip(totals, texts, strict=True):
            ended.add(text, total, len(text) - len(prompt), complete(text))
    return [t for _, _, t in ended.kept], [s for _, s, _ in ended.kept], [f for f, _, _ in ended.kept]


def scorer(model, **given):
    """Of a model: a forward over every whole text."""

    @torch.no_grad()
    def score(texts):
        ids = torch.tensor(texts)
        if model.config.is_encoder_decoder:
            some = {name: value.expand(len(texts), -1) for name, value in given.items()}
            logits = model(**some, decoder_input_ids=ids, use_cache=False).logits
        else:
            logits = model(ids, use_cache=False).logits
        return torch.log_softmax(logits[:, -1].float(), -1)

    return score
