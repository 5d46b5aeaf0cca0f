"""A model that writes and answers by rule, in place of a generator."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from retrograd.studies.synthesis.round_trip import QuestionModel

CORPUS = [
    {"id": "p1", "title": "Cup", "text": "The big cup was made of glass by Maria Olsen in Sandvik ."},
    {"id": "p2", "title": "Box", "text": "The old box was filled with tea by Jonas Lind for the fair in Ostfeld ."},
    {
        "id": "p3",
        "title": "Rain",
        "text": "A flood of the lower town came from rain in 1987 , which Kessa still feels .",
    },
    {"id": "p4", "title": "Car", "text": "The wheel of the red car was sold for 3,200 pounds to Peter Holm ."},
    {"id": "p5", "title": "Empty", "text": "nothing here has a name or a number at all , only words ."},
]
QUESTIONS = {
    "Maria Olsen": "Who made the big glass cup?",
    "Sandvik": "Where was the cup of glass made?",
    "Jonas Lind": "Who filled the old box with tea?",
    "Ostfeld": "For the fair of which town was the box filled?",
    "1987": "did the rain flood the lower town?",
    "Kessa": "Who still feels the flood of the town?",
    "3,200": "pounds did the wheel of the red car cost?",
    "Peter Holm": "Who bought the wheel of the red car?",
}


def write_corpus(folder: Path, records: Iterable[Mapping[str, str]] = tuple(CORPUS)) -> Path:
    path = folder / "passages.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return path


class Rules:
    """``questions`` by answer, ``readings`` by question where they are not the answer, ``alone`` by answer in nats.

    With its passage every answer has -1 nat, without it -5.
    """

    def __init__(
        self,
        questions: Mapping[str, str] = QUESTIONS,
        readings: Mapping[str, str] | None = None,
        alone: Mapping[str, float] | None = None,
    ) -> None:
        self.questions, self.readings, self.alone = questions, readings or {}, alone or {}
        self.written: list[str] = []
        self.asked: list[str] = []
        self.scored: list[str] = []
        self.before_call: Callable[[], None] = lambda: None

    def generate(self, prompts: Sequence[str], max_new_tokens: int | None = None) -> list[str]:
        self.before_call()
        return [self._continue(prompt) for prompt in prompts]

    def _continue(self, prompt: str) -> str:
        missing = re.findall(r"^Missing: (.*)$", prompt, re.MULTILINE)
        if missing:
            self.written.append(missing[-1])
            return self.questions[missing[-1]]
        question = _question(prompt)
        self.asked.append(question)
        right = next((a for a, q in self.questions.items() if question.endswith(q)), "")
        return self.readings.get(question, right)

    def log_likelihood(self, prompts: Sequence[str], targets: Sequence[str]) -> Tensor:
        self.scored += targets
        scores = [
            -1.0 if "Passage:" in prompt else self.alone.get(target, -5.0)
            for prompt, target in zip(prompts, targets, strict=True)
        ]
        return torch.tensor(scores)

    def model(self) -> QuestionModel:
        return QuestionModel("rules", "0" * 64, self)


def _question(prompt: str) -> str:
    return re.findall(r"^Question: (.*)$", prompt, re.MULTILINE)[-1]
