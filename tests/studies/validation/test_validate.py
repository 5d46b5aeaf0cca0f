"""Data checked before a run: every finding from the smallest file that provokes it, and none from good data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from retrograd.__main__ import app
from retrograd.experiments.data.findings import MOST_SHOWN, Finding
from retrograd.experiments.experiment import Experiment
from retrograd.recipes import RECIPES
from retrograd.studies.validation.subject import read_subject
from retrograd.studies.validation.validate import Validation, validate_experiment, validate_files
from retrograd.types import UserError

THINGS = ("cup", "box", "wheel", "car", "tea", "rain")
LABELS = ("holds", "part of")


def relation(text: str = "the cup holds tea .", label: str | None = "holds", **more: object) -> dict:
    record: dict = {"text": text, "head": [4, 7], "tail": [14, 17], **more}
    return record if label is None else record | {"relation": label}


def good(start: int, count: int = 10) -> list[dict]:
    return [relation(f"the cup holds tea number {start + i} .", LABELS[i % 2]) for i in range(count)]


def lines(folder: Path, name: str, records: list) -> Path:
    path = folder / name
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in records), "utf-8")
    return path


def experiment(
    folder: Path, train: list, test: list, *more: str, encoder: str = "e", generator: str = "g"
) -> Experiment:
    files = {"train": lines(folder, "train.jsonl", train), "test": lines(folder, "test.jsonl", test)}
    settings = [f"data.{name}={path}" for name, path in files.items()]
    models = [f"retriever.model={encoder}", f"generator.model={generator}"]
    return Experiment().with_settings(["data.labels=from_train", *settings, *models, *more])


def questions(folder: Path, train: list, test: list, base: list, *more: str) -> Experiment:
    files = {
        name: lines(folder, f"{name}.jsonl", one) for name, one in (("train", train), ("test", test), ("base", base))
    }
    settings = [f"data.{name}={path}" for name, path in files.items()]
    return Experiment().with_settings(
        ["data.kind=questions", *settings, "retriever.model=e", "generator.model=g", *more]
    )


def only(found: Validation, check: str) -> list[Finding]:
    assert {one.check for one in found.findings.shown} == {check}, found.findings.shown
    return found.findings.shown


def test_good_data_have_no_findings(tmp_path: Path, tiny_encoder: Path, tiny_seq2seq: Path) -> None:
    made = experiment(tmp_path, good(0), good(100), encoder=str(tiny_encoder), generator=str(tiny_seq2seq))
    found = validate_experiment(made)
    assert found.findings.shown == []
    assert found.is_sound
    assert found.notes == ()
    assert [(part.name, part.records, part.labels) for part in found.parts] == [("train", 10, 2), ("test", 10, 2)]


def test_labels_that_look_alike_are_told(tmp_path: Path) -> None:
    train = [*good(0), *({**one, "relation": "Part  of "} for one in good(50, 5))]
    validation = validate_experiment(experiment(tmp_path, train, good(100)))
    told = [(one.severity, one.part, one.what) for one in validation.findings.shown if one.check == "label spelling"]
    assert told == [("warning", "train", "the labels 'Part  of ' and 'part of' differ only by spaces or case")]


def test_good_questions_have_no_findings(tmp_path: Path) -> None:
    base = [{"id": f"p{i}", "text": f"the {thing} is number {i}"} for i, thing in enumerate(THINGS)]
    asked = [
        {"id": str(i), "question": f"which {one} ?", "answers": [one], "gold_passages": [f"p{i}"]}
        for i, one in enumerate(THINGS)
    ]
    found = validate_experiment(questions(tmp_path, asked[:4], asked[4:], base))
    assert found.findings.shown == []
    assert [(part.name, part.records) for part in found.parts] == [("train", 4), ("test", 2), ("base", 6)]
    assert len(found.notes) == 2  # no tokenizer of "e" and "g" is on any disk


@pytest.mark.parametrize(
    ("answer", "held", "is_told"),
    [
        ("热茶", "渔夫每天早上喝热茶。", False),
        ("咖啡", "渔夫每天早上喝热茶。", True),
        ("चाय", "मछुआरा चाय पीता है।", False),
        ("Tea", "there is tea", False),
        ("tea pot", "a pot of tea", True),
    ],
)
def test_answers_that_stand_in_no_passage_are_told(tmp_path: Path, answer: str, held: str, is_told: bool) -> None:
    base = [{"id": f"p{i}", "text": text} for i, text in enumerate([held, "another text", "a third"])]
    asked = [{"id": "a", "question": "what ?", "answers": [answer]}]
    validation = validate_experiment(questions(tmp_path, asked, [], base, "data.test="))
    findings = [one for one in validation.findings.shown if one.check == "answers"]
    assert [one.severity for one in findings] == (["warning"] if is_told else [])
    assert all("no answer of 1 examples stands in any of the 3 passages" in one.what for one in findings)


@pytest.mark.parametrize(
    ("spans", "told"),
    [
        ([[4, 7]], []),
        ([[4, 600]], ["spans.jsonl: span [4, 600) of passage 'p0' lies outside its text"]),
        ([[4]], ["'spans' holds [4]; expected [start, end]"]),
        (None, ["spans.jsonl:1 no field 'spans'"]),
    ],
)
def test_what_may_be_masked_is_read_before_a_run(tmp_path: Path, spans: list | None, told: list[str]) -> None:
    base = [{"id": f"p{i}", "text": f"the {one} is number {i} of all that stand there"} for i, one in enumerate(THINGS)]
    tagged = lines(tmp_path, "spans.jsonl", [{"id": "p0"} | ({} if spans is None else {"spans": spans})])
    alone = ["data.train=", "data.test=", "warm_start.epochs=0", "training.epochs=0", "masking.epochs=1"]
    made = questions(tmp_path, [], [], base, *alone, f"masking.spans={tagged}")
    found = validate_experiment(made).findings.shown
    assert len(found) == len(told), found
    assert all(part in f"{one.place} {one.what}; {one.remedy}" for one, part in zip(found, told, strict=True)), found


def test_a_history_that_ends_with_the_agents_turn_is_told(tmp_path: Path) -> None:
    turns = ["user: which cup ?", "agent: the red one", "user: why ?", "assistant: it holds tea"]
    train = [
        {"id": "good", "history": turns[:3], "answer": "it holds tea"},
        {"id": "plain", "history": ["which box ?"], "answer": "a box"},
        {"id": "late", "history": turns, "answer": "why not"},
        {"id": "records", "history": [{"role": "bot", "text": "a wheel"}], "answer": "a car"},
    ]
    found = validate_files([lines(tmp_path, "turns.jsonl", train)], "dialogue").findings.shown
    assert [(one.severity, one.check, one.place.rpartition(" ")[2]) for one in found] == [
        ("warning", "last turn", "'late'"),
        ("warning", "last turn", "'records'"),
    ]
    assert "ends with the agent's turn, 'it holds tea'" in found[0].what


@pytest.mark.parametrize(
    ("ids", "severity", "told"),
    [
        (["p0"], None, ""),
        (["p0", "x", "y"], "warning", "2 ids are in no passage of the base (the first is 'x')"),
        (["x"], "error", "none of its 1 ids is in a passage"),
    ],
)
def test_ids_of_spans_that_are_in_no_passage_are_told(
    tmp_path: Path, ids: list[str], severity: str | None, told: str
) -> None:
    base = [{"id": f"p{i}", "text": f"the {one} is number {i} of all that stand there"} for i, one in enumerate(THINGS)]
    tagged = lines(tmp_path, "spans.jsonl", [{"id": id_, "spans": [[4, 4 + len(THINGS[0])]]} for id_ in ids])
    alone = ["data.train=", "data.test=", "warm_start.epochs=0", "training.epochs=0", "masking.epochs=1"]
    found = validate_experiment(questions(tmp_path, [], [], base, *alone, f"masking.spans={tagged}")).findings.shown
    assert [one.severity for one in found] == [severity] * (severity is not None)
    assert all(told in one.what for one in found)


def test_squads_questions_over_another_corpus_are_not_judged(tmp_path: Path) -> None:
    asked = {"id": "q", "question": "which cup ?", "answers": [{"text": "cup"}]}
    squad = tmp_path / "squad.json"
    paragraphs = [{"context": "the cup is here", "qas": [asked]}]
    squad.write_text(json.dumps({"data": [{"title": "t", "paragraphs": paragraphs}]}), "utf-8")
    base = [{"id": f"p{i}", "text": f"the {one} is number {i}"} for i, one in enumerate(THINGS)]
    train = [{"id": "1", "question": "which box ?", "answers": ["box"]}]
    found = validate_experiment(questions(tmp_path, train, [], base).with_settings([f"data.test={squad}"]))
    assert found.is_sound
    (told,) = [one for one in found.findings.shown if one.check == "gold passage"]
    assert (told.severity, told.part) == ("warning", "test")


def test_all_malformed_records_are_found_with_their_lines(tmp_path: Path) -> None:
    train = [good(0)[0], "{", '["a list"]', *good(1)[:3], '{"text": 7, "head": [0, 1], "tail": [2, 3]}']
    found = validate_experiment(experiment(tmp_path, train + good(10), good(100)))
    shown = only(found, "malformed record")
    assert [one.place.rpartition(":")[2] for one in shown] == ["2", "3", "7"]
    assert all(one.severity == "error" and one.part == "train" and one.remedy for one in shown)


def test_no_more_than_the_cap_is_shown_but_all_are_counted(tmp_path: Path) -> None:
    found = validate_experiment(experiment(tmp_path, good(0) + ["{"] * (MOST_SHOWN + 5), good(100)))
    assert len(only(found, "malformed record")) == MOST_SHOWN
    assert found.findings.total("error") == MOST_SHOWN + 5
    assert found.findings.hidden() == [("error", "malformed record", "train", 5)]


def test_a_line_that_is_not_utf_8_is_named_by_its_byte(tmp_path: Path) -> None:
    made = experiment(tmp_path, good(0), good(100))
    path = tmp_path / "train.jsonl"
    path.write_bytes(path.read_bytes() + b'{"text": "caf\xe9"}\n')
    (one,) = only(validate_experiment(made), "encoding")
    assert one.place == f"{path}:11"
    assert "byte 14" in one.what


@pytest.mark.parametrize("head", [[4, 99], [4, 4], [-1, 2], [10, 15], [14, 17]])
def test_offsets(tmp_path: Path, head: list[int]) -> None:
    (one,) = only(
        validate_experiment(experiment(tmp_path, [*good(0), relation() | {"head": head}], good(100))), "offsets"
    )
    assert one.place.endswith("train.jsonl:11")


def test_a_json_list_goes_on_after_a_bad_record(tmp_path: Path) -> None:
    record = {
        "token": ["a", "b", "c"],
        "relation": "x",
        "subj_type": "A",
        "obj_type": "B",
        "subj_start": 0,
        "subj_end": 0,
    }
    tacred = [record | {"id": str(i), "obj_start": i, "obj_end": i} for i in (1, 7, 2, 8)]
    path = tmp_path / "t.json"
    path.write_text(json.dumps(tacred), "utf-8")
    found = validate_files([path], "relations")
    offsets = [one for one in found.findings.shown if one.check == "offsets"]
    assert [one.place for one in offsets] == [f"{path}:1, record 2", f"{path}:1, record 4"]


def test_broken_json_is_one_finding(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text('[{"id": ', "utf-8")
    found = validate_files([path], "relations")
    assert "malformed record" in {one.check for one in found.findings.shown}
    assert not found.is_sound


def test_duplicate_ids(tmp_path: Path) -> None:
    train = [one | {"id": str(i % 10)} for i, one in enumerate(good(0, 12))]
    shown = only(validate_experiment(experiment(tmp_path, train, good(100))), "duplicate id")
    assert len(shown) == 2
    assert all(one.severity == "error" for one in shown)


def test_duplicates_and_contradictions_within_a_part(tmp_path: Path) -> None:
    train = [
        *good(0),
        relation("The CUP holds  tea number 0 .".replace("  ", " "), "holds"),
        good(1)[0] | {"relation": "holds"},
    ]
    found = validate_experiment(experiment(tmp_path, train, good(100)))
    assert sorted(one.check for one in found.findings.shown) == ["contradiction", "duplicate"]
    assert found.is_sound  # both are worth a look, neither breaks anything


def test_another_pair_in_the_same_sentence_is_no_duplicate(tmp_path: Path) -> None:
    train = [*good(0), good(0)[0] | {"head": [14, 17], "tail": [4, 7]}]
    assert validate_experiment(experiment(tmp_path, train, good(100))).findings.shown == []


def test_a_sentence_of_train_in_test_is_a_leak_whatever_pair_is_marked(tmp_path: Path) -> None:
    test = [*good(100), good(3)[0] | {"head": [14, 17], "tail": [4, 7], "id": "leaked"}]
    (one,) = only(validate_experiment(experiment(tmp_path, good(0), test)), "leak")
    assert (one.severity, one.part) == ("error", "test")
    assert "leaked" in one.place
    assert "train" in one.remedy


def test_with_exclude_pair_the_other_pair_is_none(tmp_path: Path) -> None:
    test = [*good(100), good(3)[0] | {"head": [14, 17], "tail": [4, 7]}]
    found = validate_experiment(experiment(tmp_path, good(0), test, "data.exclude=pair"))
    assert found.findings.shown == []


def test_between_train_and_dev_a_leak_is_a_warning(tmp_path: Path) -> None:
    dev = lines(tmp_path, "dev.jsonl", good(3))
    found = validate_experiment(experiment(tmp_path, good(0), good(100), f"data.dev={dev}"))
    assert {one.severity for one in only(found, "leak")} == {"warning"}


def test_what_the_official_parts_of_semeval_share_is_a_warning() -> None:
    found = validate_experiment(RECIPES["semeval-joint"]())
    assert [one.check for one in found.findings.shown].count("leak") == 16
    assert found.is_sound


def test_labels_that_train_lacks_and_labels_with_few_examples(tmp_path: Path) -> None:
    train = [*good(0), relation("the cup holds tea again .", "rare")]
    found = validate_experiment(experiment(tmp_path, train, good(100)))
    (one,) = only(found, "few examples")
    assert "'rare'" in one.what
    train = lines(tmp_path, "train.jsonl", good(0))
    test = lines(tmp_path, "test.jsonl", [*good(100), relation("the cup holds tea anew .", "unheard")])
    found = validate_experiment(
        Experiment().with_settings(["data.labels=from_train", f"data.train={train}", f"data.test={test}"])
    )
    assert not found.is_sound  # training would refuse it, because there are no words for it
    assert any("unheard" in one.what for one in found.findings.shown)


def test_examples_without_a_target(tmp_path: Path) -> None:
    train, test = (
        [*good(0), relation("the cup holds tea , so .", None)],
        [*good(100), relation("the cup holds tea , no .", None)],
    )
    shown = only(validate_experiment(experiment(tmp_path, train, test)), "empty field")
    assert [(one.severity, one.part) for one in shown] == [("error", "train"), ("error", "test")]


def test_passages(tmp_path: Path) -> None:
    asked = [{"id": f"q{i}", "question": f"which {one} ?", "answers": [one]} for i, one in enumerate(THINGS)]
    base = [
        {"id": "a", "text": "the cup"},
        {"id": "b", "text": "The  cup"},
        {"id": "c", "text": " "},
        {"id": "d", "text": ""},
    ]
    test = [asked[5] | {"gold_passages": ["nowhere"]}]
    found = validate_experiment(questions(tmp_path, asked[:4], test, base))
    checks = [(one.severity, one.check, one.part) for one in found.findings.shown]
    assert sorted(checks) == [
        ("error", "gold passage", "test"),
        ("warning", "answers", "test"),
        ("warning", "duplicate passage", "base"),
        ("warning", "empty passage", "base"),
        ("warning", "empty passage", "base"),
    ]


def test_a_document_that_is_cut_into_passages_may_be_gold(tmp_path: Path) -> None:
    asked = [
        {"id": str(i), "question": f"which {one} ?", "answers": [one], "gold_passages": ["doc"]}
        for i, one in enumerate(THINGS)
    ]
    base = [{"id": "doc", "text": " ".join(THINGS)}]
    found = validate_experiment(
        questions(tmp_path, asked[:3], asked[3:], base, "data.split_words=3", "training.passages=2")
    )
    assert found.findings.shown == []
    assert found.parts[-1].records == 2


def test_passages_with_one_id(tmp_path: Path) -> None:
    corpus = lines(
        tmp_path, "c.jsonl", [{"id": "a", "text": "x"}, "oops", {"id": "a", "text": "y"}, {"id": "a", "text": "z"}]
    )
    found = validate_files([corpus], "corpus")
    assert [(one.check, one.place) for one in found.findings.shown] == [
        ("malformed record", f"{corpus}:2"),
        ("duplicate id", f"{corpus}:3"),
        ("duplicate id", f"{corpus}:4"),
    ]


def test_more_passages_than_there_are(tmp_path: Path) -> None:
    (one,) = only(validate_experiment(experiment(tmp_path, good(0), good(100), "training.passages=11")), "settings")
    assert "training.passages" in one.what


def test_what_is_cut_is_counted_in_the_models_tokens(tmp_path: Path, tiny_encoder: Path, tiny_seq2seq: Path) -> None:
    models = {"encoder": str(tiny_encoder), "generator": str(tiny_seq2seq)}
    limits = ["retriever.max_tokens=8", "generator.max_target_tokens=1"]
    found = validate_experiment(experiment(tmp_path, good(0), good(100), *limits, **models))
    by_text = {(one.part, one.what): one for one in found.lengths}
    target = by_text["train", "target"]
    assert (target.unit, target.limit, target.cut, target.longest) == ("tokens", 1, 1.0, 3)  # "part of" and the end
    assert sum(count for _, _, count in target.bins) == target.sampled == 10
    assert by_text["test", "query"].cut == 1.0
    assert {one.place for one in only(found, "cut")} == {"retriever.max_tokens", "generator.max_target_tokens"}
    assert found.is_sound


def test_bare_files_are_splits_of_one_set_of_data(tmp_path: Path) -> None:
    asked = [{"id": str(i), "question": f"which {one} ?", "answers": [one]} for i, one in enumerate(THINGS)]
    first, second = lines(tmp_path, "a.jsonl", asked[:4]), lines(tmp_path, "b.jsonl", asked[3:])
    found = validate_files([first, second], "questions")
    (one,) = only(found, "leak")
    assert one.part == str(second)
    (same,) = only(validate_files([first, second]), "leak")
    assert same.part == str(second)
    assert read_subject([str(first), str(second)], [], None, "auto") is None
    with pytest.raises(UserError, match="format"):
        validate_files([first], "questions", "semeval")


def test_a_missing_file_is_a_finding(tmp_path: Path) -> None:
    found = validate_experiment(experiment(tmp_path, good(0), good(100), f"data.test={tmp_path / 'tset.jsonl'}"))
    assert not found.is_sound
    assert any("no such file" in one.what for one in found.findings.shown)


def test_where_nothing_could_be_read_nothing_is_said_of_labels(tmp_path: Path) -> None:
    (finding,) = validate_files([tmp_path / "nowhere.jsonl"], "relations").findings.shown
    assert "no such file" in finding.what
    broken = lines(tmp_path, "broken.jsonl", ["{"])
    assert [one.place for one in validate_files([broken], "relations").findings.shown] == [f"{broken}:1, column 2"]


def test_a_file_without_a_record_is_not_sound(tmp_path: Path) -> None:
    squad = tmp_path / "squad.json"
    squad.write_text('{"version": "1.1", "data": [{"title": "t", "paragraphs": []}]}', "utf-8")
    (finding,) = validate_files([squad], "questions").findings.shown
    assert (finding.check, finding.severity) == ("no record", "error")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [{"id": str(i), "question": f"which {one} ?", "answers": [one]} for i, one in enumerate(THINGS)]
    path = lines(tmp_path, "a.jsonl", asked)
    app(["validate", str(path), "--kind", "questions"], standalone_mode=False)
    shown = capsys.readouterr().out
    assert "nothing found" in shown
    assert "labels" not in shown  # questions have none
    bad = lines(tmp_path, "b.jsonl", [*asked, "{"])
    with pytest.raises(SystemExit) as stopped:
        app(["validate", str(bad), "--kind", "questions", "--json"], standalone_mode=True)
    assert stopped.value.code == 1
    printed = json.loads(capsys.readouterr().out)
    assert (printed["errors"], printed["warnings"]) == (1, 0)
    assert printed["findings"][0]["place"] == f"{bad}:7"
    related = lines(tmp_path, "c.jsonl", good(0))
    app(["validate", str(related), "--kind", "relations"], standalone_mode=False)
    assert "labels" in capsys.readouterr().out


def test_files_and_experiments_are_told_apart(tmp_path: Path) -> None:
    squad, saved = tmp_path / "squad.json", tmp_path / "experiment.json"
    squad.write_text('{"version": "1.1", "data": []}', encoding="utf-8")
    saved.write_text(Experiment().to_json(), encoding="utf-8")
    assert read_subject([str(squad)], ["data.format=squad"], None, "auto") is None
    assert read_subject([str(saved)], [], None, "auto") == Experiment()
    with pytest.raises(UserError, match="nope"):
        read_subject(["nope.jsonl"], [], None, "auto")
    with pytest.raises(UserError, match=r"training.epochs=2.*only data\. can be set"):
        read_subject([str(squad)], ["training.epochs=2"], None, "auto")


def test_answers_that_look_like_patterns_are_told(tmp_path: Path) -> None:
    base = [{"id": "p", "text": "it was dug in 1921 by Ann"}]
    train = [{"id": "t", "question": "who dug it ?", "answers": ["Ann"]}]
    test = [{"id": "x", "question": "when was it dug ?", "answers": [r"19\d\d"]}]
    validation = validate_experiment(questions(tmp_path, train, test, base, "training.passages=1"))
    messages = [one.what for one in validation.findings.shown if one.check == "answers"]
    assert r"the answer '19\\d\\d' looks like a regular expression, and is read as text" in messages
    regex = questions(tmp_path, train, test, base, "training.passages=1", "data.answers_are=regex")
    assert [one for one in validate_experiment(regex).findings.shown if one.check == "answers"] == []


EMOJI = "😀 the cup holds tea ."


@pytest.mark.parametrize("offsets", ["characters", "utf-16"])
def test_offsets_of_javascript_are_told_and_can_be_read(tmp_path: Path, offsets: str) -> None:
    train = [relation(f"{EMOJI[:-1]}{i}", LABELS[i % 2], head=[7, 10], tail=[17, 20]) for i in range(10)]
    test = [relation(EMOJI, head=[7, 10], tail=[17, 20])]
    found = validate_experiment(experiment(tmp_path, train, test, f"data.offsets={offsets}"))
    if offsets == "utf-16":
        assert not found.findings.shown
        return
    for finding, part, number in zip(only(found, "offsets"), ("train", "test"), (20, 2), strict=True):
        assert (finding.severity, finding.part) == ("warning", part)
        assert finding.place.endswith(f"{part}.jsonl, id '1'")
        assert "head [7, 10) is 'up ' of " in finding.what
        assert f"more of {number} spans" in finding.what
        assert 'set data.offsets = "utf-16"' in finding.remedy
    bare = validate_files([tmp_path / "test.jsonl"], "relations", "auto")
    assert [one.check for one in bare.findings.shown].count("offsets") == 1


def test_marks_and_tokens_have_no_offsets(tmp_path: Path) -> None:
    marked = [{"text": f"the c<e1>up</e1> holds <e2>tea</e2> {i} .", "label": "holds"} for i in range(5)]
    tokens = [relation(label="holds", head=[1, 2], tail=[3, 4]) for _ in range(1)]
    del tokens[0]["text"]
    tokens[0]["tokens"] = ["the", "cu", "holds", "te"]
    found = validate_experiment(experiment(tmp_path, marked, tokens))
    assert "offsets" not in {one.check for one in found.findings.shown}


@pytest.mark.parametrize("offsets", ["characters", "utf-16"])
def test_spans_to_be_masked_that_cut_words_are_told(tmp_path: Path, offsets: str) -> None:
    text = "😀 the old cup holds the tea of Ann and the rain ."
    path = lines(tmp_path, "spans.jsonl", [{"id": "p1", "spans": [[11, 14]]}])
    settings = (f"masking.spans={path}", "masking.epochs=1", f"masking.offsets={offsets}")
    settings = (*settings, "data.train=", "data.test=", "warm_start.epochs=0", "training.epochs=0")
    base = [{"id": f"p{i}", "text": f"{text} {i}"} for i in range(9)]
    found = validate_experiment(questions(tmp_path, [], [], base, *settings))
    told = [one for one in found.findings.shown if one.check == "offsets"]
    assert len(told) == (offsets == "characters"), found.findings.shown
    for finding in told:
        assert (finding.severity, finding.part) == ("warning", "masking")
        assert finding.place == f"{path}, id 'p1'"
        assert 'set masking.offsets = "utf-16"' in finding.remedy
