"""Tiny random generators of the families that transformers has: configurations shrunk by the names of their sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from tests.conftest import CLS, EOS, PAD, VOCABULARY, build
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BertConfig,
    EncoderDecoderConfig,
    PretrainedConfig,
    PreTrainedModel,
    T5GemmaConfig,
    T5GemmaModuleConfig,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

__all__ = ["CAUSAL", "SEQ2SEQ", "WITH_OTHER_MEDIA", "Side", "build_family"]

Side = Literal["causal", "seq2seq"]

_CAUSAL = """
afmoe apertus arcee aria_text axk1 axk2 bailing_hybrid bamba bart beam bert bert-generation big_bird bigbird_pegasus
biogpt bitnet blenderbot blenderbot-small bloom camembert codegen cohere cohere2 cohere2_moe cohere_compass_text
ctrl cwm data2vec-text dbrx deepseek_v2 deepseek_v3 deepseek_v32 deepseek_v4 diffllama doge dots1
dots3_note_text electra ernie ernie4_5 ernie4_5_moe exaone4 exaone_moe falcon falcon_h1 falcon_mamba flex_olmo flint
gemma gemma2 gemma3_text gemma3n_text gemma4_text gemma4_unified_text glm glm4 glm4_moe glm4_moe_lite glm_moe_dsa
gpt-sw3 gpt2 gpt_bigcode gpt_neo gpt_neox gpt_neox_japanese gpt_oss gptj granite granite_swa granitemoe granitemoe_swa
granitemoehybrid granitemoeshared helium hrm_text hunyuan_v1_dense hunyuan_v1_moe hy_v3 hy_v4 hyperclovax
inkling2_text inkling_text internlm3 iquestcoder jais2 jamba jetmoe kimi_linear kolibri1 laguna lfm2 lfm2_moe lfm3
llama llama4_text longcat_flash mamba mamba2 marian mbart megatron-bert mellum mimo_v2_flash minicpm3 minimax
minimax_m2 minimax_m3_vl_text ministral ministral3 mistral mixtral modernbert-decoder moshi mpt mvp nanochat nemotron
nemotron_h olmo olmo2 olmo3 olmo_hybrid olmoe openai-gpt opt pegasus persimmon phi phi3 phimoe plbart qwen2 qwen2_moe
qwen3 qwen3_5_moe_text qwen3_5_text qwen3_moe qwen3_next qwen4_exp_text recurrent_gemma rembert roberta
roberta-prelayernorm roc_bert roformer seed_oss smollm3 solar_open stablelm starcoder2 trocr vaultgemma whisper xglm
xlm xlm-roberta xlm-roberta-xl xmod youtu zamba zamba2 zaya
"""
CAUSAL = _CAUSAL.split()
"""Decoder-only families."""

_SEQ2SEQ = """
bart bigbird_pegasus blenderbot blenderbot-small encoder-decoder led longt5 m2m_100 marian mbart mt5 mvp pegasus
pegasus_x plbart seamless_m4t seamless_m4t_v2 switch_transformers t5 t5gemma umt5
"""
SEQ2SEQ = _SEQ2SEQ.split()
"""Families of an encoder and a decoder."""

_WITH_OTHER_MEDIA = """
audioflamingo3 dots3_note emu3 fuyu gemma3 gemma3n gemma4 gemma4_unified git glmasr got_ocr2 granite_speech
granite_speech_plus llama4 mllama moss_transcribe_diarize musicflamingo musicgen musicgen_melody nemo_speechlm
phi4_multimodal qwen2_audio qwen3_5 qwen3_5_moe qwen3_asr qwen4_exp t5gemma2 vibevoice_asr voxtral voxtral_realtime
"""
WITH_OTHER_MEDIA = _WITH_OTHER_MEDIA.split()
"""Families that read or write pictures or sound beside text, which are not tried: this library has text alone."""

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

_READING_BOTH_WAYS_NAMES = """
bert bert-generation big_bird camembert data2vec-text electra ernie megatron-bert rembert reformer roberta
roberta-prelayernorm roc_bert roformer xlm-roberta xlm-roberta-xl xmod
"""
_READING_BOTH_WAYS = _READING_BOTH_WAYS_NAMES.split()
"""Families that read from left to right if their configuration has ``is_decoder``."""

_SIZES_NOT_SET = {
    "bamba": "layer_types",
    "dots3_note_text": "num_key_value_heads head_dim num_attention_heads q_lora_rank kv_lora_rank v_head_dim "
    "qk_nope_head_dim qk_rope_head_dim",
    "falcon": "head_dim",
    "falcon_h1": "layer_types",
    "falcon_mamba": "layer_types",
    "gemma4_text": "head_dim num_key_value_heads",
    "gemma4_unified_text": "head_dim num_key_value_heads",
    "gpt_neo": "num_layers",
    "granitemoehybrid": "layer_types",
    "jamba": "layer_types",
    "lfm2_moe": "layer_types",
    "mamba": "layer_types",
    "mamba2": "layer_types head_dim num_heads",
    "nemotron_h": "layer_types mlp_layer_types num_hidden_layers",
    "prophetnet": "num_hidden_layers",
    "recurrent_gemma": "layer_types",
    "xlnet": "max_position_embeddings",
    "xlstm": "v_head_dim layer_types",
    "zamba": "layer_types",
    "zamba2": "layer_types",
    "zaya": "layer_types",
}
"""Sizes that a family knows under a name without a setting."""

_HEADS = {"num_key_value_heads": 4, "head_dim": 4}
_DELTA_NET = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
_WINDOW_THEN_ALL = ["sliding_attention", "full_attention"]
_GEMMA4 = {"num_key_value_heads": 2, "head_dim": 8, "global_head_dim": 8, "layer_types": _WINDOW_THEN_ALL}
_MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8}
_ROPE = {"rope_type": "default", "rope_theta": 10_000.0}
_MORE: dict[str, dict[str, object]] = {
    "axk1": _HEADS,
    "axk2": _HEADS | {"index_head_dim": 8, "index_n_heads": 2},
    "bailing_hybrid": {
        "layer_types": ["linear_attention", "full_attention"],
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "n_group": 1,
        "topk_group": 1,
        "num_key_value_heads": 4,
    },
    "bamba": _MAMBA | {"attn_layer_indices": [1]},
    "cohere_compass_text": {
        "layer_types": _WINDOW_THEN_ALL,
        "rope_parameters": {"sliding_attention": _ROPE, "full_attention": _ROPE},
    },
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10_000.0, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "deepseek_v2": _HEADS | {"num_experts_per_tok": 2, "topk_method": "greedy", "n_group": 1, "topk_group": 1},
    "deepseek_v3": _HEADS,
    "deepseek_v32": _HEADS,
    "dots3_note_text": {
        **{f"swa_{name}": 2 for name in ("num_attention_heads", "num_key_value_heads")},
        **{f"swa_{name}": 8 for name in ("q_lora_rank", "kv_lora_rank", "head_dim", "v_head_dim", "qk_nope_head_dim")},
        "swa_qk_nope_head_dim": 4,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "q_lora_rank": 8,
        "kv_lora_rank": 8,
        "head_dim": 8,
        "v_head_dim": 8,
        "qk_nope_head_dim": 4,
        "qk_rope_head_dim": 4,
        "index_head_dim": 8,
        "index_n_heads": 2,
        "shared_experts_intermediate_size": 16,
    },
    "dots1": {"n_shared_experts": 1, "n_routed_experts": 4, "num_experts_per_tok": 2},
    "falcon_h1": _MAMBA | {"mamba_d_head": 8, "mamba_d_ssm": 32},
    "fsmt": {"langs": ["en", "de"], "src_vocab_size": len(VOCABULARY), "tgt_vocab_size": len(VOCABULARY)},
    "gemma3n_text": {
        "num_kv_shared_layers": 0,
        "layer_types": _WINDOW_THEN_ALL,
        "altup_num_inputs": 2,
        "laurel_rank": 4,
        "activation_sparsity_pattern": [0.0, 0.0],
    },
    "gemma4_text": _GEMMA4,
    "gemma4_unified_text": _GEMMA4,
    "glm4_moe_lite": _HEADS,
    "glm_moe_dsa": _HEADS,
    "gpt_neo": {"num_layers": 2, "attention_types": [[["global", "local"], 1]], "window_size": 16},
    "granitemoehybrid": _MAMBA | {"layer_types": ["mamba", "attention"]},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8, "moe_topk": 2},
    "jamba": {"attn_layer_offset": 1, "attn_layer_period": 2, "mamba_dt_rank": 2, "use_mamba_kernels": False},
    "kimi_linear": {
        "num_experts_per_tok": 2,
        "num_key_value_heads": 4,
        "linear_head_dim": 8,
        "linear_num_heads": 4,
        "layer_types": ["linear_attention", "full_attention"],
    },
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "lfm3": {"layer_types": ["conv", "full_attention"]},
    "longcat_flash": _HEADS | {"expert_ffn_hidden_size": 16, "zero_expert_num": 2, "moe_topk": 2, "num_layers": 1},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 2},
    "marian": {"decoder_start_token_id": PAD, "decoder_vocab_size": len(VOCABULARY)},
    "minicpm3": _HEADS,
    "ministral": {"head_dim": 8},
    "nemotron": {"head_dim": 8, "num_key_value_heads": 2},
    "nemotron_h": {
        "layers_block_type": ["mamba", "attention", "moe"],
        "mamba_num_heads": 4,
        "mamba_head_dim": 16,
        "ssm_state_size": 8,
        "n_groups": 2,
    },
    "prophetnet": {"num_encoder_attention_heads": 4, "num_decoder_attention_heads": 4, "ngram": 2},
    "qwen3_5_moe_text": _DELTA_NET,
    "qwen3_5_text": _DELTA_NET,
    "qwen3_next": _DELTA_NET,
    "qwen4_exp_text": _DELTA_NET
    | {
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 16,
        "indexer_compress_ratio": 4,
    },
    "recurrent_gemma": {"num_hidden_layers": 3, "lru_width": 32, "attention_window_size": 16},
    "reformer": {
        "axial_pos_shape": [8, 16],
        "axial_pos_embds_dim": [8, 24],
        "attn_layers": ["local", "lsh"],
        "num_buckets": 4,
        "feed_forward_size": 32,
    },
    "roc_bert": {
        "pronunciation_vocab_size": 65,
        "shape_vocab_size": 65,
        "pronunciation_embed_dim": 8,
        "shape_embed_dim": 8,
    },
    "xlm": {"emb_dim": 32, "causal": True},
    "xlnet": {"d_head": 8, "n_head": 4, "d_model": 32},
    "xmod": {"default_language": "en_XX"},
    "youtu": _HEADS,
    "zamba": {
        "num_hidden_layers": 3,
        "layers_block_type": ["mamba", "hybrid", "hybrid"],
        "mamba_d_state": 8,
        "mamba_dt_rank": 2,
        "n_mamba_heads": 2,
        "use_mamba_kernels": False,
    },
    "zamba2": {
        "layers_block_type": ["mamba", "hybrid"],
        "mamba_d_state": 8,
        "mamba_ngroups": 1,
        "n_mamba_heads": 4,
        "mamba_headdim": 16,
    },
    "zaya": {"num_experts_per_tok": 1, "router_hidden_size": 8},
}
"""What else a family needs to be small, or to be built at all."""

_SPECIAL = {"pad_token_id": PAD, "eos_token_id": EOS, "bos_token_id": CLS}
_LEAST_SPREAD = 0.2


def build_family(folder: Path, family: str, side: Side, **changes: object) -> Path:
    """Save a tiny model of a family with random weights, and a tokeniser of words."""
    auto = AutoModelForSeq2SeqLM if side == "seq2seq" else AutoModelForCausalLM
    return build(folder, lambda: _spread(auto.from_config(_tiny_config(family, side, changes))), "$A </s>")


def _spread(model: PreTrainedModel) -> PreTrainedModel:
    """Make small random weights larger, so that what a model reads changes its scores by more than rounding does."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim >= 2 and 0 < float(weight.std()) < _LEAST_SPREAD:
                weight.mul_(_LEAST_SPREAD / weight.std())
    return model


def _tiny_config(family: str, side: Side, changes: dict[str, object]) -> PretrainedConfig:
    """Return the configuration of a family with each size that it has made small."""
    if family in ("encoder-decoder", "t5gemma"):
        return _pair(family)
    made = CONFIG_MAPPING[family]
    default, aliases = made(), made.attribute_map
    left_out = _SIZES_NOT_SET.get(family, "").split()
    sizes = {name: size for size, names in _SIZES.items() for name in names.split()}
    named = [name for name in sizes if name not in left_out and name not in aliases]
    own = {name: sizes[name] for name in named if getattr(default, name, None) is not None}
    unset = {
        name: None for name in ("layer_types", "mlp_layer_types") if name not in left_out and hasattr(default, name)
    }
    decoder = {"is_decoder": True} if side == "causal" and family in _READING_BOTH_WAYS else {}
    settings: dict[str, object] = {**own, **unset, **_SPECIAL, **decoder, **_MORE.get(family, {}), **changes}
    return made(**settings)  # pyright: ignore[reportArgumentType]  (each family has settings of its own)


def _pair(family: str) -> PretrainedConfig:
    """Return the configuration of a family that is put together of two models."""
    sizes = {
        "vocab_size": len(VOCABULARY),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 32,
        "max_position_embeddings": 128,
    }
    if family == "encoder-decoder":
        bert = BertConfig(**sizes, **_SPECIAL)  # pyright: ignore[reportArgumentType]
        return EncoderDecoderConfig.from_encoder_decoder_configs(bert, bert, **_SPECIAL, decoder_start_token_id=CLS)
    part = T5GemmaModuleConfig(**sizes, **_SPECIAL, num_key_value_heads=2, head_dim=8, sliding_window=16)  # pyright: ignore[reportArgumentType]
    return T5GemmaConfig(encoder=part, decoder=part, vocab_size=len(VOCABULARY), **_SPECIAL)  # pyright: ignore[reportArgumentType]
