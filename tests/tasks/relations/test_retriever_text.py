"""Role spans hold the very words of the roles, in every style, whatever the sentence holds."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrograd.data.relations.instance import RelationInstance, escape
from retrograd.tasks.relations.extraction import KEY_STYLES, RelationExtraction
from retrograd.tasks.relations.retriever_text import QUERY_STYLES, with_label
from retrograd.tasks.relations.verbalisation import Verbalisation
from retrograd.types import Span, UserError

LABELS = {"leads": "leads", "b": "a : b", "c": "@ # | leads"}
BAKER = RelationInstance("1", "The old baker sold warm bread.", Span(8, 13), Span(24, 29), "leads")


def task(query_style: str, key_style: str) -> RelationExtraction:
    plain = RelationExtraction.from_labels(LABELS, query_style=query_style)
    words = Verbalisation(LABELS, plain.verbalisation.templates)
    return dataclasses.replace(plain, verbalisation=words, key_style=key_style)


@st.composite
def instances(draw: st.DrawFn) -> RelationInstance:
    """Sentences rich in what the styles are written with; entities apart, touching or one inside the other."""
    pieces = st.sampled_from(["a", "b", " ", "@", "#", "\\", " : ", " ; ", " | ", "leads", "é"])
    text = "".join(draw(st.lists(pieces, min_size=1, max_size=16)))
    places = st.integers(0, len(text))
    spans = [Span(*sorted((draw(places), draw(places)))) for _ in range(2)]
    relation = draw(st.sampled_from(sorted(LABELS)))
    try:
        return RelationInstance("1", text, spans[0], spans[1], relation)
    except UserError:
        text = f"x{text}y"
        return RelationInstance("1", text, Span(len(text) - 1, len(text)), Span(0, 1), relation)


def bare(marked: str) -> str:
    """The words of a piece of marked text: marks and the spaces inside them are gone, literal signs are back."""
    return "".join(marked.replace("\\\\", "\0").replace("\\@", "\1").replace("\\#", "\2").split()).translate(
        {ord("@"): None, ord("#"): None, 0: "\\", 1: "@", 2: "#"}
    )


def words(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize(("style", "key"), list(itertools.product(QUERY_STYLES, KEY_STYLES)))
@given(instance=instances())
def test_spans_hold_the_entities_and_the_context(style: str, key: str, instance: RelationInstance) -> None:
    relation = task(style, key)
    example, passage = relation.example(instance), relation.passage(instance)
    query, posterior = relation.query_text(example), relation.posterior_text(example, example.target)
    found = relation.passage_text(passage)
    assert found == (posterior if key == "published" else query)
    for text in (query, posterior, found):
        head, tail, third = relation.role_spans(text)
        assert bare(text[slice(*head)]) == words(instance.head.of(instance.text))
        assert bare(text[slice(*tail)]) == words(instance.tail.of(instance.text))
        assert 0 <= third[0] < third[1] <= len(text)
    if key == "published":
        _, _, label = relation.role_spans(found)
        assert found[slice(*label)] == escape(passage.title)
    if not any(query.endswith(with_label("", label)) for label in LABELS.values()):
        start, end = min(instance.head.start, instance.tail.start), max(instance.head.end, instance.tail.end)
        whole = instance.text[start:end] if style.startswith("between") else instance.text
        assert bare(query[slice(*relation.role_spans(query)[2])]) == words(whole)


@pytest.mark.parametrize(
    ("style", "head", "tail", "context"),
    [
        ("marked", "baker", "bread", "The old @ baker @ sold warm # bread #."),
        ("entities+marked", "baker", "bread", "The old @ baker @ sold warm # bread #."),
        ("between", "baker", "bread", "@ baker @ sold warm # bread #"),
        ("between+marked", "baker", "bread", "@ baker @ sold warm # bread #"),
    ],
)
def test_spans_of_a_plain_sentence(style: str, head: str, tail: str, context: str) -> None:
    relation = task(style, "published")
    query, passage = relation.query_text(relation.example(BAKER)), relation.passage_text(relation.passage(BAKER))
    assert [query[slice(*span)] for span in relation.role_spans(query)] == [head, tail, context]
    assert [passage[slice(*span)] for span in relation.role_spans(passage)] == [head, tail, "leads"]
    # Entities stand in the whole sentence, not in what is written before it.
    assert query[: relation.role_spans(query)[0][0]].count("baker") == ("+" in style)


def test_an_entity_inside_another_keeps_its_marks() -> None:
    relation = task("marked", "split")
    nested = RelationInstance("1", "the stone wall fell", Span(4, 14), Span(4, 9), None)
    text = relation.query_text(relation.example(nested))
    assert [text[slice(*span)] for span in relation.role_spans(text)[:2]] == ["# stone # wall", "stone"]


@pytest.mark.parametrize("style", QUERY_STYLES)
def test_another_text_is_refused(style: str) -> None:
    with pytest.raises(UserError, match="build"):
        task(style, "split").role_spans("The old baker : sold bread.")


@pytest.mark.parametrize("style", QUERY_STYLES)
def test_labels_enter_keys_only_in_the_published_form(style: str) -> None:
    """All labels are permuted: no key changes in the split form, every key in the published one."""
    relations = sorted(LABELS)
    before = [dataclasses.replace(BAKER, id=str(i), relation=label) for i, label in enumerate(relations)]
    after = [dataclasses.replace(one, relation=relations[i - 1]) for i, one in enumerate(before)]
    for key in KEY_STYLES:
        relation = task(style, key)
        texts = [[relation.passage_text(relation.passage(one)) for one in part] for part in (before, after)]
        changed = [one != other for one, other in zip(*texts, strict=True)]
        assert changed == [key == "published"] * len(relations)
        queries = [[relation.query_text(relation.example(one)) for one in part] for part in (before, after)]
        assert queries[0] == queries[1]
