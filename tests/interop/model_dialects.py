"""Four model APIs, read into one `Conversation` and written from it: what a coding agent's request says, and how the
events of a streamed answer look.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["DIALECTS", "Call", "ChatCompletions", "Conversation", "Dialect", "Json", "Tool"]

Json: TypeAlias = Any  # a foreign document


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    schema: Json

    @property
    def parameters(self) -> Mapping[str, Json]:
        schema: Mapping[str, Json] = self.schema or {}
        found: Mapping[str, Json] = schema.get("properties", {})
        return found


@dataclass(frozen=True, slots=True)
class Conversation:
    """One model request, whatever its dialect."""

    prompts: tuple[str, ...]
    """The user's own prompts, oldest first; what agents add to them, <reminders> and [notes], is left out."""
    results: int
    """Tool results after the last prompt."""
    tools: tuple[Tool, ...]


@dataclass(frozen=True, slots=True)
class Call:
    tool: str
    arguments: Mapping[str, Json]


class Dialect(Protocol):
    """One model API: what its requests say, and the events of a streamed answer."""

    def read(self, body: Json) -> Conversation: ...
    def text_opened(self) -> Iterator[Json]: ...
    def text_said(self, chunk: str) -> Iterator[Json]: ...
    def text_closed(self, text: str) -> Iterator[Json]: ...
    def called(self, call: Call) -> Iterator[Json]: ...


def _texts(content: Json) -> list[str]:
    """The user's texts in a content, block by block: agents merge a cancelled prompt and the next into one message."""
    blocks = [{"text": content}] if isinstance(content, str) else content or []
    texts = [block["text"].strip() for block in blocks if isinstance(block.get("text"), str)]
    return [text for text in texts if text and not text.startswith(("<", "["))]


class ChatCompletions:
    def read(self, body: Json) -> Conversation:
        prompts: list[str] = []
        results = 0
        for message in body["messages"]:
            if message["role"] == "tool":
                results += 1
            elif message["role"] == "user" and (texts := _texts(message["content"])):
                prompts += texts
                results = 0
        functions = [tool["function"] for tool in body.get("tools") or ()]
        tools = tuple(Tool(each["name"], each.get("parameters")) for each in functions)
        return Conversation(tuple(prompts), results, tools)

    def text_opened(self) -> Iterator[Json]:
        yield self._chunk({"role": "assistant", "content": ""})

    def text_said(self, chunk: str) -> Iterator[Json]:
        yield self._chunk({"content": chunk})

    def text_closed(self, text: str) -> Iterator[Json]:
        yield self._chunk({}, "stop")

    def called(self, call: Call) -> Iterator[Json]:
        function = {"name": call.tool, "arguments": json.dumps(call.arguments)}
        made = {"index": 0, "id": _name("call"), "type": "function", "function": function}
        yield self._chunk({"role": "assistant", "tool_calls": [made]})
        yield self._chunk({}, "tool_calls")

    def _chunk(self, delta: Json, finish: str | None = None) -> Json:
        chunk: Json = {
            "id": "chatcmpl-scripted",
            "object": "chat.completion.chunk",
            "created": 0,
            "model": "scripted",
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        }
        if finish is not None:
            chunk["usage"] = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        return chunk


class Messages:
    def read(self, body: Json) -> Conversation:
        prompts: list[str] = []
        results = 0
        for message in body["messages"]:
            if message["role"] != "user":
                continue
            content = message["content"]
            returned = 0 if isinstance(content, str) else sum(block["type"] == "tool_result" for block in content)
            results += returned
            if not returned and (texts := _texts(content)):
                prompts += texts
                results = 0
        tools = tuple(Tool(tool["name"], tool.get("input_schema")) for tool in body.get("tools") or ())
        return Conversation(tuple(prompts), results, tools)

    def text_opened(self) -> Iterator[Json]:
        yield from self._started({"type": "text", "text": ""})

    def text_said(self, chunk: str) -> Iterator[Json]:
        yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": chunk}}

    def text_closed(self, text: str) -> Iterator[Json]:
        yield from self._stopped("end_turn")

    def called(self, call: Call) -> Iterator[Json]:
        yield from self._started({"type": "tool_use", "id": _name("toolu"), "name": call.tool, "input": {}})
        arguments = {"type": "input_json_delta", "partial_json": json.dumps(call.arguments)}
        yield {"type": "content_block_delta", "index": 0, "delta": arguments}
        yield from self._stopped("tool_use")

    def _started(self, block: Json) -> Iterator[Json]:
        message: Json = {
            "id": _name("msg"),
            "type": "message",
            "role": "assistant",
            "model": "scripted",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 1, "output_tokens": 1},
        }
        yield {"type": "message_start", "message": message}
        yield {"type": "content_block_start", "index": 0, "content_block": block}

    def _stopped(self, reason: str) -> Iterator[Json]:
        yield {"type": "content_block_stop", "index": 0}
        delta = {"stop_reason": reason, "stop_sequence": None}
        yield {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 1}}
        yield {"type": "message_stop"}


class Responses:
    def read(self, body: Json) -> Conversation:
        prompts: list[str] = []
        results = 0
        for item in body["input"]:
            if item["type"].endswith("_output"):
                results += 1
            elif item.get("role") == "user" and (texts := _texts(item["content"])):
                prompts += texts
                results = 0
        named = [tool for tool in body.get("tools") or () if "name" in tool]
        tools = tuple(Tool(tool["name"], tool.get("parameters")) for tool in named)
        return Conversation(tuple(prompts), results, tools)

    def text_opened(self) -> Iterator[Json]:
        yield {"type": "response.created", "response": {"id": "resp_scripted"}}
        yield {"type": "response.output_item.added", "output_index": 0, "item": self._message("")}

    def text_said(self, chunk: str) -> Iterator[Json]:
        place = {"item_id": "msg_scripted", "output_index": 0, "content_index": 0}
        yield {"type": "response.output_text.delta", "delta": chunk, **place}

    def text_closed(self, text: str) -> Iterator[Json]:
        yield from self._completed(self._message(text))

    def called(self, call: Call) -> Iterator[Json]:
        name = _name("call")
        arguments = json.dumps(call.arguments)
        yield {"type": "response.created", "response": {"id": "resp_scripted"}}
        yield from self._completed(
            {"type": "function_call", "id": name, "call_id": name, "name": call.tool, "arguments": arguments}
        )

    def _message(self, text: str) -> Json:
        content: Json = [{"type": "output_text", "text": text, "annotations": []}]
        return {"type": "message", "id": "msg_scripted", "role": "assistant", "content": content}

    def _completed(self, item: Json) -> Iterator[Json]:
        usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
        yield {"type": "response.output_item.done", "output_index": 0, "item": item}
        yield {"type": "response.completed", "response": {"id": "resp_scripted", "usage": usage}}


class GenerateContent:
    def read(self, body: Json) -> Conversation:
        prompts: list[str] = []
        results = 0
        for content in body["contents"]:
            returned = sum("functionResponse" in part for part in content["parts"])
            results += returned
            if content["role"] == "user" and not returned and (texts := _texts(content["parts"])):
                prompts += texts
                results = 0
        functions = [each for tool in body.get("tools") or () for each in tool.get("functionDeclarations", ())]
        tools = tuple(Tool(each["name"], each.get("parametersJsonSchema")) for each in functions)
        return Conversation(tuple(prompts), results, tools)

    def text_opened(self) -> Iterator[Json]:
        yield from ()

    def text_said(self, chunk: str) -> Iterator[Json]:
        yield self._part({"text": chunk})

    def text_closed(self, text: str) -> Iterator[Json]:
        yield self._part({"text": ""}, "STOP")

    def called(self, call: Call) -> Iterator[Json]:
        yield self._part({"functionCall": {"name": call.tool, "args": call.arguments}}, "STOP")

    def _part(self, part: Json, finish: str | None = None) -> Json:
        candidate: Json = {"content": {"role": "model", "parts": [part]}, "index": 0}
        if finish is not None:
            candidate["finishReason"] = finish
        usage = {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2}
        return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "scripted"}


DIALECTS: Mapping[str, Dialect] = {
    "/chat/completions": ChatCompletions(),
    "/messages": Messages(),
    "/responses": Responses(),
    ":streamGenerateContent": GenerateContent(),
}


def _name(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(8)}"
