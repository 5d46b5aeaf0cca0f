"""SemEval-2010 Task 8 as shipped: 8,000 training and 2,717 test sentences, and a short phrase for each of 19 labels.

Hendrickx et al. 2010, "SemEval-2010 Task 8: Multi-Way Classification of Semantic Relations Between Pairs of Nominals".
The data are under CC BY 3.0; see ``data/semeval2010_task8/LICENSE.md`` in the package. The phrases are our own.
"""

from __future__ import annotations

from importlib.resources import as_file, files

from retrograd.suggestions import advice
from retrograd.tasks.relation_formats import read_semeval
from retrograd.tasks.relation_instance import RelationInstance
from retrograd.types import UserError

__all__ = ["SEMEVAL_PHRASES", "SEMEVAL_SPLITS", "load_semeval"]

# Read "<e1> phrase <e2>". All first words differ: a generator decides the label with its first token, and the prefix
# tree of the phrases branches only at the root.
SEMEVAL_PHRASES: dict[str, str] = {
    "Cause-Effect(e1,e2)": "causes the effect",
    "Cause-Effect(e2,e1)": "results from cause",
    "Component-Whole(e1,e2)": "part of whole",
    "Component-Whole(e2,e1)": "includes the component",
    "Content-Container(e1,e2)": "inside a container",
    "Content-Container(e2,e1)": "holds some content",
    "Entity-Destination(e1,e2)": "moves into destination",
    "Entity-Destination(e2,e1)": "receives arriving things",
    "Entity-Origin(e1,e2)": "comes from origin",
    "Entity-Origin(e2,e1)": "source of thing",
    "Instrument-Agency(e1,e2)": "tool for agent",
    "Instrument-Agency(e2,e1)": "uses an instrument",
    "Member-Collection(e1,e2)": "belongs to collection",
    "Member-Collection(e2,e1)": "group of members",
    "Message-Topic(e1,e2)": "describes some topic",
    "Message-Topic(e2,e1)": "discussed in message",
    "Product-Producer(e1,e2)": "made by producer",
    "Product-Producer(e2,e1)": "creates a product",
    "Other": "other relation",
}

SEMEVAL_SPLITS = ("train", "test")


def load_semeval(split: str = "train") -> list[RelationInstance]:
    """The official split, in the official order, from the files in the package.

    The last 891 training sentences come from an earlier task and are skewed: shuffle before cutting, as
    `sample_instances` and `split_instances` do. Raises `UserError` for an unknown split.
    """
    if split not in SEMEVAL_SPLITS:
        raise UserError(f"unknown split {split!r} of SemEval-2010 Task 8; {advice(split, SEMEVAL_SPLITS)}")
    name = {"train": "TRAIN_FILE.TXT.gz", "test": "TEST_FILE_FULL.TXT.gz"}[split]
    with as_file(files("retrograd").joinpath("data", "semeval2010_task8", name)) as path:
        return list(read_semeval(path))
