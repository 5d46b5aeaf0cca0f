"""The shapes of OpenAI's API: chat completions, whole or streamed, embeddings and models.

What a run cannot do is refused by name; what would change nothing, as an answer is never sampled, is read and ignored.
Beside their own fields completions have ``retrograd``: the passages with p(z|x) and p(z|x,y), and the confidence.
"""

from __future__ import annotations

import base64
import itertools
import json
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from retrograd.data.examples import Turn
from retrograd.serving.requests import require_texts
from retrograd.types import UserError
from retrograd.util.guards import JsonObject, JsonValue, describe_value, suggest_name

__all__ = [
    "ChatRequest",
    "EmbeddingsRequest",
    "chat_chunk",
    "chat_completion",
    "embeddings_record",
    "model_records",
    "new_id",
    "read_chat",
    "read_embeddings",
    "server_event",
    "usage_chunk",
]

_IGNORED_IN_CHATS = (
    "temperature",
    "top_p",
    "top_k",
    "seed",
    "user",
    "metadata",
    "store",
    "max_tokens",
    "max_completion_tokens",
    "presence_penalty",
    "frequency_penalty",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
)
"""Fields that change nothing: answers are the most likely ones, as long as those that the run was trained on."""
_IGNORED_IN_EMBEDDINGS = ("user",)
_MOST_MESSAGES = 200
_ROLES = {"user": "user", "assistant": "agent", "system": "", "developer": ""}
"""The role of a dialogue that each role of a message is; "" is not read."""


@dataclass(frozen=True)
class ChatRequest:
    """A chat: the turns of user and assistant, the last one the user's; whether a stream ends with counts of tokens."""

    model: str
    turns: tuple[Turn, ...]
    stream: bool = False
    k: int | None = None
    with_usage: bool = False


@dataclass(frozen=True)
class EmbeddingsRequest:
    """Texts to embed, as numbers or as base64 of 32-bit floats; ``side`` is the tower of the retriever."""

    model: str
    texts: tuple[str, ...]
    encoding: Literal["float", "base64"] = "float"
    side: Literal["query", "passage"] = "query"


def read_chat(body: JsonObject) -> ChatRequest:
    """Return a chat. Raises `UserError` that names the field."""
    _require_known(body, ("model", "messages", "stream", "stream_options", "n", "k"), _IGNORED_IN_CHATS)
    stream, k, n = body.get("stream"), body.get("k"), body.get("n")
    if stream is not None and not isinstance(stream, bool):
        raise UserError(f"stream is {describe_value(stream)}; expected true or false")
    if k is not None and (type(k) is not int or not 0 <= k <= 1000):
        raise UserError(f"k is {describe_value(k)}; expected how many passages are read, 0 to 1,000")
    if n not in (None, 1) or isinstance(n, bool):
        raise UserError(f"n is {describe_value(n)}; a run has one answer, so expected 1")
    assert k is None or isinstance(k, int)
    with_usage = _read_stream_options(body.get("stream_options"))
    return ChatRequest(_read_model(body), _read_messages(body.get("messages")), bool(stream), k, with_usage)


def _read_stream_options(value: JsonValue) -> bool:
    """Return whether counts of tokens are asked for at the end of a stream."""
    if value is None:
        return False
    if not isinstance(value, dict):
        raise UserError(f"stream_options is {describe_value(value)}; expected an object with include_usage")
    _require_known(value, ("include_usage",), ("include_obfuscation",), "stream_options: ")
    wanted = value.get("include_usage", False)
    if not isinstance(wanted, bool):
        raise UserError(f"stream_options: include_usage is {describe_value(wanted)}; expected true or false")
    return wanted


def _read_messages(value: JsonValue) -> tuple[Turn, ...]:
    if not isinstance(value, list) or not 0 < len(value) <= _MOST_MESSAGES:
        raise UserError(f"messages is {describe_value(value)}; expected a list of 1 to {_MOST_MESSAGES} messages")
    turns = [turn for number, one in enumerate(value) if (turn := _read_message(one, f"messages[{number}]"))]
    if not turns or turns[-1].role != "user":
        raise UserError("messages: the last one, which is answered, must be the user's")
    return tuple(turns)


def _read_message(value: JsonValue, where: str) -> Turn | None:
    """Return a message as a turn; None for those of the system, which no run was trained to read."""
    if not isinstance(value, dict):
        raise UserError(f"{where} is {describe_value(value)}; expected an object with role and content")
    unknown = next((name for name in value if name not in ("role", "content", "name", "refusal", "annotations")), None)
    if unknown is not None:
        raise UserError(f"{where}: {unknown!r} is not supported; send role and content")
    role, content = value.get("role"), value.get("content")
    if not isinstance(role, str) or role not in _ROLES:
        raise UserError(f"{where}: role is {describe_value(role)}; expected one of {', '.join(map(repr, _ROLES))}")
    if isinstance(content, list):
        content = "".join(_read_part(part, f"{where}: content[{number}]") for number, part in enumerate(content))
    if not isinstance(content, str):
        raise UserError(f"{where}: content is {describe_value(content)}; expected text")
    return Turn(_ROLES[role], content) if _ROLES[role] else None


def _read_part(value: JsonValue, where: str) -> str:
    text = value.get("text") if isinstance(value, dict) and value.get("type") == "text" else None
    if not isinstance(text, str):
        raise UserError(f'{where} is {describe_value(value)}; expected {{"type": "text", "text": …}}')
    return text


def read_embeddings(body: JsonObject, dimension: int) -> EmbeddingsRequest:
    """Return texts to embed in ``dimension`` numbers. Raises `UserError` that names the field."""
    _require_known(body, ("model", "input", "encoding_format", "dimensions", "input_type"), _IGNORED_IN_EMBEDDINGS)
    value, encoding = body.get("input"), body.get("encoding_format") or "float"
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list):
        raise UserError(f"input is {describe_value(value)}; expected a text or a list of texts")
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise UserError(f"input[{number}] is {describe_value(text)}; expected text, not tokens")
    named = tuple(text for text in texts if isinstance(text, str))
    require_texts("input", named)
    if encoding not in ("float", "base64"):
        raise UserError(f"encoding_format is {describe_value(encoding)}; expected 'float' or 'base64'")
    if body.get("dimensions") not in (None, dimension):
        raise UserError(f"dimensions is {describe_value(body['dimensions'])}; this retriever has {dimension}")
    side = body.get("input_type") or "query"
    if side not in ("query", "passage"):
        raise UserError(f"input_type is {describe_value(side)}; expected 'query' or 'passage'")
    return EmbeddingsRequest(
        _read_model(body),
        named,
        "base64" if encoding == "base64" else "float",
        "passage" if side == "passage" else "query",
    )


def _read_model(body: JsonObject) -> str:
    model = body.get("model")
    if not isinstance(model, str):
        raise UserError(f"model is {describe_value(model)}; expected the name of a run, as /v1/models has it")
    return model


def _require_known(body: JsonObject, own: Sequence[str], ignored: Sequence[str], where: str = "") -> None:
    for name in body:
        if name not in own and name not in ignored:
            raise UserError(f"{where}{name[:100]!r} is not supported; {suggest_name(name[:100], [*own, *ignored])}")


# ---- responses -------------------------------------------------------------------------------------------------------

_NUMBERS = itertools.count(1)


def new_id() -> str:
    """Return a name for a completion that no other of this process has."""
    return f"chatcmpl-{next(_NUMBERS)}"


def chat_completion(model: str, answer: JsonObject) -> JsonObject:
    """Return a whole completion of an answer's record, whose other fields are in ``retrograd``."""
    text = answer["answer"]
    choice: JsonObject = {
        "index": 0,
        "message": {"role": "assistant", "content": text, "refusal": None},
        "logprobs": None,
        "finish_reason": "stop",
    }
    return {**_head(new_id(), "chat.completion", model), "choices": [choice], "usage": _usage(), "retrograd": answer}


def chat_chunk(
    id_: str, model: str, delta: Mapping[str, JsonValue], is_last: bool = False, extra: JsonObject | None = None
) -> JsonObject:
    """Return one piece of a streamed completion; ``extra`` is its field ``retrograd``."""
    choice: JsonObject = {
        "index": 0,
        "delta": dict(delta),
        "logprobs": None,
        "finish_reason": "stop" if is_last else None,
    }
    chunk: JsonObject = {**_head(id_, "chat.completion.chunk", model), "choices": [choice]}
    if extra is not None:
        chunk["retrograd"] = extra
    return chunk


def usage_chunk(id_: str, model: str) -> JsonObject:
    """Return the piece after the last, which has counts of tokens and no choice."""
    return {**_head(id_, "chat.completion.chunk", model), "choices": [], "usage": _usage()}


def _head(id_: str, kind: str, model: str) -> JsonObject:
    return {"id": id_, "object": kind, "created": int(time.time()), "model": model}


def _usage() -> JsonObject:
    """Return counts of tokens. They are 0: passages are read one by one, so that no single prompt has a length."""
    return {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


def embeddings_record(
    model: str, encoding: Literal["float", "base64"], vectors: Sequence[Sequence[float]]
) -> JsonObject:
    """Return embeddings in the encoding that was asked for."""
    data: list[JsonValue] = []
    for number, vector in enumerate(vectors):
        packed = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")
        value: JsonValue = packed if encoding == "base64" else [*vector]
        data.append({"object": "embedding", "index": number, "embedding": value})
    return {
        "object": "list",
        "data": data,
        "model": model,
        "usage": {"prompt_tokens": 0, "total_tokens": 0},
    }


def model_records(names: Sequence[str]) -> JsonObject:
    """Return the runs as models."""
    data: list[JsonValue] = [{"id": name, "object": "model", "created": 0, "owned_by": "retrograd"} for name in names]
    return {"object": "list", "data": data}


def server_event(record: JsonObject | str) -> bytes:
    """Return one event of a stream: a record, or the word that ends it."""
    text = record if isinstance(record, str) else json.dumps(record, ensure_ascii=False, allow_nan=False)
    return f"data: {text}\n\n".encode()
