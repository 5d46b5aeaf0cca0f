"""Pairs from a corpus alone: what is kept and why, a killed process, and what comes out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tests.requirements import skip_without_smollm2
from tests.studies.synthesis.rules import CORPUS, WRITTEN, Rules, write_corpus
from torch import Tensor
from typer.testing import CliRunner

from retrograd import __main__ as cli
from retrograd.data.questions import read_questions
from retrograd.models.generator import Generator
from retrograd.studies.synthesis import synthesise as module
from retrograd.studies.synthesis.synthesise import Synthesis, fingerprint_of, open_question_model, synthesise
from retrograd.types import UserError

RUN = Synthesis(generator="rules")


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def reasons(folder: Path) -> dict[str, str]:
    return {one["answer"]: one["reason"] for one in records(folder / "pairs.rejected.jsonl")}


def run(folder: Path, rules: Rules, settings: Synthesis = RUN) -> module.Yield:
    return synthesise(write_corpus(folder), folder / "pairs.jsonl", settings, rules.model())


def test_pairs_are_read_by_training_and_know_where_they_come_from(tmp_path: Path) -> None:
    result = run(tmp_path, Rules())
    assert (result.corpus, result.passages, result.drafts, result.kept) == (5, 5, 6, 6)
    assert (result.left_out, result.share) == ({}, 1.0)
    examples = {one.target: one for one in read_questions(tmp_path / "pairs.jsonl")}
    assert {one.answer for one in result.examples} == examples.keys() == {answer for _, answer in WRITTEN.values()}
    assert examples["Ostfeld"].query == "For which fair was the old box filled?"
    assert examples["Ostfeld"].gold_passages == ("p2",)
    assert examples["1987"].query == "In what year did the lower town have a flood?"
    first = records(tmp_path / "pairs.jsonl")[0]
    text = CORPUS[0]["text"]
    assert first["id"] == "p1:0"
    assert first["provenance"] == {
        "passage": "p1",
        "sentence_start": 0,
        "sentence_end": len(text),
        "opening": "",
        "start": text.index("Maria"),
        "end": text.index("Maria") + 11,
        "others": 0,
        "reading": "Maria Olsen",
        "f1": 1.0,
        "log_likelihood": -1.0,
        "log_likelihood_alone": -5.0,
        "generator": "rules",
        "fingerprint": "0" * 64,
        "seed": 0,
        "prompts": 1,
    }
    summary = json.loads((tmp_path / "pairs.summary.json").read_text("utf-8"))
    assert summary["yield"]["kept"] == 6
    assert summary["settings"]["min_f1"] == 0.6
    assert not (tmp_path / "pairs.jsonl.partial").exists()


def test_each_test_leaves_out_what_fails_it_and_asks_no_more_of_it(tmp_path: Path) -> None:
    written = WRITTEN | {
        "Cup": ("The cup was made of glass", "Maria Olsen"),
        "Rain": ("Does Kessa still feel the flood?", "Kessa"),
        "Car": ("Who bought the old red car?", "the red car"),
    }
    readings = {"Who bought the old red car?": "Otto", "For which fair was the old box filled?": "Ostfeld fair"}
    rules = Rules(written, readings, alone={"1987": -1.0, "3,200": -1.25})
    result = run(tmp_path, rules)
    assert reasons(tmp_path) == {
        "Maria Olsen": "no_question_mark",
        "Kessa": "contains_answer",
        "the red car": "round_trip",
        "1987": "likelihood_gain",  # equal is no gain
    }
    kept = {one["answers"][0]: one["provenance"]["f1"] for one in records(tmp_path / "pairs.jsonl")}
    assert kept == {"Ostfeld": pytest.approx(2 / 3), "3,200": 1.0}
    assert result.left_out == {"no_question_mark": 1, "contains_answer": 1, "round_trip": 1, "likelihood_gain": 1}
    assert len(rules.written) == 6
    assert len(rules.asked) == 4
    assert set(rules.scored) == {"Ostfeld", "1987", "3,200"}


def test_thresholds_are_settings(tmp_path: Path) -> None:
    rules = Rules(readings={"For which fair was the old box filled?": "Ostfeld fair"}, alone={"Kessa": -1.5})
    assert run(tmp_path, rules, replace(RUN, min_f1=0.7, min_gain=0.5)).kept == 4
    assert reasons(tmp_path) == {"Ostfeld": "round_trip", "Kessa": "likelihood_gain"}


def test_an_answer_is_asked_for_where_none_was_written(tmp_path: Path) -> None:
    question = "For which fair was the old box filled?"
    rules = Rules(WRITTEN | {"Box": (question, "")}, {question: "ostfeld."})
    run(tmp_path, rules)
    assert rules.asked.count(question) == 2  # with the sentence, and with the whole passage
    assert {one["answers"][0] for one in records(tmp_path / "pairs.jsonl")} >= {"Ostfeld"}  # as the passage spells it


def test_answers_that_stand_in_many_passages_are_left_out(tmp_path: Path) -> None:
    corpus = [*CORPUS, *({"id": f"m{i}", "title": "", "text": "maria olsen is here"} for i in range(3))]
    corpus.append({"id": "k", "title": "", "text": "kessa"})
    settings = replace(RUN, max_passages_with_answer=1)  # as many as Kessa has
    result = synthesise(write_corpus(tmp_path, corpus), tmp_path / "pairs.jsonl", settings, Rules().model())
    assert (result.drafts, result.kept, result.left_out) == (6, 5, {"common_answer": 1})
    assert [(one["answer"], one["others"]) for one in records(tmp_path / "pairs.rejected.jsonl")] == [
        ("Maria Olsen", 3)
    ]
    others = {one["answers"][0]: one["provenance"]["others"] for one in records(tmp_path / "pairs.jsonl")}
    assert (others["Kessa"], others["1987"]) == (1, 0)


def test_of_nearly_equal_questions_the_first_is_kept_across_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BLOCK", 1)
    again = {"id": "p6", "title": "Cups", "text": "The big cup was made of glass by Berit Dahl in Ostfeld ."}
    written = WRITTEN | {"Cups": ("Who made the big cup of the glass?", "Berit Dahl")}
    corpus = write_corpus(tmp_path, [*CORPUS, again])
    result = synthesise(corpus, tmp_path / "pairs.jsonl", RUN, Rules(written).model())
    assert (result.kept, reasons(tmp_path)) == (6, {"Berit Dahl": "near_duplicate"})


def test_passages_are_drawn_by_the_seed(tmp_path: Path) -> None:
    drawn = {}
    for seed in range(6):
        folder = tmp_path / str(seed)
        folder.mkdir()
        result = run(folder, Rules(), replace(RUN, passages=2, seed=seed))
        assert (result.corpus, result.passages) == (5, 2)
        drawn[seed] = {one["gold_passages"][0] for one in records(folder / "pairs.jsonl")}
        assert len(drawn[seed]) <= 2
    assert len({frozenset(one) for one in drawn.values()}) > 1
    assert run(tmp_path, Rules(), replace(RUN, per_passage=1)).drafts == 4


# ---- killed processes ------------------------------------------------------------------------------------------------


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", 1)


def stop_after(calls: int) -> Callable[[], None]:
    left = [calls]

    def count() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt

    return count


@pytest.mark.parametrize("calls", [1, 2, 5])
@pytest.mark.usefixtures("small_blocks")
def test_work_that_was_stopped_is_continued(tmp_path: Path, calls: int) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    run(whole, Rules())
    stopped = Rules()
    stopped.before_call = stop_after(calls)
    with pytest.raises(KeyboardInterrupt):
        run(parts, stopped)
    assert not (parts / "pairs.jsonl").exists()
    rest = Rules()
    result = run(parts, rest)
    done_again = calls % 2  # a block has two calls, and one that was begun is done again
    assert len(stopped.written) + len(rest.written) == 6 + done_again * (2 if calls == 5 else 1)
    assert result.drafts == 6
    for name in ("pairs.jsonl", "pairs.rejected.jsonl"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.usefixtures("small_blocks")
def test_a_killed_process_leaves_whole_blocks(tmp_path: Path, tiny_causal: Path) -> None:
    """The system ends the process at its second block, without a word to it."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    settings = replace(RUN, generator=str(tiny_causal))
    code = (
        "import os, sys; from pathlib import Path\n"
        "import torch; torch.set_num_threads(1)\n"
        "from retrograd.studies.synthesis import synthesise as module, work\n"
        "module._BLOCK = 1\n"
        "save = work.WorkFolder.save\n"
        "def save_and_die(folder, block, done):\n"
        "    save(folder, block, done)\n"
        "    if block == 1: os._exit(9)\n"
        "work.WorkFolder.save = save_and_die\n"
        f"settings = module.Synthesis(generator={str(tiny_causal)!r})\n"
        "module.synthesise(Path(sys.argv[1]), Path(sys.argv[2]), settings)\n"
    )
    corpus = write_corpus(tmp_path)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, str(corpus), str(parts / "pairs.jsonl")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 9, done.stderr
    blocks = sorted(one.name for one in (parts / "pairs.jsonl.partial").glob("block-*"))
    assert blocks == ["block-000000.json", "block-000001.json"]
    for folder in (whole, parts):
        synthesise(corpus, folder / "pairs.jsonl", settings)
    assert (parts / "pairs.rejected.jsonl").read_bytes() == (whole / "pairs.rejected.jsonl").read_bytes()


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(
    ("name", "changed"), [("min_f1", {"min_f1": 0.25}), ("seed", {"seed": 1}), ("passages", {"passages": 2})]
)
def test_other_settings_do_not_continue_the_work(tmp_path: Path, name: str, changed: dict[str, float]) -> None:
    stopped = Rules()
    stopped.before_call = stop_after(2)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, stopped)
    with pytest.raises(UserError, match=rf"was begun with {name} .*choose another file with --out, or remove"):
        run(tmp_path, Rules(), replace(RUN, **changed))
    model = replace(Rules().model(), fingerprint="1" * 64)
    with pytest.raises(UserError, match="was begun with fingerprint"):
        synthesise(tmp_path / "passages.jsonl", tmp_path / "pairs.jsonl", RUN, model)
    write_corpus(tmp_path, CORPUS[:4])
    with pytest.raises(UserError, match="was begun with corpus"):
        synthesise(tmp_path / "passages.jsonl", tmp_path / "pairs.jsonl", RUN, Rules().model())
    assert run(tmp_path, Rules()).kept == 6


def test_a_finished_file_is_not_written_again(tmp_path: Path) -> None:
    run(tmp_path, Rules())
    with pytest.raises(UserError, match=r"pairs\.jsonl exists; choose another file with --out"):
        run(tmp_path, Rules())


def test_a_damaged_block_is_named(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "_finish", stop_after(0))
        with pytest.raises(TypeError):
            run(tmp_path, Rules())
    (tmp_path / "pairs.jsonl.partial" / "block-000000.json").write_text('{"drafts": 3}', "utf-8")
    with pytest.raises(UserError, match=r"block-000000\.json is no finished block; remove it"):
        run(tmp_path, Rules())


def test_a_corpus_that_cannot_be_read_leaves_nothing(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path, [CORPUS[0], {"id": "p9"}])
    with pytest.raises(UserError, match=r"passages\.jsonl, line 2: no text"):
        synthesise(corpus, tmp_path / "pairs.jsonl", RUN, Rules().model())
    assert [one.name for one in tmp_path.iterdir()] == ["passages.jsonl"]


def test_nothing_kept_loses_nothing(tmp_path: Path) -> None:
    silent = Rules(dict.fromkeys(WRITTEN, ("no idea", "")))
    result = run(tmp_path, silent)
    assert (result.drafts, result.kept, result.left_out) == (6, 0, {"no_question_mark": 6})
    assert not (tmp_path / "pairs.jsonl").exists()
    assert len(records(tmp_path / "pairs.rejected.jsonl")) == 6
    again = Rules()
    assert run(tmp_path, again).kept == 0
    assert not again.written  # every block was there


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"per_passage": 0}, "per_passage is 0; it must be at least 1"),
        ({"passages": -1}, "passages is -1; it must be at least 0"),
        ({"max_passages_with_answer": -1}, "max_passages_with_answer is -1"),
        ({"min_f1": 1.5}, r"min_f1 is 1\.5; expected a share, from 0 to 1"),
        ({"max_overlap": float("nan")}, "max_overlap is nan"),
        ({"min_gain": float("nan")}, "min_gain is nan"),
    ],
)
def test_numbers_out_of_range_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Synthesis(**settings)  # pyright: ignore[reportArgumentType]


# ---- with models -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tiny_causal", "tiny_seq2seq", "tiny_bart", "tiny_pointer"])
def test_any_generator_writes_answers_and_scores(tmp_path: Path, kind: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(kind)
    command = ["synthesise", str(write_corpus(tmp_path)), "--out", str(tmp_path / "pairs.jsonl")]
    result = CliRunner().invoke(cli.app, [*command, "--generator", str(folder)])
    assert isinstance(result.exception, UserError)  # random weights write no question
    assert "none of 6 questions was kept" in str(result.exception)
    assert "6 questions written about 5 of 5 passages, 0 kept (0.0%)" in result.stdout
    assert len(records(tmp_path / "pairs.rejected.jsonl")) == 6


class RulesWrite(Rules):
    """Questions by rule, which a generator answers and scores."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def generate(self, prompts: Sequence[str], max_new_tokens: int | None = None) -> list[str]:
        is_writing = "\nTopic: " in prompts[0]
        return super().generate(prompts) if is_writing else self.generator.generate(prompts, max_new_tokens)

    def log_likelihood(self, prompts: Sequence[str], targets: Sequence[str]) -> Tensor:
        return self.generator.log_likelihood(prompts, targets)


def test_a_generator_answers_and_scores_what_was_written(tmp_path: Path, tiny_causal: Path) -> None:
    """Even a random model goes through the whole round trip."""
    opened = open_question_model(str(tiny_causal))
    assert isinstance(opened.model, Generator)
    mixed = replace(opened, model=RulesWrite(opened.model))
    settings = replace(RUN, min_f1=0.0, min_gain=-1e9)
    result = synthesise(write_corpus(tmp_path), tmp_path / "pairs.jsonl", settings, mixed)
    assert result.kept == 6
    provenance = records(tmp_path / "pairs.jsonl")[0]["provenance"]
    assert provenance["log_likelihood"] < 0.0
    assert provenance["log_likelihood_alone"] != provenance["log_likelihood"]
    assert (provenance["generator"], len(provenance["fingerprint"])) == (str(tiny_causal), 64)


def test_the_command_prints_yield_reasons_and_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = Rules(WRITTEN | {"Cup": ("no idea", "")})
    monkeypatch.setattr(module, "open_question_model", lambda name: replace(rules.model(), name=name))
    command = ["synthesise", str(write_corpus(tmp_path)), "--out", str(tmp_path / "pairs.jsonl")]
    result = CliRunner().invoke(cli.app, command)
    assert result.exit_code == 0, result.output
    assert "6 questions written about 5 of 5 passages, 5 kept (83.3%)" in result.stdout
    assert "1  no_question_mark  what was written does not end as a question" in result.stdout
    assert "For which fair was the old box filled?  [Ostfeld]  p2" in result.stdout
    assert records(tmp_path / "pairs.jsonl")[0]["provenance"]["generator"] == "builtin:smollm2"


def test_a_fingerprint_is_that_of_weights_and_options(tmp_path: Path, tiny_causal: Path, tiny_bart: Path) -> None:
    model = open_question_model(str(tiny_causal))
    generator = model.model
    assert isinstance(generator, Generator)
    generator.save(tmp_path / "saved")
    assert open_question_model(str(tmp_path / "saved")).fingerprint == model.fingerprint
    assert open_question_model(str(tiny_bart)).fingerprint != model.fingerprint
    next(generator.parameters()).data.mul_(2.0)
    assert fingerprint_of(generator) != model.fingerprint


@pytest.mark.slow
def test_a_language_model_writes_questions(tmp_path: Path) -> None:
    skip_without_smollm2()
    text = (
        "The Harbour Bridge was opened to traffic in May 1931 by the engineer Anna Berg, who had built it in Sandvik."
    )
    corpus = write_corpus(tmp_path, [{"id": "p1", "title": "Harbour Bridge", "text": text}])
    synthesise(corpus, tmp_path / "pairs.jsonl", Synthesis())
    drafts = records(tmp_path / "pairs.rejected.jsonl")
    kept = records(tmp_path / "pairs.jsonl") if (tmp_path / "pairs.jsonl").exists() else []
    questions = [one["question"] for one in [*drafts, *kept]]
    assert len(questions) == 2
    assert any(question.endswith("?") for question in questions)
