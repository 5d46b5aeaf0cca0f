"""Which of the answers written from several passages is given: against loops over passages and texts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from retrograd.models.generator import Generator
from retrograd.models.generator_settings import GeneratorOptions
from retrograd.models.inputs.fusion import FusedPrompt
from retrograd.rag.answers.manner import Manner, Marginal
from retrograd.rag.answers.written import WrittenAnswer, write_answers
from retrograd.types import UserError

PROMPTS = ["who is alpha", "what", "is beta gamma delta ?", "what is eta ?", "the cup holds tea"]
WHERE = torch.tensor([[0, 1, 2], [3, 4, 3], [1, 2, 4]])
LOG_WEIGHT = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.7, 0.0, 0.3]]).log()
KINDS = ["tiny_seq2seq", "tiny_causal"]
LENGTHS = {
    "who is alpha": ["beta", "cup holds tea"],
    "what": ["cup", "beta"],
    "is beta gamma delta ?": ["delta eta theta iota kappa", "in"],
    "what is eta ?": ["rain caused flood", ""],
    "the cup holds tea": ["car", "wheel of car"],
}
"""What a random model would hardly write: texts of many lengths."""


@pytest.fixture(params=KINDS)
def generator(request: pytest.FixtureRequest) -> Generator:
    folder = request.getfixturevalue(request.param)
    return Generator.open(str(folder), torch.Generator(), None, GeneratorOptions(max_target_tokens=6)).eval()


@pytest.fixture
def _given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Generator, "hypotheses", lambda self, p, beams, soft=None: [LENGTHS[one][:beams] for one in p])


@torch.no_grad()
def by_hand(generator: Generator, marginal: Marginal, beams: int) -> list[tuple[dict[str, float], dict[str, float]]]:
    """One pair at a time: of each text what it is judged by, and log p."""
    found = []
    for own, weights in zip(WHERE.tolist(), LOG_WEIGHT.tolist(), strict=True):
        total: dict[str, float] = {}
        pick: dict[str, float] = {}
        wrote = {
            p: generator.hypotheses([PROMPTS[p]], beams)[0][: 1 if marginal == "best" else beams]
            for p, weight in zip(own, weights, strict=True)
            if weight > -torch.inf
        }
        for text in {text for texts in wrote.values() for text in texts}:
            for p, weight in zip(own, weights, strict=True):
                if p not in wrote or (marginal != "thorough" and text not in wrote[p]):
                    continue
                scores = generator.token_log_likelihood([PROMPTS[p]], [text])
                log_p, tokens = float(scores.value.sum()), int(scores.present.sum())
                total[text] = torch.logaddexp(
                    torch.tensor(total.get(text, -torch.inf)), torch.tensor(weight + log_p)
                ).item()
                pick[text] = max(pick.get(text, -torch.inf), weight + log_p / tokens)
        found.append((pick if marginal == "best" else total, total))
    return found


def check(generator: Generator, marginal: Marginal, beams: int) -> list[WrittenAnswer]:
    found = write_answers(generator, PROMPTS, WHERE, LOG_WEIGHT, marginal, beams)
    for one, (judged, total) in zip(found, by_hand(generator, marginal, beams), strict=True):
        # A text that was cut off is scored without its last word, so that two may be equally likely.
        assert judged[one.answer] == pytest.approx(max(judged.values()), abs=1e-4)
        assert one.log_probability == pytest.approx(total[one.answer], abs=1e-4)
        assert one.joint.logsumexp(0).item() == pytest.approx(one.log_probability, abs=1e-5)
    return found


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("marginal", ["thorough", "fast", "best"])
def test_the_answer_is_the_one_of_the_loop(generator: Generator, marginal: Marginal, beams: int) -> None:
    found = check(generator, marginal, beams)
    assert found[2].joint[1] == -torch.inf  # a passage of no weight is not read


@pytest.mark.usefixtures("_given")
@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("marginal", ["thorough", "fast", "best"])
def test_answers_of_different_lengths_are_judged_as_by_the_loop(
    generator: Generator, marginal: Marginal, beams: int
) -> None:
    check(generator, marginal, beams)


@pytest.mark.usefixtures("_given")
def test_what_each_manner_scores(tiny_seq2seq: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passages that write different texts: all pairs, or each text under the passages that wrote it. However many
    texts, a prompt is read once."""
    generator = Generator.open(str(tiny_seq2seq), torch.Generator()).eval()
    asked: list[int] = []
    real: Callable = Generator.choice_log_likelihood

    def counted(self: Generator, prompts: list[str], choices: list[list[str]], **named: object) -> torch.Tensor:
        asked.append(sum(map(len, choices)))
        return real(self, prompts, choices, **named)

    monkeypatch.setattr(Generator, "choice_log_likelihood", counted)
    read: list[int] = []
    generator.model.get_encoder().register_forward_pre_hook(
        lambda _, args, named: read.append(len(named["input_ids"]) * (named["input_ids"].shape[1] > 1)),
        with_kwargs=True,
    )  # one token alone is how the output layer is found
    for marginal, beams in (("thorough", 1), ("fast", 1), ("best", 1), ("thorough", 2), ("fast", 2), ("best", 2)):
        write_answers(generator, PROMPTS[:3], WHERE[:1], LOG_WEIGHT[:1], marginal, beams)
        assert sum(read) == 3
        read.clear()
    assert asked == [9, 3, 3, 15, 6, 3]


def test_fast_is_never_above_thorough(generator: Generator) -> None:
    thorough, fast = (write_answers(generator, PROMPTS, WHERE, LOG_WEIGHT, how, 3) for how in ("thorough", "fast"))
    assert all(b.log_probability <= a.log_probability + 1e-5 for a, b in zip(thorough, fast, strict=True))


def test_a_fused_prompt_is_written_from(tiny_seq2seq: Path) -> None:
    generator = Generator.open(str(tiny_seq2seq), torch.Generator(), None, GeneratorOptions(max_target_tokens=4)).eval()
    prompt = FusedPrompt(("what", "who is alpha"))
    (found,) = write_answers(generator, [prompt], torch.zeros(1, 2, dtype=torch.long), LOG_WEIGHT[:1, :2], "best")
    assert found.answer == generator.generate([prompt])[0]


def test_no_beams_are_refused() -> None:
    with pytest.raises(UserError, match=r"evaluation\.beams is 0; expected 1"):
        Manner("written", beams=0)
