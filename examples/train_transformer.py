"""Trains honed.models.Transformer to read dates: "saturday 12 march 1994" becomes "1994-03-12":
python examples/train_transformer.py --picture attention.png
"""

import argparse
import datetime
import random

import torch
from torch.nn import functional as F
from tqdm import tqdm

from honed.models import Transformer
from honed.ops import cross_entropy
from honed.train import AdamW

LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz -/.,"  # tokens: 0 padding, 1 start, 2 end, then these
FORMS = ["%A %-d %B %Y", "%-d %B %Y", "%B %-d, %Y", "%b %d %Y", "%d/%m/%Y", "%Y/%m/%d", "%-d %b %y", "%y%m%d"]
DAYS = [datetime.date(1950, 1, 1) + datetime.timedelta(days) for days in range(36525)]  # to 2049


def tokens(texts):
    rows = [torch.tensor([3 + LETTERS.index(letter) for letter in text.lower()] + [2]) for text in texts]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--picture", help="a file that shows where each written letter looks")
    given = parser.parse_args()
    torch.manual_seed(0), random.seed(0), random.shuffle(DAYS)
    model = Transformer(44, 44, d_model=64, heads=4, layers=2, d_ff=256, dropout=0.0, tied=True)
    optimizer = AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, given.steps, pct_start=0.1)
    for _ in (bar := tqdm(range(given.steps))):
        days = random.choices(DAYS[200:], k=128)
        source, target = tokens(day.strftime(random.choice(FORMS)) for day in days), tokens(map(str, days))
        logits = model(source, F.pad(target[:, :-1], (1, 0), value=1))
        loss = cross_entropy(logits.flatten(0, 1), target.flatten())
        optimizer.zero_grad(), loss.backward(), optimizer.step(), schedule.step()
        bar.set_postfix(loss=f"{loss.item():.4f}")
    asked = [(day.strftime(form).lower(), str(day)) for day in DAYS[:200] for form in FORMS]
    rows = model.eval().generate(tokens(text for text, _ in asked), start=1, end=2, longest=12)
    written = ["".join(LETTERS[i - 3] for i in row if i > 2) for row in rows.tolist()]
    right = [row == day for row, (_, day) in zip(written, asked, strict=True)]
    print(*(f"{asked[i][0]:>32}  {written[i]}" for i in range(len(FORMS))), sep="\n")
    print(f"{sum(right)} of {len(right)} texts of dates never seen are right: {sum(right) / len(right):.2%}")
    if given.picture:
        from matplotlib import pyplot

        text, before = asked[0][0], F.pad(rows[:1, :9], (1, 0), value=1)
        weights = model(tokens([text]), before, need_weights=True)[1][-1]  # (1, heads, 10, letters + end)
        pyplot.matshow(weights[0].mean(0).detach()), pyplot.yticks(range(10), written[0])
        pyplot.xticks(range(len(text)), text), pyplot.savefig(given.picture, bbox_inches="tight")


if __name__ == "__main__":
    main()
