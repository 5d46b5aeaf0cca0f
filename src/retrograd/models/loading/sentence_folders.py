"""Read what a folder of sentence-transformers declares beside its transformer, and write such a folder.

``modules.json`` names the modules in their order: Transformer, Pooling, then Dense and Normalize as often as it likes.
``config_sentence_transformers.json`` has the prompts. Both spellings of pooling are read, that of today
(``pooling_mode``) and that of before version 5.7 (``pooling_mode_cls_token`` and its like).

A tower of a saved retriever is fed by its task, which puts prefixes before texts. They are written as prompts, so that
sentence-transformers gives plain texts the vectors of the run; the model's own prompts stand beside them, under
``own_prompts``, for whoever opens the tower with the task.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast, get_args

import torch
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers.normalizers import Lowercase, Sequence
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.utils.hub import cached_file

from retrograd.models.compute.sentence_head import (
    ACTIVATIONS,
    DenseLayer,
    DenseShape,
    EncoderPrompts,
    SentenceHead,
    Side,
    UnitLength,
)
from retrograd.models.loading.builtin import BUILTIN_ENCODER, minilm_folder
from retrograd.models.settings import PoolingMode
from retrograd.types import UserError
from retrograd.util.guards import JsonObject, JsonValue, describe_value, is_file_name, require_file
from retrograd.util.progress import say
from retrograd.util.text_files import read_json, write_json

__all__ = ["SentenceFolder", "read_sentence_folder", "transformer_folder", "write_sentence_folder"]

_MODULES, _PROMPTS, _WEIGHTS = "modules.json", "config_sentence_transformers.json", "model.safetensors"
_OWN_PROMPTS = "own_prompts"
_CONFIG = "config.json"
_TYPE = "sentence_transformers.models."
_KNOWN = ("Transformer", "Pooling", "Dense", "Normalize")
_OLD_NAMES: Mapping[str, PoolingMode] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""The switches of the older spelling, in the order in which several of them stand side by side."""
_TRANSFORMER_FILES = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)


@dataclass(frozen=True)
class SentenceFolder:
    """Declarations of a folder of sentence-transformers about its modules.

    ``model`` is the name that opens its transformer; None among ``layers`` is scaling to length 1.

    ``weights`` are the files of the Dense modules, in the order of ``layers``.
    """

    name: str
    model: str
    modes: tuple[PoolingMode, ...]
    normalise: bool
    layers: tuple[DenseShape | None, ...] = ()
    weights: tuple[Path, ...] = ()
    prompts: EncoderPrompts = field(default_factory=EncoderPrompts)
    pools_prompt: bool = True
    lower_case: bool = False

    @property
    def dense_weights(self) -> int:
        """The number of weights of the Dense modules."""
        return sum(layer.weights for layer in self.layers if layer is not None)

    def width(self, hidden: int) -> int:
        """Return the width of an embedding made of hidden states of width ``hidden``."""
        outputs = [layer.outputs for layer in self.layers if layer is not None]
        return outputs[-1] if outputs else hidden * len(self.modes)

    def open_head(self, hidden: int) -> SentenceHead:
        """Read the weights of the Dense modules. Raises `UserError` where they do not fit each other."""
        width, files, layers = hidden * len(self.modes), iter(self.weights), []
        for shape in self.layers:
            if shape is None:
                layers.append(UnitLength())
                continue
            path = next(files)
            if shape.inputs != width:
                raise UserError(
                    f"{path.parent / _CONFIG}: in_features is {shape.inputs}, but the vectors that it gets are "
                    f"{width} wide; copy the folder again"
                )
            layers.append(_read_dense(shape, path))
            width = shape.outputs
        return SentenceHead(self.modes, layers, self.prompts, self.pools_prompt)

    def lower(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Have the tokenizer read texts in lower case, where the folder says so."""
        if not self.lower_case:
            return
        if not isinstance(tokenizer, PreTrainedTokenizerFast):
            raise UserError(
                f"{self.name}: do_lower_case is true, which needs a fast tokenizer (a tokenizer.json in the folder)"
            )
        backend = tokenizer.backend_tokenizer
        backend.normalizer = Sequence([Lowercase(), *([backend.normalizer] if backend.normalizer else [])])


def transformer_folder(folder: Path) -> Path:
    """Return where the transformer of a folder is: the folder itself, or the one in it that ``modules.json`` names."""
    if (folder / _CONFIG).is_file() or not (folder / _MODULES).is_file():
        return folder
    return folder / _read_modules(folder / _MODULES)[0][1]


def read_sentence_folder(name: str, with_task_prompts: bool = True) -> SentenceFolder | None:
    """Return what a model declares; None for one without ``modules.json``.

    Without ``with_task_prompts`` prompts that a task's prefixes were written into are the model's own again.
    Raises `UserError` for a module that is not supported, and for files that cannot be read.
    """
    if name.startswith("builtin:") and name != BUILTIN_ENCODER:
        return None
    source = str(minilm_folder()) if name == BUILTIN_ENCODER else name
    path = _find(source, _MODULES)
    if path is None:
        return None
    modules = _read_modules(path)
    kinds = [kind for kind, _ in modules]
    if kinds[:2] != ["Transformer", "Pooling"] or not set(kinds[2:]) <= {"Dense", "Normalize"}:
        raise UserError(
            f"{path}: the modules are {', '.join(kinds)}; supported are Transformer and Pooling, and after them Dense "
            f"and Normalize"
        )
    pooling = _read_object(source, f"{modules[1][1]}/{_CONFIG}", path)
    modes = _read_modes(pooling, f"{path.parent / modules[1][1] / _CONFIG}")
    layers, weights = _read_layers(source, modules[2:], path)
    transformer = modules[0][1]
    return SentenceFolder(
        name=name,
        model=str(Path(source) / transformer) if transformer else name,
        modes=modes,
        normalise=kinds[-1] == "Normalize",
        layers=layers[:-1] if kinds[-1] == "Normalize" else layers,
        weights=weights,
        prompts=_read_prompts(source, with_task_prompts),
        pools_prompt=pooling.get("include_prompt") is not False,
        lower_case=_reads_lower_case(source, transformer),
    )


def _find(name: str, file: str) -> Path | None:
    """Return a file of a model, from its folder or from the hub; None where it has no such file."""
    if Path(name).is_dir():
        path = Path(name) / file
        return path if path.is_file() else None
    quiet = dict.fromkeys(("missing_entries", "gated_repo", "connection_errors"), False)
    try:
        place = cached_file(name, file, **{f"_raise_exceptions_for_{kind}": value for kind, value in quiet.items()})
    except (OSError, ValueError):  # no such model; opening it reports that
        return None
    if place is None and file == _MODULES and _is_undecided(name):
        say(
            f"{name}: whether it has a {_MODULES} cannot be told without the hub; it is read as a transformer alone. "
            f"Download the whole of it, or state retriever.pooling and retriever.normalise."
        )
    return None if place is None else Path(place)


def _is_undecided(name: str) -> bool:
    """Return whether this disk has the model, and does not know whether it has a ``modules.json``."""
    return isinstance(try_to_load_from_cache(name, _CONFIG), str) and try_to_load_from_cache(name, _MODULES) is None


def _read_modules(path: Path) -> list[tuple[str, str]]:
    """Return the kind and the folder of each module, in order. Raises `UserError` for what is no such list."""
    rows = read_json(path)
    modules: list[tuple[str, str]] = []
    for row in rows if isinstance(rows, list) else []:
        kind, place = (row.get("type"), row.get("path")) if isinstance(row, dict) else (None, None)
        if not isinstance(kind, str) or not isinstance(place, str) or not (place == "" or is_file_name(place)):
            raise UserError(f"{path}: expected a type and a folder of this model in {describe_value(row)}")
        modules.append((kind.rpartition(".")[2], place))
    if not modules:
        raise UserError(f"{path}: expected a list of modules; copy the folder again")
    return modules


def _read_object(name: str, file: str, modules: Path) -> JsonObject:
    path = _find(name, file)
    if path is None:
        raise UserError(f"{modules.parent / file} is missing, which {_MODULES} asks for; copy the folder again")
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a table of settings, found {describe_value(content)}")
    return content


def _read_modes(pooling: JsonObject, where: str) -> tuple[PoolingMode, ...]:
    """Return the pooling modes in either spelling; one that names none means the mean, as in sentence-transformers."""
    stated = pooling.get("pooling_mode")
    if stated is None:
        return tuple(mode for key, mode in _OLD_NAMES.items() if pooling.get(key) is True) or ("mean",)
    modes = stated if isinstance(stated, list) else [stated]
    known = get_args(PoolingMode)
    for mode in modes:
        if not isinstance(mode, str) or mode not in known:
            raise UserError(f"{where}: pooling_mode is {describe_value(mode)}; supported are {', '.join(known)}")
    if not modes or len(set(map(str, modes))) < len(modes):
        raise UserError(f"{where}: pooling_mode is {describe_value(stated)}; expected one mode, or several different")
    return cast(tuple[PoolingMode, ...], tuple(modes))


def _read_layers(
    name: str, modules: list[tuple[str, str]], path: Path
) -> tuple[tuple[DenseShape | None, ...], tuple[Path, ...]]:
    """Return the layers after the pooling, and the files of those that have weights."""
    layers: list[DenseShape | None] = []
    weights: list[Path] = []
    for kind, place in modules:
        if kind == "Normalize":
            layers.append(None)
            continue
        file = f"{place}/{_CONFIG}"
        layers.append(_read_shape(_read_object(name, file, path), f"{path.parent / file}"))
        found = _find(name, f"{place}/{_WEIGHTS}")
        if found is None:
            raise UserError(
                f"{path.parent / place}: no such file: {_WEIGHTS}; weights are read from safetensors only, so open the "
                f"model with sentence-transformers and save it again"
            )
        weights.append(found)
    return tuple(layers), tuple(weights)


def _read_shape(settings: JsonObject, where: str) -> DenseShape:
    """Return the shape of a Dense module. Raises `UserError` for one that reads or writes something else."""
    inputs, outputs = settings.get("in_features"), settings.get("out_features")
    if type(inputs) is not int or type(outputs) is not int or not 0 < inputs < 2**20 or not 0 < outputs < 2**20:
        raise UserError(f"{where}: in_features and out_features are {inputs!r}, {outputs!r}; expected two sizes")
    activation = settings.get("activation_function", DenseShape(1, 1).activation)
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        names = ", ".join(sorted(known.rpartition(".")[2] for known in ACTIVATIONS))
        raise UserError(f"{where}: activation_function is {describe_value(activation)}; supported are {names}")
    for key in ("module_input_name", "module_output_name"):
        if settings.get(key, "sentence_embedding") not in ("sentence_embedding", None):
            raise UserError(f"{where}: {key} is {describe_value(settings[key])}; supported is sentence_embedding")
    return DenseShape(
        inputs, outputs, settings.get("bias") is not False, activation, settings.get("use_residual") is True
    )


def _read_dense(shape: DenseShape, path: Path) -> DenseLayer:
    require_file(path)
    with torch.random.fork_rng(devices=[]):  # what the constructor draws is overwritten
        layer = DenseLayer(shape)
    try:
        weights = {name: value.float() for name, value in load_file(path).items()}
        layer.load_state_dict(weights)
    except (SafetensorError, OSError, RuntimeError) as error:
        first = str(error).strip().splitlines()[-1].strip()
        raise UserError(f"{path} does not hold the weights of {shape} ({first}); copy it again") from None
    return layer


def _read_prompts(name: str, with_task_prompts: bool) -> EncoderPrompts:
    path = _find(name, _PROMPTS)
    content: JsonValue = {} if path is None else read_json(path)
    settings = content if isinstance(content, dict) else {}
    own = settings.get(_OWN_PROMPTS)
    if isinstance(own, dict) and not with_task_prompts:
        settings = own
    texts = settings.get("prompts")
    default = settings.get("default_prompt_name")
    kept = {key: text for key, text in texts.items() if isinstance(text, str)} if isinstance(texts, dict) else {}
    if isinstance(default, str) and default not in kept:
        raise UserError(f"{path}: default_prompt_name is {default!r}, which is none of the prompts {sorted(kept)}")
    return EncoderPrompts(tuple(kept.items()), default if isinstance(default, str) else "")


def _reads_lower_case(name: str, transformer: str) -> bool:
    prefix = f"{transformer}/" if transformer else ""
    for file in _TRANSFORMER_FILES:
        path = _find(name, prefix + file)
        if path is not None:
            settings = read_json(path)
            return isinstance(settings, dict) and settings.get("do_lower_case") is True
    return False


def write_sentence_folder(
    folder: Path,
    head: SentenceHead,
    normalise: bool,
    max_tokens: int,
    hidden: int,
    prefixes: Mapping[Side, str] | None = None,
) -> None:
    """Write all of a sentence-transformers directory but its transformer.

    ``prefixes`` are what a task puts before the texts of the sides that the tower reads.
    """
    layers = [*head.layers, *([UnitLength()] if normalise else [])]
    kinds = ["Transformer", "Pooling", *("Dense" if isinstance(layer, DenseLayer) else "Normalize" for layer in layers)]
    paths = ["", *(f"{i}_{kind}" for i, kind in enumerate(kinds) if i)]
    # A prefix of a task is pooled; where the model has no prompts of its own, whether these are pooled says nothing.
    pools_prompt = head.pools_prompt or (prefixes is not None and not any(text for _, text in head.prompts.texts))
    write_json(folder / paths[1] / _CONFIG, _pooling_settings(head, hidden, pools_prompt))
    for path, layer in zip(paths[2:], layers, strict=True):
        (folder / path).mkdir(exist_ok=True)
        if isinstance(layer, DenseLayer):
            _write_dense(folder / path, layer)
    rows = [
        {"idx": i, "name": str(i), "path": path, "type": _TYPE + kind}
        for i, (path, kind) in enumerate(zip(paths, kinds, strict=True))
    ]
    write_json(folder / _MODULES, rows)
    write_json(folder / _TRANSFORMER_FILES[0], {"max_seq_length": max_tokens, "do_lower_case": False})
    if prefixes is not None:
        written = _prompt_settings(head.prompts.followed_by(prefixes))
        write_json(
            folder / _PROMPTS, written | {"similarity_fn_name": "dot", _OWN_PROMPTS: _prompt_settings(head.prompts)}
        )
    elif head.prompts.texts:
        write_json(folder / _PROMPTS, _prompt_settings(head.prompts))


def _prompt_settings(prompts: EncoderPrompts) -> JsonObject:
    return {"prompts": dict(prompts.texts), "default_prompt_name": prompts.default or None}


def _pooling_settings(head: SentenceHead, hidden: int, pools_prompt: bool) -> JsonObject:
    """Return the older spelling, which every version reads, unless the modes stand in an order it cannot say."""
    settings: JsonObject = {"word_embedding_dimension": hidden}
    in_order = [mode for mode in _OLD_NAMES.values() if mode in head.modes]
    if list(head.modes) == in_order:
        always = ("pooling_mode_cls_token", "pooling_mode_mean_tokens")
        settings |= {key: mode in head.modes for key, mode in _OLD_NAMES.items() if key in always or mode in head.modes}
    else:
        settings |= {"pooling_mode": list(head.modes)}
    return settings if pools_prompt else settings | {"include_prompt": False}


def _write_dense(folder: Path, layer: DenseLayer) -> None:
    shape = layer.shape
    settings: JsonObject = {
        "in_features": shape.inputs,
        "out_features": shape.outputs,
        "bias": shape.bias,
        "activation_function": shape.activation,
    }
    write_json(folder / _CONFIG, settings | ({"use_residual": True} if shape.residual else {}))
    save_file(
        {name: value.detach().cpu().contiguous() for name, value in layer.state_dict().items()}, folder / _WEIGHTS
    )
