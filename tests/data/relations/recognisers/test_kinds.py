"""Recognisers by their names: what is missing is said before anything works for nothing."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from retrograd.data.relations.recognisers import spacy_pipeline
from retrograd.data.relations.recognisers.gliner_model import GlinerRecogniser
from retrograd.data.relations.recognisers.kinds import RECOGNISERS, find_recogniser
from retrograd.data.relations.recognisers.recogniser import Recogniser
from retrograd.types import UserError


@pytest.fixture
def spacy() -> ModuleType:
    if find_spec("spacy") is None:
        pytest.skip("spacy is not installed: pip install 'retrograd[spacy]'")
    import spacy

    return spacy


def pretend_installed(package: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """An empty module in the place of a package."""
    module = ModuleType(package)
    module.__spec__ = SimpleNamespace(origin="there")  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, package, module)
    return module


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "spcy:model",
            r"--ner spcy:model: unknown recogniser 'spcy'; did you mean 'spacy'\? \(spacy:PACKAGE or FOLDER",
        ),
        ("en_core_web_sm", "unknown recogniser 'en_core_web_sm'"),
        ("gazetteer", "--ner gazetteer: no name behind the prefix; expected gazetteer:FILE"),
        ("spacy:", "no name behind the prefix; expected spacy:PACKAGE or FOLDER"),
        ("gazetteer:/nowhere/names.tsv", "no such file: /nowhere/names.tsv"),
    ],
)
def test_a_name_that_names_nothing_is_refused(value: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_recogniser(value)


@pytest.mark.parametrize(
    ("package", "install"),
    [("spacy", r"pip install 'retrograd\[spacy\]'"), ("gliner", "pip install --no-deps gliner sentencepiece")],
)
def test_a_missing_package_is_named(package: str, install: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    advice = rf"--ner {package}:… needs {package}, which is not installed: {install}, or list the names in a file"
    with pytest.raises(UserError, match=advice):
        find_recogniser(f"{package}:model")


def test_a_missing_model_is_named(spacy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert spacy
    with pytest.raises(UserError, match=r"--ner spacy:xx_none: no folder of that name, and no installed package"):
        find_recogniser("spacy:xx_none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"--ner spacy:.*empty cannot be loaded \(.*\); save the pipeline again"):
        find_recogniser(f"spacy:{tmp_path / 'empty'}").open()
    pretend_installed("gliner", monkeypatch)
    with pytest.raises(UserError, match=r"--ner gliner:model: no such folder"):
        find_recogniser("gliner:model")


def test_every_recogniser_keeps_the_protocol(tmp_path: Path) -> None:
    (tmp_path / "names.tsv").write_text("Ada\tPERSON", encoding="utf-8")
    assert set(RECOGNISERS) == {"spacy", "gliner", "gazetteer"}
    assert isinstance(find_recogniser(f"gazetteer:{tmp_path / 'names.tsv'}").open(), Recogniser)


def test_a_pipeline_reads_a_long_text_in_parts(
    spacy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = spacy.blank("de")
    pipeline.add_pipe("sentencizer")
    pipeline.add_pipe("entity_ruler").add_patterns([{"label": "PERSON", "pattern": "Ada"}])
    pipeline.to_disk(tmp_path / "pipeline")
    recogniser = find_recogniser(f"spacy:{tmp_path / 'pipeline'}").open()
    assert isinstance(recogniser, Recogniser)
    assert recogniser.language == "de"
    text = "\n\n".join(f"{i} mal ist Ada da. Dort ist sie." for i in range(5)) + "\n\n\n"
    whole = recogniser.recognise(text)
    monkeypatch.setattr(spacy_pipeline, "_PART", 40)
    assert recogniser.recognise(text).entities == whole.entities
    assert [one.span.of(text) for one in whole.entities] == ["Ada"] * 5
    sentences = recogniser.recognise(text).sentences
    assert sentences is not None
    assert [one.of(text) for one in sentences][-2:] == ["4 mal ist Ada da.", "Dort ist sie."]
    assert recogniser.recognise("").entities == ()
    monkeypatch.setattr(recogniser, "_pipeline", pipeline)
    pipeline.max_length = 20
    with pytest.raises(UserError, match=r"30 characters without a blank line, and this pipeline reads 20 at most"):
        recogniser.recognise("Ada ist hier, und dort auch ..")


def test_a_pipeline_that_was_never_trained_says_so(spacy: ModuleType, tmp_path: Path) -> None:
    pipeline = spacy.blank("en")
    pipeline.add_pipe("ner").add_label("PERSON")
    pipeline.to_disk(tmp_path / "pipeline")
    recogniser = find_recogniser(f"spacy:{tmp_path / 'pipeline'}").open()
    with pytest.raises(UserError, match=r"the spaCy pipeline cannot read it \(.*\); try the pipeline alone"):
        recogniser.recognise("Ada met Bob.")


def test_gliner_is_asked_for_types_sentence_by_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library is pretended: what is tested is how it is called, and what is made of its answers."""
    asked: list[tuple[str, list[str]]] = []

    class Model:
        @classmethod
        def from_pretrained(cls, name: str, local_files_only: bool) -> Model:
            assert local_files_only
            if not (Path(name) / "gliner_config.json").exists():
                raise FileNotFoundError("no config")
            return cls()

        def predict_entities(self, text: str, labels: list[str], threshold: float) -> list[dict[str, object]]:
            assert threshold == 0.5
            asked.append((text, labels))
            start = text.find("Ada")
            return [] if start < 0 else [{"start": start, "end": start + 3, "label": "person", "score": 0.9}]

    module = pretend_installed("gliner", monkeypatch)
    module.GLiNER = Model  # pyright: ignore[reportAttributeAccessIssue]
    named = find_recogniser(f"gliner:{tmp_path}")
    with pytest.raises(UserError, match=r"cannot be loaded \(no config\); save the model again"):
        named.open(["person"])
    with pytest.raises(UserError, match="the training data have none; name them: --type person"):
        named.open()
    (tmp_path / "gliner_config.json").write_text(json.dumps({}), encoding="utf-8")
    text = "It rained. We met Ada. Ada left."
    entities = named.open(["person", "city"]).recognise(text).entities
    assert [(one.span.start, one.span.of(text), one.kind) for one in entities] == [
        (18, "Ada", "person"),
        (23, "Ada", "person"),
    ]
    assert asked[0] == ("It rained.", ["person", "city"])
    assert len(asked) == 3


def test_gliner_itself_reads_a_model_of_a_folder(tmp_path: Path) -> None:
    """A tiny model with random weights: every span may be an entity, and the offsets are those of the text."""
    if find_spec("gliner") is None:
        pytest.skip("gliner is not installed: pip install --no-deps gliner sentencepiece")
    from gliner import GLiNER, GLiNERConfig  # pyright: ignore[reportMissingImports]
    from tests.conftest import VOCABULARY, word_tokenizer
    from transformers import BertConfig, BertModel

    encoder, folder = tmp_path / "encoder", tmp_path / "model"
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(VOCABULARY) + 10, **sizes)).save_pretrained(encoder)
    word_tokenizer("[CLS] $A [SEP]").save_pretrained(encoder)
    GLiNER.from_config(GLiNERConfig(model_name=str(encoder), hidden_size=32, max_width=2)).save_pretrained(folder)
    assert isinstance(find_recogniser(f"gliner:{folder}").open(["container"]), GlinerRecogniser)
    model = GLiNER.from_pretrained(str(folder), local_files_only=True)
    text = "It rained . The cup holds tea ."
    entities = GlinerRecogniser(model, ["container", "liquid"], threshold=0.0).recognise(text).entities
    assert entities
    assert {one.kind for one in entities} <= {"container", "liquid"}
    assert all(one.span.of(text).strip() for one in entities)
    assert any(one.span.start >= text.index("The") for one in entities)
