"""A turn: one running prompt, which can speak, wait, ask the client, and be cancelled at any of these.

A turn does one thing at a time, so one inbox serves every wait: an answer of the client wakes it with a message, a
cancel with None, and a wait that nobody interrupts runs out.
"""

from __future__ import annotations

from itertools import count
from queue import Empty, SimpleQueue
from threading import TIMEOUT_MAX

from .wire import INTERNAL_ERROR, RpcError, chunk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .session import Session
    from .wire import Json, Object, Wire

# A plain echo comes in a few chunks, as the words of a model do.
PIECES = 4


class Cancelled(Exception):
    """The client cancelled the turn."""


class Questions:
    """The requests that turns have sent to the client and that it has not answered yet."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._open: dict[str, Turn] = {}
        self._given_up: set[str] = set()

    def open(self, turn: Turn) -> str:
        question = f"mock-{next(self._numbers)}"
        self._open[question] = turn
        return question

    def give_up(self, question: str) -> None:
        """The answer is not awaited any more. It may still come: ACP has clients answer what a cancel left open."""
        if self._open.pop(question, None):
            self._given_up.add(question)

    def answer(self, response: Object) -> bool:
        """Hand a response to the turn that asked; False if no turn has."""
        question = response.get("id")
        if not isinstance(question, str):
            return False
        if turn := self._open.pop(question, None):
            turn.wake(response)
            return True
        if question in self._given_up:
            self._given_up.remove(question)
            return True
        return False


class Turn:
    def __init__(self, session: Session, wire: Wire, questions: Questions) -> None:
        self.session = session
        self.wire = wire
        self.cancelled = False
        self._questions = questions
        self._inbox: SimpleQueue[Object | None] = SimpleQueue()

    def cancel(self) -> None:
        self.cancelled = True
        self._inbox.put(None)

    def wake(self, response: Object) -> None:
        self._inbox.put(response)

    def check(self) -> None:
        if self.cancelled:
            raise Cancelled

    def sleep(self, seconds: float | None = None) -> None:
        """Wait so long, or for ever; only a cancel ends it earlier."""
        self.check()
        try:
            self._inbox.get(timeout=seconds if seconds is None else min(seconds, TIMEOUT_MAX))
        except Empty:
            return
        raise Cancelled

    def ask(self, method: str, params: Object) -> Json:
        """The client's result. Raises RpcError with the client's error."""
        self.check()
        question = self._questions.open(self)
        self.wire.send({"jsonrpc": "2.0", "id": question, "method": method, "params": params})
        response = self._inbox.get()
        if response is None:
            self._questions.give_up(question)
            raise Cancelled
        match response:
            case {"error": {"code": int(code), "message": str(message)}}:
                raise RpcError(code, message)
            case {"result": result}:
                return result
            case _:
                raise RpcError(INTERNAL_ERROR, "the client's response has neither result nor error")

    def update(self, update: Object) -> None:
        self.check()
        self.wire.update(self.session.id, update)

    def say(self, text: str, pieces: int = 1) -> None:
        """Remember it, then tell it: what a client has seen, a crash cannot take back."""
        self.check()
        self.session.remember("agent", text)
        for piece in _pieces(text, pieces):
            self.update(chunk("agent_message_chunk", piece))

    def echo(self, text: str) -> None:
        self.say(text, PIECES)


def _pieces(text: str, pieces: int) -> Iterator[str]:
    length = max(1, -(-len(text) // pieces))
    for start in range(0, len(text), length):
        yield text[start : start + length]
