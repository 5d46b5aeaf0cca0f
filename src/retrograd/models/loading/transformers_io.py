"""Use transformers without its own output, and write its folders without what a tokenizer remembers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

__all__ = ["quiet_transformers", "save_with_tokenizer"]


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' own bars and load reports out of our output, and restore its settings afterwards."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def save_with_tokenizer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a transformers directory, without the truncation and padding that the tokenizer keeps from its last call.

    With them the files would depend on what was read last, and a tokenizer opened from them would have more settings.
    """
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
    with quiet_transformers():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
