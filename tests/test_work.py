"""The work of ten operations, counted: passes through a model, padded tokens, texts tokenised, products, bytes.

Counts are the same on every machine, where seconds are not. An operation that needs more than it did fails here: find
what is computed twice, or, where more is needed, write the new count down.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import retrograd as rg
from retrograd.index.disk.cache import VectorCache
from retrograd.index.exact import ExactIndex
from retrograd.models.inputs.control_tokens import ControlTokens
from retrograd.objectives.jsa import JointStochasticApproximation
from retrograd.objectives.marginal import TopKMarginal
from retrograd.rag.embedding import build_index
from retrograd.rag.rag_model import RagModel
from retrograd.training.gradients import add_gradients
from retrograd.training.refresh.policies import Never
from retrograd.training.stage import GeneratorEvidence, Pace, Stage

WORDS = tuple("alpha beta gamma delta epsilon zeta eta theta iota kappa cup tea rain flood car box".split())  # noqa: SIM905
QUESTIONS = 4
PACE = Pace(epochs=1, batch_size=QUESTIONS, generator_learning_rate=1e-3, retriever_learning_rate=1e-3)


@dataclass
class Work:
    """What was counted; ``products`` are multiplications and additions of matrix products, in thousands."""

    passes: int = 0
    tokens: int = 0
    texts: int = 0
    products: int = 0
    bytes: int = 0
    seen: Counter[str] = field(default_factory=Counter, repr=False, compare=False)

    def counts(self) -> dict[str, int]:
        """Return the counts that are not zero."""
        named = {name: getattr(self, name) for name in ("passes", "tokens", "texts", "products", "bytes")}
        return {name: count for name, count in named.items() if count}


@contextmanager
def counted(*models: nn.Module) -> Iterator[Work]:
    """Count the work of a block that runs these models."""
    work = Work()

    def see(_: nn.Module, arguments: tuple[object, ...], named: dict[str, object]) -> None:
        work.passes += 1
        for name in ("input_ids", "decoder_input_ids"):
            value = named.get(name)
            work.tokens += value.numel() if isinstance(value, Tensor) else 0

    encode = ControlTokens.encode

    def encode_counted(self: ControlTokens, texts: object, *rest: object, **named: object) -> object:
        work.texts += len(list(texts))  # type: ignore[call-overload]
        return encode(self, texts, *rest, **named)  # type: ignore[arg-type]

    handles = [model.register_forward_pre_hook(see, with_kwargs=True) for model in dict.fromkeys(models)]
    with pytest.MonkeyPatch.context() as patched, FlopCounterMode(display=False) as products:
        patched.setattr(ControlTokens, "encode", encode_counted)
        yield work
    for handle in handles:
        handle.remove()
    work.products = products.get_total_flops() // 1_000


@pytest.fixture(scope="module")
def passages() -> list[rg.Passage]:
    """Twenty-four passages of one to twelve words."""
    return [
        rg.Passage(str(n), "", " ".join(WORDS[(n + i * (n + 1)) % len(WORDS)] for i in range(1 + n % 12)))
        for n in range(24)
    ]


@pytest.fixture(scope="module")
def examples(passages: list[rg.Passage]) -> list[rg.Example]:
    """Questions of the words of a passage, each with its last word as the answer."""
    return [rg.Example(f"q{n}", f"what is {passages[5 * n + 3].text} ?", (WORDS[n],)) for n in range(QUESTIONS)]


@pytest.fixture
def make(tiny_encoder: Path, tiny_seq2seq: Path, passages: list[rg.Passage]) -> Callable[..., RagModel]:
    """Return what makes a model with an index."""

    def build(trained: str = "both", posterior: bool = False) -> RagModel:
        model = RagModel.from_pretrained(
            retriever=str(tiny_encoder),
            generator=str(tiny_seq2seq),
            task=rg.QuestionAnswering(),
            base=rg.KnowledgeBase.from_passages(passages),
            trained=trained,
            posterior=posterior,
            separate_towers=trained == "query",
        )
        model.refresh_index()
        return model.eval()  # dropout would decide what is retrieved

    return build


def models_of(model: RagModel) -> list[nn.Module]:
    retrievers = [one for one in (model.retriever, model.posterior) if one is not None]
    towers = [tower.model for one in retrievers for tower in (one.query_encoder, one.passage_encoder)]
    return [*towers, model.generator.model]


def step(model: RagModel, examples: list[rg.Example], objective: rg.Objective, passages: int = 3) -> Work:
    """Count a training step without that of the optimiser."""
    stage = Stage("step", objective, GeneratorEvidence(passages), PACE, Never())
    with counted(*models_of(model)) as work:
        add_gradients(model, stage, examples, 1.0, torch.Generator().manual_seed(0))
    return work


def require(work: Work, expected: dict[str, int]) -> None:
    """Fail where an operation needs more of anything than it did."""
    counts = work.counts()
    grown = [
        f"{name}: {expected.get(name, 0):,} -> {count:,}"
        for name, count in counts.items()
        if count > expected.get(name, 0)
    ]
    assert not grown, f"more work than before ({'; '.join(grown)}); in all {json.dumps(counts)}"


def test_embedding_texts(make: Callable[..., RagModel], passages: list[rg.Passage]) -> None:
    """One pass over texts of like length; a text is tokenised once."""
    encoder = make().retriever.query_encoder
    with counted(encoder.model) as work:
        encoder.embed([passage.text for passage in passages])
    require(work, {"passes": 1, "tokens": 336, "texts": 24, "products": 2_764})


def test_a_joint_step(make: Callable[..., RagModel], examples: list[rg.Example]) -> None:
    """Queries, distinct passages and distinct pairs are each read once."""
    require(step(make(), examples, TopKMarginal()), {"passes": 3, "tokens": 702, "texts": 31, "products": 28_951})


def test_a_joint_step_whose_passages_rest(make: Callable[..., RagModel], examples: list[rg.Example]) -> None:
    """No passage is embedded."""
    require(
        step(make(trained="query"), examples, TopKMarginal()),
        {"passes": 2, "tokens": 548, "texts": 20, "products": 24_333},
    )


def test_a_step_of_jsa_with_its_sampler(make: Callable[..., RagModel], examples: list[rg.Example]) -> None:
    """Fifty proposals of a query are scored once for each distinct one."""
    objective = JointStochasticApproximation(sampler="metropolis", draws=50)
    require(
        step(make(posterior=True), examples, objective, passages=4),
        {"passes": 5, "tokens": 2_176, "texts": 82, "products": 66_578},
    )


def test_scoring_choices(make: Callable[..., RagModel]) -> None:
    """A prompt is read once, whatever the number of choices."""
    generator = make().generator
    prompts = ["what is alpha ?", "what is beta gamma delta ?"]
    with counted(generator.model) as work:
        generator.choice_log_likelihood(prompts, [[*WORDS[:8]]] * 2)
    require(work, {"passes": 2, "tokens": 20, "texts": 10, "products": 389})


def test_scoring_choices_as_a_tree(make: Callable[..., RagModel]) -> None:
    """Beginnings that choices share are read once."""
    generator = make().generator
    choices = [f"the cup holds {word}" for word in WORDS[:8]]
    with counted(generator.model) as work:
        generator.choice_log_likelihood(["what is alpha ?"], [choices], "tree")
    require(work, {"passes": 2, "tokens": 6, "texts": 9, "products": 116})


def test_answering(make: Callable[..., RagModel], examples: list[rg.Example]) -> None:
    """Prompts of all questions are written side by side."""
    model = make()
    with counted(*models_of(model)) as work:
        model.predict(examples, 3)
    require(work, {"passes": 18, "tokens": 766, "texts": 43, "products": 18_365})


@pytest.mark.parametrize("gradient", [False, True])
def test_a_pass_over_the_index(gradient: bool) -> None:
    """The best rows, and log Z with its gradient, take one and two products with the base."""
    rng = torch.Generator().manual_seed(0)
    index = ExactIndex(torch.randn(5_000, 16, generator=rng), base_fingerprint="", encoder_fingerprint="")
    query = torch.randn(4, 16, generator=rng, requires_grad=gradient)
    with counted() as work:
        if gradient:
            found = index.search(query, 5).log_normaliser
            assert found is not None
            found.sum().backward()
        else:
            index.top_k(query, 5)
    product = 2 * 5_000 * 16 * 4 // 1_000
    require(work, {"products": 2 * product if gradient else product})


def test_a_base_that_was_embedded_before(make: Callable[..., RagModel], tmp_path: Path) -> None:
    """No passage is embedded twice; the bytes are those of its vectors."""
    model, cache = make(), VectorCache(tmp_path, 2**30)
    build_index(model.retriever.passage_encoder, model.task, model.base, cache=cache)
    with counted(*models_of(model)) as work:
        build_index(model.retriever.passage_encoder, model.task, model.base, cache=cache)
    work.bytes = sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors"))
    require(work, {"bytes": 1_664})
