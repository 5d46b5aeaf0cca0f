"""Raise alarms about what goes wrong quietly in joint training, each with a reasoned threshold and a remedy.

They read the health of logged steps, as a mean over the last few lines, from a fifth of a stage on, because a
retriever may begin flat and a posterior far off. Each sounds once in a stage, resumed or not, and has a line in
``metrics.jsonl``. None changes what is computed. A gradient that is not finite is no alarm but an error (`train`).
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import cast

from retrograd.training.monitoring.health import Visit
from retrograd.training.run.run_directory import RunDirectory
from retrograd.training.stage import Stage
from retrograd.util.guards import JsonObject, JsonValue
from retrograd.util.progress import say

__all__ = ["ALARMS", "Alarm", "Alarms"]

_LINES = 5
_FROM_SHARE = 0.2
_QUERIES, _LEAST_QUERIES, _LEAST_PASSAGES = 512, 128, 100

Values = Mapping[str, float]


@dataclass(frozen=True)
class Alarm:
    """An alarm that ``sounds`` for certain means of logged values; it never sounds where one of them is missing.

    ``says`` is formatted with these values. ``learning`` alarms are for stages in which the retriever learns.
    """

    name: str
    needs: tuple[str, ...]
    sounds: Callable[[Values], bool]
    says: str
    remedy: str
    learning: bool = True


ALARMS = (
    # Where a quarter of unlike queries have the same best passage, it is not the query that decides. A usage of a
    # twentieth is twenty queries to a passage, where a base of a hundred passages and more could give each its own.
    Alarm(
        "retrieval collapse",
        ("top_passage_share", "passage_usage"),
        lambda v: v["top_passage_share"] > 0.25 or v["passage_usage"] < 0.05,
        "one passage is the best of {top_passage_share:.0%} of the queries; they use as many passages as "
        "{passage_usage:.0%} of them would",
        "lower training.retriever_learning_rate, warm the retriever longer (warm_start.epochs), or refresh more often",
    ),
    # Entropy within 2 % of log K: the best and the worst candidate differ by next to nothing.
    Alarm(
        "prior flat",
        ("prior_entropy", "candidates"),
        lambda v: v["candidates"] >= 3 and v["prior_entropy"] > 0.98 * math.log(v["candidates"]),
        "the prior has {prior_entropy:.2f} nats over {candidates:.0f} candidates: it tells them apart by next to "
        "nothing, and the generator reads passages drawn by lot",
        "lower retriever.temperature, or warm the retriever first (warm_start.epochs)",
    ),
    # 0.05 nats is one candidate with more than 99 %; half a nat says that the target would choose another one.
    Alarm(
        "temperature too low",
        ("prior_entropy", "kl_responsibilities_prior", "candidates"),
        lambda v: v["candidates"] >= 2 and v["prior_entropy"] < 0.05 and v["kl_responsibilities_prior"] > 0.5,
        "the prior is sure of one passage ({prior_entropy:.2f} nats), and the target speaks for others "
        "({kl_responsibilities_prior:.2f} nats away): hardly any gradient reaches them",
        "raise retriever.temperature, or let it learn (retriever.learn_temperature = true); where search is hybrid, "
        "lower retriever.lexical_weight",
    ),
    # The renormalised candidates then stand for a twentieth of what the model claims to sum over.
    Alarm(
        "candidates hold too little",
        ("candidate_mass",),
        lambda v: v["candidate_mass"] < 0.05,
        "the candidates hold {candidate_mass:.1%} of the prior; what the rest of the base would say is left out",
        "raise training.passages, let draws stand for the rest (training.tail = 5), or lower retriever.temperature",
    ),
    # At 0.3 nats the bias is 0.3²/2 = 5 % of Z, and an interval of 95 % spans a factor of 3.
    Alarm(
        "log Z uncertain",
        ("log_z_error",),
        lambda v: v["log_z_error"] > 0.3,
        "log Z over the base is estimated with a standard error of {log_z_error:.2f} nats",
        "raise training.normaliser_draws, lower retriever.temperature, or search an exact index",
    ),
    # e^-2 = 14 %: the posterior gives the passages that explain the target a seventh of what they should have.
    Alarm(
        "posterior far off",
        ("kl_responsibilities_posterior",),
        lambda v: v["kl_responsibilities_posterior"] > 2.0,
        "the posterior retriever is {kl_responsibilities_posterior:.1f} nats from the passages that explain the target",
        "set objective.proposal_share = 0.5 where the objective has it, raise training.retriever_learning_rate, or use "
        'exact weights (objective.sampler = "exact" of JSA)',
    ),
    # Of fifty proposals two or three move the chain, so its shares are counts of the place where it began.
    Alarm(
        "acceptance too low",
        ("acceptance",),
        lambda v: v["acceptance"] < 0.05,
        "{acceptance:.1%} of the chain's proposals are accepted: it stays where it is",
        'set objective.proposal_share = 0.5, carry chains (objective.chain = "carried"), or use exact weights '
        '(objective.sampler = "exact")',
    ),
    # (Σω)²/(nΣω²) is 1 with draws from the true posterior; below a tenth, nine draws of ten are paid for nothing.
    Alarm(
        "effective sample size too low",
        ("importance_efficiency",),
        lambda v: v["importance_efficiency"] < 0.1,
        "the importance weights are worth {importance_efficiency:.0%} of the draws",
        "set objective.proposal_share = 0.5, raise objective.draws, or warm the retrievers longer",
    ),
    # The gradient then goes to passages of which a third are not the nearest any more.
    Alarm(
        "index stale",
        ("staleness_overlap",),
        lambda v: v["staleness_overlap"] < 0.7,
        "the index finds {staleness_overlap:.0%} of the passages that the towers as they are now would find",
        "lower training.refresh_every, or lower training.retriever_learning_rate",
    ),
    # A query is cut only where no passage is left to cut: one in twenty asks something else than was written.
    Alarm(
        "queries cut",
        ("prompts_cut",),
        lambda v: v["prompts_cut"] > 0.05,
        "{prompts_cut:.0%} of the prompts lost words of the query itself",
        "raise generator.max_input_tokens, if the model can read so many, or shorten the queries",
        learning=False,
    ),
    # Where most passages lose their end, what answers may never be read.
    Alarm(
        "passages cut",
        ("prompts_shortened",),
        lambda v: v["prompts_shortened"] > 0.5,
        "{prompts_shortened:.0%} of the prompts lost words of their passages",
        "raise generator.max_input_tokens, or cut documents into shorter passages (data.split_words)",
        learning=False,
    ),
)
"""All alarms, in the order in which they are checked."""


class Alarms:
    """The alarms of one stage of a ``run``, which has ``steps`` steps over a base of ``passages``."""

    def __init__(self, run: RunDirectory, stage: Stage, steps: int, passages: int) -> None:
        self._run = run
        self._stage = stage.name
        self._from_step = _FROM_SHARE * steps
        self._learning = stage.learns.retriever
        self._large = passages >= _LEAST_PASSAGES
        self._lines: deque[dict[str, float]] = deque(maxlen=_LINES)
        self._best: deque[int] = deque(maxlen=_QUERIES)
        self._sounded: set[str] = set()

    def check(self, step: int, values: Values, visit: Visit) -> None:
        """Check the health of a logged ``step`` and the micro-batch it is of; report and log each alarm that sounds."""
        usage = self._usage(visit)
        self._lines.append({name: value for name, value in values.items() if math.isfinite(value)})
        if len(self._lines) < _LINES or step < self._from_step:
            return
        names = set.intersection(*(set(line) for line in self._lines))
        means = {name: fmean(line[name] for line in self._lines) for name in names} | usage
        for alarm in ALARMS:
            applies = alarm.name not in self._sounded and (self._learning or not alarm.learning)
            if applies and means.keys() >= set(alarm.needs) and alarm.sounds(means):
                self._sound(alarm, step, means)

    def _usage(self, visit: Visit) -> dict[str, float]:
        """Return how many candidates a query has, and how evenly the last few hundred queries use the base."""
        rows, log_prior = visit.candidates.rows, visit.candidates.scores.log_prior
        if rows.shape[1] == 0:
            return {}
        usage = {"candidates": float((rows != -1).sum(dim=-1).float().mean())}
        self._best.extend(rows.gather(1, log_prior.argmax(dim=-1, keepdim=True)).flatten().tolist())
        if not self._large or len(self._best) < _LEAST_QUERIES:
            return usage
        shares = [count / len(self._best) for count in Counter(self._best).values()]
        used = math.exp(-sum(share * math.log(share) for share in shares))
        return usage | {"top_passage_share": max(shares), "passage_usage": used / len(self._best)}

    def _sound(self, alarm: Alarm, step: int, means: Values) -> None:
        self._sounded.add(alarm.name)
        says = alarm.says.format(**means)
        say(f"alarm, {alarm.name} ({self._stage}, step {step}): {says}. {alarm.remedy[0].upper()}{alarm.remedy[1:]}.")
        self._run.log_alarm(step, self._stage, alarm.name, says, alarm.remedy)

    # ---- what a checkpoint keeps ------------------------------------------------------------------------------------

    def state(self) -> JsonObject:
        """Return the lines and queries that means are still taken over, and the alarms that have sounded."""
        lines: list[JsonValue] = [dict(line) for line in self._lines]
        return {"lines": lines, "best": [*self._best], "sounded": [*sorted(self._sounded)]}

    def load(self, state: JsonObject) -> None:
        """Restore what `state` returned."""
        self._lines.extend(cast(list[dict[str, float]], state["lines"]))
        self._best.extend(cast(list[int], state["best"]))
        self._sounded.update(cast(list[str], state["sounded"]))
