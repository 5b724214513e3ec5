"""Names what is on photos, with MobileNetV2 on honed's kernels.

python examples/classify_photos.py WEIGHTS labels.txt cat.jpg cup.png

WEIGHTS: torchvision's file mobilenet_v2-b0353104.pth, or a folder with these weights as model.safetensors.
labels.txt: the names of the classes, one a line.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import honed
from honed.models import MobileNetV2

MEAN, DEVIATION = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, :, None, None]  # ImageNet's


def read(path):
    """``(3, 224, 224)``: the middle of the photo, whose shorter side is made 256 pixels first."""
    photo = Image.open(path).convert("RGB")
    scale = 256 / min(photo.size)
    photo = photo.resize([round(side * scale) for side in photo.size], Image.Resampling.BILINEAR)
    left, top = ((side - 224) // 2 for side in photo.size)
    pixels = torch.from_numpy(np.array(photo)[top : top + 224, left : left + 224])
    return (pixels.permute(2, 0, 1) / 255 - MEAN) / DEVIATION


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights")
    parser.add_argument("labels")
    parser.add_argument("photos", nargs="+")
    given = parser.parse_args()
    labels = Path(given.labels).read_text(encoding="utf-8").splitlines()
    model = honed.hone(MobileNetV2.from_pretrained(given.weights))
    photos = torch.stack([read(path) for path in given.photos])
    with torch.inference_mode():
        model(photos)  # packs the weights
        start = time.perf_counter()
        likely = model(photos).softmax(1).topk(5)
    taken = (time.perf_counter() - start) / len(photos)
    for path, shares, classes in zip(given.photos, *map(torch.Tensor.tolist, likely), strict=True):
        print(
            path, *(f"{share:7.1%}  {labels[i]}" for share, i in zip(shares, classes, strict=True)), sep="\n"
        )
    print(f"{taken * 1e3:.1f} ms a photo")


if __name__ == "__main__":
    main()
