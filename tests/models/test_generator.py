"""Likelihoods and answers against a slow twin: one pair at a time, no padding, all logits, by hand."""

from __future__ import annotations

import itertools

import pytest
import torch
from tests.conftest import CLS, EOS, VOCABULARY, build, llama_config
from tests.tolerances import TINY_DEPTH, TINY_TERMS, assert_equal_but_rounding, assert_same_gradients
from torch import nn
from transformers import LlamaForCausalLM

from retrograd.models.generator import Generator
from retrograd.models.generator_settings import GeneratorOptions
from retrograd.types import UserError

PROMPTS = ["who is alpha", "what", "is beta gamma delta epsilon zeta eta theta ?", "what is eta ? who is iota", "what"]
TARGETS = ["beta", "alpha beta gamma delta", "", "kappa kappa", "theta iota"]
KINDS = ["tiny_seq2seq", "tiny_bart", "tiny_pointer", "tiny_causal"]


def opened(folder, **limits) -> Generator:
    return Generator.open(str(folder), torch.Generator(), None, GeneratorOptions(**limits)).eval()


@pytest.fixture(params=KINDS)
def folder(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def generator(folder) -> Generator:
    return opened(folder)


def ids_of(text: str) -> list[int]:
    return [VOCABULARY.index(word) for word in text.split()]


def prompt_tokens(generator: Generator, prompt: str) -> list[int]:
    """What the tiny tokenisers make of a prompt, written out."""
    if generator.model.config.model_type == "t5":
        return [*ids_of(prompt), EOS]
    if generator.model.config.model_type in ("bart", "encoder-decoder"):
        return [CLS, *ids_of(prompt), EOS]
    return [CLS, *ids_of(prompt), VOCABULARY.index("\n")]


def all_logits(model: nn.Module, prompt: list[int], written: list[int]):
    """Logits [len(written) + 1, V]: of each token written, and of the one after."""
    if not model.config.is_encoder_decoder:
        return model(torch.tensor([prompt + written])).logits[0, len(prompt) - 1 :]
    start = model.config.decoder_start_token_id
    return model(torch.tensor([prompt]), decoder_input_ids=torch.tensor([[start, *written]])).logits[0]


def slow_tokens(generator: Generator, prompt: str, target: str):
    """log p of each target token and of the end, one pair at a time."""
    ids = ids_of(target)
    logits = all_logits(generator.model, prompt_tokens(generator, prompt), ids)
    return logits.log_softmax(-1)[torch.arange(len(ids) + 1), torch.tensor([*ids, EOS])]


def slow_log_likelihood(generator: Generator, prompts, targets):
    return torch.stack([slow_tokens(generator, p, t).sum() for p, t in zip(prompts, targets, strict=True)])


class TestLogLikelihood:
    @pytest.mark.parametrize("token_budget", [1, 15, 16_384])
    def test_equals_the_slow_twin_in_batches_of_any_size(self, folder, token_budget):
        generator = opened(folder, token_budget=token_budget)
        expected = slow_log_likelihood(generator, PROMPTS, TARGETS)
        torch.testing.assert_close(generator.log_likelihood(PROMPTS, TARGETS), expected)

    def test_order_does_not_matter(self, generator):
        torch.testing.assert_close(
            generator.log_likelihood(PROMPTS[::-1], TARGETS[::-1]), generator.log_likelihood(PROMPTS, TARGETS).flip(0)
        )

    def test_per_token_and_where_there_is_none(self, generator):
        scores = generator.token_log_likelihood(PROMPTS, TARGETS)
        assert scores.present.sum(-1).tolist() == [2, 5, 1, 3, 3]  # the words and the end of sequence
        assert torch.equal(scores.value[~scores.present], torch.zeros(int((~scores.present).sum())))
        for prompt, target, value, present in zip(PROMPTS, TARGETS, scores.value, scores.present, strict=True):
            torch.testing.assert_close(value[present], slow_tokens(generator, prompt, target))
        torch.testing.assert_close(scores.value.sum(-1), generator.log_likelihood(PROMPTS, TARGETS))

    def test_first_tokens_share_out_one(self, generator):
        # Every word begins a target; the end of sequence is the empty target itself. No text begins with the names of
        # padding and other control tokens, whose share is read off the logits.
        tokenizer = generator.tokenizer
        special = {tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id, EOS}
        control = sorted(token for token in special if token is not None)
        targets = [word for token, word in enumerate(VOCABULARY) if token not in control] + [""]
        first = generator.token_log_likelihood(["who is alpha"] * len(targets), targets).value[:, 0]
        logits = all_logits(generator.model, prompt_tokens(generator, "who is alpha"), [])[0]
        rest = logits.softmax(-1)[[token for token in control if token != EOS]].sum()
        torch.testing.assert_close(first.exp().sum() + rest, torch.tensor(1.0))

    @pytest.mark.parametrize("token_budget", [1, 16_384])
    def test_gradient_equals_the_slow_twins(self, folder, token_budget):
        generator, twin = opened(folder, token_budget=token_budget), opened(folder)
        weight = torch.tensor([0.5, -1.0, 2.0, 0.0, 1.5])
        (generator.log_likelihood(PROMPTS, TARGETS) @ weight).backward()
        (slow_log_likelihood(twin, PROMPTS, TARGETS) @ weight).backward()
        assert next(twin.parameters()).grad.abs().sum() > 0
        gradients, wanted = ([weight.grad for weight in model.parameters()] for model in (generator, twin))
        assert_same_gradients(gradients, wanted, TINY_TERMS, TINY_DEPTH)

    def test_sums_in_fp32_under_autocast(self, generator):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert generator.log_likelihood(PROMPTS, TARGETS).dtype == torch.float32

    def test_no_pairs(self, generator):
        assert generator.log_likelihood([], []).shape == (0,)
        assert generator.generate([]) == []

    def test_as_many_prompts_as_targets(self, generator):
        with pytest.raises(ValueError, match="2 prompts but 1 targets"):
            generator.log_likelihood(["what", "who"], ["alpha"])

    def test_an_error_leaves_no_hook_behind(self, generator):
        expected = generator.log_likelihood(PROMPTS, TARGETS)
        layer = generator.model.get_output_embeddings()

        def fail(*_):
            raise KeyError("interrupted")

        handle = layer.register_forward_hook(fail)
        with pytest.raises(KeyError, match="interrupted"):
            generator.log_likelihood(PROMPTS, TARGETS)
        handle.remove()
        assert not layer._forward_pre_hooks
        assert torch.equal(generator.log_likelihood(PROMPTS, TARGETS), expected)


class TestLimits:
    def test_the_separator_survives_truncation(self, tiny_causal):
        generator = opened(tiny_causal, max_input_tokens=5)
        cut = [CLS, *ids_of("alpha beta gamma"), VOCABULARY.index("\n")]
        expected = (
            all_logits(generator.model, cut, ids_of("eta")).log_softmax(-1)[[0, 1], [ids_of("eta")[0], EOS]].sum()
        )
        found = generator.log_likelihood(["alpha beta gamma delta epsilon"], ["eta"])
        torch.testing.assert_close(found, expected[None])

    def test_prompts_are_cut_at_the_end(self, folder):
        generator = opened(folder, max_input_tokens=5)
        kept = {"t5": 4, "bart": 3, "encoder-decoder": 3, "llama": 3}[generator.model.config.model_type]
        words = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta"]
        found = generator.log_likelihood([" ".join(words)], ["eta"])
        torch.testing.assert_close(found, slow_log_likelihood(generator, [" ".join(words[:kept])], ["eta"]))

    def test_targets_are_cut_at_the_end_and_still_end(self, folder):
        generator = opened(folder, max_target_tokens=3)
        found = generator.token_log_likelihood(["what"], ["alpha beta gamma delta"])
        torch.testing.assert_close(found.value[0], slow_tokens(generator, "what", "alpha beta"))

    def test_prompt_and_target_together_fit_a_causal_models_positions(self, tiny_causal):
        generator = opened(tiny_causal, max_input_tokens=4_096, max_target_tokens=20)
        assert generator.options.max_input_tokens == 128 - 20
        assert opened(tiny_causal, max_input_tokens=9).options.max_input_tokens == 9

    def test_a_seq2seq_prompt_fits_its_encoders_positions_if_it_has_any(self, tiny_bart, tiny_seq2seq):
        assert opened(tiny_bart, max_input_tokens=4_096).options.max_input_tokens == 128
        assert opened(tiny_seq2seq, max_input_tokens=4_096).options.max_input_tokens == 4_096

    @pytest.mark.parametrize("limits", [{"max_input_tokens": 2}, {"max_target_tokens": 127}])
    def test_a_prompt_needs_room(self, tiny_causal, limits):
        with pytest.raises(UserError, match="this model needs at least 3 for a prompt: raise max_input"):
            opened(tiny_causal, **limits)

    @pytest.mark.parametrize("name", ["max_input_tokens", "max_target_tokens", "token_budget"])
    def test_limits_are_positive(self, tiny_seq2seq, name):
        with pytest.raises(UserError, match=f"{name}.*at least"):
            opened(tiny_seq2seq, **{name: -1})

    def test_an_end_that_the_tokeniser_appends_does_not_end_a_causal_prompt(self, tiny_causal, tmp_path):
        ending = opened(build(tmp_path, lambda: LlamaForCausalLM(llama_config()), "[CLS] $A </s>"))
        expected = opened(tiny_causal).log_likelihood(PROMPTS, TARGETS)
        torch.testing.assert_close(ending.log_likelihood(PROMPTS, TARGETS), expected)

    def test_an_empty_prompt_without_separator(self, tmp_path):
        folder = build(tmp_path, lambda: LlamaForCausalLM(llama_config()), "$A")
        plain = opened(folder)
        generator = Generator(plain.model, plain.tokenizer, GeneratorOptions(separator=""))
        found = generator.token_log_likelihood([""], ["alpha beta"]).value[0]
        logits = generator.model(torch.tensor([[EOS, *ids_of("alpha beta")]])).logits[0].log_softmax(-1)
        torch.testing.assert_close(found, logits[torch.arange(3), torch.tensor([*ids_of("alpha beta"), EOS])])


class TestGenerate:
    @staticmethod
    def by_hand(generator: Generator, prompt: str, most: int) -> str:
        written: list[int] = []
        while len(written) < most:
            best = int(all_logits(generator.model, prompt_tokens(generator, prompt), written)[-1].argmax())
            if best == EOS:
                break
            written.append(best)
        return generator.tokenizer.decode(written, skip_special_tokens=True).strip()

    @pytest.mark.parametrize("token_budget", [1, 16_384])
    def test_greedy_equals_argmax_step_by_step_however_prompts_are_padded(self, folder, token_budget):
        generator = opened(folder, token_budget=token_budget)
        expected = [self.by_hand(generator, prompt, 6) for prompt in PROMPTS]
        assert generator.generate(PROMPTS, max_new_tokens=6) == expected
        assert len(set(expected)) > 1

    def test_stops_at_the_end_of_sequence(self, generator):
        prompt = prompt_tokens(generator, "who is alpha")
        generator.end = int(all_logits(generator.model, prompt, [])[-1].argmax())  # what it would say first
        # The end is written as the word it stands for here, then nothing more.
        assert generator.generate(["who is alpha"], max_new_tokens=5) == [
            generator.tokenizer.decode([generator.end], skip_special_tokens=True)
        ]

    def test_likelihood_and_answers_begin_with_the_token_that_generation_config_names(self, tiny_seq2seq):
        generator, usual = opened(tiny_seq2seq), opened(tiny_seq2seq)
        other = VOCABULARY.index("[UNK]")  # special, so that no answer shows it
        generator.model.config.decoder_start_token_id = None
        generator.model.generation_config.decoder_start_token_id = other
        usual.model.config.decoder_start_token_id = other  # by_hand reads this one
        assert generator.generate(PROMPTS, 4) == [self.by_hand(usual, prompt, 4) for prompt in PROMPTS]
        expected = torch.stack([slow_tokens(usual, p, t).sum() for p, t in zip(PROMPTS, TARGETS, strict=True)])
        torch.testing.assert_close(generator.log_likelihood(PROMPTS, TARGETS), expected)

    @pytest.mark.parametrize("limit", [2, 4])
    def test_what_is_written_is_scored_token_for_token(self, folder, limit):
        """The last of a target's tokens is its end, so that a text which is cut has one token less."""
        generator = opened(folder, max_target_tokens=limit)
        texts = generator.generate(PROMPTS)
        assert texts == [self.by_hand(generator, prompt, limit - 1) for prompt in PROMPTS]
        assert [generator.tokenizer.decode(ids[:-1]) for ids in generator.target_ids(texts)] == texts

    def test_a_target_of_its_end_alone_is_written_without_words(self, folder):
        assert opened(folder, max_target_tokens=1).hypotheses(PROMPTS, 2) == [["", ""]] * len(PROMPTS)

    def test_a_text_that_takes_more_tokens_than_it_was_written_in_is_cut_to_what_is_scored(self, folder):
        """Other tokens of the same text may be more."""
        generator = opened(folder, max_target_tokens=4)
        decode = generator.tokenizer.batch_decode
        generator.tokenizer.batch_decode = lambda *given, **named: [
            text + " alpha beta delta gamma" for text in decode(*given, **named)
        ]
        for text in generator.generate(PROMPTS):
            (ids,) = generator.target_ids([text])
            assert generator.tokenizer.decode(ids[:-1]) == text

    def test_with_as_many_beams_as_words_two_tokens_are_searched_exhaustively(self, generator):
        prompt = prompt_tokens(generator, "what")
        first = all_logits(generator.model, prompt, [])[-1].log_softmax(-1)
        value = {(EOS,): first[EOS].item()}
        for word in range(len(VOCABULARY)):
            if word != EOS:
                second = all_logits(generator.model, prompt, [word])[-1].log_softmax(-1)
                value |= {(word, nxt): (first[word] + second[nxt]).item() for nxt in range(len(VOCABULARY))}
        best = max(value, key=lambda ids: value[ids] / len(ids))
        found = generator.generate(["what"], max_new_tokens=2, beams=len(VOCABULARY))
        assert found == [generator.tokenizer.decode(list(best), skip_special_tokens=True)]

    def test_nothing_but_likelihood_decides_whatever_the_model_was_published_with(self, generator):
        expected = generator.hypotheses(PROMPTS, 2, max_new_tokens=6)
        own = generator.model.generation_config
        own.repetition_penalty, own.no_repeat_ngram_size, own.min_length, own.length_penalty = 3.0, 1, 6, 5.0
        own.forced_bos_token_id, own.suppress_tokens = VOCABULARY.index("beta"), [VOCABULARY.index("alpha")]
        assert generator.hypotheses(PROMPTS, 2, max_new_tokens=6) == expected
        assert generator.model.generation_config is own  # and is saved as it came

    def test_no_dropout(self, generator):
        expected = generator.generate(PROMPTS, max_new_tokens=6)
        for part in generator.modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.5
        generator.train()
        assert generator.generate(PROMPTS, max_new_tokens=6) == expected
        assert generator.model.training


class TestDisk:
    def test_saved_and_loaded_is_the_same(self, folder, tmp_path):
        plain = opened(folder)
        first = Generator(plain.model, plain.tokenizer, GeneratorOptions(7, 4, 40, " ? "))
        first.save(tmp_path)
        again = Generator.load(tmp_path, "unused").eval()
        assert again.options == first.options == GeneratorOptions(7, 4, 40, " ? ")
        assert_equal_but_rounding(again.log_likelihood(PROMPTS, TARGETS), first.log_likelihood(PROMPTS, TARGETS))
        assert not list(tmp_path.rglob("*.bin"))
        assert len({path.stat().st_mode for path in tmp_path.iterdir() if path.is_file()}) == 1

    def test_wrongly_edited_settings(self, tiny_seq2seq, tmp_path):
        opened(tiny_seq2seq).save(tmp_path)
        settings = tmp_path / "generator.json"
        settings.write_text(settings.read_text().replace('"token_budget"', '"token_budgte"'))
        with pytest.raises(
            UserError, match=r"generator\.json: unknown key 'token_budgte'; did you mean 'token_budget'"
        ):
            Generator.load(tmp_path, "unused")

    def test_a_folder_without_settings(self, tmp_path):
        with pytest.raises(UserError, match=r"no such file: .*generator\.json"):
            Generator.load(tmp_path, "unused")


def test_names_of_control_tokens_inside_a_target_are_text(generator: Generator) -> None:
    """A target that says </s> ends at its own end: else what follows is scored behind the end of the sequence."""
    tokenizer = generator.tokenizer
    control = {tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id, EOS}
    names = [tokenizer.convert_ids_to_tokens(token) for token in control if token is not None]
    for name in names:
        (plain, typed) = generator.target_ids(["alpha beta", f"alpha {name} beta"])
        assert typed[-1] == EOS
        assert control.isdisjoint(typed[:-1])
        assert [token for token in typed if token in plain] == plain


@pytest.mark.parametrize("kind", ["tiny_seq2seq", "tiny_causal", "tiny_pointer"])
def test_a_text_is_followed_token_by_token(kind: str, request: pytest.FixtureRequest, rng: torch.Generator) -> None:
    generator = Generator.open(str(request.getfixturevalue(kind)), rng)
    expected = generator.generate(["what holds tea ?"], 6)
    seen: list[str] = []
    with generator.followed_by(seen.append):
        assert generator.generate(["what holds tea ?"], 6) == expected
    assert seen[-1] == expected[0]
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(seen))
    generator.generate(["what holds tea ?"], 6)
    with generator.followed_by(seen.append), pytest.raises(ValueError, match=r"streamer|beam"):
        generator.generate(["what holds tea ?"], 6, beams=2)
