"""ETRAG put together: one loss reaches every part, and the model answers as it was trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.models.encoder import Encoder
from retrograd.models.generator import Generator
from retrograd.models.inputs.soft_prompt import SoftPromptOptions
from retrograd.models.loading.lora import Lora
from retrograd.models.retriever import Retriever, TrainedTowers
from retrograd.objectives import RelaxedTopK
from retrograd.rag.answers.answering import Answering
from retrograd.rag.answers.decision import Decision
from retrograd.rag.candidates import Pool
from retrograd.rag.rag_model import RagModel
from retrograd.rag.search import RetrievalOptions
from retrograd.tasks.relations.extraction import RelationExtraction
from retrograd.types import Example, Passage

TASK = RelationExtraction.semeval()
BASE = [
    Passage("0", "causes the effect", "the @ rain @ caused the # flood # ."),
    Passage("1", "part of whole", "the @ wheel @ of the # car # ."),
    Passage("2", "holds some content", "the @ box @ holds # tea # ."),
    Passage("3", "causes the effect", "a @ flood @ caused # rain # ."),
]
EXAMPLES = [
    Example("a", "the @ cup @ holds # tea # .", ("holds some content",)),
    Example("b", "the @ rain @ caused the # flood # .", ("causes the effect",)),
]


def build(
    encoder: Path,
    generator: Path,
    trained: TrainedTowers = "query",
    null: bool = False,
    soft: bool = True,
    passages: Sequence[Passage] = BASE,
    lora: Lora | None = None,
) -> RagModel:
    tower = Encoder.open(str(encoder), "roles", role_spans=TASK.role_spans)
    rng = torch.Generator().manual_seed(0)
    retriever = Retriever(tower, tower, 0.05, trained)
    prompt = SoftPromptOptions(tower.width, slots=2, null=null) if soft else None
    reader = Generator.open(str(generator), rng, lora or Lora(), soft_prompt=prompt)
    base, answering = KnowledgeBase.from_passages(passages), Answering(selection=RelaxedTopK(slots=2).selection)
    model = RagModel(retriever, reader, TASK, base, null_passage=null, answering=answering)
    model.refresh_index()
    return model.eval()


@pytest.mark.parametrize("trained", ["query", "both"])
@pytest.mark.parametrize("null", [False, True])
def test_one_loss_reaches_every_part(
    tiny_encoder: Path, tiny_seq2seq: Path, trained: TrainedTowers, null: bool
) -> None:
    model = build(tiny_encoder, tiny_seq2seq, trained, null)
    candidates = model.retrieve(EXAMPLES, 3)
    likelihood = model.likelihood(EXAMPLES, candidates)
    RelaxedTopK(slots=2)(candidates.scores, likelihood, torch.Generator()).loss.backward()
    prompt = model.generator.soft_prompt
    assert prompt is not None
    learning = [model.retriever.query_encoder, prompt.projection, model.generator.model]
    for part in learning:
        assert any(w.grad is not None and w.grad.abs().sum() > 0 for w in part.parameters())
    if null:
        assert prompt.null_value is not None
        assert prompt.null_value.grad is not None


@pytest.mark.parametrize("kind", ["tiny_seq2seq", "tiny_causal"])
@pytest.mark.parametrize("trained", ["both", "none"])
def test_steps_on_one_loss_move_what_is_trained_and_nothing_else(
    tiny_encoder: Path, kind: str, trained: TrainedTowers, request: pytest.FixtureRequest
) -> None:
    model = build(tiny_encoder, request.getfixturevalue(kind), trained, lora=Lora(rank=2))
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    learning = [weight for weights in model.parts().values() for weight in weights]
    optimiser = torch.optim.AdamW(learning, lr=1e-2, weight_decay=0.0)
    for _ in range(2):  # adapters begin with one factor at zero, so the other moves in the second step
        candidates = model.retrieve(EXAMPLES, 3)
        likelihood = model.likelihood(EXAMPLES, candidates)
        RelaxedTopK(slots=2)(candidates.scores, likelihood, torch.Generator()).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    moved = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    adapters = {name for name in before if "lora_" in name}
    prompt = {name for name in before if "soft_prompt" in name}
    tower = {name for name in before if name.startswith("retriever") and "layer.0.attention" in name}
    assert adapters
    assert adapters <= moved
    assert {name for name in prompt if "projection" in name or "gain" in name} <= moved
    assert tower
    assert (tower - {name for name in tower if name.endswith("key.bias")} <= moved) == (trained == "both")
    assert not {name for name in moved if name.startswith("generator")} - adapters - prompt
    assert trained == "both" or not {name for name in moved if name.startswith("retriever")}


def test_labels_never_enter_the_distance(tiny_encoder: Path, tiny_seq2seq: Path) -> None:
    model = build(tiny_encoder, tiny_seq2seq)
    other = build(tiny_encoder, tiny_seq2seq, passages=[Passage(p.id, "part of whole", p.text) for p in BASE])
    torch.testing.assert_close(
        model.retrieve(EXAMPLES, 3).scores.log_prior, other.retrieve(EXAMPLES, 3).scores.log_prior
    )
    weight = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]]).expand(2, -1, -1)
    ours = model.likelihood(EXAMPLES, model.retrieve(EXAMPLES, 3)).at_mixture(weight)
    theirs = other.likelihood(EXAMPLES, other.retrieve(EXAMPLES, 3)).at_mixture(weight)
    assert not torch.allclose(ours, theirs)


@pytest.mark.parametrize("soft", [True, False])
def test_answers_come_from_the_soft_slots(tiny_encoder: Path, tiny_seq2seq: Path, soft: bool) -> None:
    model = build(tiny_encoder, tiny_seq2seq, soft=soft)
    with torch.no_grad():
        found = model.retrieve(EXAMPLES, 3)
        assert model.answering.selection is not None
        weight = model.answering.selection(found.scores)
        for b, prediction in enumerate(model.predict(EXAMPLES, 3)):
            scores = []
            for choice in TASK.choices:
                example = Example(EXAMPLES[b].id, EXAMPLES[b].query, (choice,))
                asked = [example if i == b else one for i, one in enumerate(EXAMPLES)]
                scores.append(float(model.likelihood(asked, found).at_mixture(weight)[b]))
            expected = torch.tensor(scores).log_softmax(-1)
            assert prediction.answer == TASK.choices[int(expected.argmax())]
            assert prediction.log_probability == pytest.approx(float(expected.max()), abs=1e-3)
            assert len(prediction.rows) == 2


def test_votes_of_neighbours_count_what_supports_a_choice(tiny_encoder: Path, tiny_seq2seq: Path) -> None:
    model = build(tiny_encoder, tiny_seq2seq)
    model.use_decision(Decision(vote_weight=1.0))
    scores = model.choice_scores(EXAMPLES, 4)
    assert scores is not None
    with torch.no_grad():
        found = model.retrieve(EXAMPLES, 4)
        assert model.answering.selection is not None
        share = model.answering.selection.log_vote(found.scores).exp()
    for b, one in enumerate(scores):
        for c, choice in enumerate(one.choices):
            columns = [k for k, row in enumerate(found.rows[b].tolist()) if row >= 0 and BASE[row].title == choice]
            assert float(one.vote[c]) == pytest.approx(float(share[b, columns].sum()), abs=1e-5)
        assert one.negative == one.choices.index("other relation")


def test_a_pool_is_shared_and_hides_what_a_query_must_not_see(tiny_encoder: Path, tiny_seq2seq: Path) -> None:
    model = build(tiny_encoder, tiny_seq2seq, "both")
    rng = torch.Generator().manual_seed(1)
    found = model.retrieve(EXAMPLES, 1, RetrievalOptions(pool=Pool(explorers=40)), rng=rng)
    assert found.rows.tolist() == [[0, 1, 2, 3], [1, 2, 3, -1]]  # the second example is row 0 itself
    assert found.scores.log_prior[1, 3] == -torch.inf
    alone = model.retrieve(EXAMPLES, 1, RetrievalOptions(pool=Pool()))
    assert set(alone.rows[0].tolist()) - {-1} <= {0, 1, 2, 3}


def test_a_saved_model_answers_the_same(tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path) -> None:
    model = build(tiny_encoder, tiny_seq2seq, null=True)
    model.use_decision(Decision(0.3, -0.2))
    model.save(tmp_path / "model")
    again = RagModel.load(tmp_path / "model", TASK, model.base, "").eval()
    assert again.answering == model.answering
    assert again.predict(EXAMPLES, 3) == model.predict(EXAMPLES, 3)
