"""RagModel on tiny random models: what each part sees, whom nobody may retrieve, answers by enumeration, disk."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.rag.variants import variant

from retrograd.index.exact import ExactIndex
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.index.restricted import RestrictedIndex
from retrograd.models.encoder import Encoder
from retrograd.models.generator import Generator
from retrograd.models.generator_settings import GeneratorOptions
from retrograd.models.retriever import Retriever, TrainedTowers
from retrograd.objectives import RelaxedTopK
from retrograd.rag.answers.answering import Answering
from retrograd.rag.answers.decision import Decision
from retrograd.rag.answers.manner import Manner
from retrograd.rag.candidates import NULL_ROW, Pool
from retrograd.rag.rag_model import RagModel
from retrograd.rag.search import RetrievalOptions
from retrograd.rag.search.substitution import choose_unrelated_rows
from retrograd.rag.search_kinds import BM25, UNRELATED
from retrograd.rag.staleness import describe_index_fault
from retrograd.tasks.relations.extraction import RelationExtraction
from retrograd.types import Example, Passage, UserError

SENTENCES = [
    ("the @ cup @ holds # tea # .", "Content-Container(e2,e1)"),
    ("the @ tea @ is in the # cup # .", "Content-Container(e1,e2)"),
    ("the @ rain @ caused the # flood # .", "Cause-Effect(e1,e2)"),
    ("the @ flood @ came from # rain # .", "Cause-Effect(e2,e1)"),
    ("the @ box @ holds # tea # .", "Content-Container(e2,e1)"),
    ("the @ wheel @ of the # car # .", "Component-Whole(e1,e2)"),
]
POSTERIOR = RetrievalOptions(posterior=True)


def build(
    encoder: Path,
    generator: Path,
    neighbour_style: str = "labelled",
    trained: TrainedTowers = "query",
    posterior: bool = True,
) -> tuple[RagModel, list[Example]]:
    task = RelationExtraction.semeval("marked", neighbour_style)
    examples = [Example(str(i), text, (task.verbalise(label),)) for i, (text, label) in enumerate(SENTENCES)]
    base = KnowledgeBase.from_passages(Passage(e.id, e.target, e.query) for e in examples)
    rng = torch.Generator().manual_seed(0)
    tower = Encoder.open(str(encoder))
    retriever = Retriever(tower, tower, 0.1, trained)
    q = Retriever(Encoder.open(str(encoder)), tower, 0.1, trained) if posterior else None
    model = RagModel(
        retriever, Generator.open(str(generator), rng, None, GeneratorOptions(max_target_tokens=8)), task, base, q
    )
    model.eval()
    model.refresh_index()
    return model, examples


def test_the_prior_never_sees_the_target_and_the_posterior_does(tiny_encoder: Path, tiny_seq2seq: Path) -> None:
    """Changing every target changes no prior and every posterior."""
    model, examples = build(tiny_encoder, tiny_seq2seq)
    choices = model.task.choices or ()
    changed = [replace(example, targets=(choices[(i * 5 + 3) % len(choices)],)) for i, example in enumerate(examples)]
    assert all(a.target != b.target for a, b in zip(examples, changed, strict=True))
    one, other = (model.retrieve_all(found, with_posterior=True).scores for found in (examples, changed))
    assert torch.equal(one.log_prior, other.log_prior)
    assert one.log_posterior is not None
    assert other.log_posterior is not None
    finite = one.log_posterior.isfinite()
    assert (one.log_posterior != other.log_posterior)[finite].any(-1).all()


def test_no_training_row_retrieves_itself(tiny_encoder: Path, tiny_seq2seq: Path) -> None:
    model, examples = build(tiny_encoder, tiny_seq2seq)
    own = torch.arange(len(examples)).unsqueeze(-1)
    for candidates in (model.retrieve(examples, 6, POSTERIOR), model.retrieve_all(examples)):
        assert (candidates.rows != own).all()
        assert ((candidates.rows >= 0).sum(-1) == len(examples) - 1).all()


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_a_random_search_knows_nothing_of_the_query(tiny_encoder: Path, tiny_seq2seq: Path) -> None:
    model, examples = build(tiny_encoder, tiny_seq2seq, trained="none")
    found = model.retrieve(examples, 3)
    model = variant(model, search=UNRELATED)
    control, again = model.retrieve(examples, 3), model.retrieve(examples[:2], 3)
    assert torch.equal(control.rows[:2], again.rows)  # whoever else is in the batch
    assert not torch.equal(control.rows, found.rows)
    assert (control.rows != torch.arange(len(examples)).unsqueeze(-1)).all()  # nor ever a query's own
    moved = [replace(example, query=example.query + " and so on") for example in examples]
    assert not torch.equal(control.rows, model.retrieve(moved, 3).rows)
    assert control.query is not None
    assert found.query is not None
    torch.testing.assert_close(control.query, found.query)  # what a soft prompt says of the query is still its own
    whole = model.retrieve_all(examples).scores.log_prior
    torch.testing.assert_close(whole.gather(1, control.rows.clamp(min=0)), control.scores.log_prior)


def test_what_stands_in_for_a_query_does_not_find_itself(tiny_encoder: Path, tiny_seq2seq: Path) -> None:
    """It would be found with cosine 1, which no query ever has, and the generator would know that it is misled."""
    model, examples = build(tiny_encoder, tiny_seq2seq, trained="none")
    hidden = model.own_rows(examples)
    rows = choose_unrelated_rows(examples, hidden, len(model.base))
    assert (rows.unsqueeze(-1) != hidden).all()
    model = variant(model, search=UNRELATED)
    assert (model.retrieve(examples, 6).rows != rows.unsqueeze(-1)).all()
    pool = RetrievalOptions(pool=Pool(explorers=6))
    assert (model.retrieve(examples, 2, pool, rng=seeded()).rows != rows.unsqueeze(-1)).all()


@pytest.mark.parametrize("trained", ["query", "both"])
def test_distracted_queries_find_something_else_and_teach_the_retriever_nothing(
    tiny_encoder: Path, tiny_seq2seq: Path, trained: TrainedTowers
) -> None:
    model, examples = build(tiny_encoder, tiny_seq2seq, trained=trained)
    plain = model.retrieve(examples, 3)
    calm = model.retrieve(examples, 3, RetrievalOptions(distraction=1e-9), rng=seeded())
    torch.testing.assert_close(calm.scores.log_prior, plain.scores.log_prior)
    found = model.retrieve(examples, 3, RetrievalOptions(distraction=0.5), rng=seeded())
    changed = (found.scores.log_prior.nan_to_num() != plain.scores.log_prior.nan_to_num()).any(dim=-1)
    assert 0 < int(changed.sum()) < len(examples)
    assert (found.rows != torch.arange(len(examples)).unsqueeze(-1)).all()  # a query's own passage is never found
    for rows, moves in ((changed, False), (~changed, True)):
        model.zero_grad()
        again = model.retrieve(examples, 3, RetrievalOptions(distraction=0.5), rng=seeded())
        assert again.vectors is not None
        (again.scores.log_prior[rows, 0].sum() + again.vectors[rows, 0, 0].sum()).backward()
        gradient = [w.grad for w in model.retriever.parameters() if w.grad is not None]
        assert any(bool((g != 0).any()) for g in gradient) == moves
    for share, rng, message in ((0.5, None, "pass rng"), (2.0, seeded(), "from 0 to 1")):
        with pytest.raises(UserError, match=message):
            model.retrieve(examples, 3, RetrievalOptions(distraction=share), rng=rng)


@pytest.mark.parametrize("trained", ["query", "both"])
def test_all_candidates_are_a_distribution_over_the_base(
    tiny_encoder: Path, tiny_seq2seq: Path, trained: TrainedTowers
) -> None:
    """With K = N (but for itself) the candidates hold all the mass, and both ways to get them agree."""
    model, examples = build(tiny_encoder, tiny_seq2seq, trained=trained)
    whole = model.retrieve_all(examples, with_posterior=True).scores
    top = model.retrieve(examples, 6, POSTERIOR)
    rows = top.rows.clamp(min=0)
    for name in ("log_prior", "log_posterior"):
        found, dense = vars(top.scores)[name], vars(whole)[name]
        torch.testing.assert_close(found.exp().sum(-1), torch.ones(6), rtol=0, atol=1e-5)
        present = top.rows >= 0
        torch.testing.assert_close(found[present], dense.gather(1, rows)[present], rtol=0, atol=1e-4)


@pytest.mark.parametrize("style", ["labelled", "label only"])
def test_likelihood_is_the_generators_and_equal_prompts_are_run_once(
    tiny_encoder: Path, tiny_seq2seq: Path, style: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, examples = build(tiny_encoder, tiny_seq2seq, style)
    candidates = model.retrieve(examples, 5)
    asked: list[int] = []
    real = Generator.token_log_likelihood
    monkeypatch.setattr(
        Generator, "token_log_likelihood", lambda self, p, t, s=None: (asked.append(len(p)), real(self, p, t, s))[1]
    )
    column = torch.tensor([[0, 4, -1, 2, 0]]).expand(6, -1)
    found = model.likelihood(examples, candidates).at(column)
    prompts = {
        (model.task.prompt(example, [model.base[int(candidates.rows[b, k])]]), example.target)
        for b, example in enumerate(examples)
        for k in (0, 4, 2)
    }
    assert asked == [len(prompts)]
    for b, example in enumerate(examples):
        for m, k in enumerate(column[b].tolist()):
            if k < 0:
                assert found[b, m] == -torch.inf
                continue
            prompt = model.task.prompt(example, [model.base[int(candidates.rows[b, k])]])
            expected = model.generator.log_likelihood([prompt], [example.target])[0]
            torch.testing.assert_close(found[b, m], expected, rtol=0, atol=1e-4)


def test_tokens_sum_to_the_sequence_and_together_reads_all_passages(tiny_encoder: Path, tiny_seq2seq: Path) -> None:
    model, examples = build(tiny_encoder, tiny_seq2seq)
    candidates = model.retrieve(examples, 3)
    likelihood = model.likelihood(examples, candidates)
    column = torch.tensor([[2, -1, 0]]).expand(6, -1)
    tokens = likelihood.tokens_at(column)
    total = tokens.value.sum(-1)
    torch.testing.assert_close(total, likelihood.at(column), rtol=0, atol=1e-4)
    assert (tokens.value[:, 1][tokens.present] == -torch.inf).all()
    chosen = [[model.base[int(row)] for row in candidates.rows[b, [2, 0]]] for b in range(6)]
    prompts = [model.task.prompt(example, found) for example, found in zip(examples, chosen, strict=True)]
    expected = model.generator.log_likelihood(prompts, [example.target for example in examples])
    torch.testing.assert_close(likelihood.together(column), expected, rtol=0, atol=1e-4)
    closed = model.generator.log_likelihood([e.query for e in examples], [e.target for e in examples])
    nothing = likelihood.together(torch.empty(6, 0, dtype=torch.long))
    torch.testing.assert_close(nothing, closed, rtol=0, atol=1e-4)


def test_answers_are_the_argmax_of_the_marginal(tiny_encoder: Path, tiny_seq2seq: Path) -> None:
    """Against a loop over examples, choices and passages."""
    model, examples = build(tiny_encoder, tiny_seq2seq)
    choices = list(model.task.choices or ())
    for example, prediction in zip(examples, model.predict(examples, 3), strict=True):
        found = model.retrieve([example], 3)
        prior = found.scores.log_prior[0].log_softmax(-1)
        rows = found.rows[0].tolist()
        table = torch.stack(
            [
                prior[k] + model.generator.log_likelihood([model.task.prompt(example, [model.base[row]])] * 19, choices)
                for k, row in enumerate(rows)
            ]
        )
        best = int(table.logsumexp(0).argmax())
        assert prediction.answer == choices[best]
        assert prediction.log_probability == pytest.approx(table.logsumexp(0).log_softmax(0)[best].item(), abs=1e-3)
        weight = table[:, best].softmax(0)
        order = weight.argsort(descending=True).tolist()
        assert prediction.rows == tuple(rows[k] for k in order)
        assert prediction.weights == pytest.approx([weight[k].item() for k in order], abs=1e-3)


def test_passages_read_together_stand_in_one_prompt_best_first(tiny_encoder: Path, tiny_seq2seq: Path) -> None:
    model, examples = build(tiny_encoder, tiny_seq2seq)
    singly = [prediction.log_probability for prediction in model.predict(examples, 3)]
    model = variant(model, answering=Answering(Manner(reading="together")))
    choices = list(model.task.choices or ())
    for example, prediction in zip(examples, model.predict(examples, 3), strict=True):
        found = model.retrieve([example], 3)
        best_first = found.rows[0][found.scores.log_prior[0].argsort(descending=True)].tolist()
        prompt = model.task.prompt(example, [model.base[row] for row in best_first])
        log_p = model.generator.log_likelihood([prompt] * 19, choices).log_softmax(-1)
        assert prediction.answer == choices[int(log_p.argmax())]
        assert prediction.log_probability == pytest.approx(log_p.max().item(), abs=1e-3)
        assert prediction.rows == tuple(best_first)
    assert singly != pytest.approx([prediction.log_probability for prediction in model.predict(examples, 3)], abs=1e-3)


def test_written_answers_are_the_greedy_ones_and_need_not_be_labels(tiny_encoder: Path, tiny_seq2seq: Path) -> None:
    """Together there is one; singly the likeliest, over all passages, of those written from each."""
    model, examples = build(tiny_encoder, tiny_seq2seq)
    model = variant(model, answering=Answering(Manner("written", "together")))
    written = [prediction.answer for prediction in model.predict(examples, 2)]
    found = model.retrieve(examples, 2).rows.tolist()
    read = [[model.base[row] for row in rows] for rows in found]
    prompts = [model.task.prompt(example, own) for example, own in zip(examples, read, strict=True)]
    assert written == model.generator.generate(prompts)
    assert not set(written) & set(model.task.choices or ())
    assert model.choice_scores(examples, 2) is None
    model = variant(model, answering=Answering(Manner("written")))
    for example, prediction in zip(examples, model.predict(examples, 2), strict=True):
        own = [model.task.prompt(example, [model.base[row]]) for row in model.retrieve([example], 2).rows[0].tolist()]
        assert prediction.answer in model.generator.generate(own)


def test_bm25_finds_by_words_and_never_the_query_itself(tiny_encoder: Path, tiny_seq2seq: Path) -> None:
    pytest.importorskip("bm25s")
    model, examples = build(tiny_encoder, tiny_seq2seq)
    model = variant(model, search=BM25)
    found = model.retrieve(examples, 5)
    first = found.rows[:, 0].tolist()
    assert first[:2] == [4, 0]  # cup, tea, holds; tea, cup
    assert all(b not in rows for b, rows in enumerate(found.rows.tolist()))
    torch.testing.assert_close(found.scores.log_prior.exp().sum(-1), torch.ones(6))
    everything = model.retrieve_all(examples)
    assert [int(row) for row in everything.scores.log_prior.argmax(-1)] == first
    assert all(everything.rows[b, b] == -1 for b in range(6))
    assert len(model.predict(examples, 2)) == 6
    with pytest.raises(UserError, match=r"bm25. scores what it finds"):
        model.candidates_at(examples, torch.zeros(6, 1, dtype=torch.long))


def test_a_saved_model_keeps_its_search_and_answering(tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path) -> None:
    model, _ = build(tiny_encoder, tiny_seq2seq)
    answering = Answering(Manner("written", "together", 2), RelaxedTopK(slots=2).selection, Decision(0.3, -0.2))
    model = variant(model, search=BM25, answering=answering)
    model.save(tmp_path / "model")
    loaded = RagModel.load(tmp_path / "model", model.task, model.base, "")
    assert (loaded.search_kind, loaded.answering) == (BM25, answering)
    found = json.loads((tmp_path / "model" / "model.json").read_text())
    (tmp_path / "model" / "model.json").write_text(json.dumps(found | {"search": "bm52"}))
    with pytest.raises(UserError, match=r"model\.json: retriever\.search is 'bm52'.* 'bm25'"):
        RagModel.load(tmp_path / "model", model.task, model.base, "")


def test_without_passages_the_generator_answers_alone(tiny_encoder: Path, tiny_causal: Path) -> None:
    model, examples = build(tiny_encoder, tiny_causal)
    prediction = model.predict(examples[:1], 0)[0]
    choices = list(model.task.choices or ())
    alone = model.generator.log_likelihood([examples[0].query] * 19, choices)
    assert prediction.answer == choices[int(alone.argmax())]
    assert prediction.rows == ()


def test_answers_are_chosen_by_the_scoring_asked_for(tiny_encoder: Path, tiny_seq2seq: Path) -> None:
    model, examples = build(tiny_encoder, tiny_seq2seq)
    prompts = [model.task.prompt(example, ()) for example in examples]
    choices = [list(model.task.choices_for(example) or ()) for example in examples]
    predictions = model.predict(examples, 0, "tree")
    # The tiny tokeniser reads some choices alike: those have one share, and the choices together more than 1.
    shares = model.generator.choice_log_likelihood(prompts, choices, "tree").log_softmax(-1)
    assert [p.answer for p in predictions] == [
        found[best] for found, best in zip(choices, shares.argmax(-1).tolist(), strict=True)
    ]
    found = [p.log_probability for p in predictions]
    assert found == pytest.approx(shares.amax(-1).tolist(), abs=1e-4)
    assert found != pytest.approx([p.log_probability for p in model.predict(examples, 0)], abs=1e-4)


def test_a_saved_model_answers_the_same(tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path) -> None:
    model, examples = build(tiny_encoder, tiny_seq2seq)
    model.save(tmp_path / "model")
    loaded = RagModel.load(tmp_path / "model", model.task, model.base, "").eval()
    assert loaded.predict(examples, 4) == model.predict(examples, 4)


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_a_loaded_model_and_its_index_are_on_the_device_asked_for(
    name: str, tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path
) -> None:
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU here: only the CPU is tested")
    model, examples = build(tiny_encoder, tiny_seq2seq)
    model.save(tmp_path / "model")
    loaded = RagModel.load(tmp_path / "model", model.task, model.base, "", torch.device(name)).eval()
    assert isinstance(loaded.index, ExactIndex)
    assert loaded.index.device.type == name
    assert {weight.device.type for weight in loaded.parameters()} == {name}
    assert describe_index_fault(loaded) is None
    assert [found.answer for found in loaded.predict(examples, 3)] == [
        found.answer for found in model.predict(examples, 3)
    ]


def test_an_index_of_another_encoder_or_base_is_refused(tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path) -> None:
    model, _ = build(tiny_encoder, tiny_seq2seq)
    model.save(tmp_path / "model")
    vectors = model.index.vectors(torch.arange(len(model.base)))
    foreign = ExactIndex(vectors, base_fingerprint=model.base.fingerprint, encoder_fingerprint="another")
    foreign.save(tmp_path / "model" / "index")
    with pytest.raises(UserError, match="encoder"):
        RagModel.load(tmp_path / "model", model.task, model.base, "")
    with pytest.raises(UserError, match="another knowledge base"):
        model.use_index(ExactIndex(vectors, base_fingerprint="other", encoder_fingerprint="same"))


def test_retrieval_before_there_is_an_index_says_what_to_do(tiny_encoder: Path, tiny_seq2seq: Path) -> None:
    model, examples = build(tiny_encoder, tiny_seq2seq)
    fresh = RagModel(model.retriever, model.generator, model.task, model.base)
    with pytest.raises(UserError, match="refresh_index"):
        fresh.retrieve(examples, 2)
    fresh.use_index(model.index)
    with pytest.raises(UserError, match=r"retriever\.posterior"):
        fresh.retrieve(examples, 2, POSTERIOR)


@pytest.mark.parametrize("trained", ["query", "both"])
def test_the_null_passage_competes_with_all_others(
    tiny_encoder: Path, tiny_seq2seq: Path, trained: TrainedTowers
) -> None:
    """It takes part of the mass, is prompted without passage, and both ways to retrieve agree."""
    plain, examples = build(tiny_encoder, tiny_seq2seq, trained=trained)
    model = RagModel(
        plain.retriever, plain.generator, plain.task, plain.base, plain.posterior, null_passage=True
    ).eval()
    model.use_index(plain.index)
    whole = model.retrieve_all(examples, with_posterior=True)
    top = model.retrieve(examples, 6, POSTERIOR)
    assert (whole.rows[:, -1] == NULL_ROW).all()
    assert (top.rows[:, -1] == NULL_ROW).all()
    for scores in (whole.scores, top.scores):
        torch.testing.assert_close(scores.log_prior.exp().sum(-1), torch.ones(6))
        assert scores.log_posterior is not None
        torch.testing.assert_close(scores.log_posterior.exp().sum(-1), torch.ones(6))
    torch.testing.assert_close(whole.scores.log_prior[:, -1], top.scores.log_prior[:, -1])
    query = model.retriever.queries([model.task.query_text(e) for e in examples])
    null = model.retriever.passages(["(no passage)"])[0]
    without = plain.retrieve_all(examples).scores.log_prior
    odds = (query @ null) - plain.index.search(query, 1, torch.arange(6).unsqueeze(-1)).log_normaliser
    torch.testing.assert_close(whole.scores.log_prior[:, -1], torch.nn.functional.logsigmoid(odds))
    finite = without.isfinite()
    expected = without + torch.nn.functional.logsigmoid(-odds).unsqueeze(-1)
    torch.testing.assert_close(whole.scores.log_prior[:, :-1][finite], expected[finite])
    last = torch.full((6, 1), top.rows.shape[1] - 1)
    closed_book = model.likelihood(examples, top).together(torch.empty(6, 0, dtype=torch.long))
    torch.testing.assert_close(model.likelihood(examples, top).at(last).squeeze(-1), closed_book)


def test_the_null_passage_survives_disk_chains_and_answers(
    tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path
) -> None:
    plain, examples = build(tiny_encoder, tiny_seq2seq)
    model = RagModel(plain.retriever, plain.generator, plain.task, plain.base, null_passage=True).eval()
    model.use_index(plain.index)
    previous = torch.tensor([NULL_ROW, -1, NULL_ROW, 0, -1, 2])
    found = model.retrieve(examples, 2, previous_row=previous)
    assert found.scores.previous is not None
    assert found.scores.previous.tolist()[0] == found.rows.shape[1] - 1
    assert found.scores.previous.tolist()[1] == -1
    answers = model.predict(examples, 2)
    assert all(row >= 0 for answer in answers for row in answer.rows)
    assert all(sum(answer.weights) < 1 for answer in answers)
    model.save(tmp_path / "model")
    again = RagModel.load(tmp_path / "model", model.task, model.base, "")
    assert again.null_passage
    assert [a.answer for a in again.eval().predict(examples, 2)] == [a.answer for a in answers]


def test_extra_rows_join_the_candidates_but_never_an_examples_own(tiny_encoder: Path, tiny_seq2seq: Path) -> None:
    """They are scored like any candidate, over the whole base, and nothing else changes."""
    model, examples = build(tiny_encoder, tiny_seq2seq)
    plain = model.retrieve(examples, 2, POSTERIOR)
    everything = torch.arange(6).expand(6, -1)
    twice = torch.cat([everything, everything], dim=1)
    found = model.retrieve(examples, 2, RetrievalOptions(posterior=True, extra_rows=twice))
    for line, rows in enumerate(found.rows.tolist()):
        assert sorted(row for row in rows if row >= 0) == [row for row in range(6) if row != line]
    width = plain.rows.shape[1]
    kept = plain.rows >= 0
    assert torch.equal(found.rows[:, :width][kept], plain.rows[kept])
    torch.testing.assert_close(found.scores.log_prior[:, :width][kept], plain.scores.log_prior[kept])
    torch.testing.assert_close(found.scores.log_prior.exp().sum(-1), torch.ones(6))
    own = torch.arange(6).unsqueeze(-1)
    hidden = RetrievalOptions(posterior=True, extra_rows=own)
    assert torch.equal(model.retrieve(examples, 2, hidden).rows, plain.rows)
    with pytest.raises(ValueError, match=r"expected -1 .padding. … 5"):
        model.retrieve(examples, 2, RetrievalOptions(extra_rows=own + 1))


def test_a_sampled_tail_stands_for_what_was_not_retrieved(tiny_encoder: Path, tiny_seq2seq: Path) -> None:
    model, examples = build(tiny_encoder, tiny_seq2seq)
    rng = torch.Generator().manual_seed(0)
    for with_posterior in (False, True):
        found = model.retrieve(examples, 2, RetrievalOptions(with_posterior, tail=3), rng=rng)
        best = model.retrieve(examples, 2, RetrievalOptions(with_posterior)).rows
        multiplicity = found.scores.log_multiplicity
        assert multiplicity is not None
        stands_for = (found.scores.log_prior + multiplicity).exp()
        torch.testing.assert_close(stands_for.sum(-1), torch.ones(6))
        for b in range(6):
            rows = [row for row in found.rows[b].tolist() if row >= 0]
            assert len(set(rows)) == len(rows)
            assert b not in rows
            known = {row for row in best[b].tolist() if row >= 0}
            assert known <= set(rows)
            head = [row in known for row in found.rows[b].tolist()]
            assert not multiplicity[b][torch.tensor(head)].any()
    with pytest.raises(UserError, match=r"training\.tail needs an exact index"):
        model.retrieve(examples, 2, RetrievalOptions(tail=3))


def test_a_refresh_keeps_the_dtype_and_never_drops_another_kind_of_index(
    tiny_encoder: Path, tiny_seq2seq: Path
) -> None:
    model, _ = build(tiny_encoder, tiny_seq2seq)
    exact = model.index
    assert isinstance(exact, ExactIndex)
    marks = {"base_fingerprint": exact.base_fingerprint, "encoder_fingerprint": exact.encoder_fingerprint}
    model.use_index(ExactIndex(exact.vectors(torch.arange(6)), dtype=torch.bfloat16, **marks))
    model.refresh_index()
    assert isinstance(model.index, ExactIndex)
    assert model.index.dtype == torch.bfloat16
    view = RestrictedIndex(model.index, torch.tensor([0, 2, 4]))
    model.use_index(view)
    with pytest.raises(UserError, match="RestrictedIndex cannot be refreshed here"):
        model.refresh_index()
    assert model.index is view
