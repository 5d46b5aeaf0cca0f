"""Folders of sentence-transformers: vectors are those of the folder's own modules, both ways, after training too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.sentence_folders import WIDTH, declare, dense, write
from tests.tolerances import assert_equal_but_rounding
from torch import nn
from torch.nn import functional as F

from retrograd.models.encoder import Encoder
from retrograd.models.retriever import Retriever
from retrograd.types import UserError

TEXTS = ["alpha beta gamma", "delta", "the cup holds tea in the box . what came from rain ?", "what is kappa ?"]
MODES = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
OLD = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


def hidden_states(model: Path, text: str) -> torch.Tensor:
    encoder = Encoder.open(str(model)).eval()
    ids = torch.tensor([encoder.tokenizer(text)["input_ids"]])
    return encoder.model(ids).last_hidden_state[0]


def pooled(hidden: torch.Tensor, mode: str) -> torch.Tensor:
    length = len(hidden)
    place = torch.arange(1, length + 1).float()
    return {
        "cls": lambda: hidden[0],
        "max": lambda: hidden.max(dim=0).values,
        "mean": lambda: hidden.mean(dim=0),
        "mean_sqrt_len_tokens": lambda: hidden.sum(dim=0) / length**0.5,
        "weightedmean": lambda: (place @ hidden) / place.sum(),
        "lasttoken": lambda: hidden[-1],
    }[mode]()


# ---- pooling -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("new", [True, False])
def test_the_pooling_of_a_folder_is_its_own(tiny_encoder: Path, tmp_path: Path, mode: str, new: bool) -> None:
    stated = {"pooling_mode": mode} if new else {key: name == mode for name, key in OLD.items()}
    encoder = Encoder.open(str(declare(tiny_encoder, tmp_path / "model", stated)))
    assert (encoder.pooling, encoder.normalise) == (mode, False)
    expected = torch.stack([pooled(hidden_states(tiny_encoder, text), mode) for text in TEXTS])
    torch.testing.assert_close(encoder.embed(TEXTS), expected)


def test_several_poolings_stand_side_by_side(tiny_encoder: Path, tmp_path: Path) -> None:
    stated = {"pooling_mode": ["mean", "cls"]}
    encoder = Encoder.open(str(declare(tiny_encoder, tmp_path / "model", stated, "Normalize")))
    hidden = [hidden_states(tiny_encoder, text) for text in TEXTS]
    expected = torch.stack([torch.cat([pooled(one, "mean"), pooled(one, "cls")]) for one in hidden])
    assert encoder.dimension == 2 * WIDTH
    torch.testing.assert_close(encoder.embed(TEXTS), F.normalize(expected, dim=-1))


def test_a_folder_of_one_model_alone_is_read_as_before(tiny_encoder: Path) -> None:
    encoder = Encoder.open(str(tiny_encoder))
    assert (encoder.pooling, encoder.normalise) == ("mean", True)
    assert Encoder.open("builtin:minilm").fingerprint() == Encoder.open("builtin:minilm", "mean", True).fingerprint()


# ---- Dense and Normalize -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("activation", "function"),
    [("activation.Tanh", torch.tanh), ("linear.Identity", lambda x: x), ("activation.GELU", F.gelu)],
)
def test_a_dense_module_is_applied(tiny_encoder: Path, tmp_path: Path, activation: str, function) -> None:
    folder = declare(tiny_encoder, tmp_path / "model", {"pooling_mode": "mean"}, "Dense", "Normalize")
    dense(folder / "2_Dense", (WIDTH, 8), f"torch.nn.modules.{activation}")
    weights = load_file(folder / "2_Dense" / "model.safetensors")
    mean = torch.stack([pooled(hidden_states(tiny_encoder, text), "mean") for text in TEXTS])
    expected = F.normalize(function(mean @ weights["linear.weight"].T + weights["linear.bias"]), dim=-1)
    encoder = Encoder.open(str(folder))
    assert encoder.dimension == 8
    torch.testing.assert_close(encoder.embed(TEXTS), expected)
    assert encoder.embed([]).shape == (0, 8)


def test_modules_keep_their_order(tiny_encoder: Path, tmp_path: Path) -> None:
    folder = declare(tiny_encoder, tmp_path / "model", {"pooling_mode": "cls"}, "Normalize", "Dense")
    weights = load_file(folder / "3_Dense" / "model.safetensors")
    first = torch.stack([pooled(hidden_states(tiny_encoder, text), "cls") for text in TEXTS])
    expected = torch.tanh(F.normalize(first, dim=-1) @ weights["linear.weight"].T + weights["linear.bias"])
    torch.testing.assert_close(Encoder.open(str(folder)).embed(TEXTS), expected)


def test_a_dense_module_is_trained_and_saved_again(tiny_encoder: Path, tmp_path: Path) -> None:
    folder = declare(tiny_encoder, tmp_path / "model", {"pooling_mode": ["mean", "cls"]}, "Dense", "Normalize")
    tower = Encoder.open(str(folder))
    retriever = Retriever(tower, tower, trained="both")
    before = {name: weight.clone() for name, weight in tower.named_parameters()}
    optimiser = torch.optim.SGD(retriever.trained_parameters(), lr=0.1)
    for _ in range(2):
        optimiser.zero_grad()
        (retriever.queries(TEXTS) @ retriever.passages(TEXTS).T).log_softmax(-1).diagonal().sum().neg().backward()
        optimiser.step()
    moved = {name for name, weight in tower.named_parameters() if not torch.equal(weight, before[name])}
    assert {name for name in before if "linear" in name} <= moved
    retriever.save(tmp_path / "saved")
    again = Retriever.load(tmp_path / "saved")
    assert_equal_but_rounding(again.query_encoder.embed(TEXTS), tower.embed(TEXTS))
    assert again.query_encoder.fingerprint() == tower.fingerprint()
    assert_equal_but_rounding(Encoder.open(str(tmp_path / "saved" / "query")).embed(TEXTS), tower.embed(TEXTS))
    assert not list(tmp_path.rglob("*.bin"))


def test_the_fingerprint_changes_with_a_dense_weight_and_with_a_prompt(tiny_encoder: Path, tmp_path: Path) -> None:
    folder = declare(tiny_encoder, tmp_path / "model", {"pooling_mode": "mean"}, "Dense")
    first = Encoder.open(str(folder)).fingerprint()
    dense(folder / "2_Dense", (WIDTH, 8), "torch.nn.modules.activation.ReLU")
    second = Encoder.open(str(folder)).fingerprint()
    write(folder / "config_sentence_transformers.json", {"prompts": {"query": "what "}})
    assert len({first, second, Encoder.open(str(folder)).fingerprint()}) == 3


# ---- prompts -----------------------------------------------------------------------------------------------------

PROMPTS = {"query": "what is ", "document": "the ", "other": "alpha "}


def test_each_side_has_its_prompt(tiny_encoder: Path, tmp_path: Path) -> None:
    folder = declare(
        tiny_encoder, tmp_path / "model", {"pooling_mode": "mean"}, prompts=PROMPTS, default_prompt_name="other"
    )
    tower = Encoder.open(str(folder))
    plain = declare(tiny_encoder, tmp_path / "plain", {"pooling_mode": "mean"})
    bare = Encoder.open(str(plain))
    retriever = Retriever(tower, tower, temperature=1.0)
    for found, prompt in (
        (retriever.queries(TEXTS), "what is "),
        (retriever.passages(TEXTS), "the "),
        (tower.embed_passages(TEXTS), "the "),
        (tower.embed(TEXTS), "alpha "),
    ):
        torch.testing.assert_close(found, bare.embed([prompt + text for text in TEXTS]))
    tower.save(tmp_path / "saved")
    again = Encoder.open(str(tmp_path / "saved"))
    assert_equal_but_rounding(again.embed_passages(TEXTS), tower.embed_passages(TEXTS))
    assert again.fingerprint() == tower.fingerprint()


@pytest.mark.parametrize("mode", MODES)
def test_pooling_without_the_prompt(tiny_encoder: Path, tmp_path: Path, mode: str) -> None:
    stated = {"pooling_mode": mode, "include_prompt": False}
    folder = declare(tiny_encoder, tmp_path / "model", stated, prompts=PROMPTS)
    tower = Encoder.open(str(folder))
    hidden = [hidden_states(tiny_encoder, "what is " + text) for text in TEXTS]
    if mode == "weightedmean":  # a token keeps the weight of its place in the whole text
        place = [torch.arange(4.0, len(one) + 1) for one in hidden]
        expected = torch.stack([(p @ one[3:]) / p.sum() for p, one in zip(place, hidden, strict=True)])
    else:
        expected = torch.stack([pooled(one[3:], mode) for one in hidden])  # [CLS] what is
    torch.testing.assert_close(tower.embed(TEXTS, "query"), expected)


# ---- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "setting", "stated"),
    [
        ({"pooling": "mean"}, "pooling.*'mean'", "cls"),
        ({"pooling": "cls", "normalise": False}, "normalise.*[Ff]alse", "Normalize"),
        ({"pooling": "lasttoken"}, "pooling.*'lasttoken'", "cls"),
    ],
)
def test_a_setting_that_contradicts_the_folder_names_both(
    tiny_encoder: Path, tmp_path: Path, settings: dict[str, object], setting: str, stated: str
) -> None:
    folder = declare(tiny_encoder, tmp_path / "model", {"pooling_mode": "cls"}, "Normalize")
    with pytest.raises(UserError, match=setting) as caught:
        Encoder.open(str(folder), **settings)  # pyright: ignore[reportArgumentType]
    assert stated in str(caught.value)
    assert str(folder) in str(caught.value)


def test_length_one_where_the_folder_has_no_normalize_is_a_contradiction(tiny_encoder: Path, tmp_path: Path) -> None:
    folder = declare(tiny_encoder, tmp_path / "model", {"pooling_mode": "cls"})
    with pytest.raises(UserError, match=r"normalise.*Normalize"):
        Encoder.open(str(folder), normalise=True)


def test_roles_need_a_folder_without_dense(tiny_encoder: Path, tmp_path: Path) -> None:
    folder = declare(tiny_encoder, tmp_path / "model", {"pooling_mode": "cls"}, "Dense")
    with pytest.raises(UserError, match=r"roles.*Dense"):
        Encoder.open(str(folder), "roles")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "2_Dense" / "model.safetensors").unlink(), "no such file|safetensors"),
        (lambda folder: dense(folder / "2_Dense", (5, 8)), "5"),
        (lambda folder: dense(folder / "2_Dense", (WIDTH, 8), "os.system"), "os.system"),
        (lambda folder: write(folder / "1_Pooling" / "config.json", {"pooling_mode": "median"}), "median"),
        (lambda folder: write(folder / "1_Pooling" / "config.json", []), "1_Pooling"),
        (lambda folder: write(folder / "modules.json", [{"type": "x.CNN", "path": "../x"}]), "modules.json"),
        (lambda folder: write(folder / "modules.json", {"a": 1}), "modules.json"),
    ],
)
def test_what_cannot_be_read_is_refused(tiny_encoder: Path, tmp_path: Path, damage, message: str) -> None:
    folder = declare(tiny_encoder, tmp_path / "model", {"pooling_mode": "cls"}, "Dense")
    damage(folder)
    with pytest.raises(UserError, match=message):
        Encoder.open(str(folder))


def test_a_module_that_is_not_supported_is_named(tiny_encoder: Path, tmp_path: Path) -> None:
    folder = declare(tiny_encoder, tmp_path / "model", {"pooling_mode": "cls"}, "CNN")
    with pytest.raises(UserError, match=r"CNN.*Dense"):
        Encoder.open(str(folder))


def test_a_transformer_in_a_folder_of_its_own_and_lower_case(tiny_encoder: Path, tmp_path: Path) -> None:
    """The layout of the first versions: ``0_Transformer`` holds the model."""
    folder = declare(tiny_encoder, tmp_path / "model", {"pooling_mode_cls_token": True})
    inner = folder / "0_Transformer"
    inner.mkdir()
    for path in [path for path in folder.iterdir() if path.is_file() and path.name != "modules.json"]:
        path.rename(inner / path.name)
    rows = json.loads((folder / "modules.json").read_text())
    write(folder / "modules.json", [{**rows[0], "path": "0_Transformer"}, *rows[1:]])
    write(inner / "sentence_bert_config.json", {"max_seq_length": 64, "do_lower_case": True})
    expected = torch.stack([pooled(hidden_states(tiny_encoder, text), "cls") for text in TEXTS])
    torch.testing.assert_close(Encoder.open(str(folder)).embed([text.upper() for text in TEXTS]), expected)


# ---- sentence-transformers itself --------------------------------------------------------------------------------

COMBINATIONS = [
    *([mode, *rest] for mode in MODES for rest in ([], ["Normalize"], ["Dense"], ["Dense", "Normalize"])),
    ["cls+mean", "Dense"],
    ["mean+cls", "Normalize"],
    ["mean", "Dense", "Dense", "Normalize"],
    ["mean", "Normalize", "Dense"],
]
ONCE = [["mean"], ["lasttoken", "Dense", "Normalize"], ["mean+cls", "Normalize"]]


def compare_both_ways(model: Path, folder: Path, combination: list[str]) -> None:
    """Open theirs, compare, train two steps, save, have them open it, and compare again."""
    library = pytest.importorskip("sentence_transformers", reason="the proof compares with sentence-transformers")
    from sentence_transformers.base.modules import Dense, Normalize, Transformer  # pyright: ignore
    from sentence_transformers.sentence_transformer.modules import Pooling  # pyright: ignore

    modes, *rest = combination[0].split("+"), *combination[1:]
    width = WIDTH * len(modes)
    layers: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        for name in rest:
            layers.append(Dense(width, 8) if name == "Dense" else Normalize())
            width = 8 if name == "Dense" else width
    pooling = Pooling(WIDTH, pooling_mode=modes[0] if len(modes) == 1 else tuple(modes))
    theirs = library.SentenceTransformer(modules=[Transformer(str(model)), pooling, *layers], device="cpu")
    theirs.prompts.update({"query": "what is ", "document": "the "})
    theirs.save(str(folder / "theirs"))

    ours = Encoder.open(str(folder / "theirs"))
    require_equal(theirs, ours)
    optimiser = torch.optim.SGD(ours.parameters(), lr=0.01)
    for _ in range(2):
        optimiser.zero_grad()
        ours.eval()(TEXTS).square().mean().neg().backward()
        (ours(TEXTS)[0] @ ours(TEXTS)[1]).backward()
        optimiser.step()
    ours.save(folder / "ours")
    require_equal(library.SentenceTransformer(str(folder / "ours"), device="cpu"), ours)


def require_equal(theirs, ours: Encoder) -> None:
    for method, side in (("encode", None), ("encode_query", "query"), ("encode_document", "passage")):
        expected = getattr(theirs, method)(TEXTS, convert_to_tensor=True, show_progress_bar=False)
        torch.testing.assert_close(ours.embed(TEXTS, side), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("combination", ONCE, ids=",".join)
def test_vectors_are_those_of_sentence_transformers(tiny_encoder: Path, tmp_path: Path, combination) -> None:
    compare_both_ways(tiny_encoder, tmp_path, combination)


@pytest.mark.sweep
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("combination", COMBINATIONS, ids=",".join)
def test_vectors_of_every_combination(tiny_encoder: Path, tmp_path: Path, combination) -> None:
    compare_both_ways(tiny_encoder, tmp_path, combination)
