"""Tiny random models of the families that transformers has: widths of 16, two layers, 40 positions."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import CLS, EOS, PAD, SEP, VOCABULARY, build
from transformers import CONFIG_MAPPING, AutoModel, PretrainedConfig

__all__ = ["POSITIONS", "tiny_config", "tiny_family"]

POSITIONS = 40

_NAMES = {
    16: "hidden_size d_model dim emb_dim n_embd embedding_size",
    2: """num_hidden_layers n_layers n_layer num_layers encoder_layers decoder_layers num_decoder_layers
    num_attention_heads n_heads n_head num_heads encoder_attention_heads decoder_attention_heads num_key_value_heads
    type_vocab_size""",
    32: "intermediate_size d_ff hidden_dim d_inner ffn_dim encoder_ffn_dim decoder_ffn_dim",
    8: "d_kv d_head head_dim",
    1: "num_hidden_groups",
    len(VOCABULARY): "vocab_size",
    POSITIONS: """max_position_embeddings max_encoder_position_embeddings max_decoder_position_embeddings n_positions
    n_ctx max_seq_len""",
}
_TOKENS = {"pad_token_id": PAD, "bos_token_id": CLS, "eos_token_id": EOS, "cls_token_id": CLS, "sep_token_id": SEP}
_LEFT_OUT = {"xlnet": ("max_position_embeddings", "d_head")}
_MORE: dict[str, dict[str, object]] = {
    "longformer": {"attention_window": [4, 4]},
    "led": {"attention_window": [4, 4]},
    "funnel": {"block_sizes": [1, 1], "architectures": ["FunnelModel"]},
    "xmod": {"default_language": "en_XX"},
    "mobilebert": {"embedding_size": 16, "intra_bottleneck_size": 16, "true_hidden_size": 16},
    "roc_bert": {"pronunciation_vocab_size": 65, "shape_vocab_size": 65},
    "luke": {"entity_vocab_size": 8, "entity_emb_size": 8},
    "reformer": {"axial_pos_shape": [5, 8], "axial_pos_embds_dim": [8, 8], "attn_layers": ["local", "lsh"]},
}


def tiny_config(family: str, **changes: object) -> PretrainedConfig:
    """Return the configuration of a family with every size that it has made small."""
    kind = CONFIG_MAPPING[family]
    usual = kind()
    left_out = _LEFT_OUT.get(family, ())
    sizes = {name: size for size, names in _NAMES.items() for name in names.split()}
    if family in ("funnel",):
        left_out = ("num_hidden_layers", "d_inner")
    settings = {name: size for name, size in sizes.items() if name not in left_out and hasattr(usual, name)}
    return kind(**settings | _TOKENS | _MORE.get(family, {}) | changes)


def tiny_family(folder: Path, family: str, **changes: object) -> Path:
    """Write a tiny model of a family, opened by `AutoModel`, and its tokeniser."""
    return build(folder, lambda: AutoModel.from_config(tiny_config(family, **changes)), "[CLS] $A [SEP]")
