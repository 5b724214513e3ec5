"""Trains honed.models.MLP or ConvNet on small images, such as those of MNIST or Fashion-MNIST:
python examples/train_images.py --data FOLDER --model cnn --curve curve.png
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from honed.models import MLP, ConvNet
from honed.ops import cross_entropy
from honed.train import AdamW


def read(folder):
    """Images (N, H, W) uint8 and labels: those to learn from, and others."""
    found = {path.stem: torch.from_numpy(np.load(path)) for path in folder.glob("*.npy")}
    if "in5k" in found:  # 5,000 digits; 10,000, and which of them are among the 5,000
        return found["x"], found["y"], *(found[name][~found["in5k"]] for name in ("x10k", "y10k"))
    return [found[name] for name in ("x_train", "y_train", "x_test", "y_test")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, type=Path, help="x_train.npy, y_train.npy, x_test.npy, ...")
    parser.add_argument("--model", choices=["mlp", "cnn"], default="cnn")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--curve", type=Path, help="a picture of loss and accuracy; a .csv goes beside it")
    given = parser.parse_args()
    torch.manual_seed(0)
    x, y, x_test, y_test = read(given.data)
    x, x_test = (((each - x.float().mean()) / x.float().std())[:, None] for each in (x, x_test))
    y, classes = y.long(), int(y.max()) + 1
    model, rate = (MLP(x[0].numel(), classes), 2e-3) if given.model == "mlp" else (ConvNet(1, classes), 1e-2)
    optimizer = AdamW(model.parameters(), lr=rate, weight_decay=0.05)
    batches = [batch for _ in range(given.epochs) for batch in torch.randperm(len(x)).split(128)]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, len(batches), pct_start=0.2)
    curve = []  # loss and share of right names, a batch
    for batch in (bar := tqdm(batches, f"{sum(p.numel() for p in model.parameters()):,} parameters")):
        logits = model(x[batch])
        loss = cross_entropy(logits, y[batch])
        optimizer.zero_grad(), loss.backward(), optimizer.step(), schedule.step()
        curve.append((loss.item(), (logits.argmax(1) == y[batch]).float().mean().item()))
        bar.set_postfix(loss=f"{loss.item():.3f}")
    with torch.inference_mode():
        named = torch.cat([model.eval()(images).argmax(1) for images in x_test.split(500)])
    print(f"{(named == y_test).float().mean().item():.2%} of {len(named):,} other images are named right")
    if given.curve:
        from matplotlib import pyplot

        np.savetxt(given.curve.with_suffix(".csv"), curve, delimiter=",", header="loss,accuracy", comments="")
        smooth = torch.tensor(curve).unfold(0, min(50, len(curve)), 1).mean(-1)
        pyplot.plot(smooth, label=["loss", "accuracy"]), pyplot.legend(), pyplot.savefig(given.curve)


if __name__ == "__main__":
    main()
