"""The records that every package shares, and the legend of the shape letters.

Shapes stand in signatures as ``Float[Tensor, "B K"]``. The letters always mean the same:

====  ==================================================
B     queries of a batch
N     passages of the knowledge base
K     candidates of one query
M     draws, or columns asked of a likelihood at once
E     rows excluded for one query
C     choices (candidate answers)
P     (prompt, target) pairs the generator scores
Q     queries that an index is measured with
R     soft slots
RB    R copies of a batch of B queries, one after the other
S     positions of a model's output
U     reference passages of one query, in the laboratory
W     ranks of a group of processes
Z     distinct passages of a batch
T     target tokens
L     input tokens
D     embedding width
V     vocabulary
====  ==================================================

Names: ``log_*`` is a log-probability in nats; ``*_score`` and ``*_logit`` are unnormalised; ``weight``, ``share`` and
``probability`` lie in [0, 1]; ``row`` is a position in the knowledge base (0 … N-1, -1 is padding); ``column`` is a
position among the K candidates (-1 is padding); ``step`` is an optimiser step; ``rng`` is a source of randomness.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, cast

__all__ = [
    "Citation",
    "ComposedText",
    "ConfidenceKind",
    "Example",
    "Hit",
    "Passage",
    "Prediction",
    "Prompt",
    "Span",
    "UserError",
    "WeightKind",
]

ConfidenceKind = Literal["among permitted answers", "of the whole text", "of the whole text, at least"]
"""What p(answer|x) is a probability of: one of a closed set of answers; a text of any length; or a lower bound of that,
which leaves out passages whose likelihood was not computed.
"""

WeightKind = Literal[
    "p(z|x,y)", "p(z|x,y), of passages that wrote y", "p(z|x,y), mean over tokens", "p(z|x)", "shares of slots"
]
"""What a prediction's weights are. Passages that are read in one prompt have no p(z|x,y): their weights are p(z|x)."""


class UserError(Exception):
    """An error that the user can fix: the message names the value, the place and what to do.

    The command line prints the message alone, without a traceback.

    Example::

        try:
            rg.recipe("no such recipe")
        except rg.UserError as error:
            print(error)
    """


@dataclass(frozen=True, slots=True)
class Passage:
    """One entry of the knowledge base, the latent variable z (or h) of the papers.

    ``text`` is what a retriever reads; ``title`` is what else is known of it: a document's title, or the verbalised
    label of a training instance. Each task decides who sees which.

    Example::

        passage = rg.Passage("p1", "Cups", "the cup holds tea .")
        print(passage.text)
    """

    id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Span:
    """Characters ``start`` (inclusive) to ``end`` (exclusive) of a text."""

    start: int
    end: int

    def of(self, text: str) -> str:
        """Return the characters of the span."""
        return text[self.start : self.end]

    def __str__(self) -> str:
        return f"[{self.start}, {self.end})"


@dataclass(frozen=True, slots=True)
class Example:
    """One (input, target) pair: x and y of the papers.

    ``query`` is the input as text; ``targets`` are the acceptable answers, the first being the one trained on.
    An example without targets can be predicted, not trained on.

    Example::

        example = rg.Example("q1", "what holds tea ?", ("cup",))
        print(example.target)
    """

    id: str
    query: str
    targets: tuple[str, ...] = ()

    @property
    def target(self) -> str:
        """Return the answer that training uses. Raises `UserError` when the example has none."""
        if not self.targets:
            raise UserError(f"example {self.id!r} has no target; training and scoring need one")
        return self.targets[0]


class ComposedText(str):
    """A text that a model reads, with the parts of it that its task wrote (``task_parts``).

    There the name of a control token means the token: the ``[SEP]`` of a separator. Elsewhere, and in a plain string,
    it is nothing but text. It is a string like any other, and equal to one.
    """

    task_parts: tuple[tuple[int, int], ...]
    """Characters [start, end) of each."""

    def __new__(cls, *parts: str) -> ComposedText:
        """Create the text of ``parts`` that are in turns the task's, beginning with it, and others'.

        The parts of a task in a part of others remain its own.
        """
        text = super().__new__(cls, "".join(parts))
        spans: list[tuple[int, int]] = []
        start = 0
        for position, part in enumerate(parts):
            inside = part.task_parts if isinstance(part, ComposedText) else ()
            own = ((0, len(part)),) if position % 2 == 0 and part else inside
            spans += [(start + first, start + last) for first, last in own]
            start += len(part)
        text.task_parts = tuple(spans)
        return text

    def cut(self, start: int, end: int) -> ComposedText:
        """Return characters [start, end) with the parts of the task in them."""
        text = ComposedText("", self[start:end])
        inside = ((max(first, start), min(last, end)) for first, last in self.task_parts)
        text.task_parts = tuple((first - start, last - start) for first, last in inside if first < last)
        return text


class Prompt(ComposedText):
    """A text that a model reads, with the part of it (``spare``) that may be shortened from its end.

    Where it has more tokens than a model reads, the spare part goes first, so that neither the query nor what asks for
    the answer is lost, nor the target that a posterior retriever reads behind a query. A retriever first cuts ``rest``,
    which ends its text. The parts of a task are those of the `ComposedText` among its own.
    """

    spare: tuple[int, int]
    """Characters [start, end)."""
    rest: str

    def __new__(cls, before: str, spare: str = "", after: str = "", rest: str = "") -> Prompt:
        """Create the text ``before + spare + after + rest``."""
        prompt = cast(Prompt, super().__new__(cls, "", before, "", spare, "", after, "", rest))
        prompt.spare = (len(before), len(before) + len(spare))
        prompt.rest = rest
        return prompt

    @property
    def core(self) -> Prompt:
        """Return the text without its ``rest``."""
        start, end = self.spare
        return Prompt(self.cut(0, start), self.cut(start, end), self.cut(end, len(self) - len(self.rest)))

    def shorten(self, characters: int) -> Prompt:
        """Return the prompt with only the first ``characters`` of its spare part; fewer where half a word would
        join the rest.
        """
        start, end = self.spare
        spare = self[start : min(end, start + max(characters, 0))]
        if start + len(spare) < end and self[end : end + 1].strip():
            spare = spare[: spare.rfind(" ") + 1]
        return Prompt(self.cut(0, start), spare, self.cut(end, len(self)))


@dataclass(frozen=True, slots=True)
class Citation:
    """A passage that an answer rests on: its id, and p(z|x,y) in [0, 1]."""

    passage_id: str
    probability: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """An answer, its ``text``, with its evidence: knowledge-base rows, their ids and weights, heaviest first.

    ``passages`` are the passages of ``rows`` where `RagModel.answer` gave the answer. ``log_probability`` is
    log p(answer|x) in nats; where the task has a closed set of answers, among those, after the model's decision
    (`retrograd.rag.answers.decision`); ``confidence_kind`` says which. Of written answers it is log Σ_z p(z|x)
    p(answer|x,z) with p(z|x) renormalised over the passages that are read.

    ``weights`` are p(z|x, answer) where ``weight_kind`` says so, and ``prior_weights`` are p(z|x) of the same passages,
    both over all that is read for the answer, the null passage included.

    ``withheld`` is the model's own answer where that was less probable than the model's threshold, so that ``text``
    is the task's "cannot answer". All else then still belongs to the answer that was withheld.

    Example::

        prediction = model.answer("who wrote the first program?")
        print(prediction.text, prediction.confidence, [passage.title for passage in prediction.passages])
        for citation in prediction.citations:
            print(citation.passage_id, citation.probability)
    """

    id: str
    answer: str
    log_probability: float
    rows: tuple[int, ...] = ()
    passage_ids: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    passages: tuple[Passage, ...] = ()
    prior_weights: tuple[float, ...] = ()
    confidence_kind: ConfidenceKind = "of the whole text"
    weight_kind: WeightKind = "p(z|x,y)"
    withheld: str | None = None

    @property
    def text(self) -> str:
        """The answer itself."""
        return self.answer

    @property
    def confidence(self) -> float:
        """The probability of the model's own answer, p(answer|x), in [0, 1]."""
        return min(1.0, math.exp(self.log_probability))

    @property
    def own_answer(self) -> str:
        """The model's own answer: the one that was withheld, if one was."""
        return self.answer if self.withheld is None else self.withheld

    @property
    def has_posterior_weights(self) -> bool:
        """True if ``weights`` are p(z|x, answer), of whatever kind."""
        return self.weight_kind.startswith("p(z|x,y)")

    @property
    def citations(self) -> tuple[Citation, ...]:
        """The passages with p(z|x, answer) above 0, best first; none where the model knows no such probability."""
        if not self.has_posterior_weights:
            return ()
        pairs = zip(self.passage_ids, self.weights, strict=True)
        return tuple(Citation(id_, weight) for id_, weight in pairs if weight > 0)


@dataclass(frozen=True, slots=True)
class Hit:
    """A retrieved passage: its row in the knowledge base, itself, and p(z|x) in [0, 1].

    Example::

        best = model.search("who wrote the first program?", k=1)[0]
        print(best.row, best.passage.title, best.probability)
    """

    row: int
    passage: Passage
    probability: float
