"""Train tiny random models: weights move or stay, splits of a batch agree, chains are carried, runs repeat."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
import torch
from tests.tolerances import TINY_DEPTH, TINY_TERMS, assert_same_gradients, descent_tolerance, plain_descent
from tests.training.distributed.test_ranks import DEPTH, TERMS
from tests.untimed import untimed_lines

from retrograd.index.faiss import FaissIndex
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.index.settings import NormaliserEstimation
from retrograd.models.encoder import Encoder
from retrograd.models.generator import Generator
from retrograd.models.generator_settings import GeneratorOptions
from retrograd.models.loading.lora import Lora
from retrograd.models.retriever import Retriever, TrainedTowers
from retrograd.objectives import (
    OBJECTIVES,
    FrozenRetriever,
    Goal,
    JointStochasticApproximation,
    NoRetrieval,
    Objective,
    Reads,
    TopKMarginal,
)
from retrograd.rag.candidates import Candidates
from retrograd.rag.embedding import build_index
from retrograd.rag.likelihood import GeneratorLikelihood
from retrograd.rag.rag_model import RagModel
from retrograd.rag.search import RetrievalOptions
from retrograd.rag.search_kinds import BM25, DENSE, SearchKind
from retrograd.tasks.question_answering import QuestionAnswering
from retrograd.tasks.relations.extraction import RelationExtraction
from retrograd.training.loop import train
from retrograd.training.refresh.policies import EverySteps
from retrograd.training.run.run_directory import RunDirectory
from retrograd.training.stage import CopyEvidence, GeneratorEvidence, Pace, Stage, StageEvidence
from retrograd.types import Example, Passage, UserError

LABELS = ("Content-Container(e2,e1)", "Cause-Effect(e1,e2)", "Component-Whole(e1,e2)")
NOUNS = ("cup", "rain", "wheel")


def build(
    encoder: Path, generator: Path, trained: TrainedTowers = "both", posterior: bool = False, lora: Lora | None = None
) -> tuple[RagModel, list[Example]]:
    task = RelationExtraction.semeval("marked", "labelled")
    examples = [
        Example(f"{noun}{i}", f"the @ {noun} @ holds # tea # number {i} .", (task.verbalise(label),))
        for noun, label in zip(NOUNS, LABELS, strict=True)
        for i in range(4)
    ]
    base = KnowledgeBase.from_passages(Passage(e.id, e.target, e.query) for e in examples)
    rng = torch.Generator().manual_seed(0)
    tower = Encoder.open(str(encoder))
    retriever = Retriever(tower, tower, 0.1, trained)
    q = Retriever(Encoder.open(str(encoder)), tower, 0.1, trained) if posterior else None
    return RagModel(
        retriever, Generator.open(str(generator), rng, lora, GeneratorOptions(max_target_tokens=8)), task, base, q
    ), examples


def stage(objective: Objective, evidence: StageEvidence | None = None, epochs: int = 1, micro_batch: int = 0) -> Stage:
    pace = Pace(epochs, 8, 1e-2, 1e-2, weight_decay=0.0, warmup=0.0, clip=0.0, micro_batch=micro_batch)
    return Stage("training", objective, evidence or GeneratorEvidence(3), pace, EverySteps(1), log_every=1)


def run(model: RagModel, examples: list[Example], what: Stage, folder: Path, seed: int = 0) -> list[dict]:
    torch.manual_seed(seed)
    directory = RunDirectory.create(folder, "", "no")
    train(model, examples, what, directory, torch.Generator().manual_seed(seed))
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def moved(model: RagModel, before: dict[str, torch.Tensor]) -> set[str]:
    """Return the names of the weights that have changed."""
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize(
    ("objective", "trained", "posterior", "expected"),
    [
        (TopKMarginal(), "both", False, {"retriever", "generator"}),
        (TopKMarginal(), "query", False, {"retriever", "generator"}),
        (TopKMarginal(), "none", False, {"generator"}),
        (JointStochasticApproximation(), "query", True, {"retriever", "posterior", "generator"}),
        (JointStochasticApproximation(sampler="metropolis"), "both", True, {"retriever", "posterior", "generator"}),
        (FrozenRetriever(), "both", False, {"generator"}),
        (FrozenRetriever(form="together"), "both", False, {"generator"}),
        (NoRetrieval(), "both", False, {"generator"}),
    ],
)
def test_what_should_move_moves_and_the_rest_stays(
    objective: Objective,
    trained: TrainedTowers,
    posterior: bool,
    expected: set[str],
    tiny_encoder: Path,
    tiny_seq2seq: Path,
    tmp_path: Path,
) -> None:
    model, examples = build(tiny_encoder, tiny_seq2seq, trained, posterior)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run(model, examples, stage(objective), tmp_path / "run")
    changed = moved(model, before)
    assert {name.split(".")[0] for name in changed} == expected
    # The posterior's passage tower is the prior's tower: its own part is the query encoder.
    assert any(name.startswith("posterior.query_encoder") for name in changed) == posterior


def test_the_warm_start_moves_the_retriever_alone(tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path) -> None:
    model, examples = build(tiny_encoder, tiny_seq2seq)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    warm = stage(TopKMarginal(), CopyEvidence(), epochs=10)
    log = run(model, examples, warm, tmp_path / "run")
    assert {name.split(".")[0] for name in moved(model, before)} == {"retriever"}
    assert log[-1]["loss"] < 0.8 * log[0]["loss"]


@pytest.mark.parametrize("objective", [TopKMarginal(), JointStochasticApproximation()])
def test_the_warm_start_learns_only_where_a_candidate_supports_the_target(
    objective: Objective, tiny_encoder: Path, tiny_seq2seq: Path
) -> None:
    """A query without support teaches nothing, so beside another it halves what that one teaches alone.

    Otherwise the share of p and q that lies on its candidates would grow, whatever they are.
    """
    model, examples = build(tiny_encoder, tiny_seq2seq, posterior=True)
    model.eval()
    model.refresh_index()
    other = replace(examples[5], id="new", targets=(model.task.verbalise("Other"),))
    evidence, rng = CopyEvidence(passages=6), torch.Generator()

    def gradients_of(*queries: Example) -> dict[str, torch.Tensor]:
        model.zero_grad()
        candidates = evidence.candidates(model, queries, objective.needs_posterior, None, rng)
        objective(candidates.scores, evidence.likelihood(model, queries, candidates), rng).loss.backward()
        gradients = {name: w.grad.clone() for name, w in model.named_parameters() if w.grad is not None}
        return {name: value for name, value in gradients.items() if bool(value.any())}

    alone = gradients_of(examples[0])
    assert any(name.startswith("retriever.") for name in alone)
    assert any(name.startswith("posterior.") for name in alone) == objective.needs_posterior
    assert gradients_of(other) == {}
    both = gradients_of(examples[0], other)
    assert both.keys() == alone.keys()
    assert_same_gradients([2 * value for value in both.values()], [alone[name] for name in both], TERMS, DEPTH)


def test_lora_moves_adapters_and_nothing_else(tiny_encoder: Path, tiny_causal: Path, tmp_path: Path) -> None:
    model, examples = build(tiny_encoder, tiny_causal, "none", lora=Lora(rank=2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run(model, examples, stage(TopKMarginal(), epochs=2), tmp_path / "run")
    changed = moved(model, before)
    assert changed
    assert all(".lora_" in name for name in changed)


@pytest.mark.parametrize("micro_batch", [4, 1, 3])
def test_a_split_batch_gives_the_same_step(
    micro_batch: int, tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch as 1 x 8, 2 x 4, 8 x 1 or 3 + 3 + 2 has one gradient; a mean of means would be wrong for the last."""
    weights = []
    for split in (0, micro_batch):
        model, examples = build(tiny_encoder, tiny_seq2seq, "query")
        # Dropout would draw anew for each part.
        monkeypatch.setattr(RagModel, "train", lambda self, mode=True: torch.nn.Module.train(self, False))
        pace = Pace(1, 8, 0.1, 0.1, 0.0, 0.0, 0.0, split)
        what = Stage("training", TopKMarginal(), GeneratorEvidence(3), pace, EverySteps(0))
        gradients: list[torch.Tensor] = []
        torch.optim.AdamW.step, real = _record(gradients), torch.optim.AdamW.step
        try:
            run(model, examples[:8], what, tmp_path / f"run{split}")
        finally:
            torch.optim.AdamW.step = real
        weights.append(gradients)
    assert len(weights[0]) == len(weights[1]) > 0
    assert_same_gradients(*weights, TERMS, DEPTH)


def _record(gradients: list[torch.Tensor]):
    """Return an optimiser step that only records the gradients, since Adam would hide their scale."""

    def step(self: torch.optim.Optimizer, closure: None = None) -> None:
        recorded = [w.grad for group in self.param_groups for w in group["params"] if w.grad is not None]
        gradients.extend(gradient.clone() for gradient in recorded)

    return step


def test_each_line_has_the_time_and_what_was_read_by_then(
    tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path
) -> None:
    model, examples = build(tiny_encoder, tiny_seq2seq)
    log = run(model, examples, stage(NoRetrieval(), epochs=2), tmp_path / "run")
    times = [line["time"] for line in log]
    assert times == sorted(times)
    assert all(line["queries_per_second"] > 0 and datetime.fromisoformat(line["at"]).tzinfo for line in log)
    assert log[-1]["queries_seen"] == 2 * len(examples)
    # Each query's own prompt, once an epoch.
    prompts = [model.task.prompt(example, ()) for example in examples]
    tokens = sum(map(len, model.generator.prompt_tokens.ids(prompts, [10_000] * len(prompts))))
    assert log[-1]["tokens_seen"] == 2 * tokens > 0


def test_the_copy_likelihood_reads_no_tokens(tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path) -> None:
    model, examples = build(tiny_encoder, tiny_seq2seq)
    log = run(model, examples, stage(TopKMarginal(), CopyEvidence()), tmp_path / "run")
    assert (log[-1]["queries_seen"], log[-1]["tokens_seen"]) == (len(examples), 0)


def test_one_seed_gives_byte_identical_metrics(tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        model, examples = build(tiny_encoder, tiny_seq2seq, "query", posterior=True)
        what = stage(JointStochasticApproximation(sampler="metropolis", draws=5), epochs=2)
        run(model, examples, what, tmp_path / name)
    assert untimed_lines(tmp_path / "a" / "metrics.jsonl") == untimed_lines(tmp_path / "b" / "metrics.jsonl")


def test_chains_are_carried_from_visit_to_visit(tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path) -> None:
    """The row where a chain stopped comes back as ``previous``, and is among the candidates."""
    model, examples = build(tiny_encoder, tiny_seq2seq, "none", posterior=True)
    visits: list[tuple[torch.Tensor | None, torch.Tensor | None]] = []

    class Spy:
        needs_posterior = trains_retriever = trains_generator = True
        reads = Reads.SEPARATELY
        selection = None
        leaves_one_out = False
        mixes_tokens = False
        goal = Goal.MARGINAL
        needs_log_normaliser = False

        def __call__(self, scores, likelihood, rng):
            estimate = objective(scores, likelihood, rng)
            visits.append((scores.previous, estimate.last))
            return estimate

    objective = JointStochasticApproximation(sampler="metropolis", draws=3)
    what = Stage("training", Spy(), GeneratorEvidence(3), Pace(2, 12, 1e-3, 0.0), EverySteps(0), log_every=0)
    run_quietly(model, examples, what, tmp_path / "run")
    first, second = visits
    assert first[0] is None
    assert second[0] is not None
    assert (second[0] >= 0).all()


def run_quietly(model: RagModel, examples: list[Example], what: Stage, folder: Path) -> None:
    directory = RunDirectory.create(folder, "", "no")
    train(model, examples, what, directory, torch.Generator().manual_seed(0))


def test_checkpoints_are_rotated_and_load(tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path) -> None:
    model, examples = build(tiny_encoder, tiny_seq2seq)
    pace = Pace(4, 12, 1e-3, 1e-3)
    what = Stage("training", TopKMarginal(), GeneratorEvidence(2), pace, EverySteps(1), log_every=0, save_every=1)
    run_quietly(model, examples, what, tmp_path / "run")
    checkpoints = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert checkpoints == ["0003-training-step-0000003", "0004-training-step-0000004"]
    assert not list((tmp_path / "run").rglob("*.bin"))
    assert not list((tmp_path / "run").rglob("*.pt"))


WORDLESS = [Example("w1", "alpha ?", ("tea",)), Example("w2", "beta ?", ("cup",))]
"""Queries that share no word with any passage."""


def build_for_words(encoder: Path, generator: Path, search: SearchKind = BM25) -> RagModel:
    tower = Encoder.open(str(encoder))
    options = GeneratorOptions(max_target_tokens=8, dropout=False)
    reader = Generator.open(str(generator), torch.Generator(), None, options)
    base = KnowledgeBase.from_passages([Passage("a", "", "the cup holds tea"), Passage("b", "", "rain caused flood")])
    return RagModel(Retriever(tower, tower, 0.1, "none"), reader, QuestionAnswering(), base, search=search)


def is_usable_by_words(objective: Objective) -> bool:
    return not objective.needs_posterior and objective.trains_generator


@pytest.mark.parametrize("kind", [kind for kind in OBJECTIVES if is_usable_by_words(kind())])
def test_queries_without_a_candidate_weigh_nothing_or_are_read_alone(
    kind: type[Objective], tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path
) -> None:
    """Also where they are all of a micro-batch, or of a step: no part of the model then has a gradient."""
    pytest.importorskip("bm25s")
    usable = [Example("u1", "what holds tea ?", ("cup",)), Example("u2", "what caused flood ?", ("rain",))]
    weights: list[dict[str, torch.Tensor]] = []
    for name, micro_batch in (("whole", 0), ("split", 1)):
        model = build_for_words(tiny_encoder, tiny_seq2seq)
        with plain_descent():
            run(
                model,
                [*usable, *WORDLESS],
                stage(kind(), GeneratorEvidence(2), micro_batch=micro_batch),
                tmp_path / name,
            )
        weights.append({name: value.clone() for name, value in model.state_dict().items()})
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=0, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    model = build_for_words(tiny_encoder, tiny_seq2seq)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    lines = run(model, WORDLESS, stage(kind(), GeneratorEvidence(2)), tmp_path / "nothing")
    reads_alone = kind().reads in (Reads.SLOTS, Reads.NOTHING, Reads.TOGETHER)
    assert bool(moved(model, before)) == (lines[0]["gradient_norm"] > 0)
    assert reads_alone or not moved(model, before)


def test_halving_may_leave_a_micro_batch_without_gradient(
    tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory runs out with two queries at once; of one of the queries alone there is nothing to learn."""
    pytest.importorskip("bm25s")
    real = RagModel.likelihood

    def likelihood(model: RagModel, examples: list[Example], candidates: Candidates) -> GeneratorLikelihood:
        if len(examples) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return real(model, examples, candidates)

    monkeypatch.setattr(RagModel, "likelihood", likelihood)
    model = build_for_words(tiny_encoder, tiny_seq2seq)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    examples = [Example("u1", "what holds tea ?", ("cup",)), WORDLESS[0]]
    run(model, examples, stage(TopKMarginal(), GeneratorEvidence(2)), tmp_path / "run")
    assert moved(model, before)


def test_passages_that_are_all_the_queries_own_are_no_batch_to_fail_on(
    tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path
) -> None:
    """The same under a dense search: nothing is left of the base, and the retriever does not learn."""
    model = build_for_words(tiny_encoder, tiny_seq2seq, DENSE)
    own = KnowledgeBase.from_passages([Passage("w1", "", "alpha ?")])
    model = RagModel(model.retriever, model.generator, model.task, own)
    run(model, [Example("w1", "alpha ?", ("tea",))], stage(TopKMarginal(), GeneratorEvidence(1)), tmp_path / "run")


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_a_prior_over_the_whole_base_is_not_learned_from_an_index_without_log_z(
    kind: type[Objective], tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be another loss, without a word. Where no prior learns, or over candidates, nothing is refused."""
    pytest.importorskip("faiss")
    monkeypatch.setattr(FaissIndex, "log_z", "none")
    others = [*with_settings(kind, normaliser="candidates"), *with_settings(kind, form="published")]
    for objective in dict.fromkeys([kind(), *others]):
        for trained in ("query", "none"):
            model, examples = build_over_faiss(tiny_encoder, tiny_seq2seq, trained, objective.needs_posterior)
            what = stage(objective, GeneratorEvidence(2))
            refused = trained == "query" and objective.trains_retriever and objective.needs_log_normaliser
            folder = tmp_path / f"{trained}-{objective!r}"
            if not refused:
                run(model, examples[:2], what, folder)
                continue
            with pytest.raises(UserError, match=r'FaissIndex has no log Z; set objective.normaliser = "candidates"'):
                run(model, examples[:2], what, folder)


def test_a_prior_over_the_whole_base_learns_from_an_estimate_and_logs_its_error(
    tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path
) -> None:
    """With a draw for every row the weights become those of training over the exact index."""
    pytest.importorskip("faiss")
    after: dict[str, dict[str, torch.Tensor]] = {}
    for name, draws in (("exact", 0), ("all", 12), ("few", 2)):
        model, examples = build_over_faiss(tiny_encoder, tiny_seq2seq, "query", posterior=True)
        if name == "exact":
            model.use_index(build_index(model.passage_side, model.task, model.base))
        evidence = GeneratorEvidence(2, estimation=NormaliserEstimation(draws))
        with plain_descent():
            lines = run(model, examples, stage(JointStochasticApproximation(), evidence), tmp_path / name)
        logged = [{key: line[key] for key in line if key.startswith("log_z")} for line in lines if "loss" in line]
        names = ["log_z_bias", "log_z_bias_posterior", "log_z_error", "log_z_error_posterior"]
        assert [sorted(line) for line in logged] == [names if draws else []] * len(logged)
        assert all((value != 0) == (name == "few") for line in logged for value in line.values())
        after[name] = {key: value.clone() for key, value in model.state_dict().items()}
        norm = max(line["gradient_norm"] for line in lines if "loss" in line)
    atol = descent_tolerance(1e-2, 2, norm, TINY_TERMS, TINY_DEPTH)
    for key, value in after["exact"].items():
        torch.testing.assert_close(after["all"][key], value, rtol=0, atol=atol)
    assert any(not torch.equal(after["few"][key], value) for key, value in after["exact"].items())


def test_an_index_that_misses_too_much_estimates_nothing_unless_that_is_accepted(
    tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path
) -> None:
    pytest.importorskip("faiss")
    model, examples = build_over_faiss(tiny_encoder, tiny_seq2seq, "query", posterior=False)
    assert isinstance(model.index, FaissIndex)
    model.index.recall = 0.938
    expected = (
        r"the FaissIndex finds 93\.8% of the best rows .* less than training\.normaliser_recall = 0\.95; .* "
        r"Search harder .* set training\.normaliser_recall = 0\.93 to accept that"
    )
    with pytest.raises(UserError, match=expected):
        run(model, examples, stage(TopKMarginal(), GeneratorEvidence(2)), tmp_path / "refused")
    accepted = GeneratorEvidence(2, estimation=NormaliserEstimation(least_recall=0.93))
    assert run(model, examples, stage(TopKMarginal(), accepted), tmp_path / "accepted")
    over_candidates = stage(TopKMarginal(normaliser="candidates"), GeneratorEvidence(2))
    assert run(model, examples, over_candidates, tmp_path / "candidates")
    no_draws = GeneratorEvidence(2, estimation=NormaliserEstimation(draws=0))
    with pytest.raises(UserError, match=r"training\.normaliser_draws = 0 lets a FaissIndex estimate no log Z"):
        run(model, examples, stage(TopKMarginal(), no_draws), tmp_path / "none")


def with_settings(kind: type[Objective], **settings: str) -> list[Objective]:
    try:
        return [kind(**settings)]
    except (TypeError, UserError):
        return []


def build_over_faiss(
    encoder: Path, generator: Path, trained: TrainedTowers, posterior: bool
) -> tuple[RagModel, list[Example]]:
    model, examples = build(encoder, generator, trained, posterior)
    own = Encoder.open(str(encoder))  # passages do not move
    prior = Retriever(model.retriever.query_encoder, own, 0.1, trained)
    q = Retriever(Encoder.open(str(encoder)), own, 0.1, trained) if posterior else None
    model = RagModel(prior, model.generator, model.task, model.base, q)
    whole = build_index(model.passage_side, model.task, model.base)
    fingerprints = {"base_fingerprint": whole.base_fingerprint, "encoder_fingerprint": whole.encoder_fingerprint}
    model.use_index(FaissIndex(whole.vectors(torch.arange(len(model.base))), "Flat", **fingerprints))
    return model, examples


def test_nothing_to_train_is_an_error(tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path) -> None:
    model, examples = build(tiny_encoder, tiny_seq2seq)
    what = Stage("training", TopKMarginal(), GeneratorEvidence(2), Pace(1, 4, 0.0, 0.0), EverySteps(0))
    with pytest.raises(UserError, match="nothing is trained"):
        run_quietly(model, examples, what, tmp_path / "run")


def test_a_run_folder_is_never_overwritten(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path / "run", "", "no")
    with pytest.raises(UserError, match="choose another folder"):
        RunDirectory.create(tmp_path / "run", "", "no")


def test_a_whole_base_too_large_for_a_batch_says_what_to_set(
    tiny_encoder: Path, tiny_seq2seq: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, examples = build(tiny_encoder, tiny_seq2seq)

    monkeypatch.setattr(KnowledgeBase, "__len__", lambda base: 2**30)
    with pytest.raises(UserError, match=r"warm_start\.passages to 100"):
        CopyEvidence().candidates(model, examples, False, None, torch.Generator())


@pytest.mark.parametrize(("trained", "passages", "expected"), [("query", 2, 5), ("none", 2, 1), ("query", 0, 0)])
def test_the_index_is_rebuilt_when_passages_moved_and_only_then(
    trained: TrainedTowers,
    passages: int,
    expected: int,
    tiny_encoder: Path,
    tiny_seq2seq: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Eight steps refresh the index at the start, three times more and at the end; a fixed tower needs one index."""
    model, examples = build(tiny_encoder, tiny_seq2seq, trained)
    builds: list[int] = []
    real = RagModel.refresh_index
    monkeypatch.setattr(RagModel, "refresh_index", lambda self, *rest: (builds.append(1), real(self, *rest))[1])
    objective = TopKMarginal() if passages else NoRetrieval()
    what = Stage("training", objective, GeneratorEvidence(passages), Pace(2, 3, 1e-3, 1e-3), EverySteps(2), log_every=0)
    run_quietly(model, examples, what, tmp_path / "run")
    assert len(builds) == expected


def test_a_step_in_bf16_that_first_scores_without_gradient_still_trains_every_weight(
    tiny_encoder: Path, tiny_seq2seq: Path
) -> None:
    """Autocast caches the casts of weights, and those made under no_grad would cut the scored pass from its weights."""
    model, examples = build(tiny_encoder, tiny_seq2seq, "query", posterior=True)
    model.refresh_index()
    with torch.autocast("cpu", torch.bfloat16):
        candidates = model.retrieve(examples, 3, RetrievalOptions(posterior=True))
        likelihood = model.likelihood(examples, candidates)
        estimate = JointStochasticApproximation()(candidates.scores, likelihood, torch.Generator())
    estimate.loss.backward()
    without = {name for name, weight in model.generator.named_parameters() if weight.grad is None}
    assert not without


def test_a_checkpoint_in_the_middle_of_a_stage_loads(tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path) -> None:
    """The index is older than its tower, so the checkpoint leaves it out and it is built anew."""
    model, examples = build(tiny_encoder, tiny_seq2seq)
    what = Stage(
        "training",
        TopKMarginal(),
        GeneratorEvidence(2),
        Pace(1, 6, 1e-2, 1e-2),
        EverySteps(0),
        log_every=0,
        save_every=2,
    )
    run_quietly(model, examples, what, tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints" / "0001-training-step-0000002"
    loaded = RagModel.load(folder, model.task, model.base, "")
    loaded.refresh_index()
    model.refresh_index()
    assert loaded.predict(examples[:2], 2) == model.predict(examples[:2], 2)


def test_what_was_learnt_is_saved_before_the_last_embedding(
    tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last embedding may take long and may fail, so the weights of the last step are saved before it."""
    model, examples = build(tiny_encoder, tiny_seq2seq)
    model.refresh_index()

    def refuse(model: RagModel, *_: object) -> None:
        raise UserError("no memory")

    monkeypatch.setattr(RagModel, "refresh_index", refuse)
    for save_every, expected in ((0, []), (100, ["0001-training-step-0000003"])):
        pace = Pace(1, 4, 1e-2, 1e-2)
        what = Stage("training", TopKMarginal(), GeneratorEvidence(2), pace, EverySteps(0), 0, save_every=save_every)
        folder = tmp_path / f"save_every={save_every}"
        with pytest.raises(UserError, match="no memory"):
            run_quietly(model, examples, what, folder)
        assert [path.name for path in folder.glob("checkpoints/*")] == expected
        model.use_index(build_index(model.passage_side, model.task, model.base))
    saved = RagModel.load(folder / "checkpoints" / expected[0], model.task, model.base, "")
    assert moved(saved, dict(model.state_dict())) == set()


def test_a_frozen_objective_needs_no_frozen_setting(tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path) -> None:
    """The control trains the generator alone, whatever ``trained`` says, and asks for no warm start."""
    model, examples = build(tiny_encoder, tiny_seq2seq, "both")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run(model, examples, stage(FrozenRetriever()), tmp_path / "run")
    assert {name.split(".")[0] for name in moved(model, before)} == {"generator"}
