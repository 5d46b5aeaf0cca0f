"""`retrograd index` and `search` on an index, as a person meets them: tiny models, one sentence per mistake."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from retrograd import __main__ as cli
from retrograd.commands import load_experiment
from retrograd.index.disk.cache import VectorCache
from retrograd.index.disk.storage import write_sealed
from retrograd.index.exact import ExactIndex
from retrograd.models.encoder import Encoder
from retrograd.rag.embedding import build_index
from retrograd.recipes import open_experiment
from retrograd.studies import index
from retrograd.studies.index import is_index, open_source
from retrograd.types import UserError

WORDS = ("cup", "box", "wheel", "car", "tea", "rain")
LABELS = ("holds", "part of")
QUERY = "the <e1>cup</e1> holds <e2>tea</e2> ."


def command(*words: str | Path) -> None:
    """The command in this process; `UserError` comes through, as `main` would print it."""
    cli.app([str(word) for word in words], standalone_mode=False)


@pytest.fixture
def experiment(tmp_path: Path, tiny_encoder: Path) -> Path:
    """Untrained: its retriever is the tiny encoder as it is."""
    data = tmp_path / "data.jsonl"
    data.write_text(
        "".join(
            f'{{"text": "the {word} holds tea number {i} .", "head": [4, {4 + len(word)}], '
            f'"tail": [{11 + len(word)}, {14 + len(word)}], "relation": "{LABELS[i % 2]}"}}\n'
            for i, word in enumerate(WORDS)
        ),
        encoding="utf-8",
    )
    file = tmp_path / "tiny.toml"
    file.write_text(
        f'[data]\ntrain = "{data}"\ntest = ""\nlabels = "from_train"\n'
        f'[retriever]\nmodel = "{tiny_encoder}"\n[training]\nprecision = "fp32"\n',
        encoding="utf-8",
    )
    return file


def another_encoder(experiment: Path) -> Path:
    """The same experiment with vectors pooled otherwise: another encoder."""
    other = experiment.with_name("other.toml")
    text = experiment.read_text(encoding="utf-8")
    other.write_text(text.replace("[retriever]", '[retriever]\npooling = "cls"'), encoding="utf-8")
    return other


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_build_info_check_search(dtype: str, experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    root = tmp_path / "index"
    command("index", "build", experiment, "--out", root, "--dtype", dtype)
    shown = capsys.readouterr()
    assert shown.out.startswith(f"6 passages are in {root / 'v000001'}. Next: retrograd search {root}")
    for part in ("6 passages x 16 numbers in", "of memory (from the probe)", "passages/s, measured"):
        assert part in shown.err

    command("index", "info", root)
    shown = capsys.readouterr().out
    for part in ("v000001", "mean pooling, length 1, at most 128 tokens, encoded in float32", str(experiment)):
        assert part in shown
    assert ("bfloat16, 192 bytes" if dtype == "bf16" else "float32, 384 bytes") in shown

    command("index", "check", root)
    shown = capsys.readouterr().out
    assert "6 rows are finite and not all zero" in shown
    assert "the checksum is right" in shown
    assert f"knowledge base and encoder are those of {experiment}" in shown

    command("search", root, QUERY, "-k", "2")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "p(z|x)  passage"
    assert len(lines) == 3
    assert all("%  [" in line for line in lines[1:])


def test_a_hybrid_index_is_searched_by_words(
    experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = experiment.read_text(encoding="utf-8")
    changes = "[retriever]\nlexical_dimensions = 1024\nlexical_weight = 100.0"
    experiment.write_text(text.replace("[retriever]", changes), encoding="utf-8")
    command("index", "build", experiment, "--out", tmp_path / "index")
    command("index", "info", tmp_path / "index")
    assert "behind them 1024 numbers for words" in capsys.readouterr().out
    for word in ("cup", "box", "wheel", "car"):  # which one passage each holds
        command("search", tmp_path / "index", f"<e1>{word}</e1> <e2>tea</e2>", "-k", "1")
        (line,) = capsys.readouterr().out.splitlines()[1:]
        assert f" {word} " in line


def test_the_index_holds_what_the_encoder_says(experiment: Path, tmp_path: Path) -> None:
    command("index", "build", experiment, "--out", tmp_path / "index")
    source = open_source(str(experiment))
    index = ExactIndex.load(tmp_path / "index", base_fingerprint=source.base.fingerprint)
    texts = [source.task.passage_text(passage) for passage in source.base]
    torch.testing.assert_close(index.vectors(torch.arange(6)), source.retriever.passage_encoder.embed(texts))


@pytest.mark.slow
def test_the_index_of_a_run_is_the_one_that_the_run_saved(
    experiment: Path, tiny_seq2seq: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = experiment.read_text(encoding="utf-8") + f'epochs = 0\n[generator]\nmodel = "{tiny_seq2seq}"\n'
    experiment.write_text(text + "[warm_start]\nepochs = 1\nbatch_size = 3\n", encoding="utf-8")
    run, root = tmp_path / "run", tmp_path / "index"
    command("train", experiment, "--out", run)
    command("index", "build", run, "--out", root)
    own, built = ExactIndex.load(run / "model" / "index"), ExactIndex.load(root)
    assert (own.base_fingerprint, own.encoder_fingerprint) == (built.base_fingerprint, built.encoder_fingerprint)
    assert torch.equal(own.vectors(torch.arange(6)), built.vectors(torch.arange(6)))
    command("index", "check", run / "model" / "index", "--run", run)
    capsys.readouterr()
    command("search", root, QUERY)
    found = capsys.readouterr().out
    command("search", run, QUERY)
    assert capsys.readouterr().out.endswith(found)


@pytest.mark.slow
def test_the_index_of_a_run_whose_posterior_has_passages_of_its_own(
    experiment: Path, deep_encoder: Path, tiny_seq2seq: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is searched by the prior alone, and says the same as the index that is built from the run."""
    own = f'posterior = true\nposterior_passages = "own"\nseparate_towers = true\nquery_model = "{deep_encoder}"\n'
    text = experiment.read_text(encoding="utf-8").replace("[training]", f"{own}[training]")
    text += f'epochs = 1\npassages = 2\n[generator]\nmodel = "{tiny_seq2seq}"\n[warm_start]\nepochs = 0\n'
    experiment.write_text(text + '[objective]\nkind = "JointStochasticApproximation"\n', encoding="utf-8")
    run, root = tmp_path / "run", tmp_path / "index"
    command("train", experiment, "--out", run)
    command("index", "build", run, "--out", root)
    inside = run / "model" / "index"
    assert (ExactIndex.load(inside).dimension, ExactIndex.load(root).dimension) == (32, 16)
    command("index", "check", inside, "--run", run)
    capsys.readouterr()
    found = []
    for words in ((root,), (inside, "--run", run), (run,)):
        command("search", words[0], QUERY, *words[1:])
        found.append(capsys.readouterr().out)
    assert found[0] == found[1]
    assert found[2].endswith(found[0])


def test_a_second_build_is_a_new_version_where_something_changed(
    experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "index"
    command("index", "build", experiment, "--out", root)
    command("index", "build", experiment, "--out", root)
    assert f"{root} is up to date" in capsys.readouterr().err
    command("index", "build", another_encoder(experiment), "--out", root)
    command("index", "info", root)
    assert "v000001, v000002" in capsys.readouterr().out


def test_a_stale_index_is_refused_with_both_sides(experiment: Path, tmp_path: Path) -> None:
    root = tmp_path / "index"
    command("index", "build", experiment, "--out", root)
    other = another_encoder(experiment)
    for words in (("index", "check", root, "--run", other), ("search", root, QUERY, "--run", other)):
        with pytest.raises(UserError, match=r"built from encoder \w{12}, but this run uses encoder \w{12}; rebuild"):
            command(*words)


def test_check_finds_damage(experiment: Path, tmp_path: Path) -> None:
    root = tmp_path / "index"
    command("index", "build", experiment, "--out", root)
    path = root / "v000001" / "shard-00000.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(UserError, match=r"shard-00000\.safetensors has changed since it was written .*rebuild"):
        command("index", "check", root)
    path.unlink()
    with pytest.raises(UserError, match=r"shard-00000\.safetensors is missing"):
        command("index", "check", root)


def test_a_source_that_moved_is_named(experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "index"
    command("index", "build", experiment, "--out", root)
    moved = experiment.rename(tmp_path / "moved.toml")
    capsys.readouterr()
    with pytest.raises(UserError, match=r"checksum is right, but .* not compared: it was built by .*tiny.* with --run"):
        command("index", "check", root)
    command("index", "check", root, "--run", moved)
    assert "knowledge base and encoder are those of" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"tiny\.toml, which is not here; name a run with --run"):
        command("search", root, QUERY)
    command("search", root, QUERY, "--run", moved)


def test_mistakes_are_one_sentence(experiment: Path, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="'bf61' is not one of 'fp32', 'bf16', 'fp16'"):
        command("index", "build", experiment, "--out", tmp_path / "index", "--dtype", "bf61")
    with pytest.raises(UserError, match="did you mean 'semeval-joint'"):
        command("index", "build", "semeval-joined", "--out", tmp_path / "index")
    with pytest.raises(UserError, match=r"is not a run .*give a folder that `retrograd train` wrote"):
        command("index", "build", tmp_path, "--out", tmp_path / "index")
    assert not (tmp_path / "index").exists()
    (tmp_path / "afile").write_text("mine")
    for out in ("afile", "afile/index"):
        with pytest.raises(UserError, match="afile is a file; give a folder with --out"):
            command("index", "build", "semeval-joined", "--out", tmp_path / out)
    with pytest.raises(UserError, match=r"holds no index; build one with: retrograd index build"):
        command("index", "check", tmp_path)
    with pytest.raises(UserError, match="is not a run"):
        command("search", tmp_path, QUERY)
    with pytest.raises(UserError, match=r"nowhere does not exist; give the folder of a finished run, or of an index"):
        command("search", tmp_path / "nowhere", QUERY)
    with pytest.raises(UserError, match=r"afile is a file; give the folder of a finished run, or of an index"):
        command("search", tmp_path / "afile", QUERY)
    (tmp_path / "ended").mkdir()
    (tmp_path / "ended" / "experiment.toml").touch()
    with pytest.raises(UserError, match=r"ended is a run's folder; its experiment is .*ended/experiment\.toml"):
        open_experiment(str(tmp_path / "ended"))
    with pytest.raises(UserError, match=r"nowhere does not exist; give a run's folder"):
        command("index", "build", tmp_path / "nowhere", "--out", tmp_path / "index")
    with pytest.raises(UserError, match=r"afile is a file, but no experiment"):
        command("index", "build", tmp_path / "afile", "--out", tmp_path / "index")
    with pytest.raises(UserError, match="--run is for an index"):
        command("search", tmp_path, QUERY, "--run", experiment)
    (tmp_path / "index" / ".v000001.build").mkdir(parents=True)
    with pytest.raises(UserError, match="is not finished; go on with the same"):
        command("index", "info", tmp_path / "index")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "experiment.toml").write_text("")
    with pytest.raises(UserError, match="is an index or a run itself"):
        command("index", "build", experiment, "--out", tmp_path / "run")


def test_what_is_no_index_is_named_with_the_command_that_makes_one(experiment: Path, tmp_path: Path) -> None:
    run = tmp_path / "my run"
    (run / "model" / "index").mkdir(parents=True)
    (run / "experiment.toml").write_text("")
    (tmp_path / "notes").write_text("mine")
    refused = {
        run: r"is a run, not an index; the one .* is .*model/index; .* build '.*/my run' --out 'indexes/my run'",
        experiment: r"is a file, not an index; build one with: retrograd index build .*tiny.toml --out indexes/tiny",
        tmp_path / "notes": "is a file, not an index; give the folder",
        Path("semeval-joint"): "is a recipe, not an index; .* build semeval-joint --out indexes/semeval-joint",
        tmp_path / "nowhere": "nowhere does not exist",
    }
    for path, message in refused.items():
        for verb in ("info", "check"):
            with pytest.raises(UserError, match=message):
                command("index", verb, path)


def test_an_index_saved_from_python(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = ExactIndex(torch.eye(3), base_fingerprint="base", encoder_fingerprint="encoder")
    index.save(tmp_path / "index")
    command("index", "info", tmp_path / "index")
    assert "saved from Python or within a run, without the name" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"3 rows .* not compared: it was saved from Python .* with --run"):
        command("index", "check", tmp_path / "index")
    with pytest.raises(UserError, match=r"needs its retriever, and it was saved from Python .* with --run"):
        command("search", tmp_path / "index", QUERY)


def test_an_index_of_another_kind_is_named(tmp_path: Path) -> None:
    write_sealed(tmp_path / "manifest.json", {"kind": "bm25", "rows": 3})
    for words in (("index", "info", tmp_path), ("index", "check", tmp_path), ("search", tmp_path, QUERY)):
        with pytest.raises(UserError, match=r"holds a 'bm25' index, .*; use LexicalIndex\.load"):
            command(*words)


def test_an_interrupted_build_says_what_it_keeps(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made, embed_passages, calls = index.index_spec, Encoder.embed_passages, []

    def interrupted(encoder: Encoder, texts: list[str]) -> torch.Tensor:
        calls.append(len(texts))
        if len(calls) == 4:  # the probe takes two, and the first shard one
            raise KeyboardInterrupt
        return embed_passages(encoder, texts)

    monkeypatch.setattr(index, "index_spec", lambda *given: replace(made(*given), shard_rows=2))
    monkeypatch.setattr(Encoder, "embed_passages", interrupted)
    words = ["index", "build", str(experiment), "--out", str(tmp_path / "my index")]
    with pytest.raises(SystemExit) as ended:
        cli.app(words)
    assert ended.value.code == 130
    assert "stopped; 2 of 6 rows are kept, and the same command goes on" in capsys.readouterr().err
    command(*words)
    shown = capsys.readouterr()
    assert "2 are done if undamaged (checked next), 4 remain" in shown.err
    assert f"Next: retrograd search '{tmp_path / 'my index'}' 'your" in shown.out


def test_an_index_that_stands_aside_is_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its writer was killed while it put a newer one in its place (`retrograd.util.files.atomic_directory`)."""
    index = ExactIndex(torch.eye(3), base_fingerprint="base", encoder_fingerprint="encoder")
    index.save(tmp_path / ".index.old" / "index")
    assert is_index(tmp_path / "index")
    command("index", "info", tmp_path / "index")
    assert "3 numbers each, float32" in capsys.readouterr().out


def test_what_does_not_fit_is_refused_before_it_begins(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrograd.rag.index_folder.free_disk", lambda _: 1000)
    with pytest.raises(UserError, match=r"needs 384 bytes more in .*index, and .*; 1 kB are free there"):
        command("index", "build", experiment, "--out", tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_what_runs_keep_of_a_base_is_pruned(
    experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETROGRAD_CACHE", str(tmp_path / "cache"))
    source = open_source(str(experiment))
    build_index(source.side, source.task, source.base, cache=VectorCache.of_user())
    command("index", "prune")
    place = tmp_path / "cache" / "embeddings"
    assert re.fullmatch(
        rf"removed 0 of the embeddings of 1 bases \(0 bytes\); [\d.]+ kB stay in {place}\n", capsys.readouterr().out
    )
    command("index", "prune", "--to", "100")
    assert capsys.readouterr().out.endswith(f"0 bytes stay in {place}\n")
    with pytest.raises(UserError, match="--to is 'little'; expected a size such as 500MB"):
        command("index", "prune", "--to", "little")


def test_without_the_cache_the_setting_says_so(experiment: Path, tmp_path: Path) -> None:
    assert load_experiment(str(experiment), None).index.cache
    assert not load_experiment(str(experiment), [], no_cache=True).index.cache
    run = tmp_path / "run"
    run.mkdir()
    (run / "experiment.toml").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="--no-cache is for an experiment before training"):
        command("lab", run, "--no-cache")
