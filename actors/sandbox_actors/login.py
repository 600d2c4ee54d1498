"""Logging in to an agent where that takes no person: with credentials that its environment has already.

Some agents want `authenticate` before they open a session, although all they need is an API key in a variable. Such a
method says so by its type and variables, or is simply called like the variable: `gemini-api-key`. (ACP protocol
version 1, Authentication.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import trio
from msgspec import Raw

from .envelope import members_of, text_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .configuring import CallAgent
    from .envelope import Head, Params

__all__ = ["AuthMethod", "Login", "wants_login"]

AUTH_REQUIRED = -32000

LOGIN_WITHIN = 30.0
"""Seconds for `authenticate`: a key is noted at once, or tried against the vendor."""


class _Variable(msgspec.Struct):
    name: str
    optional: bool = False


class AuthMethod(msgspec.Struct, rename="camel"):
    """A way to log in that an agent offers."""

    id: str
    type: str | None = None
    vars: list[_Variable] = []
    var_name: str | None = None

    def works_with(self, environment: Mapping[str, str]) -> bool:
        """Whether the environment has all that it needs."""
        needed = [variable.name for variable in self.vars if not variable.optional]
        if self.var_name is not None:
            needed.append(self.var_name)
        if self.type not in ("env_var", None, "agent") or (self.type == "env_var" and not needed):
            return False
        if self.type != "env_var":
            needed = [self.id.upper().replace("-", "_").replace(".", "_")]
        return all(environment.get(name, "").strip() for name in needed)


def wants_login(answer: Head) -> bool:
    """Whether the agent refuses a request because nobody has logged in."""
    return bytes(members_of(answer.error).get("code", b"")) == str(AUTH_REQUIRED).encode()


class Login:
    """See the module. Asks the agent, and logs in when that is what the agent wants first.

    Attributes:
      methods: what the agent offers.
    """

    def __init__(self, methods: Sequence[AuthMethod], environment: Mapping[str, str]) -> None:
        self.methods = methods
        self._usable = [method for method in methods if method.works_with(environment)]

    async def ask(self, call: CallAgent, method: str, params: Params) -> Head:
        """The agent's answer to a request."""
        answer = await call(method, params)
        while wants_login(answer) and self._usable:
            chosen = self._usable.pop(0)
            with trio.move_on_after(LOGIN_WITHIN):
                told = await call("authenticate", {"methodId": chosen.id})
                if isinstance(told.result, Raw):
                    answer = await call(method, params)
        return answer

    @staticmethod
    def read(result: Raw | msgspec.UnsetType) -> list[AuthMethod]:
        """The methods in an answer to `initialize`; those that cannot be understood are left out."""
        try:
            listed = msgspec.json.decode(members_of(result).get("authMethods", b"[]"), type=list[Raw])
        except (msgspec.MsgspecError, RecursionError):
            return []
        methods: list[AuthMethod] = []
        for one in listed:
            try:
                methods.append(msgspec.json.decode(one, type=AuthMethod))
            except (msgspec.MsgspecError, RecursionError):
                if (id := text_of(members_of(one).get("id"))) is not None:
                    methods.append(AuthMethod(id, "unknown"))
        return methods
