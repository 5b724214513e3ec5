"""Times whole image models beside their peers: inference of ResNet-50 and MobileNetV2, a step of a ConvNet.

    python bench/image_models.py                                    # batch 1 and 16, and the step
    python bench/image_models.py --model mobilenetv2 --batch 1 --providers honed-cl,torch-cl,openvino
    python bench/image_models.py --model step --no-csv

Every provider runs in a program of its own, so that thread pools that spin and settings that a library reads
once disturb nobody; programs take turns and sleep meanwhile. ``-cl``: channels_last. torch, eager and
compiled, has its batch norms folded by torch.fx.experimental.optimization.fuse; honed, ONNX Runtime and
OpenVINO fold them themselves. ``compile`` is inductor, ``compile-frozen`` with freezing. ``openvino`` has the
latency hint, ``openvino-streams`` runs parts of the batch in streams of one thread. Logits are compared with
the model in float64 before anything is timed, and so are the losses of the first training steps.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import os
import statistics
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import harness
import torch
from gemm_report import BUSY
from image_nets import NETS
from providers import Unavailable, peer
from torch import nn

import honed

RESULTS = harness.RESULTS / f"{harness.machine_name()}-image-models.csv"
MODELS = ("resnet50", "mobilenetv2", "step")
STEP_BATCH = 128
ROUNDS = 5
STEPS = 2  # whose losses are compared; after more, AdamW makes much of what f32 loses in small gradients
# Largest difference from float64 as a part of the largest logit: what an f32 sum of some thousands may lose
# in each of fifty layers. bf16 instead of f32 somewhere would give 1e-2.
MOST_ERROR = 1e-4


def model_of(name: str) -> nn.Module:
    """Weights from a seed, and the running statistics of a batch: folding has something to fold."""
    torch.manual_seed(0)
    model = NETS[name].make()
    with torch.no_grad():
        for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.momentum = 1.0
            norm.weight.uniform_(0.5, 1.0)
            norm.bias.uniform_(-0.2, 0.2)
        model(images(name, 4, seed=1))
        for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.momentum = 0.1
    return model.eval()


def images(name: str, batch: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, *NETS[name].shape, generator=torch.Generator().manual_seed(seed))


# ---- inference: (name, batch, threads) to a call that gives the logits


def _folded(name: str, last: bool) -> nn.Module:
    from torch.fx.experimental.optimization import fuse

    model = fuse(model_of(name))
    return model.to(memory_format=torch.channels_last) if last else model


def _input(name: str, batch: int, last: bool) -> torch.Tensor:
    x = images(name, batch)
    return x.to(memory_format=torch.channels_last) if last else x


def eager(name, batch, threads, last=False):
    model, x = _folded(name, last), _input(name, batch, last)
    return lambda: model(x)


def compiled(name, batch, threads, last=False, freezing=False):
    torch._inductor.config.freezing = freezing
    model, x = torch.compile(_folded(name, last), dynamic=False), _input(name, batch, last)
    return lambda: model(x)


def honeds(name, batch, threads, last=False):
    model, x = honed.hone(model_of(name)), _input(name, batch, last)
    model = model.to(memory_format=torch.channels_last) if last else model
    return lambda: model(x)


def _onnx(name: str, batch: int) -> bytes:
    """Batch norms as they are: ONNX Runtime and OpenVINO fold them."""
    peer("onnx")
    file = io.BytesIO()
    torch.onnx.export(model_of(name), (images(name, batch),), file, opset_version=17, dynamo=False)
    return file.getvalue()


def onnxruntime(name, batch, threads):
    ort = peer("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = ort.InferenceSession(_onnx(name, batch), options, ["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: images(name, batch).numpy()}
    return lambda: torch.from_numpy(session.run(None, feed)[0])


def _openvino(name, batch, threads, hint, **more):
    openvino = peer("openvino")
    x = images(name, batch)
    model = openvino.convert_model(model_of(name), example_input=x, input=list(x.shape))
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": hint,
        **more,
    }
    return openvino, openvino.Core().compile_model(model, "CPU", settings)


def openvino_latency(name, batch, threads):
    _, model = _openvino(name, batch, threads, "LATENCY")
    request, x = model.create_infer_request(), images(name, batch).numpy()
    return lambda: torch.from_numpy(request.infer([x], share_inputs=True, share_outputs=True)[0])


def openvino_streams(name, batch, threads):
    if batch % threads or batch < threads or threads < 2:
        raise Unavailable(f"batch {batch} does not part over {threads} streams")
    _, model = _openvino(name, batch // threads, threads, "THROUGHPUT", NUM_STREAMS=threads)
    parts = images(name, batch).chunk(threads)
    requests = [model.create_infer_request() for _ in parts]
    parts = [part.numpy() for part in parts]

    def call():
        for request, part in zip(requests, parts, strict=True):
            request.start_async([part], share_inputs=True)
        for request in requests:
            request.wait()
        return torch.cat([torch.from_numpy(request.get_output_tensor(0).data) for request in requests])

    return call


INFERENCE = {
    "honed": honeds,
    "honed-cl": lambda *a: honeds(*a, last=True),
    "torch": eager,
    "torch-cl": lambda *a: eager(*a, last=True),
    "compile-cl": lambda *a: compiled(*a, last=True),
    "compile-frozen": lambda *a: compiled(*a, freezing=True),
    "compile-frozen-cl": lambda *a: compiled(*a, last=True, freezing=True),
    "onnxruntime": onnxruntime,
    "openvino": openvino_latency,
    "openvino-streams": openvino_streams,
}


# ---- training: a call does forward, backward and the optimizer's step, and gives the loss


def _step(model: nn.Module, optimizer, batch: int, last: bool, compile: bool = False) -> Callable:
    x = _input("convnet", batch, last)
    target = torch.randint(10, (batch,), generator=torch.Generator().manual_seed(2))
    model = model.train()
    x = x.to(next(model.parameters()).dtype)
    model = model.to(memory_format=torch.channels_last) if last else model
    optimizer = optimizer(model.parameters(), lr=1e-3)

    def loss_of(x, target):
        return nn.functional.cross_entropy(model(x), target)

    forward = torch.compile(loss_of, dynamic=False) if compile else loss_of

    def call():
        optimizer.zero_grad()
        loss = forward(x, target)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return call


def _torchs_step(name, batch, threads, last=False, compile=False):
    optimizer = lambda parameters, lr: torch.optim.AdamW(parameters, lr=lr, fused=True)  # noqa: E731
    return _step(model_of("convnet"), optimizer, batch, last, compile)


def _honeds_step(name, batch, threads, last=False):
    return _step(honed.hone(model_of("convnet")), honed.train.AdamW, batch, last)


STEP = {
    "honed": _honeds_step,
    "honed-cl": lambda *a: _honeds_step(*a, last=True),
    "torch": _torchs_step,
    "torch-cl": lambda *a: _torchs_step(*a, last=True),
    "compile": lambda *a: _torchs_step(*a, compile=True),
    "compile-cl": lambda *a: _torchs_step(*a, last=True, compile=True),
}


# ---- programs


def serve(pipe, table: str, provider: str, name: str, batch: int, threads: int) -> None:
    """The other end of Program."""
    warnings.simplefilter("ignore")
    with open(os.devnull, "w") as null, contextlib.redirect_stderr(null):
        torch.set_num_threads(threads)
        is_step = table == "STEP"
        inference = contextlib.nullcontext if is_step else torch.inference_mode
        try:  # parameters are made outside of inference mode, as programs do
            call = globals()[table][provider](name, batch, threads)
        except Exception as error:  # said by the program that asked
            pipe.send(f"{type(error).__name__}: {str(error).splitlines()[0]}")
            return
        with inference():
            try:
                results = [call().clone() for _ in range(STEPS if is_step else 1)]
                pipe.send(torch.stack(results).double().numpy())
            except Exception as error:
                pipe.send(f"{type(error).__name__}: {str(error).splitlines()[0]}")
                return
            while (seconds := pipe.recv()) is not None:
                with harness.OtherPrograms() as others:
                    taken = harness.turn(call, seconds)
                pipe.send((taken, others.share))


class Program:
    def __init__(self, *what):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.others: list[float] = []  # the share of the cores that other programs took, by turn
        self.process = context.Process(target=serve, args=(theirs, *what), daemon=True)
        self.process.start()
        theirs.close()
        try:
            self.results = self.pipe.recv()
        except EOFError:
            self.results = "the program ended"

    def turn(self, seconds: float) -> list[float]:
        self.pipe.send(seconds)
        taken, share = self.pipe.recv()
        self.others.append(share)
        return taken

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.pipe.send(None)
        self.process.join(10)
        if self.process.is_alive():
            self.process.kill()


def expected(name: str, batch: int) -> torch.Tensor:
    """Logits in float64, or the losses of the first steps."""
    if name == "step":
        call = _step(model_of("convnet").double(), torch.optim.AdamW, batch, False)
        return torch.stack([call() for _ in range(STEPS)])
    with torch.inference_mode():
        return model_of(name).double()(images(name, batch).double())[None]


def run(name: str, batch: int, threads: int, seconds: float, providers: list[str]) -> tuple[list[dict], bool]:
    right, all_right = expected(name, batch), True
    table = "STEP" if name == "step" else "INFERENCE"
    programs, errors = {}, {}
    for provider in providers:
        program = Program(table, provider, name, batch, threads)
        if isinstance(program.results, str):
            print(f"{name} x{batch} {provider}: left out, {program.results}", flush=True)
            program.close()
            all_right &= not provider.startswith("honed")
            continue
        difference = (torch.from_numpy(program.results) - right).abs().max()
        errors[provider] = (difference / right.abs().max()).item()
        if errors[provider] > MOST_ERROR:
            print(f"{name} x{batch} {provider}: not timed, error {errors[provider]:.1e}", flush=True)
            program.close()
            all_right &= not provider.startswith("honed")
            continue
        programs[provider] = program
    turns = {provider: program.turn for provider, program in programs.items()}
    times = harness.in_turns(turns, seconds * len(turns), ROUNDS) if turns else {}
    for program in programs.values():
        program.close()
    ours = [key for key in times if key.startswith("honed")]
    best = min(ours, key=lambda key: times[key].p50, default=None)
    rows = []
    for provider, taken in times.items():
        rows.append(
            {
                "model": name,
                "batch": batch,
                "threads": threads,
                "provider": provider,
                "p20_ms": round(taken.p20 * 1e3, 3),
                "p50_ms": round(taken.p50 * 1e3, 3),
                "p80_ms": round(taken.p80 * 1e3, 3),
                "images_s": round(batch / taken.p50, 2),
                "error": f"{errors[provider]:.1e}",
                "ours": best or "",
                "ratio": round(harness.ratio(taken, times[best]), 4) if best else "",
                "others": round(statistics.fmean(programs[provider].others), 3),
                "level": honed.info().level,
                "sha": harness.git_sha(),
                "date": harness.today(),
            }
        )
    return rows, all_right


def shown(rows: list[dict]) -> str:
    head = f"{'model':12} {'batch':>5} {'provider':18} {'p20 ms':>9} {'p50 ms':>9} {'images/s':>9}"
    out = [f"{head}  by honed's better layout"]
    for row in rows:
        mark = f"x{row['ratio']:.2f}" if row["ratio"] != "" else ""
        noise = f"  (others took {100 * row['others']:.0f} % of the cores)" if row["others"] > BUSY else ""
        figures = f"{row['p20_ms']:9.2f} {row['p50_ms']:9.2f} {row['images_s']:9.1f}"
        out.append(f"{row['model']:12} {row['batch']:5} {row['provider']:18} {figures}  {mark}{noise}")
    return "\n".join(out)


def compare(models, batches, threads: int, seconds: float, chosen: list[str], path: Path | None) -> bool:
    """All were right."""
    rows, all_right = [], True
    print(harness.machine_card(threads, ("torch", "onnxruntime", "openvino")), flush=True)
    for name in models:
        known = STEP if name == "step" else INFERENCE
        providers = [each for each in known if not chosen or each in chosen]
        for batch in (STEP_BATCH,) if name == "step" else batches:
            taken, right = run(name, batch, threads, seconds, providers)
            print(shown(taken), flush=True)
            rows += taken
            all_right &= right
            if path is not None:
                harness.append_rows(path, taken)
    return all_right


def main(given: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=",".join(MODELS), help="comma-separated")
    parser.add_argument("--batch", default="1,16", help="comma-separated, of inference")
    parser.add_argument("--threads", type=int, default=min(2, honed.info().cpus))
    parser.add_argument("--providers", default="", help=f"comma-separated, of {', '.join(INFERENCE)}")
    parser.add_argument("--seconds", type=float, default=3.0, help="a provider, model and batch")
    parser.add_argument("--no-csv", action="store_true", help="print only")
    arguments = parser.parse_args(given)
    models, chosen = arguments.model.split(","), [p for p in arguments.providers.split(",") if p]
    unknown = set(models) - set(MODELS) | set(chosen) - set(INFERENCE) - set(STEP)
    if unknown:
        parser.error(f"unknown {', '.join(sorted(unknown))}")
    path = None if arguments.no_csv else RESULTS
    batches = [int(batch) for batch in arguments.batch.split(",")]
    return int(not compare(models, batches, arguments.threads, arguments.seconds, chosen, path))


if __name__ == "__main__":
    sys.exit(main())
