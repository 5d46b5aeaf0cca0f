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
WRITTEN = {
    "Cup": ("Who made the big cup of glass?", "Maria Olsen"),
    "Box": ("For which fair was the old box filled?", "Ostfeld"),
    "Rain": ("Which place still feels the flood?", "Kessa"),
    "Rain In what year": ("did the lower town have a flood?", "1987"),
    "Car": ("Who bought the wheel of the red car?", "Peter Holm"),
    "Car How many": ("pounds did the wheel cost?", "3,200"),
}
"""What is written, by the title of a passage and how the question is begun."""


def write_corpus(folder: Path, records: Iterable[Mapping[str, str]] = tuple(CORPUS)) -> Path:
    path = folder / "passages.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return path


class Rules:
    """``written`` as `WRITTEN`; ``readings`` by question where they are not the answer, ``alone`` in nats by answer.

    With its passage every answer has -1 nat, without it -5.
    """

    def __init__(
        self,
        written: Mapping[str, tuple[str, str]] = WRITTEN,
        readings: Mapping[str, str] | None = None,
        alone: Mapping[str, float] | None = None,
    ) -> None:
        self.by_case, self.readings, self.alone = written, readings or {}, alone or {}
        self.written: list[str] = []
        self.asked: list[str] = []
        self.scored: list[str] = []
        self.before_call: Callable[[], None] = lambda: None

    def generate(self, prompts: Sequence[str], max_new_tokens: int | None = None) -> list[str]:
        self.before_call()
        return [self._continue(prompt) for prompt in prompts]

    def _continue(self, prompt: str) -> str:
        last = re.split(r"\n\n", prompt)[-1]
        question = last.rpartition("Question:")[2].partition("\n")[0].strip()
        topic = re.match("Topic: (.*)\n", last)
        if topic:
            case = f"{topic[1]} {question}".strip()
            self.written.append(case)
            question, answer = self.by_case[case]
            return f" {question}\nAnswer: {answer}\n\nTopic: and so on" if answer else question
        self.asked.append(question)
        answers = {f"{case.partition(' ')[2]} {q}".strip(): a for case, (q, a) in self.by_case.items()}
        return self.readings.get(question, answers.get(question, ""))

    def log_likelihood(self, prompts: Sequence[str], targets: Sequence[str]) -> Tensor:
        answers = [target.strip() for target in targets]
        self.scored += answers
        scores = [
            -1.0 if "Passage:" in prompt else self.alone.get(answer, -5.0)
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        return torch.tensor(scores)

    def model(self) -> QuestionModel:
        return QuestionModel("rules", "0" * 64, self)
