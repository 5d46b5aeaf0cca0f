"""Tiny random generators of the families that transformers has: configurations shrunk by the names of their sizes."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import CLS, EOS, PAD, VOCABULARY, build
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

__all__ = ["CAUSAL", "SEQ2SEQ", "build_family"]

CAUSAL = [
    "afmoe",
    "apertus",
    "arcee",
    "aria_text",
    "bart",
    "beam",
    "bert",
    "bert-generation",
    "big_bird",
    "bigbird_pegasus",
    "biogpt",
    "bitnet",
    "blenderbot",
    "blenderbot-small",
    "bloom",
    "camembert",
    "codegen",
    "cohere",
    "cohere2",
    "cohere2_moe",
    "cpmant",
    "ctrl",
    "cwm",
    "data2vec-text",
    "diffllama",
    "doge",
    "electra",
    "ernie",
    "ernie4_5",
    "ernie4_5_moe",
    "exaone4",
    "exaone_moe",
    "flex_olmo",
    "flint",
    "gemma",
    "gemma2",
    "gemma3_text",
    "glm",
    "glm4",
    "glm4_moe",
    "gpt-sw3",
    "gpt2",
    "gpt_bigcode",
    "gpt_neox",
    "gpt_neox_japanese",
    "gpt_oss",
    "gptj",
    "granite",
    "granite_swa",
    "granitemoe",
    "granitemoe_swa",
    "granitemoeshared",
    "helium",
    "hrm_text",
    "hy_v3",
    "hy_v4",
    "hyperclovax",
    "inkling2_text",
    "inkling_text",
    "internlm3",
    "iquestcoder",
    "jais2",
    "jetmoe",
    "kolibri1",
    "lfm2",
    "llama",
    "llama4_text",
    "marian",
    "mbart",
    "megatron-bert",
    "mellum",
    "mimo_v2_flash",
    "minimax",
    "minimax_m2",
    "minimax_m3_vl_text",
    "ministral3",
    "mistral",
    "mixtral",
    "modernbert-decoder",
    "moshi",
    "mpt",
    "mvp",
    "nanochat",
    "olmo",
    "olmo2",
    "olmo3",
    "olmo_hybrid",
    "olmoe",
    "openai-gpt",
    "opt",
    "pegasus",
    "persimmon",
    "phi",
    "phi3",
    "phimoe",
    "plbart",
    "qwen2",
    "qwen2_moe",
    "qwen3",
    "qwen3_moe",
    "rembert",
    "roberta",
    "roberta-prelayernorm",
    "roformer",
    "seed_oss",
    "smollm3",
    "solar_open",
    "stablelm",
    "starcoder2",
    "trocr",
    "vaultgemma",
    "whisper",
    "xglm",
    "xlm-roberta",
    "xlm-roberta-xl",
]

SEQ2SEQ = [
    "bart",
    "bigbird_pegasus",
    "blenderbot",
    "blenderbot-small",
    "led",
    "m2m_100",
    "mbart",
    "mt5",
    "mvp",
    "pegasus",
    "pegasus_x",
    "seamless_m4t",
    "seamless_m4t_v2",
    "umt5",
]

_SIZES = {
    32: "hidden_size d_model n_embd dim embedding_size word_embed_size n_embed embed_dim intermediate_size d_ff "
    "ffn_dim n_inner dff encoder_ffn_dim decoder_ffn_dim d_inner ffn_hidden_size",
    2: "num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers num_decoder_layers "
    "num_encoder_layers num_key_value_heads num_experts_per_tok moe_k",
    4: "num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads attention_heads "
    "num_experts num_local_experts n_routed_experts moe_num_experts qk_rope_head_dim qk_nope_head_dim rotary_dim "
    "state_size",
    8: "head_dim d_kv kv_channels q_lora_rank kv_lora_rank v_head_dim hidden_size_per_layer_input",
    16: "moe_intermediate_size shared_expert_intermediate_size sliding_window",
    1: "n_group topk_group first_k_dense_replace",
    128: "max_position_embeddings n_positions max_seq_len seq_length",
    len(VOCABULARY): "vocab_size vocab_size_per_layer_input",
}


def build_family(folder: Path, family: str) -> Path:
    """Save a tiny model of a family with random weights, and a tokeniser of words."""
    auto = AutoModelForSeq2SeqLM if family in SEQ2SEQ else AutoModelForCausalLM
    return build(folder, lambda: auto.from_config(_tiny_config(family)), "$A </s>")


def _tiny_config(family: str) -> PretrainedConfig:
    """Return the configuration of a family with each size that it has made small."""
    made = CONFIG_MAPPING[family]
    default, aliases = made(), made.attribute_map
    sizes = {name: size for size, names in _SIZES.items() for name in names.split()}
    own = {name for name in sizes if name not in aliases and getattr(default, name, None) is not None}
    unset = {name: None for name in ("layer_types", "mlp_layer_types") if hasattr(default, name)}
    special = {"pad_token_id": PAD, "eos_token_id": EOS, "bos_token_id": CLS}
    settings: dict[str, object] = {**{name: sizes[name] for name in own}, **special, **unset}
    return made(**settings)  # pyright: ignore[reportArgumentType]  (each family has settings of its own)
