"""Data of an experiment: patches, nested regimes, held-out development data, and the record of what was drawn."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.sign_models import SignModels

from retrograd import __main__ as cli
from retrograd.data.relations.tacred import RETACRED_LABELS, TACRED_LABELS
from retrograd.experiments.data.findings import Findings
from retrograd.experiments.data.relations import RelationData
from retrograd.experiments.experiment import Experiment, TrainingSettings
from retrograd.experiments.open import open_run
from retrograd.metrics.relations import tacred_score
from retrograd.serving.tested import read_tested
from retrograd.studies.validation.validate import validate_experiment
from retrograd.tasks.relations.unseen_labels import count_unseen
from retrograd.types import Example, UserError
from retrograd.util.text_files import read_jsonl

ROOT = Path(__file__).parents[3]
TACRED_LIKE = ROOT / "examples" / "tacred_like"
CHEMPROT = ROOT / ".." / "shared" / "data" / "chemprot"
FILES = {part: str(TACRED_LIKE / f"{part}.json") for part in ("train", "dev", "test")}
TACREV = {f"{part}_patch": str(TACRED_LIKE / f"tacrev_{part}.json") for part in ("dev", "test")}
RETACRED = {f"{part}_patch": str(TACRED_LIKE / f"retacred_{part}.json") for part in FILES}


def ids(examples: list[Example]) -> set[str]:
    return {example.id for example in examples}


def official_labels(part: str, *patches: str) -> dict[str, str]:
    """Return relations by id, read from the files without the package."""
    relations = {one["id"]: one["relation"] for one in json.loads((TACRED_LIKE / f"{part}.json").read_text())}
    for patch in patches:
        value = json.loads((TACRED_LIKE / patch).read_text())
        relations = value if isinstance(value, dict) else relations | {one["id"]: one["relation"] for one in value}
    return relations


# Patches and labels


@pytest.mark.parametrize(
    ("labels", "known", "patches", "counts"),
    [
        ("tacred", TACRED_LABELS, {}, (37, 15, 15)),
        ("tacred", TACRED_LABELS, TACREV, (37, 15, 15)),
        ("retacred", RETACRED_LABELS, RETACRED, (34, 13, 13)),
    ],
    ids=["tacred", "tacrev", "retacred"],
)
def test_a_data_set_of_the_family_is_files_and_patches(
    labels: str, known: tuple[str, ...], patches: dict[str, str], counts: tuple[int, ...]
) -> None:
    data = RelationData(**FILES, **patches, labels=labels).load(0)  # pyright: ignore[reportArgumentType]
    assert (len(data.train), len(data.dev), len(data.test)) == counts
    assert set(data.task.phrases) == set(known)
    assert (data.task.negative, data.task.primary_metric) == ("no_relation", "micro_f1")
    for part, examples in (("train", data.train), ("dev", data.dev), ("test", data.test)):
        names = [Path(patches[f"{part}_patch"]).name] if f"{part}_patch" in patches else []
        expected = official_labels(part, *names)
        assert {example.id: data.task.relation_of(example.target) for example in examples} == expected


def test_always_no_relation_scores_nothing_officially() -> None:
    data = RelationData(**FILES, **TACREV, labels="tacred").load(0)
    scores = data.task.score(data.test, [data.task.verbalise("no_relation")] * len(data.test))
    assert scores["micro_f1"] == 0
    assert scores["negative_rate"] == 100


def test_labels_of_another_set_say_where_to_find_them() -> None:
    with pytest.raises(UserError, match=r"unknown relation 'org:city_of_branch'.*\"retacred\" has those of Re-TACRED"):
        RelationData(**FILES, **RETACRED, labels="tacred").load(0)


# Regimes


@pytest.fixture(scope="module")
def skewed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return 800 instances of two labels, the last hundred all of one: the end of SemEval's file is skewed so."""
    path = tmp_path_factory.mktemp("skewed") / "data.jsonl"
    labels = ["one" if number <= 700 and number % 2 else "other" for number in range(1, 801)]
    record = {"text": "An owl saw a fox.", "head": [3, 6], "tail": [13, 16]}
    path.write_text("".join(json.dumps(record | {"relation": label}) + "\n" for label in labels), encoding="utf-8")
    return str(path)


def test_smaller_regimes_lie_inside_larger_ones_and_model_seeds_share_them(skewed: str) -> None:
    def drawn(share: float, seed: int, of_its_own: int = -1) -> set[str]:
        settings = RelationData(train=skewed, test="", labels="from_train", train_share=share, seed=of_its_own)
        return ids(settings.load(seed).train)

    one, five, ten = drawn(0.01, 3), drawn(0.05, 3), drawn(0.1, 3)
    assert (len(one), len(five), len(ten)) == (8, 40, 80)
    assert one < five < ten
    assert drawn(0.01, 4) != one
    assert drawn(0.01, 4, 3) == one


def test_development_data_come_out_of_training_and_no_regime_moves_them(skewed: str) -> None:
    settings = RelationData(train=skewed, test="", labels="from_train", dev_from_train=200)
    whole, small = settings.load(0), replace(settings, train_share=0.01).load(0)
    assert ids(small.dev) == ids(whole.dev)
    assert (len(whole.dev), len(whole.train), len(whole.base)) == (200, 600, 600)
    assert not ids(whole.train) & ids(whole.dev)
    assert ids(small.train) < ids(whole.train)
    assert len(small.train) == 6
    # Of the last hundred, all of the larger stratum (450). Hypergeometric: mean 25, standard deviation 3.9; five of it.
    assert 5 < sum(int(id_) > 700 for id_ in ids(whole.dev)) < 45


def test_shares_apply_to_any_data_and_after_the_patch() -> None:
    data = RelationData(**FILES, **RETACRED, labels="retacred", train_share=0.25, dev_share=0.5).load(0)
    assert (len(data.train), len(data.dev), len(data.test)) == (8, 6, 13)
    assert ids(data.train) <= set(official_labels("train", "retacred_train.json"))
    assert len(RelationData(**FILES, labels="tacred", train_share=0.001).load(0).train) == 1
    everything = RelationData(**FILES, labels="tacred", train_share=1.0, dev_count=4).load(0)
    assert (len(everything.train), len(everything.dev)) == (37, 4)


def test_labels_of_the_whole_training_file_stay_known_in_a_small_regime() -> None:
    data = RelationData(**FILES, labels="from_train", negative="no_relation", train_count=3).load(0)
    assert len(data.train) == 3
    assert set(data.task.phrases) == set(official_labels("train").values())


def test_sentences_of_the_base_can_exchange_their_labels_as_a_control() -> None:
    right = RelationData(train_count=100).load(0)
    control = RelationData(train_count=100, base_labels="shuffled").load(0)
    assert control.train == right.train
    assert [p.text for p in control.base] == [p.text for p in right.base]
    pairs = [(a.title, b.title) for a, b in zip(control.base, right.base, strict=True)]
    assert sorted(a for a, _ in pairs) == sorted(b for _, b in pairs)
    assert sum(a == b for a, b in pairs) < 30
    assert control.base.fingerprint != right.base.fingerprint


def test_what_was_drawn_is_recorded() -> None:
    settings = RelationData(**FILES, **RETACRED, labels="retacred", train_share=0.5, seed=11)
    drawn = settings.load(0).draw_record
    assert drawn == settings.load(1).draw_record
    assert drawn["seed"] == 11
    train = drawn["train"]
    assert isinstance(train, dict)
    assert (train["instances"], train["available"]) == (17, 34)
    assert (train["relabelled_by_patch"], train["dropped_by_patch"]) == (3, 3)
    assert sum(train["by_label"].values()) == 17  # pyright: ignore[reportAttributeAccessIssue]
    other = RelationData(**FILES, **RETACRED, labels="retacred", train_share=0.5, seed=12).load(0).draw_record
    assert other["train"]["ids_sha256"] != train["ids_sha256"]  # pyright: ignore
    assert other["test"] == drawn["test"]
    assert "dev" not in RelationData(train=FILES["train"], test="", labels="tacred").load(0).draw_record


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_share": 1.5}, r"data\.train_share is 1\.5; expected 0 to 1"),
        ({"train_share": -0.1}, "expected 0 to 1"),
        ({"train_share": 0.1, "train_count": 5}, r"data\.train_share and data\.train_count are both set"),
        ({"dev": "d", "dev_share": 0.1, "dev_count": 5}, r"data\.dev_share and data\.dev_count are both set"),
        ({"dev": "d", "dev_from_train": 5}, r"data\.dev_from_train makes the development data, all of it"),
        ({"dev_from_train": 5, "dev_share": 0.5}, "leave data.dev, dev_share and dev_count out"),
        ({"train_count": -1}, r"data\.train_count is -1; expected 0 or more"),
        ({"seed": -2}, r"data\.seed is -2"),
        ({"dev_patch": "p"}, r"data\.dev_patch corrects data\.dev, which is empty"),
        ({"dev": "builtin:semeval2010_task8"}, r"no development data; .*data\.dev_from_train"),
        ({"labels": "tacred", "negative": "Other"}, "labels = 'tacred' has 'no_relation'"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        RelationData(**settings)  # pyright: ignore[reportArgumentType]


def test_draws_that_ask_for_too_much_are_refused() -> None:
    with pytest.raises(UserError, match=r"data\.train_count is 38, but .*train\.json holds 37 instances; set it to 0"):
        RelationData(**FILES, labels="tacred", train_count=38).load(0)
    no_dev = {"train": FILES["train"], "test": "", "labels": "tacred"}
    with pytest.raises(UserError, match=r"train_count is 35, .* holds 34 instances beside those of data\.dev_from_tr"):
        RelationData(**no_dev, dev_from_train=3, train_count=35).load(0)
    with pytest.raises(UserError, match=r"data\.dev_from_train is 37, but .* leave some for training"):
        RelationData(**no_dev, dev_from_train=37).load(0)


def test_evaluating_while_training_accepts_held_out_data() -> None:
    Experiment(data=RelationData(dev_from_train=100), training=TrainingSettings(evaluate_every=10))
    with pytest.raises(UserError, match=r"set data\.dev to a file, or data\.dev_from_train"):
        Experiment(training=TrainingSettings(evaluate_every=10))


# The whole path, with models that read signs


# Labels that training never shows


def write_records(path: Path, relations: list[str]) -> str:
    words = ["Ida", "Ove", "Mona", "Nora", "Gus", "Kit", "Bo", "Ada"]
    records = [
        {"text": f"{words[number % 8]} {relation} it , so {path.stem} {number}", "relation": relation, "head": [0, 2]}
        for number, relation in enumerate(relations)
    ]
    lines = [json.dumps(record | {"tail": [(at := record["text"].index(" it ,") + 1), at + 2]}) for record in records]
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


UNSEEN = "3 of 6 examples have labels that training never shows, and count as wrong: 'sings to' (2), 'P57' (1)"


@pytest.fixture
def unseen_data(tmp_path: Path) -> RelationData:
    """Return settings of data of which test and dev have relations that train lacks."""
    return RelationData(
        train=write_records(tmp_path / "train.jsonl", ["holds", "feeds", "none"] * 4),
        dev=write_records(tmp_path / "dev.jsonl", ["holds", "none", "sings to"]),
        test=write_records(tmp_path / "test.jsonl", ["holds", "sings to", "feeds", "P57", "none", "sings to"]),
        labels="from_train",
        negative="none",
        unseen_labels="wrong",
    )


def test_one_label_alone_is_nothing_to_learn(tmp_path: Path) -> None:
    data = RelationData(train=write_records(tmp_path / "train.jsonl", ["holds"] * 4), test="", labels="from_train")
    with pytest.raises(UserError, match=r"train\.jsonl: 'holds' is the only label.*add others"):
        data.load(0)
    findings = Findings()
    data.open_parts({"train": data.train}, findings)
    assert findings.total("error") == 1


def test_a_label_that_training_never_shows_is_refused_with_the_setting_that_takes_it(unseen_data: RelationData) -> None:
    with pytest.raises(
        UserError, match=r"dev\.jsonl, instance '3' .*unknown relation 'sings to'.* data\.unseen_labels = \"wrong\""
    ):
        replace(unseen_data, unseen_labels="refuse").load(0)


def test_such_labels_are_kept_recorded_and_said(unseen_data: RelationData, capsys: pytest.CaptureFixture[str]) -> None:
    data = unseen_data.load(0)
    assert set(data.task.phrases) == {"holds", "feeds", "none"}
    assert [example.target for example in data.test] == ["holds", "sings to", "feeds", "P57", "none", "sings to"]
    assert count_unseen(data.test) == {"sings to": 2, "P57": 1}
    parts = {name: data.draw_record[name] for name in ("train", "dev", "test")}
    assert isinstance(parts["test"], dict)
    assert parts["test"]["unseen_labels"] == {"P57": 1, "sings to": 2}
    assert isinstance(parts["train"], dict)
    assert "unseen_labels" not in parts["train"]
    said = " ".join(capsys.readouterr().err.split())
    assert UNSEEN in said
    assert "dev.jsonl: 1 of 3 examples" in said


def test_training_data_with_a_label_that_the_task_does_not_know_are_refused_all_the_same(
    unseen_data: RelationData,
) -> None:
    task = unseen_data.load(0).task
    with pytest.raises(UserError, match=r"test\.jsonl, instance '2' .*unknown relation 'sings to'"):
        replace(unseen_data, train=unseen_data.test).load(0, task)


def test_validate_says_which_labels_are_unseen_and_finds_no_error(unseen_data: RelationData) -> None:
    experiment = Experiment(data=unseen_data)
    findings = validate_experiment(experiment).findings
    assert [one.what for one in findings.shown if one.severity == "error"] == []
    coverage = [one.what for one in findings.shown if one.check == "label coverage"]
    assert "2 examples have the label 'sings to', which train lacks" in coverage
    refused = validate_experiment(replace(experiment, data=replace(unseen_data, unseen_labels="refuse"))).findings
    assert sum(one.severity == "error" and one.check == "labels" for one in refused.shown) == 4


@pytest.mark.slow
def test_a_run_is_trained_scored_and_reported_with_unseen_labels(
    unseen_data: RelationData, models: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {name: getattr(unseen_data, name) for name in ("train", "dev", "test", "labels", "negative")}
    file = experiment_file(tmp_path, models, **settings, unseen_labels="wrong")
    run = tmp_path / "run"
    more = ("training.evaluate_every=1", "evaluation.calibrate=true", "evaluation.abstain=0.9")
    command("train", file, "--out", run, *(word for one in more for word in ("--set", one)))
    scores = json.loads((run / "scores.json").read_text())
    assert scores["unseen_labels"] == {"sings to": 2, "P57": 1}
    assert scores["answers"]["accuracy"] <= 50
    assert UNSEEN in (run / "model" / "README.md").read_text()
    records = {str(one["id"]): one for _, one in read_jsonl(run / "predictions.jsonl")}
    assert [id_ for id_, one in records.items() if one.get("has_unseen_label")] == ["2", "4", "6"]
    assert all(tested.correctness == 0.0 for tested in read_tested(run, open_run(run).task) if tested.id in "246")
    capsys.readouterr()
    command("evaluate", run)
    assert f"{UNSEEN}." in capsys.readouterr().out
    command("evaluate", run, "--json", "--data", unseen_data.dev)
    assert json.loads(capsys.readouterr().out)["unseen_labels"] == {"sings to": 1}
    command("report", run, "--out", tmp_path / "report", "--resamples", "100")
    for name in ("report.html", "report.md"):
        assert "3 of 6 examples have labels that training never shows" in (tmp_path / "report" / name).read_text()
    rows = {row["relation"]: row for row in json.loads((tmp_path / "report" / "report.json").read_text())["relations"]}
    assert (rows["sings to"]["items"], rows["sings to"]["f1"]) == (2, 0.0)
    command("analyse", run, "--out", tmp_path / "analysis")


@pytest.fixture(scope="module")
def models(sign_models: SignModels) -> str:
    """Return sections of an experiment file that name a tiny encoder and generator, and train them briefly."""
    return f"""
[retriever]
model = "{sign_models.encoder}"
[generator]
model = "{sign_models.generator}"
max_input_tokens = 128
max_target_tokens = 48
[warm_start]
epochs = 1
[training]
epochs = 1
batch_size = 16
passages = 2
precision = "fp32"
log_every = 1
"""


def command(*words: object) -> None:
    """Run the command in this process; `UserError` is not caught, `main` would print it."""
    cli.app([str(word) for word in words], standalone_mode=False)


def experiment_file(folder: Path, models: str, **data: str | float) -> Path:
    lines = [f"{name} = {json.dumps(value)}" for name, value in data.items()]
    path = folder / "tiny.toml"
    path.write_text("\n".join(["[data]", *lines, models]), encoding="utf-8")
    return path


def official_f1(run: Path, predictions: Path, gold: dict[str, str]) -> float:
    task = open_run(run).task
    answers = {str(one["id"]): task.relation_of(str(one["answer"])) for _, one in read_jsonl(predictions)}
    assert answers.keys() == gold.keys()
    return tacred_score(gold, {id_: answer for id_, answer in answers.items() if answer is not None}).f1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("labels", "patches", "gold"),
    [("tacred", TACREV, "tacrev_test.json"), ("retacred", RETACRED, "retacred_test.json")],
    ids=["tacrev", "retacred"],
)
def test_training_predicting_and_the_official_score_on_the_tacred_family(
    labels: str, patches: dict[str, str], gold: str, models: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    file = experiment_file(tmp_path, models, **FILES, **patches, labels=labels, train_share=0.9)
    command("train", file, "--out", run, "--set", "training.evaluate_every=2")
    scores = json.loads((run / "scores.json").read_text())["answers"]
    assert scores["micro_f1"] == pytest.approx(
        official_f1(run, run / "predictions.jsonl", official_labels("test", gold))
    )
    assert json.loads((run / "data.json").read_text())["train"]["by_label"]["no_relation"] > 0
    assert all(
        Path(value).is_absolute() for value in vars(open_run(run).experiment.data).values() if "json" in str(value)
    )

    patch = TACRED_LIKE / gold
    command("evaluate", run, "--data", FILES["test"], "--patch", patch, "--out", tmp_path / "again")
    assert json.loads((tmp_path / "again" / "scores.json").read_text())["answers"] == scores
    command("predict", run, FILES["test"], "--patch", patch, "--out", tmp_path / "answers.jsonl")
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == len(official_labels("test", gold))
    if labels == "tacred":  # the same run on TACRED as it was before TACREV
        command("evaluate", run, "--data", FILES["test"], "--out", tmp_path / "tacred")
        found = json.loads((tmp_path / "tacred" / "scores.json").read_text())["answers"]["micro_f1"]
        assert found == pytest.approx(
            official_f1(run, tmp_path / "tacred" / "predictions.jsonl", official_labels("test"))
        )
    with pytest.raises(UserError, match="--patch corrects the labels of --data, which is missing"):
        command("evaluate", run, "--patch", patch)


def test_a_malformed_record_or_patch_leaves_nothing_behind(models: str, tmp_path: Path) -> None:
    records = json.loads(Path(FILES["train"]).read_text())
    records[4]["obj_end"] = 99
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps(records), encoding="utf-8")
    with pytest.raises(UserError, match=r"bad\.json, line 1, record 5: obj_start \d+ and obj_end 99 are no span"):
        command("train", experiment_file(tmp_path, models, train=str(bad), test="", labels="tacred"), "--out", "run")
    wrong = experiment_file(tmp_path, models, **FILES, labels="tacred", dev_patch=TACREV["test_patch"])
    with pytest.raises(UserError, match=r"tacrev_test\.json: id 'test-08' and 1 more ids not found in .*dev\.json"):
        command("train", wrong, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.skipif(not CHEMPROT.is_dir(), reason="the ChemProt files are not on this machine; they are not shipped")
class TestChemProt:
    """ChemProt has thirteen labels, none negative: micro-F1 over all is accuracy where every answer is a label."""

    files: dict[str, str] = {part: str(CHEMPROT / f"{part}.jsonl") for part in ("train", "dev", "test")}  # noqa: RUF012

    def test_settings_alone_load_it(self) -> None:
        data = RelationData(**self.files, labels="from_train", train_share=0.01).load(0)
        assert len(data.task.phrases) == 13
        assert data.task.negative is None
        assert (len(data.train), len(data.dev), len(data.test)) == (42, 2427, 3469)
        right = [example.target for example in data.test]
        assert data.task.score(data.test, right)["micro_f1"] == 100
        one_label = data.task.score(data.test, [data.task.verbalise("INHIBITOR")] * len(data.test))
        assert one_label["micro_f1"] == pytest.approx(one_label["accuracy"]) == pytest.approx(100 * 1255 / 3469)

    def test_it_trains(self, models: str, tmp_path: Path) -> None:
        settings = {"train_share": 0.01, "dev_count": 16, "test_count": 16, "labels": "from_train"}
        command("train", experiment_file(tmp_path, models, **self.files, **settings), "--out", tmp_path / "run")
        scores = json.loads((tmp_path / "run" / "scores.json").read_text())["answers"]
        assert scores["micro_f1"] == pytest.approx(scores["accuracy"])
        assert scores["invalid_rate"] == 0
