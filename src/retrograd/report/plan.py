"""Presentation of a plan: parameters, memory, stages, hours."""

from __future__ import annotations

import math
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from retrograd.studies.planning.needs import Plan
from retrograd.util.machine import readable_bytes, readable_seconds

__all__ = ["print_plan"]

_MEMORY = {
    "weights": "weights",
    "gradients": "gradients (fp32)",
    "optimiser": "optimiser (AdamW, two fp32 numbers a trained weight)",
    "copies": "copies of weights in bf16, gathered layers",
    "activations": "kept for the backward pass (estimate)",
    "index": "index (but what is mapped from the disk)",
    "libraries": "libraries and buffers (estimate)",
}

_HOUR = 3_600


def print_plan(plan: Plan, console: Console) -> None:
    """Print the tables, their assumptions, and whether the run fits."""
    console.print(_parameters(plan))
    console.print()
    console.print(_memory(plan))
    console.print()
    console.print(_stages(plan))
    for line in (*_times(plan), *(f"note: {note}" for note in plan.notes)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(plan.refusal or _verdict(plan), highlight=False, markup=False, soft_wrap=True)


def _verdict(plan: Plan) -> str:
    if plan.hardware.memory is None:
        return "whether it fits is not known here"
    if plan.data.passages is None:
        return "without its index it fits; how large that is, is not known: say --passages"
    return "it fits"


def _parameters(plan: Plan) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("parameters")
    for heading in ("all", "trained", "held in"):
        table.add_column(heading, justify="right")
    for weights in plan.model.weights:
        table.add_row(
            weights.part, f"{weights.parameters:,}", f"{weights.trained:,}", readable_bytes(round(weights.held))
        )
    held_bytes = readable_bytes(round(sum(weights.held for weights in plan.model.weights)))
    table.add_row("all", f"{plan.model.parameters:,}", f"{plan.model.trained:,}", held_bytes)
    return table


def _memory(plan: Plan) -> Table:
    table = Table(box=None, pad_edge=False)
    of_each = " of each process" if plan.processes > 1 else ""
    table.add_column(f"memory{of_each}, of the stage that needs most")
    table.add_column("", justify="right")
    for name, size in asdict(plan.memory).items():
        table.add_row(_MEMORY[name], readable_bytes(round(size)))
    capacity = plan.hardware.memory
    of = "" if capacity is None else f" of {readable_bytes(capacity)}"
    table.add_row("all", readable_bytes(round(plan.memory.total)) + of)
    return table


def _stages(plan: Plan) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("stage")
    for heading in ("steps", "queries", "prompts", "with gradient", "tokens", "TFLOP", "time"):
        table.add_column(heading, justify="right")
    for costs in plan.stages:
        queries = costs.stage.queries
        table.add_row(
            costs.stage.name,
            "unknown" if costs.stage.steps is None else f"{costs.stage.steps:,}",
            f"{queries:,}",
            f"{queries * (costs.prompts.without_gradient + costs.prompts.with_gradient):,.0f}",
            f"{queries * costs.prompts.with_gradient:,.0f}",
            f"{costs.tokens:,.0f}",
            f"{costs.operations / 1e12:,.3g}",
            "unknown" if costs.seconds is None else readable_seconds(costs.seconds),
        )
    table.caption = "each step; prompts at most: what passages word alike is scored once, and objectives prune"
    table.caption_justify = "left"
    return table


def _machines(plan: Plan) -> str:
    return plan.hardware.name if plan.processes == 1 else f"{plan.processes} x {plan.hardware.name}"


def _times(plan: Plan) -> list[str]:
    def time_or_unknown(seconds: float | None) -> str:
        return "unknown" if seconds is None else readable_seconds(seconds)

    on, data = plan.hardware, plan.data
    speed = (
        f"{on.speed / 1e12:.3g} TFLOP/s: {on.utilisation:g} of {'measured' if on.measured else 'published'} products"
    )
    how = "a few real steps, timed just now" if plan.probed else f"computed at {speed}"
    passages = "unknown" if data.passages is None else f"{data.passages:,}"
    size = "" if plan.index_bytes is None else f", an index of {readable_bytes(plan.index_bytes)}"
    read = [
        str(costs.prompt_tokens)
        for costs in plan.stages
        if costs.prompts.with_gradient + costs.prompts.without_gradient
    ]
    lines = [
        f"{passages} passages{size}; prompts of {', '.join(read) or 'no'} tokens",
        f"embedding the base {time_or_unknown(plan.embedding)}, answering the test {time_or_unknown(plan.answering)}",
        f"about {time_or_unknown(plan.seconds)} on {_machines(plan)} (estimate: {how})",
        *_savings(plan),
    ]
    return [*lines, plan.index.note] if plan.index.note else lines


def _savings(plan: Plan) -> list[str]:
    """Return what embeddings save that are there, or that the cache will keep; nothing where that is not known."""
    if not plan.saved:
        return []
    saved = readable_seconds(plan.saved)
    if plan.index.is_ready:
        return [f"the passages are embedded already, which saves about {saved}"]
    lines = [f"embedding the passages once takes about {saved}, which an index or the cache saves later runs"]
    workers = math.ceil(plan.saved / _HOUR)
    if workers > 1:
        lines.append(f"{workers:,} workers of `retrograd index build`, each with such hardware, take about an hour")
    return lines
