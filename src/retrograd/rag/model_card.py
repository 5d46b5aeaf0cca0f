"""The cards of a saved model: a README.md in each folder, with the front matter that the Hugging Face hub reads.

A card says what the model was made of and how to open it, and what its run has measured. What is not known is said to
be missing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.models.compute.sentence_head import Side
from retrograd.models.encoder import Encoder
from retrograd.models.loading.lora import has_lora
from retrograd.models.loading.origins import Origin, find_origin
from retrograd.models.pointer import PointerGenerator
from retrograd.rag.model_parts import ModelParts
from retrograd.rag.model_settings import ModelSettings
from retrograd.rag.retriever_texts import describe_texts, find_limits
from retrograd.rag.search_kinds import SearchKind
from retrograd.tasks.saved_tasks import describe_queries
from retrograd.tasks.task import Task
from retrograd.util.files import atomic_file
from retrograd.util.markdown import code_span, escape

__all__ = ["Controls", "RunFacts", "Scores", "update_cards", "write_cards"]

_CARD = "README.md"
_TAGS = ("retrograd", "retrieval-augmented-generation")
_MEASURED = re.compile(r"^## Training( and scores)?\n.*?(?=^## Licence)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Scores:
    """The scores of a run by name, in percent, with the 95 % intervals over its test examples where there are any.

    ``trivial`` are the scores of the negative answer to every example, where the task has one.
    """

    values: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    trivial: Mapping[str, float]


@dataclass(frozen=True)
class Controls:
    """The scores of a run's controls, by control and by name, in percent, and a ``sentence`` on the difference."""

    sentence: str
    scores: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class RunFacts:
    """Facts of a finished run for the card of its model.

    ``data`` and ``objective`` are words, ``settings`` those that differ from the ``recipe`` of that name, and from the
    defaults without one.
    ``scores`` are None where the test data were not scored, ``controls`` where no study has compared the run.
    """

    data: tuple[str, ...]
    objective: str
    scores: Scores | None
    test_examples: int
    recipe: str | None
    settings: tuple[str, ...]
    controls: Controls | None


def write_cards(
    folder: Path,
    parts: ModelParts,
    task: Task,
    base: KnowledgeBase,
    search: SearchKind,
    settings: ModelSettings | None,
    facts: RunFacts | None = None,
) -> None:
    """Write a README.md beside the parts of a model in ``folder``, and beside each tower and the generator."""
    towers, generator = _origins(parts, settings)
    limits = find_limits(describe_texts(task), parts.retriever, search)
    measured = _describe_facts(facts)
    _write(folder, _model_card(task, base, [*towers.values()], generator, measured))
    for tower in parts.retriever.sides_of_towers:
        _write(folder / "retriever" / tower, _tower_card(tower, parts, task, limits, towers[tower], measured))
    _write(folder / "generator", _generator_card(parts, generator, measured))
    if parts.posterior is not None:
        for tower in parts.posterior.sides_of_towers:
            _write(folder / "posterior" / tower, _posterior_card(tower, towers[tower]))


def update_cards(folder: Path, facts: RunFacts) -> None:
    """Put the facts of its run into the cards of a model that is saved in ``folder``; the rest of each card stays."""
    measured = _describe_facts(facts)
    for card in sorted(folder.rglob(_CARD)):
        text = card.read_text(encoding="utf-8")
        updated = _MEASURED.sub(lambda _: f"{measured}\n", text, count=1)
        if updated != text:
            _write(card.parent, updated)


def _origins(parts: ModelParts, settings: ModelSettings | None) -> tuple[dict[Side, Origin], Origin]:
    """Return where each tower, by the name of its folder, and the generator come from."""
    if settings is not None:
        r, generator = settings.retriever, settings.generator.model
        names: dict[Side, str] = {"query": r.query_model or r.model, "passage": r.model}
    else:
        retriever, generator = parts.retriever, parts.generator.model.name_or_path or ""
        encoders: dict[Side, Encoder] = {"query": retriever.query_encoder, "passage": retriever.passage_encoder}
        names = {tower: encoder.model.name_or_path or "" for tower, encoder in encoders.items()}
    return {tower: find_origin(name) for tower, name in names.items()}, find_origin(generator)


def _write(folder: Path, text: str) -> None:
    with atomic_file(folder / _CARD) as temporary:
        temporary.write_text(text.rstrip("\n") + "\n", encoding="utf-8")


def _front_matter(library: str, pipeline: str, origins: Sequence[Origin], tags: Sequence[str] = ()) -> str:
    """Return the front matter; a text in JSON is one in YAML. Two licences that differ are left to the text below."""
    rows: dict[str, object] = {}
    licences = {origin.licence for origin in origins}
    if len(licences) == 1 and "" not in licences:
        rows["license"] = licences.pop()
    names = sorted({origin.hub_name for origin in origins if origin.hub_name})
    if names:
        rows["base_model"] = names
    rows |= {"library_name": library, "pipeline_tag": pipeline, "tags": [*_TAGS, *tags]}
    return "\n".join(["---", *(f"{name}: {json.dumps(value)}" for name, value in rows.items()), "---", ""])


def _licence_lines(origins: Sequence[Origin]) -> str:
    """Return a line for each model that weights come from."""
    lines = [f"- {one.label}: {one.licence or 'licence not known here; see the model itself'}" for one in origins]
    return "\n".join(dict.fromkeys(lines))


def _describe_facts(facts: RunFacts | None) -> str:
    """Return the sections about training and scores."""
    if facts is None:
        return (
            "## Training and scores\n\nThis model was saved outside a finished run: its training data, objective, "
            "scores and controls are not recorded.\n"
        )
    data = "\n".join(f"- {escape(line)}" for line in facts.data)
    if facts.scores is not None and facts.scores.values:
        scores = _describe_scores(facts.scores, facts.controls, facts.test_examples)
    elif facts.test_examples:
        scores = f"The scores on its {facts.test_examples} test examples are not recorded."
    else:
        scores = "The run had no test data, so that there are no scores."
    settings = "\n".join(f"- {code_span(line)}" for line in facts.settings) or "- none"
    compared_with = "the defaults" if facts.recipe is None else f"the recipe {code_span(facts.recipe)}"
    return f"""## Training

{data}
- objective: {facts.objective}

Settings that differ from {compared_with}:

{settings}

## Scores

{scores}

{_describe_controls(facts.controls)}
"""


def _describe_scores(scores: Scores, controls: Controls | None, test_examples: int) -> str:
    """Return the table of scores, those of controls beside them."""
    others = dict(controls.scores) if controls is not None else {}
    if scores.trivial:
        others["always the negative answer"] = scores.trivial
    rows = []
    for name, value in scores.values.items():
        ends = scores.intervals.get(name)
        interval = "-" if ends is None else f"{ends[0]:.2f} to {ends[1]:.2f}"
        cells = [f"{own[name]:.2f}" if name in own else "-" for own in others.values()]
        rows.append(" | ".join(["", escape(name), f"{value:.2f}", interval, *cells, ""]).strip())
    header = " | ".join(["", "score", "value", "95 % interval", *map(escape, others), ""]).strip()
    return (
        f"On {test_examples} test examples, in percent, of one run. Intervals are by bootstrap over the test examples: "
        f"another training seed may\ndiffer by more.\n\n"
        f"{header}\n|{'---|' * (3 + len(others))}\n" + "\n".join(rows)
    )


def _describe_controls(controls: Controls | None) -> str:
    if controls is None:
        return (
            "Controls are missing: no frozen, random or closed-book run is recorded beside this one, so that the\n"
            "scores do not say what joint training was worth. `retrograd train --controls` trains "
            "them,\n`retrograd compare` compares two runs."
        )
    return (
        "The controls had the same data, generator, number of epochs and seed (`retrograd train --controls`).\n"
        f"Over all seeds: {escape(controls.sentence)}."
    )


def _model_card(task: Task, base: KnowledgeBase, towers: Sequence[Origin], generator: Origin, measured: str) -> str:
    pipeline = "text-classification" if task.choices is not None else "question-answering"
    labels = " and ".join(dict.fromkeys(origin.label for origin in towers))
    return f"""{_front_matter("retrograd", pipeline, [*towers, generator])}
# A retriever and a generator, trained as one model

Task: {task.name}. Passages in the knowledge base: {len(base):,}. Retriever from {labels}, generator from
{generator.label}, trained with retrograd.

## How to open it

```python
import retrograd as rg

model = rg.RagModel.from_pretrained("FOLDER")   # a folder that save_pretrained wrote; rg.open_run opens that of a run
model.search("a query", k=5)
model.answer("a query").text
```

`retriever/query` opens in sentence-transformers, `generator` in transformers or PEFT; the card of each says how.

{measured}
## Licences of the models that the weights come from

{_licence_lines([*towers, generator])}
"""


def _tower_card(
    tower: Side, parts: ModelParts, task: Task, limits: Sequence[str], origin: Origin, measured: str
) -> str:
    sides = parts.retriever.sides_of_towers[tower]
    lines = []
    if "query" in sides:
        lines.append('queries = model.encode_query(["a query"])             # or encode(…, prompt_name="query")')
    if "passage" in sides:
        lines.append('passages = model.encode_document(["a passage"])       # or encode(…, prompt_name="passage")')
    code = "\n".join(lines)
    other = (
        "" if len(sides) == 2 else f"This tower reads {sides[0]} texts alone; the other one is the folder beside it.\n"
    )
    joined = describe_texts(task).plain_passage or "(made by the task)"
    rules = (
        "\n".join(f"- {limit}" for limit in limits)
        or "- none: plain texts get the vectors that the model was scored with"
    )
    return f"""{_front_matter("sentence-transformers", "sentence-similarity", [origin], ["sentence-transformers"])}
# Retriever

{other}
```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("FOLDER")
{code}
```

- a query is {describe_queries(task)}
- a passage is `{joined}`, and the text alone where there is no title
- the prompts of the folder stand before them; `texts.json` has all of this for programs
- passages are ranked by the inner product

What this folder does not say:

{rules}

{measured}
## Licence of the model that the weights come from

{_licence_lines([origin])}
"""


def _posterior_card(tower: str, origin: Origin) -> str:
    return f"""{_front_matter("sentence-transformers", "sentence-similarity", [origin], ["sentence-transformers"])}
# Posterior retriever, {tower} side

It proposes passages in training, and its queries hold the target beside the query: it is not made for search. The
retriever for search is the folder `retriever`.

## Licence of the model that the weights come from

{_licence_lines([origin])}
"""


def _generator_card(parts: ModelParts, origin: Origin, measured: str) -> str:
    generator = parts.generator
    seq2seq = generator.encoder_decoder
    adapters = has_lora(generator.model)
    kind = "Seq2SeqLM" if seq2seq else "CausalLM"
    pipeline = "text2text-generation" if seq2seq else "text-generation"
    library = "peft" if adapters else "transformers"
    if isinstance(generator.model, PointerGenerator):
        how = (
            "This generator copies from its prompt, by a class of retrograd's own (PointerGenerator): transformers "
            "opens the folder as another model, with other answers. Open it with `rg.RagModel.from_pretrained`."
        )
    elif adapters:
        how = _how_to_open_adapters(kind, origin)
    else:
        how = f"""```python
from transformers import AutoModelFor{kind}, AutoTokenizer

model, tokenizer = AutoModelFor{kind}.from_pretrained("FOLDER"), AutoTokenizer.from_pretrained("FOLDER")
```"""
    soft = "\n\nIts soft prompt (soft_prompt.safetensors) is read by retrograd alone." if generator.soft_prompt else ""
    return f"""{_front_matter(library, pipeline, [origin], [library, *(["lora"] if adapters else [])])}
# Generator

{how}{soft}

It was trained on prompts that hold retrieved passages; the task of the model writes them (`task.prompt`).
`generator.json` has the lengths that it reads and writes.

{measured}
## Licence of the model that the weights come from

{_licence_lines([origin])}
"""


def _how_to_open_adapters(kind: str, origin: Origin) -> str:
    merged = "`retrograd export RUN --to merged --out FOLDER` writes the weights with the adapters merged in."
    if not origin.given.startswith("builtin:"):
        return f"""```python
from peft import AutoPeftModelFor{kind}

model = AutoPeftModelFor{kind}.from_pretrained("FOLDER")   # with {origin.label} where adapter_config.json says it is
```

{merged}"""
    return f"""The adapters belong to `{origin.given}`, which comes with a package and has no name on the hub (its
weights are not those of {origin.hub_name} to the last bit). Give the model itself:

```python
import torch
from peft import PeftModel

import retrograd as rg

base = rg.Generator.open("{origin.given}", torch.Generator()).model
model = PeftModel.from_pretrained(base, "FOLDER")
```

`retrograd export RUN --to peft --out FOLDER` writes that model beside the adapters. {merged}"""
