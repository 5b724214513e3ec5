"""Trains honed.models.GPT on the letters of a text and lets it write on.

python examples/train_gpt.py --text book.txt --steps 500
"""

import argparse

import torch
from tqdm import tqdm

from honed.models import GPT
from honed.train import AdamW


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", required=True, help="a file in UTF-8")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--context", type=int, default=128, help="letters that a guess may look back on")
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--layers", type=int, default=4)
    given = parser.parse_args()
    torch.manual_seed(0)
    with open(given.text, encoding="utf-8") as file:
        text = file.read()
    letters = sorted(set(text))
    number = {letter: i for i, letter in enumerate(letters)}
    data = torch.tensor([number[letter] for letter in text])
    last = len(data) * 9 // 10  # what follows is kept for the check
    sizes = {"longest": given.context, "width": given.width, "heads": given.width // 32}
    model = GPT(len(letters), layers=given.layers, **sizes)
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, {len(letters)} letters")
    optimizer = AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.95), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, given.steps, pct_start=0.1)

    def batch(first, end):
        starts = torch.randint(first, end - given.context - 1, (given.batch, 1))
        piece = data[starts + torch.arange(given.context + 1)]
        return piece[:, :-1], piece[:, 1:]

    for _ in (bar := tqdm(range(given.steps))):
        loss = model(*batch(0, last))
        optimizer.zero_grad(), loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step(), schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")
    model.eval()
    with torch.no_grad():
        held_out = sum(model(*batch(last, len(data))).item() for _ in range(20)) / 20
    print(f"loss on text never seen: {held_out:.3f} nats a letter (guessing: {len(letters)} letters)")
    written = model.generate(data[last : last + 16][None], given.context - 16, temperature=0.8, top_k=20)
    print("".join(letters[i] for i in written[0].tolist()))


if __name__ == "__main__":
    main()
