"""A server's refusal, as a sentence (RFC 9457, problem details)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import httpx

__all__ = ["ProblemDocument", "sentence_of"]

HEAD_OF_BODY = 300
"""Characters that are shown of an answer that is no problem document."""


class Details(msgspec.Struct):
    message: str = ""


class ProblemDocument(msgspec.Struct):
    """A problem, as far as people are told of it."""

    detail: str
    details: Details | None = None


def sentence_of(response: httpx.Response) -> str:
    """What an answer with an error status says. Its body must have been read."""
    try:
        problem = msgspec.json.decode(response.content, type=ProblemDocument)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        body = response.text.strip()[:HEAD_OF_BODY]
        return f"the server answered {response.status_code}" + (f": {body}" if body else "")
    sentence = problem.detail
    if problem.details is not None and problem.details.message not in sentence:
        sentence += f": {problem.details.message}"  # some say in `detail` no more than their title
    return sentence + ("; set SANDBOX_AGENT_TOKEN" if response.status_code == 401 else "")
