"""Open DPR's two encoders (Karpukhin et al. 2020, arXiv 2004.04906) as the BERTs that they contain.

An embedding is the first token's hidden state, unchanged: pooling "cls", without normalisation, temperature 1.
"""

from __future__ import annotations

import torch
from transformers import (
    BertConfig,
    BertModel,
    DPRConfig,
    DPRContextEncoder,
    DPRQuestionEncoder,
    PretrainedConfig,
    PreTrainedModel,
)

from retrograd.types import UserError

__all__ = ["bert_config", "dpr_class", "extract_bert"]


def dpr_class(config: PretrainedConfig) -> type[DPRContextEncoder] | type[DPRQuestionEncoder] | None:
    """Return the class that opens an encoder of DPR; None for any other configuration.

    Raises `UserError` for DPR's reader, and for a projection after the BERT, which no published encoder has.
    """
    if not isinstance(config, DPRConfig):
        return None
    if config.projection_dim:
        raise UserError(
            f"an encoder of DPR with projection_dim {config.projection_dim} is not supported; name one with "
            f"projection_dim 0"
        )
    for kind in (DPRContextEncoder, DPRQuestionEncoder):
        if config.architectures == [kind.__name__]:
            return kind
    raise UserError(
        f"a model of DPR with architectures {config.architectures} is not supported; name a DPRContextEncoder "
        f"or a DPRQuestionEncoder"
    )


def bert_config(config: DPRConfig) -> BertConfig:
    """Return the configuration of the BERT in an encoder of DPR."""
    known = BertConfig().to_dict().keys() - {"model_type", "architectures", "transformers_version"}
    return BertConfig(**{name: value for name, value in config.to_dict().items() if name in known})


def extract_bert(model: PreTrainedModel) -> BertModel:
    """Return the BERT of an encoder of DPR, with a configuration by which it is saved and opened again."""
    assert isinstance(model, DPRContextEncoder | DPRQuestionEncoder)
    encoder = model.ctx_encoder if isinstance(model, DPRContextEncoder) else model.question_encoder
    with torch.random.fork_rng(devices=[]):
        bert = BertModel(bert_config(model.config), add_pooling_layer=False)
    bert.load_state_dict(encoder.bert_model.state_dict())
    return bert
