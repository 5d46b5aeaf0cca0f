"""The command line as a person meets it: one sentence per mistake, nothing half-written, tiny models throughout."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from retrograd import __main__ as cli
from retrograd.commands import format_scores
from retrograd.types import UserError

COMMANDS = (
    "demo",
    "recipes",
    "show",
    "train",
    "evaluate",
    "predict",
    "extract",
    "export",
    "push",
    "search",
    "lab",
    "compare",
    "report",
    "analyse",
    "synthesise",
    "convert",
    "validate",
    "plan",
    "doctor",
    "index",
    "index build",
    "index check",
    "index info",
)
RECORDS = [
    {
        "text": f"the {thing} holds tea number {i} .",
        "head": [4, 4 + len(thing)],
        "tail": [len(thing) + 11, len(thing) + 14],
        "relation": label,
    }
    for i, (thing, label) in enumerate(
        (thing, label) for thing in ("cup", "box", "wheel") for label in ("holds", "part of", "none")
    )
]


def command(*words: str) -> None:
    """The command in this process; `UserError` comes through, as `main` would print it."""
    cli.app([str(word) for word in words], standalone_mode=False)


def data_file(folder: Path, records: list[dict] = RECORDS) -> Path:
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def experiment_file(folder: Path, data: Path, encoder: Path, generator: Path, more: str = "") -> Path:
    path = folder / "tiny.toml"
    path.write_text(
        f"""name = "tiny"
[data]
train = "{data}"
test = "{data}"
labels = "from_train"
negative = "none"
metric = "micro"
[retriever]
model = "{encoder}"
[generator]
model = "{generator}"
{more}
[warm_start]
epochs = 1
[training]
epochs = 1
batch_size = 4
passages = 2
precision = "fp32"
""",
        encoding="utf-8",
    )
    return path


def test_help_imports_nothing_heavy_and_shows_an_example() -> None:
    """--help answers in a fraction of a second because torch and transformers are not imported."""
    code = (
        "import sys, retrograd.__main__ as c\n"
        "for words in [[]] + [w.split() for w in " + repr(COMMANDS) + "]:\n"
        "    c.app([*words, '--help'], standalone_mode=False)\n"
        "heavy = {'torch', 'transformers', 'matplotlib', 'pyarrow', 'numpy', 'accelerate'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Example:") == 1 + len(COMMANDS)


@pytest.mark.parametrize(("rate", "has_advice"), [(50.0, False), (50.1, True)])
def test_empty_answers_come_with_advice(rate: float, has_advice: bool) -> None:
    assert ("Train it longer (training.epochs)" in format_scores({"f1": 1.0, "empty_rate": rate})) == has_advice


def test_the_demonstration_takes_changes_of_settings(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--set training\.precison=fp32: .*did you mean .precision."):
        command("demo", "--out", tmp_path / "demo", "--set", "training.precison=fp32")
    assert not (tmp_path / "demo").exists()


def test_the_module_runs_as_the_command_does() -> None:
    words = [sys.executable, "-m", "retrograd", "--version"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"retrograd {version('retrograd')}\n"), done.stderr


def test_a_mistake_is_one_sentence_without_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["retrograd", "evaluate", str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("retrograd: ")
    assert "is not a run" in said
    assert "Traceback" not in said


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "more"), [("seq2seq", ""), ("causal", "lora_rank = 2")])
def test_train_evaluate_predict_search(
    kind: str,
    more: str,
    tiny_encoder: Path,
    tiny_seq2seq: Path,
    tiny_causal: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A newcomer's whole path on own data, with a sequence-to-sequence model and with a Llama-like one under LoRA."""
    data = data_file(tmp_path)
    generator = tiny_seq2seq if kind == "seq2seq" else tiny_causal
    file = experiment_file(tmp_path, data, tiny_encoder, generator, more)
    run = tmp_path / "run"
    command("train", file, "--out", run, "--set", "training.log_every=1")
    printed = capsys.readouterr().out
    scores = json.loads((run / "scores.json").read_text())
    assert 0 <= scores["answers"]["micro_f1"] <= 100
    assert f"micro_f1             {scores['answers']['micro_f1']:6.2f} %" in printed.splitlines()
    assert set(scores["neighbours"]) == {"precision@1", "precision@5"}
    stages = [json.loads(line)["stage"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert stages == ["warm start"] * 3 + ["training"] * 3 or stages == ["warm start"] * 1 + ["training"] * 3
    assert (run / "model" / "generator" / ("adapter_model.safetensors" if more else "model.safetensors")).exists()

    capsys.readouterr()
    command("evaluate", run, "--out", tmp_path / "again")
    assert json.loads((tmp_path / "again" / "scores.json").read_text()) == scores
    unlabelled = [{key: value for key, value in record.items() if key != "relation"} for record in RECORDS[:2]]
    (tmp_path / "new").mkdir()
    command("predict", run, data_file(tmp_path / "new", unlabelled), "--out", tmp_path / "answers.jsonl")
    answers = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [answer["relation"] in {"holds", "part of", "none"} for answer in answers] == [True, True]
    capsys.readouterr()
    command("search", run, "the <e1>cup</e1> holds <e2>tea</e2> .", "-k", "2")
    shown = capsys.readouterr().out
    assert shown.startswith("answer: ")
    assert shown.count("%  [") == 2


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("{", r"data\.jsonl, line 10: not valid JSON"),
        ('{"text": "a b", "head": [0, 1], "tail": [2, 9], "relation": "holds"}', r"data\.jsonl, line 10: .*9"),
        ('{"text": "a b", "head": [0, 1], "relation": "holds"}', r"data\.jsonl, line 10: .*tail"),
    ],
)
def test_bad_data_leaves_nothing_behind(
    record: str, message: str, tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path
) -> None:
    data = data_file(tmp_path)
    data.write_text(data.read_text() + record + "\n", encoding="utf-8")
    file = experiment_file(tmp_path, data, tiny_encoder, tiny_seq2seq)
    with pytest.raises(UserError, match=message):
        command("train", file, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("setting", ["training.batch_size=0", "warm_start.noise=2.0", "retriever.trained=none"])
def test_settings_that_cannot_run_leave_nothing_behind(
    setting: str, tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path
) -> None:
    file = experiment_file(tmp_path, data_file(tmp_path), tiny_encoder, tiny_seq2seq)
    more = ["--set", "training.generator_learning_rate=0.0"] if "none" in setting else []
    with pytest.raises(UserError):
        command("train", file, "--out", tmp_path / "run", "--set", setting, *more)
    assert not (tmp_path / "run").exists()


def test_missing_and_empty_files_are_named(tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path) -> None:
    file = experiment_file(tmp_path, tmp_path / "gone.jsonl", tiny_encoder, tiny_seq2seq)
    with pytest.raises(UserError, match=r"no such file: .*gone\.jsonl"):
        command("train", file, "--out", tmp_path / "run")
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    with pytest.raises(UserError, match=r"empty\.jsonl is empty"):
        command("train", experiment_file(tmp_path, empty, tiny_encoder, tiny_seq2seq), "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_unknown_label_names_the_nearest(tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path) -> None:
    data = data_file(tmp_path)
    test = tmp_path / "test.jsonl"
    test.write_text(json.dumps(RECORDS[0] | {"relation": "hold"}) + "\n", encoding="utf-8")
    file = experiment_file(tmp_path, data, tiny_encoder, tiny_seq2seq)
    with pytest.raises(UserError, match=r"test\.jsonl, instance '1' .*unknown relation 'hold'; did you mean 'holds'"):
        command("train", file, "--out", tmp_path / "run", "--set", f"data.test={test}")
    assert not (tmp_path / "run").exists()


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'semeval-joint'"):
        command("show", "semeval-joined")


def test_show_prints_a_file_that_train_reads(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from retrograd.experiments.experiment import Experiment

    command("show", "semeval-jsa", "--set", "seed=3")
    path = tmp_path / "shown.toml"
    path.write_text(capsys.readouterr().out, encoding="utf-8")
    assert Experiment.load(path).seed == 3


def test_recipes_lists_each_with_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    from retrograd.recipes import RECIPES

    command("recipes")
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")}
    assert {*lines} == {*RECIPES}
    assert all(len(line) > len(name) + 20 for name, line in lines.items())


@pytest.mark.slow
def test_a_run_needs_nothing_outside_its_folder(
    tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Training data may be changed or gone; what is there already is not overwritten."""
    data = data_file(tmp_path)
    run = tmp_path / "my run"
    command("train", experiment_file(tmp_path, data, tiny_encoder, tiny_seq2seq), "--out", run)
    assert f"Next: retrograd search '{run}' 'your" in capsys.readouterr().out
    data.unlink()
    command("search", run, "the <e1>cup</e1> holds <e2>tea</e2> .")
    assert "probability" in capsys.readouterr().out
    new = tmp_path / "new.jsonl"
    new.write_text(json.dumps(RECORDS[0] | {"relation": "invents"}) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"new\.jsonl, instance '1' .*unknown relation 'invents'"):
        command("evaluate", run, "--data", new)
    new.write_text(json.dumps({k: v for k, v in RECORDS[0].items() if k != "relation"}) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"new\.jsonl, example '1': no answer"):
        command("evaluate", run, "--data", new)
    command("predict", run, new, "--out", tmp_path / "answers.jsonl")
    with pytest.raises(UserError, match=r"answers\.jsonl exists"):
        command("predict", run, new, "--out", tmp_path / "answers.jsonl")
    with pytest.raises(UserError, match=r"no such file: .*data\.jsonl"):
        command("evaluate", run)
    with pytest.raises(UserError, match="no entity is marked"):
        command("search", run, "the cup holds tea .")


@pytest.mark.slow
def test_the_laboratory_measures_every_estimator_on_a_run_and_on_an_experiment(
    tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = experiment_file(tmp_path, data_file(tmp_path), tiny_encoder, tiny_seq2seq)
    run = tmp_path / "run"
    command("train", file, "--out", run)
    capsys.readouterr()
    command("lab", run, "--queries", "4", "--redraws", "3")
    printed = capsys.readouterr().out
    assert "over all 9 passages" in printed
    assert "stands in" in printed
    assert "Advice: " in printed
    found = json.loads((run / "lab" / "lab.json").read_text())
    assert len(found["estimators"]) == 24
    assert all(one["seconds"] > 0 for one in found["estimators"])
    assert (run / "lab" / "lab.png").exists()
    command(
        "lab", file, "--queries", "4", "--redraws", "2", "--objectives", "RLOO,WakeSleep", "--out", tmp_path / "lab"
    )
    found = json.loads((tmp_path / "lab" / "lab.json").read_text())
    assert [one["name"] for one in found["estimators"]] == [
        "RWS, 50 draws",
        "RWS, 50 draws, whole base",
        "RLOO, 8 draws",
    ]
    with pytest.raises(UserError, match="no such estimator; did you mean"):
        command("lab", file, "--objectives", "RLOU", "--out", tmp_path / "lab2")
    with pytest.raises(UserError, match="measured as it is"):
        command("lab", run, "--set", "training.passages=3")
