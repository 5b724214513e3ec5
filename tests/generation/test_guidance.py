"""Classifier-free guidance in one batch against transformers' two calls a token; watermarks."""

import pytest
import torch
from tests.generation.models import pair
from tests.hf.conftest import VOCABULARY, prompt
from transformers import SynthIDTextWatermarkingConfig, WatermarkDetector, WatermarkingConfig

import honed
from honed.generation.decoding import CACHE

NEW = 10


def _both(name, ids, **options):
    plain, fast = pair(name)
    options = {"max_new_tokens": NEW, "do_sample": False, **options}
    return plain.generate(ids, **options), fast.generate(ids, **options), fast


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt"])
@pytest.mark.parametrize("negative", [None, 3, 9, 14])
def test_tokens_are_transformers(name, negative):
    options = {} if negative is None else {"negative_prompt_ids": prompt(2, negative, seed=8)}
    expected, got, fast = _both(name, prompt(2, 9), guidance_scale=1.7, **options)
    assert torch.equal(got, expected)
    if name != "opt":
        assert not honed.report(fast).fallbacks
        calls = honed.report(fast).calls
        assert calls <= NEW, "more than one pass a token"
    assert not torch.equal(_both(name, prompt(2, 9))[1], expected)


def test_padding_processors_and_results():
    ids, negative = prompt(2, 9), prompt(2, 5, seed=8)
    mask, real = torch.ones_like(ids), torch.ones_like(negative)
    ids[0, :3], mask[0, :3] = 2, 0
    expected, got, fast = _both(
        "llama",
        ids,
        attention_mask=mask,
        guidance_scale=1.7,
        negative_prompt_ids=negative,
        negative_prompt_attention_mask=real,
        repetition_penalty=1.3,
        return_dict_in_generate=True,
        output_scores=True,
        output_logits=True,
    )
    assert torch.equal(got.sequences, expected.sequences)
    for name in ("scores", "logits"):
        mine, theirs = torch.stack(got[name]), torch.stack(expected[name])
        assert (mine - theirs).abs().max() < 1e-4 * theirs.abs().max()
    assert not honed.report(fast).fallbacks


@pytest.mark.parametrize("negative", [None, 3, 14])
def test_goes_on_from_its_cache(negative):
    _, fast = pair("llama")
    options = {"guidance_scale": 1.7, "max_new_tokens": NEW, "do_sample": False}
    if negative:
        options["negative_prompt_ids"] = prompt(2, negative, seed=8)
    first = fast.generate(prompt(2, 9), return_dict_in_generate=True, **options)
    ids = torch.cat((first.sequences, prompt(2, 4, seed=5)), 1)
    options = {"max_new_tokens": NEW, "do_sample": False}
    got = fast.generate(ids, **{CACHE: first.get(CACHE)}, **options)
    assert torch.equal(got, fast.generate(ids, **options))


def test_negative_prompts_for_another_batch():
    _, fast = pair("llama")
    with pytest.raises(ValueError, match="negative_prompt_ids has 1 rows, expected the 2 of the prompts"):
        fast.generate(prompt(2, 9), guidance_scale=1.7, negative_prompt_ids=prompt(1, 3), max_new_tokens=3)


def test_sampled_guidance_draws_as_told():
    _, fast = pair("llama")
    ids = prompt(1, 9)
    texts = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        texts.append(fast.generate(ids, guidance_scale=1.5, do_sample=True, max_new_tokens=NEW))
    assert torch.equal(texts[0], texts[1]) and not torch.equal(texts[0], texts[2])


@pytest.mark.parametrize("seeding", ["lefthash", "selfhash"])
def test_green_list_watermark(seeding):
    config = WatermarkingConfig(bias=6.0, greenlist_ratio=0.25, seeding_scheme=seeding)
    expected, got, fast = _both("gpt2", prompt(2, 9), watermarking_config=config, max_new_tokens=40)
    assert torch.equal(got, expected)
    found = WatermarkDetector(fast.config, "cpu", config)(got[:, 9:], return_dict=True)
    assert found.z_score.min() > 3


def test_synthid_watermark():
    config = SynthIDTextWatermarkingConfig(keys=[654, 400, 836, 123], ngram_len=3, sampling_table_size=2**8)
    plain, fast = pair("llama", eos_token_id=None)
    texts = []
    for model in (plain, fast, fast):
        torch.manual_seed(0)
        texts.append(
            model.generate(
                prompt(2, 9), do_sample=True, top_k=0, watermarking_config=config, max_new_tokens=40
            )
        )
    assert torch.equal(texts[1], texts[2])
    processor = config.construct_processor(VOCABULARY, "cpu")
    means = [processor.compute_g_values(text[:, 9:]).double().mean() for text in (*texts[:2], prompt(2, 400))]
    assert min(means[:2]) > means[2] + 0.05, means
