"""The pointer generator: its equations by hand, what cannot be copied, and that it learns to read."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree

import pytest
import torch
from tests.conftest import VOCABULARY, bert_config
from tests.tolerances import assert_equal_but_rounding
from torch import Tensor
from transformers import BertConfig, BertLMHeadModel, BertModel, EncoderDecoderConfig, EncoderDecoderModel

from retrograd.models.generator import Generator
from retrograd.models.generator_settings import GeneratorOptions
from retrograd.models.inputs.soft_input import SoftTokens
from retrograd.models.loading.lora import Lora
from retrograd.models.pointer import PointerGenerator, generator_class
from retrograd.types import UserError

PROMPT = "the cup holds tea and the box holds the rain".replace("and", "|")


def opened(folder: Path) -> Generator:
    return Generator.open(str(folder), torch.Generator(), None, GeneratorOptions(max_target_tokens=4)).eval()


@pytest.fixture
def generator(tiny_pointer: Path) -> Generator:
    return opened(tiny_pointer)


def by_hand(model: PointerGenerator, prompt: list[int], written: list[int]) -> Tensor:
    """p [len(written), V], token by token and copy by copy."""
    encoder, decoder = model.encoder, model.decoder
    read = encoder(input_ids=torch.tensor([prompt])).last_hidden_state[0, :, :16]
    hidden = decoder.bert(torch.tensor([written]), encoder_hidden_states=read[None]).last_hidden_state[0]
    rows = []
    for h in hidden:
        words = torch.nn.functional.linear(
            decoder.cls.predictions.transform(h),
            decoder.bert.embeddings.word_embeddings.weight,
            decoder.cls.predictions.bias,
        ).softmax(-1)
        scores = torch.stack([decoder.copy_query(h) @ decoder.copy_key(one) for one in read]) / 4  # √16
        gate = torch.sigmoid(decoder.copy_gate(h))[0]
        p = (1 - gate) * words
        for share, token in zip(scores.softmax(0), prompt, strict=True):
            p[token] = p[token] + gate * share
        rows.append(p)
    return torch.stack(rows)


def test_it_is_see_et_al_equations(generator: Generator) -> None:
    prompt = generator.tokenizer(PROMPT)["input_ids"]
    assert len(set(prompt)) < len(prompt)  # words that stand there twice and three times
    written = [2, VOCABULARY.index("tea"), VOCABULARY.index("alpha")]
    model = generator.model
    found = model(torch.tensor([prompt]), decoder_input_ids=torch.tensor([written])).logits[0]
    expected = by_hand(model, prompt, written)
    torch.testing.assert_close(found.exp(), expected)
    torch.testing.assert_close(expected.sum(-1), torch.ones(3))
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    tokens = torch.tensor([VOCABULARY.index(word) for word in ("tea", "the", "kappa")])
    both = [one[torch.arange(3), tokens].sum() for one in (found, expected.log())]
    grads = [torch.autograd.grad(one, weights, allow_unused=True) for one in both]
    names = [name for name, weight in model.named_parameters() if weight.requires_grad]
    assert all(grad is not None for name, grad in zip(names, grads[0], strict=True) if "copy" in name)
    for left, right in zip(*grads, strict=True):
        if right is not None:
            torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)


def test_what_is_no_token_is_not_copied(generator: Generator) -> None:
    """Soft input, and nothing else: the vocabulary alone, normalised, with finite gradients."""
    embedding = torch.randn(1, 3, 16, generator=torch.Generator().manual_seed(0), requires_grad=True)
    model = generator.model
    found = model(inputs_embeds=embedding, decoder_input_ids=torch.tensor([[2]])).logits[0, 0]
    hidden = model.decoder.bert(
        torch.tensor([[2]]),
        encoder_hidden_states=model.encoder(inputs_embeds=embedding).last_hidden_state[..., :16],
    ).last_hidden_state
    written = model.decoder.cls.predictions.decoder
    words = torch.nn.functional.linear(
        model.decoder.cls.predictions.transform(hidden)[0, 0], written.weight, written.bias
    )
    torch.testing.assert_close(found, words.log_softmax(-1))
    found[7].backward()
    assert embedding.grad is not None
    assert all(weight.grad.isfinite().all() for weight in model.parameters() if weight.grad is not None)


def test_beside_soft_input_there_is_no_copy_of_the_prompt_either(generator: Generator) -> None:
    """The prompt is then read as embeddings too; said here so that a change of it is seen."""
    soft = SoftTokens(torch.zeros(1, 1, 16), torch.zeros(1, 1, dtype=torch.bool))  # takes no room
    with torch.no_grad():
        plain, beside = (generator.log_likelihood(["what holds tea"], ["tea"], one) for one in (None, soft))
    assert abs(float(plain - beside)) > 1e-3


def two_berts(read: dict[str, int], written: dict[str, int] | None = None) -> EncoderDecoderConfig:
    """Of the tiny size, with changes."""
    plain = bert_config().to_dict()
    decoder = BertConfig(**(plain | (read if written is None else written) | {"is_decoder": True}))
    decoder.add_cross_attention = True
    return EncoderDecoderConfig.from_encoder_decoder_configs(BertConfig(**(plain | read)), decoder)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
def test_which_token_stands_where_survives_every_float_type(kind: torch.dtype) -> None:
    with torch.random.fork_rng(devices=[]):
        model = PointerGenerator(two_berts({"vocab_size": 65_535})).eval()
    ids = torch.tensor([[0, 254, 255, 256, 511, 512, 30_521, 65_534, 254, 0]])
    with torch.autocast("cpu", kind, enabled=kind != torch.float32):
        read = model.encoder(input_ids=ids).last_hidden_state.to(kind)
        states = model.decoder._copy_states(torch.zeros(1, 1, 16), read[..., :16], read[..., 16:], None)
    assert torch.equal(states.token, ids[:, None])
    assert states.first[0, 0].tolist() == [True] * 8 + [False] * 2
    torch.testing.assert_close(states.share[states.first].sum(), torch.tensor(1.0))


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_under_autocast_the_same_is_copied(kind: torch.dtype, generator: Generator) -> None:
    prompt = torch.tensor([generator.tokenizer(PROMPT)["input_ids"]])
    start = torch.tensor([[2]])
    expected = generator.model(prompt, decoder_input_ids=start).logits
    with torch.autocast("cpu", kind):
        found = generator.model(prompt, decoder_input_ids=start).logits
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.15)
    torch.testing.assert_close(found.exp().sum(), torch.tensor(1.0))


def test_made_of_a_plain_model_it_has_its_weights_and_draws_nothing() -> None:
    settings = bert_config().to_dict() | {"is_decoder": True, "add_cross_attention": True}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        encoder, decoder = BertModel(bert_config(), add_pooling_layer=False), BertLMHeadModel(BertConfig(**settings))
    config = EncoderDecoderConfig.from_encoder_decoder_configs(encoder.config, decoder.config)
    plain = EncoderDecoderModel(config=config, encoder=encoder, decoder=decoder).eval()
    before = torch.get_rng_state()
    made = PointerGenerator.copy_from(plain).eval()
    assert torch.equal(torch.get_rng_state(), before)
    weights = made.state_dict()
    assert all(torch.equal(weights[name], weight) for name, weight in plain.state_dict().items())
    assert {name.split(".")[1] for name in weights if name not in plain.state_dict()} == {
        "copy_query",
        "copy_key",
        "copy_gate",
    }
    prompt, start = torch.tensor([[5, 6, 7]]), torch.tensor([[2]])
    mixed, alone = (one(prompt, decoder_input_ids=start).logits[0, 0] for one in (made, plain))
    absent = 9  # half of it is left, for no copy of it is there
    torch.testing.assert_close(mixed[absent].exp(), alone.softmax(-1)[absent] / 2)


def test_saved_it_is_opened_as_what_it_is(generator: Generator, tmp_path: Path) -> None:
    generator.save(tmp_path)
    again = opened(tmp_path)
    assert generator_class(again.model.config) is PointerGenerator
    assert isinstance(again.model, PointerGenerator)
    assert_equal_but_rounding(again.log_likelihood([PROMPT], ["tea"]), generator.log_likelihood([PROMPT], ["tea"]))
    output = again.model.get_output_embeddings().weight
    assert output is again.model.decoder.get_input_embeddings().weight  # still tied


def rewritten(folder: Path, place: Path, **changes: object) -> Path:
    copytree(folder, place)
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(config | changes))
    return place


def test_another_model_that_bears_its_name_is_opened_as_what_it_is(tiny_seq2seq: Path, tmp_path: Path) -> None:
    claims = rewritten(tiny_seq2seq, tmp_path / "t5", architectures=["PointerGenerator"])
    assert type(opened(claims).model) is type(opened(tiny_seq2seq).model)


def test_a_folder_that_cannot_be_one_says_so(tiny_pointer: Path, tmp_path: Path) -> None:
    broken = rewritten(tiny_pointer, tmp_path / "broken", encoder={"model_type": "t5"})
    with pytest.raises(UserError, match="made of two BERTs, not of T5Config and BertConfig"):
        opened(broken)


@pytest.mark.parametrize(
    ("read", "written", "message"),
    [
        (
            {"vocab_size": 2**16},
            None,
            "supports up to 65535 tokens, and the vocabulary has 65536; name another model",
        ),
        ({}, {"hidden_size": 8}, "tokens and width 16, the decoder .* and 8; a pointer generator needs equal ones"),
        ({}, {"vocab_size": 20}, "the decoder 20 and 16; a pointer generator needs equal ones"),
    ],
)
def test_berts_that_cannot_copy_are_refused(read: dict[str, int], written: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        PointerGenerator(two_berts(read, written))


def test_a_folder_that_lost_its_name_says_how_to_correct_it(tiny_pointer: Path, tmp_path: Path) -> None:
    lost = rewritten(tiny_pointer, tmp_path / "lost", architectures=None)
    with pytest.raises(UserError, match=r'correct it: "architectures": \["PointerGenerator"\]'):
        opened(lost)


def test_adapters_learn_to_copy_whatever_they_are_named_for(tiny_pointer: Path) -> None:
    """A word that is not in the prompt can only be said by copying less than half."""
    source = torch.Generator().manual_seed(0)
    generator = Generator.open(str(tiny_pointer), source, Lora(rank=2, modules=("query",))).eval()
    with torch.no_grad():
        generator.model.decoder.begin_copying()
    gates: list[Tensor] = []
    generator.model.decoder.copy_gate.register_forward_hook(lambda *call: gates.append(call[-1].detach().sigmoid()))
    optimiser = torch.optim.AdamW([weight for weight in generator.parameters() if weight.requires_grad], lr=0.02)
    for _ in range(60):
        optimiser.zero_grad()
        (-generator.log_likelihood(["what holds tea"], ["alpha"])).sum().backward()
        optimiser.step()
    assert float(gates[0][0, 0, 0]) == 0.5
    assert float(gates[-1][0, 0, 0]) < 0.1


def test_it_learns_to_say_words_that_no_target_ever_had(tiny_pointer: Path, tmp_path: Path) -> None:
    """What the prompt says after "is": learned on some words, asked of others, which only reading can tell."""
    words = [word for word in VOCABULARY if word.isalpha() and len(word) > 3]
    seen, unseen = words[:-8], words[-8:]
    generator = opened(tiny_pointer)
    optimiser = torch.optim.AdamW(generator.parameters(), lr=3e-3)
    prompts = [f"what {seen[-1 - i]} is {word} ?" for i, word in enumerate(seen)]
    for _ in range(60):
        optimiser.zero_grad()
        (-generator.log_likelihood(prompts, seen).mean()).backward()
        optimiser.step()
    asked = [f"what {seen[i]} is {word} ?" for i, word in enumerate(unseen)]
    assert sum(said == word for said, word in zip(generator.generate(asked), unseen, strict=True)) >= 6
