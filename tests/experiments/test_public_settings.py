"""What others may read of settings: no folder of this machine, no password, nothing of the trackers."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import fields, replace

import pytest

from retrograd.experiments.data.kinds import KINDS
from retrograd.experiments.experiment import Experiment
from retrograd.experiments.public_settings import settings_for_others
from retrograd.experiments.text import flatten_settings
from retrograd.types import UserError

SECRETS = ("SECRET", "/home", "alice", "C:")


def test_secrets_and_folders_stay_here() -> None:
    experiment = Experiment().with_settings(
        [
            "track.kinds=['trackio']",
            "track.address=http://h:1?write_token=SECRET",
            "track.folder=/home/alice/x",
            "data.train=/home/alice/train.jsonl",
            "data.templates=alice/words.json",
            "index.kind=milvus",
            "index.path=http://user:SECRET@db:19530/one?token=SECRET#SECRET",
            "masking.spans='C:\\alice\\spans.jsonl'",
            "retriever.model=/home/alice/encoder/",
            "generator.model=/home/alice/generator.gguf",
        ]
    )
    shown = settings_for_others(experiment)
    assert not [line for line in shown.items() if any(secret in str(line) for secret in SECRETS)]
    assert not [name for name in shown if name.startswith("track")]
    assert shown["index.path"] == "http://db:19530/one"
    assert (shown["data.train"], shown["data.templates"]) == ("train.jsonl", "words.json")
    assert (shown["retriever.model"], shown["generator.model"]) == ("encoder", "generator.gguf")


def test_names_of_the_hub_and_of_the_package_are_shown_whole() -> None:
    experiment = Experiment().with_settings(["retriever.model=some/model"])
    shown = settings_for_others(experiment)
    assert shown["retriever.model"] == "some/model"
    assert shown["data.train"] == "builtin:semeval2010_task8"


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_is_known_as_one(kind: type) -> None:
    """What an experiment makes a name from the root is a file, and so is shown by its last name."""
    texts = {field.name: "alice/file" for field in fields(kind) if field.type == "str" and field.init}
    data = kind()
    for name, value in texts.items():
        with suppress(UserError):  # of a text that has values of its own
            data = replace(data, **{name: value})
    experiment = replace(Experiment(), data=data)
    experiment = experiment.replace(index={"path": "alice/file"}, masking={"spans": "alice/file"})
    rooted = flatten_settings(experiment.from_root().to_mapping())
    moved = {name for name, value in flatten_settings(experiment.to_mapping()).items() if rooted[name] != value}
    assert {"index.path", "masking.spans", "data.train"} <= moved
    assert {name: settings_for_others(experiment)[name] for name in moved} == dict.fromkeys(moved, "file")
