"""Trains honed.models.Transformer to read dates: "saturday 12 march 1994" becomes "1994-03-12".

python examples/train_transformer.py --picture attention.png
"""

import argparse
import datetime
import random

import torch
from tqdm import tqdm

from honed.models import Transformer

LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz -/.,"  # tokens: 0 padding, 1 start, 2 end, then these
FORMS = "%-d %B %Y|%d %b %Y|%B %-d, %Y|%b %d %Y|%A %-d %B %Y|%d/%m/%Y|%-d.%-m.%Y|%Y/%m/%d|%-d %b %y|%y%m%d"
FORMS = [*FORMS.split("|"), "%A, %B %-d, %Y", "the %-dth of %B %Y", "%b %-d, %y", "%Y %B %-d"]
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
    size = 3 + len(LETTERS)
    model = Transformer(size, size, d_model=64, heads=4, layers=2, d_ff=256, dropout=0.0, tied=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, given.steps, pct_start=0.1)
    for _ in (bar := tqdm(range(given.steps))):
        days = random.choices(DAYS[200:], k=128)
        source = tokens(day.strftime(random.choice(FORMS)) for day in days)
        target = tokens(day.isoformat() for day in days)
        written = torch.nn.functional.pad(target[:, :-1], (1, 0), value=1)
        loss = torch.nn.functional.cross_entropy(model(source, written).flatten(0, 1), target.flatten())
        optimizer.zero_grad(), loss.backward(), optimizer.step(), schedule.step()
        bar.set_postfix(loss=f"{loss.item():.4f}")
    asked = [(day.strftime(form).lower(), day.isoformat()) for day in DAYS[:200] for form in FORMS]
    source = tokens(text for text, _ in asked)
    rows = model.eval().generate(source, start=1, end=2, longest=12)
    written = ["".join(LETTERS[i - 3] for i in row if i > 2) for row in rows.tolist()]
    right = sum(row == day for row, (_, day) in zip(written, asked, strict=True))
    print(*(f"{text:>32}  {row}" for row, (text, _) in zip(written[:14], asked, strict=False)), sep="\n")
    print(f"{right} of {len(asked)} texts of dates never seen are right: {right / len(asked):.2%}")
    if given.picture:
        from matplotlib import pyplot

        weights = model(source[4:5], rows[4:5, :-1], need_weights=True)[1][-1][0].mean(0)  # (T, S)
        pyplot.matshow(weights[:, : len(asked[4][0])].detach())
        pyplot.xticks(range(len(asked[4][0])), asked[4][0]), pyplot.yticks(range(10), written[4])
        pyplot.savefig(given.picture, bbox_inches="tight")


if __name__ == "__main__":
    main()
