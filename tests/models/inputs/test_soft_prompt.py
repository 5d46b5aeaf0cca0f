"""The soft prompt: its formula, what is absent, what learns beside adapters, and a round trip through the disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tolerances import assert_equal_but_rounding
from torch import Tensor

from retrograd.models.generator import Generator
from retrograd.models.generator_settings import GeneratorOptions
from retrograd.models.inputs.soft_input import SoftTokens
from retrograd.models.inputs.soft_prompt import SoftPrompt, SoftPromptOptions
from retrograd.models.loading.lora import Lora
from retrograd.types import UserError

PROMPTS, TARGETS = ["who is alpha", "what is beta gamma ?"], ["delta", "eta theta"]
WIDTH, SLOTS, QUERY_ROLES, VALUE_ROLES = 6, 3, 2, 4
FORMS = ["improved", "published"]
PRESENT = torch.tensor([[True, False, True], [True, True, False]])
WORDS = torch.randn(41, 16, generator=torch.Generator().manual_seed(9)) * 5


@pytest.fixture(params=["tiny_seq2seq", "tiny_causal"])
def folder(request) -> Path:
    return request.getfixturevalue(request.param)


@pytest.fixture(params=FORMS)
def form(request) -> str:
    return request.param


def settings(form: str = "improved", **others) -> SoftPromptOptions:
    return SoftPromptOptions(WIDTH, SLOTS, QUERY_ROLES, VALUE_ROLES, form, **others)


def made(form: str = "improved", seed: int = 0, **others) -> SoftPrompt:
    return SoftPrompt(settings(form, **others), WORDS, torch.Generator().manual_seed(seed))


def inputs() -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(1)
    query, value = (
        torch.randn(2, QUERY_ROLES, WIDTH, generator=rng),
        torch.randn(2, 3, VALUE_ROLES, WIDTH, generator=rng),
    )
    return query.requires_grad_(), value.requires_grad_()


def generator_with(folder: Path, form: str, position: str = "before", **others) -> Generator:
    rng = torch.Generator().manual_seed(0)
    options = GeneratorOptions(soft_position=position)
    return Generator.open(str(folder), rng, Lora(rank=2), options, settings(form, **others)).eval()


def prompt_of(generator: Generator) -> SoftPrompt:
    assert generator.soft_prompt is not None
    return generator.soft_prompt


def log_likelihood(generator: Generator, present: Tensor = PRESENT) -> Tensor:
    query, value = inputs()
    soft = prompt_of(generator)(query, value, present)
    return generator.token_log_likelihood(PROMPTS, TARGETS, soft).value.sum(-1)


def slow_tokens(prompt: SoftPrompt, query: Tensor, value: Tensor, present: list[bool]) -> Tensor:
    """The soft tokens of one query [S, D], in a loop, from the equation."""
    there = [slot for slot, is_there in zip(value, present, strict=True) if is_there]
    vectors = [(0, c, v) for c, v in enumerate(query)]
    vectors += [(r, c, v) for r, slot in enumerate(there, start=1) for c, v in enumerate(slot)]
    tokens = []
    for rank, role, v in vectors:
        if prompt.options.form == "published":
            tokens.append(prompt.projection.weight @ v + prompt.projection.bias)
            continue
        level = (v - v.mean()) / (
            v.var(unbiased=False) + prompt.norm.eps
        ).sqrt() * prompt.norm.weight + prompt.norm.bias
        u = prompt.projection.weight @ level + prompt.projection.bias + prompt.rank[rank] + prompt.role[role]
        tokens.append(prompt.gain * prompt.word_norm * u / u.square().sum().sqrt())
    return torch.stack(tokens)


def test_equals_the_slow_twin(form):
    prompt, (query, value) = made(form), inputs()
    soft = prompt(query, value, PRESENT)
    assert soft.holds.tolist() == [
        [True] * QUERY_ROLES + [there for there in row for _ in range(VALUE_ROLES)] for row in PRESENT.tolist()
    ]
    for b in range(2):
        expected = slow_tokens(prompt, query[b], value[b], PRESENT[b].tolist())
        torch.testing.assert_close(soft.embedding[b][soft.holds[b]], expected)


def test_tokens_begin_with_the_norm_of_a_word_times_the_gain():
    norms = WORDS.norm(dim=-1)
    for gain in (0.1, 2.0):
        prompt, (query, value) = made(gain=gain), inputs()
        found = prompt(query * 100, value / 100, torch.ones(2, 3, dtype=torch.bool)).embedding.norm(dim=-1)
        torch.testing.assert_close(found, (gain * norms.median()).expand_as(found))


def test_the_words_are_those_the_generator_reads(folder):
    generator = generator_with(folder, "improved")
    weight = generator.model.get_input_embeddings().weight
    torch.testing.assert_close(prompt_of(generator).word_norm, weight.norm(dim=-1).median())
    assert prompt_of(generator).projection.out_features == weight.shape[1]


def test_an_absent_slot_is_a_shorter_input(folder, form):
    generator = generator_with(folder, form)
    query, value = inputs()
    given = prompt_of(generator)(query, value, torch.tensor([[True, False, True]] * 2))
    shorter = prompt_of(generator)(query, value[:, [0, 2]], torch.ones(2, 2, dtype=torch.bool))
    assert given.total.tolist() == shorter.total.tolist() == [QUERY_ROLES + 2 * VALUE_ROLES] * 2
    found, expected = (generator.token_log_likelihood(PROMPTS, TARGETS, one).value for one in (given, shorter))
    assert torch.equal(found, expected)
    nothing = prompt_of(generator)(query, value, torch.zeros(2, 3, dtype=torch.bool))
    assert nothing.total.tolist() == [QUERY_ROLES] * 2


def test_where_padding_stands_and_what_is_in_it_changes_nothing(folder, form):
    generator = generator_with(folder, form)
    query, value = inputs()
    padding = torch.full_like(value[:, :1], torch.nan)
    results = []
    for place in range(3):
        slots = [value[:, :1], value[:, 1:2]]
        slots.insert(place, padding)
        present = torch.ones(2, 3, dtype=torch.bool)
        present[:, place] = False
        soft = prompt_of(generator)(query, torch.cat(slots, dim=1), present)
        results.append(generator.token_log_likelihood(PROMPTS, TARGETS, soft).value)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[1], results[2])
    generator.zero_grad()
    query.grad = value.grad = None
    results[0].sum().backward()
    assert value.grad.isfinite().all()
    assert all(w.grad.isfinite().all() for w in prompt_of(generator).parameters() if w.grad is not None)


def test_rank_and_role_are_told_apart_in_the_improved_form_alone():
    same = torch.ones(1, 1, 1, WIDTH).expand(1, 3, VALUE_ROLES, WIDTH) * torch.arange(1.0, 1 + WIDTH)
    for form, distinct in (("improved", QUERY_ROLES + 3 * VALUE_ROLES), ("published", 1)):
        soft = made(form)(same[:, 0, :QUERY_ROLES], same, torch.ones(1, 3, dtype=torch.bool))
        assert len({tuple(round(x, 4) for x in row) for row in soft.embedding[0].tolist()}) == distinct


@pytest.mark.parametrize("position", ["before", "after"])
@pytest.mark.parametrize("bf16", [True, False])
def test_one_loss_reaches_adapters_soft_prompt_and_values_and_nothing_frozen(folder, form, position, bf16):
    generator = generator_with(folder, form, position)
    with torch.no_grad():
        for name, weight in generator.named_parameters():
            if "lora_B" in name:  # starts at zero, which would keep the gradient from A
                weight.normal_(generator=torch.Generator().manual_seed(1))
    query, value = inputs()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        soft = prompt_of(generator)(query, value, PRESENT)
        loss = -generator.token_log_likelihood(PROMPTS, TARGETS, soft).value.sum()
    assert soft.embedding.dtype == torch.float32
    loss.backward()
    assert query.grad.any(dim=-1).all()
    assert value.grad[PRESENT].any(dim=-1).all()
    assert not value.grad[~PRESENT].any()
    assert query.grad.isfinite().all()
    assert value.grad.isfinite().all()
    for name, weight in generator.named_parameters():
        learns = ".lora_" in name or name.startswith("soft_prompt.")
        assert weight.requires_grad == learns, name
        assert (weight.grad is not None) == learns, name
        if learns:
            assert weight.grad.isfinite().all(), name
            assert weight.grad.any(), name


def test_training_moves_the_soft_prompt_and_the_adapters_and_no_other_weight(folder, form):
    generator = generator_with(folder, form)
    before = {name: weight.clone() for name, weight in generator.named_parameters()}
    first = log_likelihood(generator).sum()
    trained_a_little(generator)
    moved = {name for name, weight in generator.named_parameters() if not torch.equal(weight, before[name])}
    assert moved == {name for name in before if ".lora_" in name or name.startswith("soft_prompt.")}
    assert log_likelihood(generator).sum() > first


def trained_a_little(generator: Generator) -> Generator:
    optimiser = torch.optim.Adam([weight for weight in generator.parameters() if weight.requires_grad], lr=0.01)
    for _ in range(3):
        optimiser.zero_grad()
        (-log_likelihood(generator).sum()).backward()
        optimiser.step()
    return generator


@pytest.mark.parametrize("lora", [True, False])
@pytest.mark.parametrize("null", [True, False])
def test_saved_and_loaded_is_the_same_to_the_last_bit(folder, form, lora, null, tmp_path):
    rng = torch.Generator().manual_seed(0)
    adapters, options = Lora(rank=2) if lora else None, GeneratorOptions(soft_position="after")
    first = Generator.open(str(folder), rng, adapters, options, settings(form, null=null)).eval()
    trained_a_little(first)
    first.save(tmp_path)
    assert (tmp_path / "model.safetensors").exists() != lora
    before = torch.get_rng_state()
    again = Generator.load(tmp_path, str(folder)).eval()
    assert torch.equal(torch.get_rng_state(), before)
    assert again.options.soft_position == "after"
    assert prompt_of(again).options == prompt_of(first).options
    saved = load_file(tmp_path / "soft_prompt.safetensors")
    assert {name: weight.tolist() for name, weight in prompt_of(again).state_dict().items()} == {
        name: weight.tolist() for name, weight in saved.items()
    }
    assert_equal_but_rounding(log_likelihood(again), log_likelihood(first))
    assert all(weight.requires_grad for weight in prompt_of(again).parameters())
    if lora:  # adapters and soft prompt are all there is
        assert all(".lora_" in name for name in load_file(tmp_path / "adapter_model.safetensors"))


def test_a_generator_without_a_soft_prompt_has_none_on_disk(folder, tmp_path):
    Generator.open(str(folder), torch.Generator()).save(tmp_path)
    assert not (tmp_path / "soft_prompt.safetensors").exists()
    assert "soft_prompt" not in json.loads((tmp_path / "generator.json").read_text())
    assert Generator.load(tmp_path, "unused").soft_prompt is None


def test_one_seed_one_soft_prompt_and_nothing_else_is_drawn(form):
    before = torch.get_rng_state()
    first, same, other = (dict(made(form, seed, null=True).named_parameters()) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    for name, weight in first.items():
        assert torch.equal(weight, same[name])
        drawn = not (name.startswith("norm.") or name == "gain" or (form == "improved" and name == "projection.bias"))
        assert torch.equal(weight, other[name]) != drawn, name


def test_a_value_for_the_null_instance_learns_through_its_weight(folder, form):
    generator = generator_with(folder, form, null=True)
    prompt = prompt_of(generator)
    assert prompt.null_value.shape == (VALUE_ROLES, WIDTH)
    assert made(form).null_value is None
    query, value = inputs()
    weight = torch.tensor([0.3, 0.0, 1.0]).view(1, 3, 1, 1)
    mixed = (1 - weight) * value + weight * prompt.null_value
    soft = prompt(query, mixed, torch.ones(2, 3, dtype=torch.bool))
    generator.token_log_likelihood(PROMPTS, TARGETS, soft).value.sum().backward()
    assert prompt.null_value.grad.any(dim=-1).all()


def test_generation_and_evaluation_take_what_it_makes(folder, form):
    generator = generator_with(folder, form)
    query, value = inputs()
    soft = prompt_of(generator)(query, value, PRESENT)
    assert isinstance(soft, SoftTokens)
    assert len(generator.generate(PROMPTS, 3, soft=soft)) == 2


def test_more_slots_or_other_roles_than_it_was_made_for(form):
    query, value = inputs()
    message = "4 slots of 4 roles beside 2 roles of the query, but the soft prompt was made for 3 of 4 beside 2"
    with pytest.raises(UserError, match=message):
        made(form)(query, value[:, [0, 1, 2, 2]], torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(UserError, match="3 slots of 3 roles beside 2"):
        made(form)(query, value[:, :, :3], torch.ones(2, 3, dtype=torch.bool))


def test_another_generators_soft_prompt_is_refused(folder, tmp_path):
    generator_with(folder, "improved").save(tmp_path)
    path = tmp_path / "soft_prompt.safetensors"
    weights = load_file(path)
    save_file(weights | {"projection.weight": torch.zeros(5, WIDTH)}, path)
    with pytest.raises(UserError, match=r"soft_prompt\.safetensors does not fit this generator .*trained with"):
        Generator.load(tmp_path, str(folder))
    path.unlink()
    with pytest.raises(UserError, match=r"no such file: .*soft_prompt\.safetensors"):
        Generator.load(tmp_path, str(folder))


def test_wrongly_edited_settings(folder, tmp_path):
    generator_with(folder, "improved").save(tmp_path)
    path = tmp_path / "generator.json"
    whole = path.read_text()
    path.write_text(whole.replace('"improved"', '"better"'))
    with pytest.raises(UserError, match=r"generator\.json: soft_prompt: form is 'better'; expected one of 'improved'"):
        Generator.load(tmp_path, str(folder))
    path.write_text(json.dumps(json.loads(whole) | {"soft_prompt": 3}))
    with pytest.raises(UserError, match=r"generator\.json: soft_prompt is 3; expected a table of settings"):
        Generator.load(tmp_path, str(folder))


@pytest.mark.parametrize(
    ("values", "advice"),
    [
        ({"slots": 0}, "soft prompt: slots is 0; expected from 1 to"),
        ({"width": -1}, "width is -1"),
        ({"gain": 0.0}, "gain is 0.0; expected a positive number"),
        ({"gain": float("inf")}, "gain is inf"),
    ],
)
def test_bad_settings(values, advice):
    with pytest.raises(UserError, match=advice):
        SoftPromptOptions(**({"width": 8} | values))
