"""Open-domain question answering as text: a question, passages of any corpus, a short answer in free words.

The task of JSA-RAG (arXiv 2508.18168) on Natural Questions, TriviaQA and MS MARCO. The prior retriever reads the
question, the posterior retriever question and answer, the generator the passages and then the question.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from retrograd.data.examples import GroundedExample
from retrograd.tasks.answer_scores import answer_scores, require_metric
from retrograd.tasks.free_answers import FreeAnswers
from retrograd.tasks.support import AnswerSupport
from retrograd.tasks.task import Support
from retrograd.types import ComposedText, Example, Passage, Prompt, UserError

__all__ = ["QuestionAnswering"]


@dataclass(frozen=True)
class QuestionAnswering(FreeAnswers):
    """The task of answering a question in few words.

    ``query_prefix`` and ``passage_prefix`` stand before what the towers read, for encoders trained with an instruction
    (BGE has one for queries, E5 one for each side). ``separator`` parts question and target in the posterior's text.
    ``titles`` shows passages with their titles, to the tower and to the generator. ``instruction`` begins every prompt;
    "" leaves it out. ``no_answer`` is what the targets say where nothing can be answered, None where all can.

    ``primary_metric`` is exact match, as in the literature on Natural Questions and TriviaQA; set ``rouge_l`` or
    ``bleu_1`` for answers of whole sentences (MS MARCO), ``regex_match`` for patterns (CuratedTREC). Raises `UserError`
    for an unknown one.

    Example::

        task = rg.QuestionAnswering(instruction="Answer in one word.")
        print(task.prompt(rg.Example("q1", "what holds tea ?"), [rg.Passage("p1", "Cups", "the cup holds tea .")]))
    """

    query_prefix: str = ""
    passage_prefix: str = ""
    separator: str = " [SEP] "
    titles: bool = True
    instruction: str = "Answer the question in as few words as possible."
    no_answer: str | None = None
    evidence: AnswerSupport = field(default_factory=AnswerSupport)
    name: str = "question answering"
    primary_metric: str = "exact_match"
    choices: None = field(default=None, init=False)

    def __post_init__(self) -> None:
        require_metric(self.primary_metric)

    def parse_query(self, text: str) -> GroundedExample:
        """Return the text as a question. Raises `UserError` for a blank one."""
        if not text.strip():
            raise UserError("the question is blank; write one")
        return GroundedExample("query", text.strip())

    # What the retrievers read

    def query_text(self, example: Example) -> str:
        """Return the prefix and the question."""
        return ComposedText(self.query_prefix, example.query)

    def posterior_text(self, example: Example, target: str) -> Prompt:
        """Return the query text, the separator and the target. Where it is too long the question's end goes first."""
        return Prompt(ComposedText(self.query_prefix), example.query, ComposedText(self.separator, target))

    # What the generator reads

    def prompt(self, example: Example, passages: Sequence[Passage]) -> Prompt:
        """Return the instruction, the passages in the order given, each on a line, and the question at the end.

        Where it is too long the last passage's words go first; the question is never cut.
        """
        passage_lines = "".join(f"\nPassage: {self.neighbour_text(passage)}" for passage in passages)
        question = f"\nQuestion: {example.query}\nAnswer:"
        if self.instruction:
            return Prompt(self.instruction, passage_lines, question)
        return Prompt("", passage_lines[1:], question) if passage_lines else Prompt(question[1:])

    # Support and score

    def support(self, passages: Iterable[Passage]) -> Support:
        """Return the test for passages that hold the example's target, by the kind of test ``evidence``."""
        return self.evidence.among(passages)

    def score(self, examples: Sequence[Example], answers: Sequence[str]) -> dict[str, float]:
        """Return `answer_scores` in percent: exact match, F1, ROUGE, BLEU, rates; of patterns their matches.

        Raises `UserError` as that does, and where the answers do not have the primary metric.
        """
        scores = answer_scores(examples, answers, self.no_answer)
        if self.primary_metric not in scores:
            kind = "patterns" if "regex_match" in scores else "text"
            raise UserError(
                f"primary_metric is {self.primary_metric!r}, and the answers are {kind}; set it to "
                f"{'regex_match' if kind == 'patterns' else 'exact_match'!r}"
            )
        return scores
