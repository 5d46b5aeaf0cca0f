"""Recognise entities by GLiNER (Zaratiana et al. 2023), which is asked for types by their names. Only this file imports
gliner.

The model reads sentences one by one, cut by the rule for English, as GLiNER drops the end of what is longer than it
can read, with a warning.

There is no extra: releases of gliner up to 0.2.29 ask for transformers below 5.17, which this package is above, so that
no installer takes both. It works all the same (tried: 0.2.29 with transformers 5.23): install it without dependencies.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from retrograd.data.relations.recognisers.recogniser import Entity, Recognised
from retrograd.data.sentences import sentence_spans
from retrograd.types import Span, UserError
from retrograd.util.guards import first_line
from retrograd.util.optional import is_installed, missing_package

if TYPE_CHECKING:
    from gliner import GLiNER  # pyright: ignore[reportMissingImports]

__all__ = ["GlinerRecogniser", "open_gliner", "require_gliner"]


def require_gliner(name: str) -> None:
    """Raise `UserError` where gliner, or the folder of the model, is not there."""
    if not is_installed("gliner"):
        instead = "list the names in a file: --ner gazetteer:FILE"
        raise missing_package("--ner gliner:…", "gliner", "pip install --no-deps gliner sentencepiece", instead)
    if not Path(name).is_dir():
        raise UserError(f"--ner gliner:{name}: no such folder; give the folder of a model that GLiNER saved")


def open_gliner(name: str, types: Sequence[str]) -> GlinerRecogniser:
    """Open the model of a folder, without a network, to find entities of ``types``.

    Raises `UserError` where there are no types, and where it cannot be loaded.
    """
    require_gliner(name)
    if not types:
        raise UserError("GLiNER is asked for types by name, and the training data have none; name them: --type person")
    from gliner import GLiNER  # pyright: ignore[reportMissingImports]

    try:
        model = GLiNER.from_pretrained(name, local_files_only=True)
    except Exception as error:  # of torch, transformers or gliner, whatever is missing or damaged
        raise UserError(f"--ner gliner:{name} cannot be loaded ({first_line(error)}); save the model again") from None
    return GlinerRecogniser(model, types)


class GlinerRecogniser:
    """The entities of the given types that a model finds, each with at least ``threshold`` as its score."""

    language = ""

    def __init__(self, model: GLiNER, types: Sequence[str], threshold: float = 0.5) -> None:
        self._model = model
        self._types = list(types)
        self._threshold = threshold

    def recognise(self, text: str) -> Recognised:
        """Return the entities of every sentence."""
        entities: list[Entity] = []
        for start, end in sentence_spans(text):
            entities += [
                Entity(Span(start + int(one["start"]), start + int(one["end"])), str(one["label"]))
                for one in self._model.predict_entities(text[start:end], self._types, threshold=self._threshold)
            ]
        return Recognised(tuple(entities))
