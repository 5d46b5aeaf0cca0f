"""The demonstration with a language model, on tiny models; and the islands that it asks about."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.requirements import skip_without_smollm2

from retrograd.commands.demo.islands import invent_islands
from retrograd.commands.demo.language_model import run_language_model_demo
from retrograd.data.questions import read_questions
from retrograd.experiments.open import open_run


class TestIslands:
    def test_each_question_has_one_passage_that_holds_its_answer(self):
        islands = invent_islands(seed=0, train_places=6, test_places=3)
        assert (len(islands.passages), len(islands.train), len(islands.test)) == (45, 30, 15)
        text = {passage["id"]: passage["text"] for passage in islands.passages}
        assert len(text) == 45
        for question in islands.train + islands.test:
            (gold,), (answer,) = question["gold_passages"], question["answers"]
            assert answer in text[gold]
            assert answer not in question["question"]

    def test_the_test_asks_about_other_places(self):
        islands = invent_islands(seed=1, train_places=6, test_places=3)
        trained, tested = (
            {question["id"].split(",")[0] for question in part} for part in (islands.train, islands.test)
        )
        assert (len(trained), len(tested)) == (6, 3)
        assert not trained & tested

    def test_the_seed_draws_them(self):
        first, again, other = (invent_islands(seed, 4, 2) for seed in (0, 0, 1))
        assert first == again
        assert first != other

    def test_saved_they_are_files_that_experiments_read(self, tmp_path: Path):
        invent_islands(0, 3, 2).save(tmp_path)
        questions = list(read_questions(tmp_path / "test.jsonl"))
        assert len(questions) == 10
        assert all(question.gold_passages for question in questions)


def test_it_trains_and_prints_answers_before_and_after(
    tiny_encoder: Path, tiny_causal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = [f"retriever.model={tiny_encoder}", f"generator.model={tiny_causal}", "generator.lora_rank=2"]
    small = ["training.epochs=1", "training.precision=fp32", "data.train_count=16", "data.test_count=9"]
    for _ in range(2):
        before, after = run_language_model_demo(tmp_path / "demo", 0, [*models, *small])
    assert len(before.predictions) == len(after.predictions) == 9
    assert before.scores != after.scores
    out = capsys.readouterr().out
    assert out.count("  before ") == out.count("  after  ") == 16
    assert f"retrograd search {tmp_path / 'demo-2' / 'trained'}" in out
    for name, evaluation in (("untrained", before), ("trained", after)):
        card = (tmp_path / "demo-2" / name / "model" / "README.md").read_text(encoding="utf-8")
        assert f"| exact_match | {evaluation.scores['exact_match']:.2f} |" in card
        assert "outside a finished run" not in card
    assert open_run(tmp_path / "demo-2" / "trained").experiment.data.test_count == 9


@pytest.mark.slow
def test_smollm2_opens_in_the_demonstration(tiny_encoder: Path, tmp_path: Path) -> None:
    skip_without_smollm2()
    few = ["training.epochs=1", "data.train_count=2", "data.test_count=2", f"retriever.model={tiny_encoder}"]
    _, after = run_language_model_demo(tmp_path / "demo", 0, [*few, "training.precision=fp32"])
    assert {"exact_match", "gold_recall@1", "citation_precision@1"} <= after.scores.keys()
