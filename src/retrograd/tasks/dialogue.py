"""Document-grounded dialogue as text: the turns so far, passages of any corpus, the next turn in free words.

The task of JSA-RAG (arXiv 2508.18168) on OR-QuAC and DoQA. Encoders cut a text at its end, so what the retrievers read
begins with the last turn and loses the oldest first. The generator reads the dialogue in its natural order, after the
passages; `GroundedPrompt` says what it loses where it has no room.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import cast

from retrograd.data.examples import DialogueExample, Turn, dialogue_example
from retrograd.metrics.answers import token_f1
from retrograd.tasks.answer_scores import answer_scores, require_metric
from retrograd.tasks.free_answers import FreeAnswers
from retrograd.tasks.support import OverlapSupport
from retrograd.tasks.task import Support
from retrograd.types import ComposedText, Example, Passage, Prompt, UserError

__all__ = ["GroundedDialogue", "GroundedPrompt", "knowledge_f1"]


@dataclass(frozen=True)
class GroundedDialogue(FreeAnswers):
    """The task of giving the next turn of a dialogue. A plain `Example` is a dialogue of one turn, the user's.

    ``turns`` is how many turns are read, the last ones, by retrievers and generator alike; 0 is all. ``user_name`` and
    ``agent_name`` are what the generator reads for the roles "user" and "agent"; other roles keep their own names.
    ``query_prefix``, ``passage_prefix``, ``separator``, ``titles``, ``instruction`` and ``no_answer`` are as in
    `QuestionAnswering`. Raises `UserError` for an unknown metric and for fewer turns than 0.

    Example::

        task = rg.GroundedDialogue(turns=2)
        print(task.query_text(task.parse_query("what holds tea ?")))
    """

    turns: int = 8
    user_name: str = "user"
    agent_name: str = "agent"
    query_prefix: str = ""
    passage_prefix: str = ""
    separator: str = " [SEP] "
    titles: bool = True
    instruction: str = "Give the next turn of the dialogue, with what the passages say."
    no_answer: str | None = None
    evidence: OverlapSupport = field(default_factory=OverlapSupport)
    name: str = "grounded dialogue"
    primary_metric: str = "f1"
    choices: None = field(default=None, init=False)

    def __post_init__(self) -> None:
        require_metric(self.primary_metric)
        if self.turns < 0:
            raise UserError(f"turns is {self.turns}; expected how many of the last turns to read, or 0 for all")

    def parse_query(self, text: str) -> DialogueExample:
        """Return the text as the one turn of a dialogue. Raises `UserError` for a blank one."""
        return dialogue_example("query", [Turn("user", text)])

    def parse_turns(self, turns: Sequence[Turn]) -> DialogueExample:
        """Return the turns, from the oldest to the one to be answered, as a dialogue.

        Raises `UserError` without a turn, and for a blank last one.
        """
        return dialogue_example("query", turns)

    # What the retrievers read

    def query_text(self, example: Example) -> str:
        """Return the prefix and the texts of the turns, the last one first, without the names of speakers."""
        return ComposedText(self.query_prefix, " ".join(reversed(self._utterances(example))))

    def posterior_text(self, example: Example, target: str) -> Prompt:
        """Return the last turn, the target, then the older turns.

        Where it is too long the older turns go first, then the end of the last turn, and the target stays.
        """
        *older, last = self._utterances(example)
        rest = " ".join(reversed(older))
        after = ComposedText(self.separator, target)
        return Prompt(ComposedText(self.query_prefix), last, after, ComposedText(self.separator if rest else "", rest))

    def _turns_of(self, example: Example) -> tuple[Turn, ...]:
        """Return the turns that are read, oldest first."""
        history = example.history if isinstance(example, DialogueExample) else (Turn("user", example.query),)
        return history[-self.turns :]

    def _utterances(self, example: Example) -> list[str]:
        """Return the texts of the turns, each on one line.

        Names of roles would only tell a sentence encoder what all queries share.
        """
        return [" ".join(turn.text.split()) for turn in self._turns_of(example)]

    def _turns(self, example: Example) -> list[str]:
        """Return the texts of the turns with the names of speakers."""
        names = {"user": self.user_name, "agent": self.agent_name}
        return [str(Turn(names.get(turn.role, turn.role), turn.text)) for turn in self._turns_of(example)]

    # What the generator reads

    def prompt(self, example: Example, passages: Sequence[Passage]) -> GroundedPrompt:
        """Return the instruction, the passages in the order given, and the turns from the oldest to the last, each on a
        line.
        """
        best, *other_passages = [f"\nPassage: {self.neighbour_text(passage)}" for passage in passages] or [""]
        *older, last = self._turns(example)
        return GroundedPrompt.of(
            self.instruction,
            best,
            "".join(other_passages),
            "".join(f"\n{turn}" for turn in older),
            f"\n{last}\n{self.agent_name}:",
        )

    # Support and score

    def support(self, passages: Iterable[Passage]) -> Support:
        """Return the test for passages with the words of the example's target, by the kind of test ``evidence``."""
        return self.evidence.among(passages)

    def score(self, examples: Sequence[Example], answers: Sequence[str]) -> dict[str, float]:
        """Return `answer_scores` in percent and, where examples bring knowledge, `knowledge_f1`.

        Raises `UserError` as they do.
        """
        scores = answer_scores(examples, answers, self.no_answer)
        grounded = [
            (example, answer)
            for example, answer in zip(examples, answers, strict=True)
            if isinstance(example, DialogueExample) and example.knowledge
        ]
        if grounded:
            scores["knowledge_f1"] = 100.0 * sum(knowledge_f1(*pair) for pair in grounded) / len(grounded)
        return scores


def knowledge_f1(example: DialogueExample, answer: str) -> float:
    """Return the best token F1 in [0, 1] between an answer and the texts that the gold answer was written from.

    Knowledge F1 of Shuster et al. 2021 ("Retrieval Augmentation Reduces Hallucination in Conversation", arXiv
    2104.07567): high where a model repeats what it should have read, whatever words the gold answer chose. The longer
    the text, the lower the score of a short answer; compare only runs on the same passages.
    Raises `UserError` where the example has no knowledge.
    """
    if not example.knowledge:
        raise UserError(f"example {example.id!r} has no knowledge; add it to the data, or with with_knowledge()")
    return token_f1(example.knowledge, answer)


class GroundedPrompt(Prompt):
    """A prompt that loses its less important parts first where it is too long.

    It loses first its passages but the best, the last one's end first; then the oldest turns, each as a whole; then the
    end of the best passage. Instruction and last turn stay.
    """

    _best: str
    _other_passages: str
    _turns: str

    @classmethod
    def of(cls, before: str, best: str, other_passages: str, turns: str, after: str) -> GroundedPrompt:
        """Return the prompt of these parts; every part but the first begins with a line end, which the first text of
        the prompt does without.
        """
        if not before:
            if best:
                best = best[1:]
            elif turns:
                turns = turns[1:]
            else:
                after = after[1:]
        return cls(before, (best, other_passages, turns), after)

    def __new__(cls, before: str, spare: tuple[str, str, str] = ("", "", ""), after: str = "") -> GroundedPrompt:
        """Join the parts; ``spare`` is the best passage, the others, and the turns."""
        prompt = cast(GroundedPrompt, super().__new__(cls, before, "".join(spare), after))
        prompt._best, prompt._other_passages, prompt._turns = spare
        return prompt

    def shorten(self, characters: int) -> GroundedPrompt:
        """Return the prompt with at most so many characters of its spare part, which is between instruction and last
        turn.
        """
        start, end = self.spare
        removed = end - start - max(characters, 0)
        other_passages = self._other_passages[: max(len(self._other_passages) - removed, 0)]
        removed -= len(self._other_passages) - len(other_passages)
        turns = self._turns
        if removed > 0:
            kept_turns = turns[removed:]
            turns = kept_turns[kept_turns.find("\n") :] if "\n" in kept_turns else ""
            removed -= len(self._turns) - len(turns)
        best = self._best[: len(self._best) - max(removed, 0)]
        return GroundedPrompt(self[:start], (best, other_passages, turns), self[end:])
