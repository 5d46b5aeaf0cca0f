"""Tests of stages beside the main one: masked sentences, and the generator alone on what the prior finds."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.rag.variants import variant
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from retrograd.data.masking import SpanExample
from retrograd.experiments.experiment import (
    Experiment,
    MaskingSettings,
    RetrieverSettings,
    SecondStageSettings,
    TrainingSettings,
    WarmStartSettings,
)
from retrograd.experiments.open import open_run
from retrograd.experiments.run import require_enough_passages, run_experiment
from retrograd.experiments.stages import build_stages, masked_examples
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.models.encoder import Encoder
from retrograd.models.generator import Generator
from retrograd.models.generator_settings import GeneratorOptions
from retrograd.models.retriever import Retriever
from retrograd.objectives import CandidateScores, Estimate, FrozenRetriever, Goal, Likelihood, Reads
from retrograd.rag.candidates import Pool
from retrograd.rag.rag_model import RagModel
from retrograd.tasks.question_answering import QuestionAnswering
from retrograd.tasks.relations.extraction import RelationExtraction
from retrograd.training.loop import train
from retrograd.training.run.run_directory import RunDirectory
from retrograd.training.stage import GeneratorEvidence, Stage
from retrograd.types import Example, Passage, UserError

THINGS = ("bridge", "mill", "tower", "school")
PASSAGES = [
    Passage(f"{thing}{copy}", "", text)
    for i, thing in enumerate(THINGS)
    for copy, text in enumerate(
        (
            f"people say that the old {thing} was opened in {1911 + 7 * i} by the town",
            f"in {1911 + 7 * i} the town opened the {thing} that people now call old",
        )
    )
]
QUESTIONS = [Example(thing, f"when was the {thing} opened", (str(1911 + 7 * i),)) for i, thing in enumerate(THINGS)]
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "</s>", "[MASK]")
WORDS = sorted({word for text in (*(p.text for p in PASSAGES), *(q.query for q in QUESTIONS)) for word in text.split()})


def with_words(folder: Path, model: BertModel | T5ForConditionalGeneration, template: str) -> str:
    """Return a folder with the model and a tokenizer of the world's words."""
    tokens = {word: i for i, word in enumerate((*SPECIAL, "Passage:", "Question:", "Answer:", *WORDS))}
    tokenizer = Tokenizer(WordLevel(tokens, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = [(token, tokens[token]) for token in SPECIAL]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", **names).save_pretrained(folder)
    model.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Save a BERT and a T5 with fresh weights."""
    bert = BertConfig(
        vocab_size=64,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        initializer_range=0.3,
        pad_token_id=0,
    )
    t5 = T5Config(
        vocab_size=64,
        d_model=32,
        d_kv=16,
        d_ff=64,
        num_layers=1,
        num_heads=2,
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=4,
        decoder_start_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = with_words(tmp_path_factory.mktemp("bert"), BertModel(bert), "[CLS] $A [SEP]")
        generator = with_words(tmp_path_factory.mktemp("t5"), T5ForConditionalGeneration(t5), "$A </s>")
    return encoder, generator


def build(folders: tuple[str, str], posterior: bool = False) -> RagModel:
    encoder, generator = folders
    tower = Encoder.open(encoder)
    q = Retriever(Encoder.open(encoder), tower, 0.1, "query") if posterior else None
    rng = torch.Generator().manual_seed(0)
    task, base = QuestionAnswering(instruction=""), KnowledgeBase.from_passages(PASSAGES)
    return RagModel(
        Retriever(tower, tower, 0.1, "query"),
        Generator.open(generator, rng, None, GeneratorOptions(max_target_tokens=4)),
        task,
        base,
        q,
    )


def experiment(*assignments: str) -> Experiment:
    start = Experiment(
        warm_start=WarmStartSettings(epochs=0),
        training=TrainingSettings(epochs=1, batch_size=4, passages=2, log_every=1, warmup=0.0, probe_passages=0),
    )
    return start.with_settings(assignments)


def jsa(*assignments: str) -> Experiment:
    return experiment("retriever.posterior=true", "objective.kind=JointStochasticApproximation", *assignments)


def planned(what: Experiment, model: RagModel) -> list[Stage]:
    return build_stages(what, model, torch.Generator().manual_seed(0))


def run(model: RagModel, plan: list[Stage], folder: Path) -> list[dict]:
    torch.manual_seed(0)
    directory, rng = RunDirectory.create(folder, "", "no"), torch.Generator().manual_seed(0)
    for stage in plan:
        examples = QUESTIONS if stage.examples is None else stage.examples
        train(model, examples, stage, directory, rng)
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_stages_come_in_their_order_and_only_where_asked_for(folders: tuple[str, str]) -> None:
    model = build(folders)
    names = [stage.name for stage in planned(experiment(), model)]
    assert names == ["training"]
    wanted = experiment("warm_start.epochs=1", "masking.epochs=1", "second_stage.epochs=1")
    assert [stage.name for stage in planned(wanted, model)] == ["warm start", "masking", "training", "second stage"]


def test_what_is_not_masked_leaves_the_source_of_randomness_alone(folders: tuple[str, str]) -> None:
    rng = torch.Generator().manual_seed(0)
    before = rng.get_state()
    build_stages(experiment("second_stage.epochs=1"), build(folders), rng)
    assert torch.equal(rng.get_state(), before)


def test_every_setting_of_training_reaches_the_other_stages(folders: tuple[str, str]) -> None:
    what = experiment(
        "training.tail=2", "training.distraction=0.25", "training.pool=true", "training.explorers=1",
        "training.micro_batch=2", "training.targets=sampled", "masking.epochs=2", "second_stage.epochs=3",
        "second_stage.reading=singly", "second_stage.batch_size=5", "second_stage.passages=3",
    )  # fmt: skip
    masking, main, second = planned(what, build(folders))
    assert masking.evidence == main.evidence
    assert (main.evidence.tail, main.evidence.distraction, main.evidence.pool) == (2, 0.25, Pool(1))
    assert second.evidence == GeneratorEvidence(3, tail=2, distraction=0.25, as_at_test_time=True)
    assert (masking.pace.epochs, second.pace.epochs, second.pace.batch_size) == (2, 3, 5)
    assert {stage.pace.micro_batch for stage in (masking, main, second)} == {2}
    assert (masking.targets, main.targets, second.targets) == ("first", "sampled", "sampled")
    together = planned(what.with_settings(["second_stage.reading=together"]), build(folders))[-1]
    assert together.evidence == GeneratorEvidence(3, distraction=0.25, as_at_test_time=True)


@pytest.mark.slow
@pytest.mark.parametrize("reading", ["together", "singly"])
def test_all_stages_run_with_what_training_adds_and_log_under_their_names(
    reading: str, folders: tuple[str, str], tmp_path: Path
) -> None:
    what = experiment(
        "training.tail=1", "training.distraction=0.25", "training.targets=sampled", "warm_start.epochs=1",
        "masking.epochs=1", "second_stage.epochs=1", f"second_stage.reading={reading}", "training.save_every=1",
    )  # fmt: skip
    model = build(folders)
    log = run(model, planned(what, model), tmp_path / "run")
    assert list(dict.fromkeys(line["stage"] for line in log)) == ["warm start", "masking", "training", "second stage"]
    kept = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert kept == {"0003-training-step-0000001", "0004-second-stage-step-0000001"}  # the newest two of four


def test_prior_only_queries_leave_their_chains_where_they_stood(folders: tuple[str, str], tmp_path: Path) -> None:
    """Nearly all visits are prior-only here, so nearly no chain has started, and the generator learns."""
    model = build(folders, posterior=True)
    what = jsa("objective.sampler=metropolis", "objective.draws=2", "training.prior_only=0.9", "training.epochs=4")
    before = {name: value.clone() for name, value in model.generator.state_dict().items()}
    run(model, planned(what, model), tmp_path / "run")
    started = int((load_file(tmp_path / "run" / "chains" / "training.safetensors")["row"] != -1).sum())
    assert 0 < started < len(QUESTIONS)
    assert any(not torch.equal(value, before[name]) for name, value in model.generator.state_dict().items())


# ---- the second stage ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reading", ["together", "singly"])
def test_in_the_second_stage_the_generator_learns_and_the_retrievers_rest(
    reading: str, folders: tuple[str, str], tmp_path: Path
) -> None:
    model = build(folders, posterior=True)
    second = planned(jsa("second_stage.epochs=2", f"second_stage.reading={reading}"), model)[-1]
    assert second.objective == FrozenRetriever("together" if reading == "together" else "marginal")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run(model, [second], tmp_path / "run")
    moved = {name.split(".")[0] for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"generator"}


def test_the_second_stage_sees_what_the_prior_finds_and_asks_no_posterior(
    folders: tuple[str, str], tmp_path: Path
) -> None:
    model = build(folders, posterior=True)
    assert model.posterior is not None
    for weight in model.posterior.query_encoder.parameters():
        weight.data.fill_(torch.nan)  # or the loss would not be finite
    model.refresh_index()
    model.eval()
    found = model.retrieve(QUESTIONS, 3)
    expected = {tuple(row.tolist()) for row in found.scores.log_prior}
    seen: list[CandidateScores] = []

    class Spy:
        trains_retriever = needs_posterior = leaves_one_out = mixes_tokens = needs_log_normaliser = False
        trains_generator = True
        reads = Reads.TOGETHER
        goal = Goal.OTHER
        selection = None

        def __call__(self, scores: CandidateScores, likelihood: Likelihood, rng: torch.Generator) -> Estimate:
            seen.append(scores)
            return FrozenRetriever("together")(scores, likelihood, rng)

    second = planned(jsa("second_stage.epochs=1", "second_stage.passages=3"), model)[-1]
    run(model, [replace(second, objective=Spy())], tmp_path / "run")
    assert all(scores.log_posterior is None and scores.previous is None for scores in seen)
    assert not any(scores.log_prior.requires_grad for scores in seen)
    rows = torch.cat([scores.log_prior for scores in seen])
    assert rows.shape == (len(QUESTIONS), 3)
    # As at test time: dropout would make other scores of them.
    for row in rows:
        assert any(torch.allclose(row, torch.tensor(one), atol=1e-4) for one in expected)


def test_answers_are_read_as_in_the_last_stage() -> None:
    what = jsa("second_stage.epochs=1", "second_stage.passages=7")
    assert (what.manner.reading, what.test_passages) == ("together", 7)
    assert what.with_settings(["second_stage.reading=singly"]).manner.reading == "singly"
    assert what.with_settings(["evaluation.reading=singly", "evaluation.passages=3"]).manner.reading == "singly"
    assert what.with_settings(["evaluation.passages=3"]).test_passages == 3
    off = what.with_settings(["second_stage.epochs=0"])
    assert (off.manner.reading, off.test_passages) == ("singly", 2)


@pytest.mark.slow
def test_a_run_with_a_second_stage_is_opened_as_it_was_trained(
    tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path
) -> None:
    records = [
        {"text": f"the {thing} holds tea .", "head": [4, 7], "tail": [14, 17], "relation": label}
        for thing, label in (("cup", "holds"), ("box", "holds"), ("car", "part of"))
    ]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    what = experiment(
        f"data.train={data}", "data.test=", "data.labels=from_train", f"retriever.model={tiny_encoder}",
        f"generator.model={tiny_seq2seq}", "second_stage.epochs=1", "training.precision=fp32",
    )  # fmt: skip
    finished = run_experiment(what, tmp_path / "run")
    opened = open_run(finished.path)
    assert opened.experiment == what
    assert opened.model.answering.manner.reading == "together"
    log = [json.loads(line) for line in (finished.path / "metrics.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in log] == ["training", "second stage"]


# ---- masking ---------------------------------------------------------------------------------------------------------


def test_masked_examples_come_from_the_base_and_one_seed_gives_them_again() -> None:
    base = KnowledgeBase.from_passages(PASSAGES)
    first, again = (
        masked_examples(base, MaskingSettings(epochs=1, passages=5), torch.Generator().manual_seed(3)) for _ in range(2)
    )
    assert first == again
    assert len({example.source for example in first}) == 5
    everything = masked_examples(base, MaskingSettings(epochs=1), torch.Generator())
    assert [example.source for example in everything] == [passage.id for passage in PASSAGES]
    assert all("[MASK]" in example.query and example.target.isdigit() for example in everything)


@pytest.mark.parametrize("may_see_source", [False, True])
def test_a_masked_sentence_meets_its_source_only_where_it_may(
    may_see_source: bool, folders: tuple[str, str], tmp_path: Path
) -> None:
    model = build(folders, posterior=True)
    seen: list[tuple[str, set[str]]] = []
    plan = planned(
        jsa("masking.epochs=2", f"masking.may_see_source={str(may_see_source).lower()}", "training.passages=8"), model
    )
    evidence = plan[0].evidence

    class Spy:
        uses_generator = retrieves = needs_log_normaliser = True
        tail = 0
        estimation = evidence.estimation
        candidates_per_query = evidence.candidates_per_query

        def candidates(self, model, examples, posterior, previous, rng):
            found = evidence.candidates(model, examples, posterior, previous, rng)
            for example, rows in zip(examples, found.rows.tolist(), strict=True):
                assert isinstance(example, SpanExample)
                seen.append((example.source, {PASSAGES[row].id for row in rows if row >= 0}))
            return found

        def likelihood(self, model, examples, candidates):
            return evidence.likelihood(model, examples, candidates)

    run(model, [replace(plan[0], evidence=Spy())], tmp_path / "run")
    assert len(seen) == 2 * len(PASSAGES)
    assert all((source in found) == may_see_source for source, found in seen)
    assert all(len(found) == len(PASSAGES) - (not may_see_source) for _, found in seen)


@pytest.mark.slow
def test_a_fresh_generator_learns_the_base_from_masked_sentences(folders: tuple[str, str], tmp_path: Path) -> None:
    what = experiment(
        "masking.epochs=60", "masking.generator_learning_rate=1e-2", "masking.retriever_learning_rate=1e-4",
        "training.passages=3", "training.log_every=20",
    )  # fmt: skip
    model = build(folders)
    masking = planned(what, model)[0]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    log = run(model, [masking], tmp_path / "run")
    assert log[0]["log_likelihood"] < -1.0
    assert log[-1]["log_likelihood"] > -0.3
    moved = {name.split(".")[0] for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"retriever", "generator"}
    assert masking.examples is not None
    answers = [prediction.answer for prediction in model.predict(masking.examples, 3)]
    assert sum(answer == example.target for answer, example in zip(answers, masking.examples, strict=True)) >= 7


# ---- what cannot run -------------------------------------------------------------------------------------------------


def test_masking_makes_no_sense_where_answers_are_a_closed_set(folders: tuple[str, str]) -> None:
    model = variant(build(folders), task=RelationExtraction.semeval())
    with pytest.raises(UserError, match=r"closed set, .* set masking\.epochs = 0"):
        planned(experiment("masking.epochs=1"), model)


def test_a_base_without_anything_to_mask_says_so() -> None:
    base = KnowledgeBase.from_passages([Passage("a", "", "water is wet and the sky is blue today")])
    with pytest.raises(UserError, match=r"no name, date or number .* in 1 passages; set masking\.epochs = 0"):
        masked_examples(base, MaskingSettings(epochs=1), torch.Generator())


def test_ids_of_spans_that_are_in_no_passage_are_counted_aloud(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = KnowledgeBase.from_passages(PASSAGES)
    number = re.search(r"\d+", PASSAGES[0].text)
    assert number is not None
    good = {"id": PASSAGES[0].id, "spans": [list(number.span())]}
    file = tmp_path / "spans.jsonl"
    settings = MaskingSettings(epochs=1, spans=str(file))
    for ids, told in (([], ""), (["x", "y", "x"], "2 ids of"), (["x"], "1 ids of")):
        file.write_text("".join(json.dumps(one) + "\n" for one in [good, *({**good, "id": id_} for id_ in ids)]))
        caplog.clear()
        with caplog.at_level("INFO", logger="retrograd"):
            assert [one.source for one in masked_examples(base, settings, torch.Generator())] == [PASSAGES[0].id]
        assert ("are in no passage" in caplog.text) == bool(told)
        assert told in caplog.text
    file.write_text(json.dumps({**good, "id": "x"}) + "\n")
    with pytest.raises(UserError, match=r"masking\.spans: .*: none of its 1 ids is in a passage .* such as '"):
        masked_examples(base, settings, torch.Generator())


def test_more_passages_than_there_are_is_an_error() -> None:
    base = KnowledgeBase.from_passages(PASSAGES)
    for stage in ("warm_start", "masking", "second_stage"):
        asked = [f"{stage}.passages=9", "evaluation.passages=2"]
        with pytest.raises(UserError, match=f"{stage}.passages is 9"):
            require_enough_passages(experiment(f"{stage}.epochs=1", *asked), base)
        require_enough_passages(experiment(f"{stage}.epochs=0", *asked), base)


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["training.prior_only=0.2"], "needs an objective with a posterior"),
        (["training.prior_only=1.0"], "prior_only is 1; expected a share"),
        (["second_stage.epochs=1", "objective.kind=RelaxedTopK"], "reads them in soft slots; set it to 0"),
        (["second_stage.epochs=1", "objective.kind=NoRetrieval", "training.passages=0"], "reads no passages"),
        (["second_stage.epochs=1", "second_stage.learning_rate=0"], "learning_rate is 0, and nothing else learns"),
        (["second_stage.passages=-1"], "second_stage.passages is -1; it must be at least 0"),
        (["masking.per_passage=0"], "masking.per_passage is 0; it must be at least 1"),
        (["training.targets=all"], "targets is 'all'; expected one of 'first', 'sampled'"),
    ],
)
def test_settings_that_do_not_fit_say_so(assignments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        experiment(*assignments)


def test_the_new_settings_survive_toml(tmp_path: Path) -> None:
    what = replace(
        jsa("training.prior_only=0.2", "training.targets=sampled"),
        retriever=RetrieverSettings(posterior=True),
        masking=MaskingSettings(epochs=2, may_see_source=True),
        second_stage=SecondStageSettings(epochs=1, reading="singly"),
    )
    path = tmp_path / "mine.toml"
    path.write_text(what.to_toml(), encoding="utf-8")
    assert Experiment.load(path) == what
