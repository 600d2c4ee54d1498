"""The router: which method a line of input is for, and the echoes that clients of the earlier mock agent know.

Every result has a member ``echoed`` beside its own, requests with an unknown method are answered with that alone, and
``mock/...`` notifications tell of input that is no request: a notification, a response nobody asked for, no JSON.
"""

from __future__ import annotations

from .params import members
from .wire import RpcError, decode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeAlias

    from .turn import Questions
    from .wire import Json, Object, Wire

    # What a method returns is its result; None means that a turn will answer.
    Method: TypeAlias = "Callable[[Object, Object], Object | None]"

# The one method that has no answer, because it is a notification.
CANCEL = "session/cancel"


class Router:
    def __init__(
        self, wire: Wire, questions: Questions, methods: Mapping[str, Method], *, echo_everything: bool
    ) -> None:
        self._wire = wire
        self._questions = questions
        self._methods = methods
        self._echo_everything = echo_everything

    def serve(self) -> None:
        """Until the end of input."""
        for line in self._wire.lines():
            try:
                message = decode(line)
            except ValueError as error:
                raw = line.decode("utf-8", "replace").rstrip("\r\n")
                self._wire.notify("mock/parse_error", {"error": str(error), "raw": raw})
            else:
                self._route(message)

    def _route(self, message: Json) -> None:
        envelope = message if isinstance(message, dict) else {}
        match envelope:
            case {"method": str(name), "id": _}:
                self._note(message, known=name in self._methods)
                self._answer(self._methods.get(name), envelope)
            case {"method": str(name)}:
                self._note(message, known=name == CANCEL)
                if name == CANCEL:
                    self._cancel(envelope)
            case {"id": _}:
                self._note(message, known=True)
                if not self._questions.answer(envelope):
                    outcome: Object = {member: envelope.get(member) for member in ("id", "result", "error")}
                    self._wire.notify("mock/client_response", outcome)
            case _:
                self._note(message, known=False)

    def _note(self, message: Json, *, known: bool) -> None:
        if self._echo_everything or not known:
            self._wire.notify("mock/echo", {"message": message})

    def _answer(self, method: Method | None, request: Object) -> None:
        params = request.get("params")
        try:
            result = method({} if params is None else members(params), request) if method else {}
        except RpcError as error:
            self._wire.refuse(request, error)
        else:
            if result is not None:
                self._wire.reply(request, result)

    def _cancel(self, notification: Object) -> None:
        try:
            self._methods[CANCEL](members(notification.get("params")), notification)
        except RpcError:
            return  # a notification has nobody to tell
