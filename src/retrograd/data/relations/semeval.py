"""SemEval-2010 Task 8 as the package ships it: 8,000 training and 2,717 test sentences.

Hendrickx et al. 2010, "SemEval-2010 Task 8: Multi-Way Classification of Semantic Relations Between Pairs of Nominals".
The data are under CC BY 3.0; see ``data/semeval2010_task8/LICENSE.md`` in the package.
"""

from __future__ import annotations

from importlib.resources import as_file, files

from retrograd.data.relations.instance import RelationInstance
from retrograd.data.relations.readers.semeval import read_semeval
from retrograd.types import UserError
from retrograd.util.guards import suggest_name

__all__ = ["SEMEVAL_SPLITS", "load_semeval"]

SEMEVAL_SPLITS = ("train", "test")


def load_semeval(split: str = "train") -> list[RelationInstance]:
    """Return the official split, in the official order, from the files in the package.

    The last 891 training sentences come from an earlier task and are skewed: shuffle before cutting, as
    `sample_instances` and `split_instances` do. Raises `UserError` for an unknown split.
    """
    if split not in SEMEVAL_SPLITS:
        raise UserError(f"unknown split {split!r} of SemEval-2010 Task 8; {suggest_name(split, SEMEVAL_SPLITS)}")
    name = {"train": "TRAIN_FILE.TXT.gz", "test": "TEST_FILE_FULL.TXT.gz"}[split]
    with as_file(files("retrograd").joinpath("resources", "semeval2010_task8", name)) as path:
        return list(read_semeval(path))
