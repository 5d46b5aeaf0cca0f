"""The needs of an experiment before it starts: parameters, memory, prompts, steps, hours; a refusal if it cannot fit.

Exact: parameters, index bytes, steps, and the matrix products of a pass over texts of mean length. At most: prompts per
step, where an objective prunes. Estimates: bytes kept for the backward pass, hours. Nothing is downloaded and no weight
is read, but by the probe, which times a small model on this machine.
"""

from __future__ import annotations

import math
from dataclasses import asdict, replace

import torch

from retrograd.experiments.experiment import Experiment
from retrograd.experiments.precision import choose_precision
from retrograd.experiments.stage_description import StageDescription
from retrograd.models.compute.batching import token_budget_on
from retrograd.models.compute.compute import choose_device
from retrograd.models.loading.architectures import is_on_disk
from retrograd.models.loading.builtin import BUILTIN_GENERATORS
from retrograd.objectives import remark_on_cost
from retrograd.studies.planning.data import DataFacts, collect_data_facts
from retrograd.studies.planning.hardware import Hardware, find_hardware, measure_machine
from retrograd.studies.planning.index import IndexFacts, collect_index_facts
from retrograd.studies.planning.model import ModelFacts, collect_model_facts
from retrograd.studies.planning.needs import Memory, Plan, StageCost
from retrograd.studies.planning.probe import MeasuredSeconds, measure_seconds
from retrograd.studies.planning.stages import PromptsPerQuery, plan_stages, prompts_per_query
from retrograd.training.refresh.policies import require_one_process
from retrograd.types import UserError
from retrograd.util.machine import readable_bytes

__all__ = ["plan_experiment"]

_PROBED_PARAMETERS = 300_000_000
_WHOLE_BASE_BYTES = 16
"""A score and what its gradient keeps, for each query and passage, where a warm start compares with the whole base."""
_CUDA_BYTES, _CPU_BYTES = 1e9, 1.2e9
"""Libraries and what is held for a moment; on a CPU as measured: a short run of semeval-joint peaked at 2.84 GB."""


def plan_experiment(
    experiment: Experiment,
    hardware: str | Hardware = "",
    examples: int = 0,
    passages: int = 0,
    timed: bool = True,
    processes: int = 1,
) -> Plan:
    """Plan an experiment for named hardware, or "" for this machine, which is timed unless ``timed`` is False.

    Of several ``processes`` each has such hardware, and none is timed: they share the queries of a batch, the index,
    and with ``generator.fsdp`` the layers of the generator; all answer all of the test.

    ``examples`` and ``passages`` (0: as in the data) stand for data that are not here. Raises `UserError` for models
    whose shape is not known, and for settings that training would refuse; whether it fits is `Plan.refusal`.
    """
    here = hardware == ""
    machine = hardware if isinstance(hardware, Hardware) else _hardware(experiment, hardware, processes)
    facts = collect_data_facts(experiment, examples, passages)
    index = collect_index_facts(experiment, facts)
    r = experiment.retriever
    stages = plan_stages(experiment, facts.examples, facts.supports, facts.masked)
    if processes > 1:
        if r.passages_move and any(stage.learns.retriever and not stage.is_copying for stage in stages):
            require_one_process(experiment.training.refresh_policy)
        stages = [_share(stage, processes) for stage in stages]
    base = facts.passages or 10**9
    prompts = {stage.name: prompts_per_query(stage, base, r.posterior, r.null_passage) for stage in stages}
    passages_each = {name: stage.passages_each for name, stage in prompts.items()}
    model = collect_model_facts(experiment, facts, passages_each, machine.bf16, processes)
    costs = [_stage_cost(experiment, stage, prompts[stage.name], facts, model, index, machine) for stage in stages]
    once = None if facts.passages is None else facts.passages * model.passage.forward / machine.speed / processes
    plan = Plan(
        name=experiment.name,
        hardware=machine,
        data=facts,
        model=model,
        index=index,
        stages=tuple(costs),
        embedding=_embedding(experiment, stages, index, once),
        answering=_answering(facts, costs, machine),
        saved=once if _embeds(experiment, stages) else 0.0,
        probed=False,
        refusal=None,
        notes=facts.notes + _notes(experiment, processes),
    )
    plan = replace(plan, refusal=_refusal(experiment, plan))
    if (
        here
        and timed
        and processes == 1
        and plan.refusal is None
        and facts.data is not None
        and _is_small(experiment, model)
    ):
        plan = _with_probe_times(experiment, plan, measure_seconds(experiment, facts.data))
    return plan


def _share(stage: StageDescription, processes: int) -> StageDescription:
    """Return the stage as one of several processes runs it, with its share of the queries at once."""
    micro_batch = min(stage.at_once, math.ceil(stage.queries / processes))
    return replace(stage, pace=replace(stage.pace, micro_batch=micro_batch))


def _notes(experiment: Experiment, processes: int) -> tuple[str, ...]:
    spread = "one process holds all of generator.fsdp; say how many there will be: --processes"
    is_alone = experiment.generator.fsdp and processes == 1
    return tuple(filter(None, [spread if is_alone else None, remark_on_cost(experiment.objective)]))


def _hardware(experiment: Experiment, name: str, processes: int) -> Hardware:
    """Return the hardware of one process; those on this machine share its cores and its memory, if not its GPUs."""
    if name:
        return find_hardware(name)
    device = choose_device()
    machine = measure_machine(device, choose_precision(experiment, device, "training"))
    if machine.cuda or machine.memory is None:
        return machine
    return replace(machine, memory=machine.memory // processes, peak=machine.peak / processes)


def _is_small(experiment: Experiment, model: ModelFacts) -> bool:
    r = experiment.retriever
    on_disk = all(is_on_disk(name) for name in (r.model, r.query_model or r.model, experiment.generator.model))
    return on_disk and model.parameters < _PROBED_PARAMETERS


def _stage_cost(
    experiment: Experiment,
    stage: StageDescription,
    prompts: PromptsPerQuery,
    facts: DataFacts,
    model: ModelFacts,
    index: IndexFacts,
    on: Hardware,
) -> StageCost:
    queries, tokens = stage.queries, model.prompt_tokens[stage.name]
    prompt = model.prompts[stage.name]
    towers, embedded = _encoded_texts(experiment, stage, prompts)
    learns = stage.learns.retriever
    searched = stage.evidence.retrieves
    operations = queries * (
        prompts.without_gradient * prompt.forward
        + prompts.with_gradient * (prompt.forward + prompt.backward)
        + searched * towers * (model.tower.forward + learns * model.tower.backward)
        + embedded * (model.passage.forward + model.passage.backward)
        + searched * towers * 2 * model.dimension * (facts.passages or 0)
    )
    tokens_read = (prompts.without_gradient + prompts.with_gradient) * (tokens + facts.target)
    total = queries * (tokens_read + searched * towers * facts.query + embedded * facts.passage)
    memory = _memory(experiment, stage, prompts, facts, model, index, on)
    share = stage.queries / math.ceil(stage.queries / model.processes)  # as fast as the process with the most queries
    seconds = None if stage.full_steps is None else stage.full_steps * operations / on.speed / share
    return StageCost(stage, prompts, tokens, total, operations, memory, seconds)


def _encoded_texts(experiment: Experiment, stage: StageDescription, prompts: PromptsPerQuery) -> tuple[int, int]:
    """Return how many texts are encoded for a query as queries, and as passages with gradient."""
    r = experiment.retriever
    queries = 2 if r.posterior and stage.objective.needs_posterior else 1
    embeds = stage.learns.retriever and r.trains_passages and not stage.is_copying
    return queries, prompts.candidates * embeds


def _memory(
    experiment: Experiment,
    stage: StageDescription,
    prompts: PromptsPerQuery,
    facts: DataFacts,
    model: ModelFacts,
    index: IndexFacts,
    on: Hardware,
) -> Memory:
    """Return the memory of one micro-batch: all its prompts with gradient are held until the backward pass, whatever
    the token budget.
    """
    at_once = stage.at_once
    prompt, tower, passage = model.prompts[stage.name], model.tower, model.passage

    def stored_bytes(squares: float, all_bytes: float) -> float:
        return all_bytes - (squares if on.cuda else 0.0)  # fused attention on a GPU keeps no squares

    towers, embedded = _encoded_texts(experiment, stage, prompts)
    graphs = at_once * prompts.with_gradient
    activations = graphs * stored_bytes(prompt.squares, prompt.stored_bytes)
    if stage.learns.retriever:
        activations += at_once * towers * stored_bytes(tower.squares, tower.stored_bytes)
        activations += at_once * embedded * stored_bytes(passage.squares, passage.stored_bytes)
    if stage.compares_all:
        activations += at_once * (facts.passages or 0) * _WHOLE_BASE_BYTES
    learned = {part.part: part.moved for part in model.weights}
    tower_parameters = sum(n for part, n in learned.items() if part.endswith("tower")) * stage.learns.retriever
    generator_parameters = sum(n for part, n in learned.items() if not part.endswith("tower"))
    # Gradients of the generator are computed wherever it is read with gradient, even where its rate is 0.
    gradients = tower_parameters + generator_parameters * (prompts.with_gradient > 0)
    is_held = experiment.retriever.search_kind.needs_index and (on.cuda or not index.is_mapped)
    index_bytes = (facts.passages or 0) * index.row_bytes(model.dimension) * is_held
    all_bytes = stage.compares_all and model.processes > 1  # each compares with all, and fetches them
    return Memory(
        weights=sum(part.held for part in model.weights),
        gradients=4.0 * gradients,
        optimiser=8.0 * (tower_parameters + generator_parameters * stage.learns.generator),
        copies=_copies(experiment, model, gradients, graphs, stage.name, on),
        activations=activations,
        index=index_bytes / model.processes + all_bytes * index_bytes,
        libraries=_CUDA_BYTES if on.cuda else _CPU_BYTES,
    )


def _copies(
    experiment: Experiment, model: ModelFacts, gradients: float, graphs: float, stage: str, on: Hardware
) -> float:
    """Return the bytes of the weights in the type in which they compute, while they do.

    Of spread layers autocast makes none: there are one layer gathered and the next on its way, and behind them the
    gradients of one that are being summed.
    """
    g, spread, width = experiment.generator, model.spread, 2.0 if on.bf16 else 4.0
    copies = 2.0 * gradients * on.bf16
    if spread is not None and graphs:
        copies += spread.layer * (2 * width + (width + 4.0) * (g.lora_rank == 0)) - 2.0 * spread.moved * on.bf16
    if g.lora_rank and g.quantisation == "none" and not g.gradient_checkpointing and graphs:
        budget = token_budget_on(torch.device("cuda" if on.cuda else "cpu"), g.token_budget)
        passes = math.ceil(graphs * model.prompt_tokens[stage] / budget)
        copies += model.prompts[stage].copies * passes * (1.0 if spread is None else spread.outside)
    return copies


# ---- what is no step ----------------------------------------------------------------------------------------------


def _embeds(experiment: Experiment, stages: list[StageDescription]) -> bool:
    """Return whether the base is embedded at all."""
    return experiment.retriever.search_kind.needs_index and any(stage.evidence.retrieves for stage in stages)


def _embeddings(experiment: Experiment, stages: list[StageDescription], is_ready: bool) -> float:
    """Return how often the whole base is embedded, as far as known: at the beginning, unless its embeddings are there
    already, while passages move, and after.
    """
    r = experiment.retriever
    if not _embeds(experiment, stages):
        return 0.0
    count = 0.0 if is_ready else 1.0
    for stage in stages:
        if stage.learns.towers and r.passages_move:
            steps = stage.steps or 0
            count += steps > 0
            count += stage.refresh.embeddings(steps) or 0.0
    return count


def _embedding(
    experiment: Experiment, stages: list[StageDescription], index: IndexFacts, once: float | None
) -> float | None:
    """Return the seconds of all embeddings of the base, of which ``once`` takes so many."""
    return None if once is None else _embeddings(experiment, stages, index.is_ready) * once


def _answering(facts: DataFacts, costs: list[StageCost], on: Hardware) -> float | None:
    """Return the seconds of reading the passages of each test example once."""
    if facts.tests is None or not costs:
        return None if facts.tests is None else 0.0
    last = costs[-1]
    prompts_read = max(1.0, last.prompts.without_gradient + last.prompts.with_gradient)
    prompt = last.operations / max(1.0, last.stage.queries * prompts_read) / 3
    return facts.tests * prompts_read * prompt / on.speed


def _with_probe_times(experiment: Experiment, plan: Plan, probed: MeasuredSeconds) -> Plan:
    """Return the plan with measured seconds in the place of computed ones."""
    stages = tuple(
        replace(
            cost,
            seconds=None if cost.stage.full_steps is None else cost.stage.full_steps * probed.step[cost.stage.name],
        )
        if cost.stage.name in probed.step
        else cost
        for cost in plan.stages
    )
    data = plan.data
    descriptions = [cost.stage for cost in plan.stages]
    once = None if data.passages is None else data.passages * probed.passage
    index = replace(plan.index, is_ready=plan.index.is_ready or probed.is_cached)
    embedding = _embedding(experiment, descriptions, index, once)
    saved = once if _embeds(experiment, descriptions) else 0.0
    answering = None if data.tests is None else data.tests * probed.answer
    return replace(plan, index=index, stages=stages, embedding=embedding, answering=answering, saved=saved, probed=True)


# ---- what does not fit --------------------------------------------------------------------------------------------


def _refusal(experiment: Experiment, plan: Plan) -> str | None:
    g, on = experiment.generator, plan.hardware
    if g.quantisation == "nf4" and (not on.cuda or g.model in BUILTIN_GENERATORS):
        return f'generator.quantisation = "nf4" needs a CUDA device, and {on.name} has none; set it to "none"'
    need, most = plan.memory, on.memory
    if most is None or need.total <= most:
        return None
    parts = {name: size for name, size in asdict(need).items() if name != "libraries"}
    largest = max(parts, key=lambda name: parts[name])
    worst = max(plan.stages, key=lambda cost: cost.memory.total).stage
    whole = largest == "activations" and worst.compares_all
    remedy = "set warm_start.passages to 100, say" if whole else _remedy(experiment, largest, plan.processes)
    size = readable_bytes(round(parts[largest]))
    return (
        f"{plan.name} needs about {readable_bytes(round(need.total))} and {on.name} has {readable_bytes(most)}; "
        f"the largest part is {_NAMES[largest]}, {size}: {remedy}"
    )


_NAMES = {
    "weights": "the weights",
    "gradients": "the gradients",
    "optimiser": "the optimiser's states",
    "copies": "copies of weights in bf16, and layers gathered from other processes",
    "activations": "what is kept for the backward pass",
    "index": "the index",
}


def _remedy(experiment: Experiment, part: str, processes: int) -> str:
    g, t = experiment.generator, experiment.training
    if part == "index":
        r = experiment.retriever
        words = f"lower retriever.lexical_dimensions (now {r.lexical_dimensions}), " if r.lexical_dimensions else ""
        return (
            f"{words}split off a part of the base, store half (index.storage = bf16), give one on disk (index.path: "
            "mapped on a CPU), choose a smaller encoder, or spread it over more processes (--processes)"
        )
    if part == "activations":
        remedies = [
            f"lower training.micro_batch (now {t.micro_batch or t.batch_size}) or training.passages ({t.passages})"
        ]
        remedies += [] if g.gradient_checkpointing else ["set generator.gradient_checkpointing = true"]
        return ", or ".join([*remedies, "shorten generator.max_input_tokens"])
    if g.fsdp and processes > 1:
        adapters = "" if g.lora_rank else "train adapters alone: generator.lora_rank = 8 (LoRA), or "
        return f"{adapters}plan for more processes (--processes)"
    if part == "copies" and g.lora_rank:
        return 'set generator.gradient_checkpointing = true, raise generator.token_budget, or quantisation = "nf4"'
    if processes > 1 and _can_be_spread(experiment):
        return "spread the layers of the generator over the processes: generator.fsdp = true"
    if g.lora_rank == 0:
        return 'train adapters alone: generator.lora_rank = 8 (LoRA), with quantisation = "nf4" in four bits (QLoRA)'
    if g.quantisation == "none":
        return 'hold the weights in four bits: generator.quantisation = "nf4" (QLoRA, a CUDA device)'
    return "choose a smaller generator or encoder, or hardware with more memory"


def _can_be_spread(experiment: Experiment) -> bool:
    try:
        experiment.with_settings(["generator.fsdp=true"])
    except UserError:
        return False
    return True
