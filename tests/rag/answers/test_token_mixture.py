"""Answers of a model that mixes passages token by token: against loops over tokens, and over every text there is."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.conftest import VOCABULARY
from tests.rag.test_open_objectives import BASE, EXAMPLES, build
from torch import Tensor

from retrograd.experiments.build import derive_model_settings
from retrograd.experiments.experiment import Experiment
from retrograd.models.constrained.token_mixture import PromptMixture
from retrograd.models.generator import Generator
from retrograd.models.generator_settings import GeneratorOptions
from retrograd.objectives import CandidateScores, TopKMarginal
from retrograd.rag.answers.answering import Answering
from retrograd.rag.answers.manner import Manner, Marginal
from retrograd.rag.answers.token_mixture import score_by_tokens, write_by_tokens
from retrograd.rag.answers.written import write_answers
from retrograd.rag.candidates import Candidates
from retrograd.rag.rag_model import RagModel
from retrograd.tasks.question_answering import QuestionAnswering
from retrograd.types import Example

PROMPTS = ["who is alpha", "what", "is beta gamma delta ?", "what is eta ?", "the cup holds tea"]
WHERE = torch.tensor([[0, 1, 2], [3, 4, 3], [1, 2, 4]])
LOG_WEIGHT = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.7, 0.0, 0.3]]).log()
CHOICES = [
    ("beta", "beta gamma", "beta gamma delta", "cup holds tea"),
    ("delta eta theta", "", "delta eta iota"),
    ("rain caused flood",),
]
BY_TOKENS = Answering(Manner(mixture="tokens"))
ABSOLUTE = 2e-5
"""Nats: sums over 60 words and a width of 16, a dozen layers deep, of tokens whose log-probabilities reach 10."""


@pytest.fixture(params=["tiny_seq2seq", "tiny_bart", "tiny_causal"])
def generator(request: pytest.FixtureRequest) -> Generator:
    folder = request.getfixturevalue(request.param)
    return Generator.open(str(folder), torch.Generator(), None, GeneratorOptions(max_target_tokens=6)).eval()


def mixed_tokens(generator: Generator, prompts: Sequence[int], log_weight: Tensor, text: str) -> Tensor:
    """Return log Σ_k p̃_k p(y_t|z_k) of each token, by one forward pass over one pair at a time."""
    with torch.no_grad():
        rows = [generator.token_log_likelihood([PROMPTS[p]], [text]).value[0] for p in prompts]
    return (torch.stack(rows) + log_weight.unsqueeze(-1)).logsumexp(dim=0)


def test_a_choice_is_the_product_of_its_mixed_tokens(generator: Generator) -> None:
    found = score_by_tokens(generator, PROMPTS, WHERE, CHOICES, LOG_WEIGHT)
    for own, weight, choices, joint in zip(WHERE.tolist(), LOG_WEIGHT, CHOICES, found, strict=True):
        expected = torch.stack([mixed_tokens(generator, own, weight, text).sum() for text in choices])
        torch.testing.assert_close(joint.logsumexp(dim=0), expected, rtol=0, atol=ABSOLUTE)
        assert torch.equal(joint == -torch.inf, (weight == -torch.inf).unsqueeze(-1).expand_as(joint))


def test_a_passage_has_its_mean_responsibility_over_the_tokens(generator: Generator) -> None:
    (joint,) = score_by_tokens(generator, PROMPTS, WHERE[:1], CHOICES[:1], LOG_WEIGHT[:1])
    with torch.no_grad():
        rows = [generator.token_log_likelihood([PROMPTS[p]], [CHOICES[0][3]]).value[0] for p in WHERE[0].tolist()]
    expected = (torch.stack(rows) + LOG_WEIGHT[0].unsqueeze(-1)).softmax(dim=0).mean(dim=-1)
    torch.testing.assert_close(joint[:, 3].softmax(dim=0), expected, rtol=0, atol=ABSOLUTE)


def test_the_tree_of_the_mixture_sums_to_one_and_is_the_mixture_renormalised(generator: Generator) -> None:
    """Renormalised after mixing: at each prefix, the mixture's probabilities of the tokens that may follow."""
    choices = ("beta gamma", "beta delta", "cup")
    found = score_by_tokens(generator, PROMPTS, WHERE[:1], [choices], LOG_WEIGHT[:1], "tree")[0].logsumexp(dim=0)
    assert found.logsumexp(dim=0).item() == pytest.approx(0.0, abs=ABSOLUTE)
    tokens = {text: mixed_tokens(generator, WHERE[0].tolist(), LOG_WEIGHT[0], text) for text in choices}
    first = torch.stack([tokens["beta gamma"][0], tokens["cup"][0]]).log_softmax(dim=0)
    second = torch.stack([tokens["beta gamma"][1], tokens["beta delta"][1]]).log_softmax(dim=0)
    expected = torch.stack([first[0] + second[0], first[0] + second[1], first[1]])
    torch.testing.assert_close(found, expected, rtol=0, atol=ABSOLUTE)


def test_one_choice_of_a_tree_is_certain_and_weighs_passages_as_the_prior(generator: Generator) -> None:
    (joint,) = score_by_tokens(generator, PROMPTS, WHERE[2:], CHOICES[2:], LOG_WEIGHT[2:], "tree")
    torch.testing.assert_close(joint.squeeze(-1), LOG_WEIGHT[2])


def greedy(generator: Generator, prompts: Sequence[int], log_weight: Tensor) -> list[str]:
    """Write word by word: score every continuation of the text so far by the mixture, and take the best."""
    words = [word for word in VOCABULARY if not word.startswith(("[", "<", "\n"))]
    text: list[str] = []
    for _ in range(generator.options.max_target_tokens - 1):  # the last token is the end
        texts = [" ".join(text), *(" ".join([*text, word]) for word in words)]
        pairs = [(PROMPTS[p], one) for p in prompts for one in texts]
        with torch.no_grad():
            scores = generator.token_log_likelihood(*zip(*pairs, strict=True)).value[:, len(text)]
        best = int((scores.view(len(prompts), -1) + log_weight.unsqueeze(-1)).logsumexp(dim=0).argmax())
        if best == 0:
            return text
        text.append(words[best - 1])
    return text


@pytest.fixture
def _words_alone(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the search from special tokens, which no text has."""
    write = generator.model.generate
    banned = [[token] for token in range(6) if token != generator.end]
    monkeypatch.setattr(generator.model, "generate", lambda **named: write(**named, bad_words_ids=banned))


@pytest.mark.usefixtures("_words_alone")
def test_greedy_writing_takes_the_best_token_of_the_mixture(generator: Generator) -> None:
    for b, answer in enumerate(write_by_tokens(generator, PROMPTS, WHERE, LOG_WEIGHT, "thorough")):
        present = (LOG_WEIGHT[b] > -torch.inf).tolist()
        prompts = [p for p, is_read in zip(WHERE[b].tolist(), present, strict=True) if is_read]
        weight = LOG_WEIGHT[b][LOG_WEIGHT[b] > -torch.inf]
        assert answer.answer.split() == greedy(generator, prompts, weight)
        expected = mixed_tokens(generator, prompts, weight, answer.answer).sum()
        assert answer.log_probability == pytest.approx(expected.item(), abs=ABSOLUTE)
        assert answer.joint.logsumexp(dim=0).item() == pytest.approx(answer.log_probability, abs=ABSOLUTE)


@pytest.mark.parametrize("marginal", ["thorough", "fast", "best"])
def test_beams_of_the_mixture_are_those_of_one_prompt_given_twice(generator: Generator, marginal: Marginal) -> None:
    """A mixture of equal prompts is the prompt: the search and the score are those of one passage."""
    where, weight = torch.tensor([[2, 2], [3, 3]]), torch.tensor([[0.3, 0.7], [0.6, 0.4]]).log()
    found = write_by_tokens(generator, PROMPTS, where, weight, marginal, beams=3)
    alone = write_answers(generator, PROMPTS, where[:, :1], torch.zeros(2, 1), marginal, beams=3)
    for one, other in zip(found, alone, strict=True):
        assert one.log_probability == pytest.approx(other.log_probability, abs=ABSOLUTE)
    assert [one.answer for one in found] == [one.answer for one in alone]


@pytest.mark.parametrize("beams", [1, 3])
def test_all_prompts_of_a_query_are_continued_by_the_same_tokens(
    generator: Generator, beams: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[Tensor] = []
    write = generator._write
    monkeypatch.setattr(generator, "_write", lambda *given: rows.append(write(*given)) or rows[-1])
    mixtures = [PromptMixture((0, 2, 4), (-1.0, -2.0, math.log(1 - math.exp(-1) - math.exp(-2))))]
    together = generator.mixture_hypotheses(PROMPTS, [*mixtures, PromptMixture((1,), (0.0,))], beams)
    blocks = [block for whole in rows for block in whole.split(beams)]
    same = [block for block in blocks if any(torch.equal(block, other) for other in blocks if other is not block)]
    assert len(same) >= 3
    assert together[0] == generator.mixture_hypotheses(PROMPTS, mixtures, beams)[0]  # whatever else is in the batch


def test_an_objective_says_how_passages_are_mixed() -> None:
    """By its contract: by tokens in the token form alone, unless a second stage trains on whole targets."""
    token = Experiment(objective=TopKMarginal(form="token"))
    assert derive_model_settings(token).answering.manner == Manner(mixture="tokens")
    assert derive_model_settings(Experiment(objective=TopKMarginal())).answering.manner == Manner()
    second = token.replace(second_stage={"epochs": 1, "reading": "singly"})
    assert derive_model_settings(second).answering.manner == Manner()


class Colours(QuestionAnswering):
    """Questions with a closed set of answers."""

    def choices_for(self, example: Example) -> tuple[str, ...]:
        return ("the cup", "rain", "the wheel of car", "nothing")


@pytest.fixture(params=["tiny_seq2seq", "tiny_causal"])
def model(request: pytest.FixtureRequest, tiny_encoder: Path) -> RagModel:
    built = build(tiny_encoder, request.getfixturevalue(request.param))
    own = RagModel(built.retriever, built.generator, Colours(), built.base, answering=BY_TOKENS)
    own.eval().refresh_index()
    return own


def test_a_model_answers_a_closed_set_by_the_likelihood_it_was_trained_on(model: RagModel) -> None:
    """With every passage a candidate, the objective's loss on each choice is what answering makes of it."""
    scores = model.choice_scores(EXAMPLES, len(BASE))
    assert scores is not None
    for example, own in zip(EXAMPLES, scores, strict=True):
        claims = [replace(example, targets=(choice,)) for choice in own.choices]
        candidates = model.retrieve(claims, len(BASE))
        expected = []
        for b in range(len(claims)):
            prior = CandidateScores(candidates.scores.log_prior[b : b + 1])
            one = Candidates(candidates.rows[b : b + 1], prior)
            with torch.no_grad():
                estimate = TopKMarginal("token")(prior, model.likelihood(claims[b : b + 1], one), torch.Generator())
            expected.append(-estimate.loss)
        torch.testing.assert_close(own.log_probability, torch.stack(expected).log_softmax(0), rtol=0, atol=ABSOLUTE)


def test_predictions_follow_the_mixture_and_are_kept_on_disk(model: RagModel, tmp_path: Path) -> None:
    """A closed set, chosen and written, opened again; the sequence form of the same model says something else."""
    chosen = model.predict(EXAMPLES, 3)
    model.use_answering(Answering(replace(BY_TOKENS.manner, answers="written", beams=2)))
    written = model.predict(EXAMPLES, 3)
    model.save(tmp_path / "model")
    again = RagModel.load(tmp_path / "model", Colours(), model.base).eval()
    assert again.answering == model.answering
    assert again.predict(EXAMPLES, 3) == written
    model.use_answering(Answering())
    other = model.predict(EXAMPLES, 3)
    assert [p.log_probability for p in other] != [p.log_probability for p in chosen]
    assert all(sum(p.weights) == pytest.approx(1.0, abs=1e-5) for p in [*chosen, *written])


def test_a_model_without_the_setting_answers_as_it_did(model: RagModel, tmp_path: Path) -> None:
    """Models of earlier versions say nothing of the mixture: theirs is that of whole answers."""
    model.save(tmp_path / "model")
    path = tmp_path / "model" / "model.json"
    record = json.loads(path.read_text())
    del record["manner"]["mixture"]
    path.write_text(json.dumps(record))
    assert RagModel.load(tmp_path / "model", Colours(), model.base).answering.manner == Manner()
