"""The agent: the methods of ACP version 1."""

from __future__ import annotations

import os
import signal
import threading

from . import params as read
from .commands import take
from .mischief import stubbornness
from .router import CANCEL, Router
from .script import Prompt
from .session import Session, new_id
from .store import Store, home
from .turn import Cancelled, Questions, Turn
from .wire import (
    AUTH_REQUIRED,
    INTERNAL_ERROR,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    RESOURCE_NOT_FOUND,
    RpcError,
    Wire,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .router import Method
    from .wire import Json, Object

VERSION = "1"
API_KEY = "MOCK_AGENT_API_KEY"
# What may be asked for with MOCK_AGENT_AUTH: a login of a person, or one by a variable.
LOGINS: dict[str, Object] = {
    "1": {"id": "mock-login", "name": "Log in"},
    "env": {"id": "mock-key", "name": "API key", "type": "env_var", "vars": [{"name": API_KEY}]},
}
OPTIONAL = ("load", "resume", "list", "close", "delete", "fork")


class Agent:
    def __init__(self, wire: Wire, store: Store, questions: Questions, environ: Mapping[str, str]) -> None:
        chosen = environ.get("MOCK_AGENT_CAPABILITIES", ",".join(OPTIONAL)).replace(" ", "").split(",")
        self._capabilities = [name for name in OPTIONAL if name in chosen]
        self._login = LOGINS.get(environ.get("MOCK_AGENT_AUTH", ""))
        self._must_login = self._login is not None
        self._told = environ.get("MOCK_AGENT_TELLS", "modes,configOptions").replace(" ", "").split(",")
        self._environ = environ
        self._wire = wire
        self._store = store
        self._questions = questions
        self._sessions: dict[str, Session] = {}
        self.methods: dict[str, Method] = {
            "initialize": self._initialize,
            "authenticate": self._authenticate,
            "session/new": self._new,
            "session/load": self._load,
            "session/resume": self._resume,
            "session/fork": self._fork,
            "session/list": self._list,
            "session/close": self._close,
            "session/delete": self._delete,
            "session/set_mode": self._set_mode,
            "session/set_model": self._set_model,
            "session/set_config_option": self._set_option,
            "session/prompt": self._prompt,
            CANCEL: self._cancel,
        }

    # -- the connection ------------------------------------------------------------------------------------------

    def _initialize(self, params: Object, request: Object) -> Object:
        # Clients of the earlier mock send the version as a text.
        version = params.get("protocolVersion", 1)
        if isinstance(version, bool) or not isinstance(version, int | float | str):
            raise read.invalid("protocolVersion must be a number")
        sessions: Object = {name: {} for name in self._capabilities if name != "load"}
        login: list[Json] = [] if self._login is None else [self._login]
        return {
            "protocolVersion": 1,
            "agentCapabilities": {
                "loadSession": "load" in self._capabilities,
                "promptCapabilities": {"image": True, "audio": True, "embeddedContext": True},
                "mcpCapabilities": {"http": True, "sse": True},
                "sessionCapabilities": sessions,
            },
            "agentInfo": {"name": "mock", "title": "Mock", "version": VERSION},
            "authMethods": login,
            "_meta": {"pid": os.getpid()},
        }

    def _authenticate(self, params: Object, request: Object) -> Object:
        chosen = read.text(params, "methodId")
        if self._login is not None and chosen != self._login["id"]:
            raise read.invalid(f"no method {chosen!r}")
        if chosen == "mock-key" and API_KEY not in self._environ:
            raise RpcError(AUTH_REQUIRED, f"{API_KEY} is not set")
        self._must_login = False
        return {}

    # -- sessions ------------------------------------------------------------------------------------------------

    def _new(self, params: Object, request: Object) -> Object:
        cwd, servers = read.directory(params, os.getcwd()), read.server_names(params)
        if self._must_login:
            raise RpcError(AUTH_REQUIRED, "Authentication required")
        session = self._open(Session(self._store, new_id(), cwd), servers)
        return {"sessionId": session.id, **self._state(session)}

    def _load(self, params: Object, request: Object) -> Object:
        session = self._reopen("load", params)
        for update in session.replay():
            self._wire.update(session.id, update)
        return self._state(session)

    def _resume(self, params: Object, request: Object) -> Object:
        return self._state(self._reopen("resume", params))

    def _fork(self, params: Object, request: Object) -> Object:
        cwd, servers = read.directory(params, "/"), read.server_names(params)
        source = self._stored("fork", params)
        session = self._open(source.fork(cwd if "cwd" in params else source.cwd), servers)
        return {"sessionId": session.id, **self._state(session)}

    def _list(self, params: Object, request: Object) -> Object:
        self._offered("list")
        cwd = params.get("cwd")
        if not isinstance(cwd, str | None):
            raise read.invalid("cwd must be a string")
        known = {session_id: Session.restored(self._store, session_id) for session_id in self._store.sessions()}
        sessions = [session for session in (known | self._sessions).values() if session]
        shown = [session.info() for session in sessions if cwd is None or session.cwd == cwd]
        shown.sort(key=lambda info: (str(info["updatedAt"]), str(info["sessionId"])), reverse=True)
        return {"sessions": list(shown)}

    def _close(self, params: Object, request: Object) -> Object:
        self._offered("close")
        self._drop(self._session(params))
        return {}

    def _delete(self, params: Object, request: Object) -> Object:
        self._offered("delete")
        session_id = read.text(params, "sessionId")
        if session := self._sessions.get(session_id) or Session.restored(self._store, session_id):
            self._drop(session)
            self._store.delete(session_id)
        return {}

    def _set_mode(self, params: Object, request: Object) -> Object:
        session, mode = self._session(params), read.text(params, "modeId")
        self._choose(session, "mode", mode)
        return {}

    def _set_model(self, params: Object, request: Object) -> Object:
        self._choose(self._session(params), "model", read.text(params, "modelId"))
        return {}

    def _set_option(self, params: Object, request: Object) -> Object:
        session = self._session(params)
        self._choose(session, read.text(params, "configId"), read.text(params, "value"))
        return self._state(session, "configOptions")

    def _state(self, session: Session, *members: str) -> Object:
        """What is told of a session: all that agents tell, or what MOCK_AGENT_TELLS leaves of it."""
        state = session.state()
        return {name: state[name] for name in members or state if name in self._told}

    def _choose(self, session: Session, option: str, value: str) -> None:
        session.choose(option, value)
        if option == "mode" and "modes" in self._told:
            self._wire.update(session.id, {"sessionUpdate": "current_mode_update", "currentModeId": value})
        if "configOptions" in self._told:
            self._wire.update(session.id, {"sessionUpdate": "config_option_update", "configOptions": session.options()})

    # -- turns ---------------------------------------------------------------------------------------------------

    def _prompt(self, params: Object, request: Object) -> None:
        session, prompt = self._session(params), Prompt(read.items(params, "prompt"))
        if session.turn:
            raise RpcError(INVALID_REQUEST, f"session {session.id} is still busy with another prompt")
        session.turn = Turn(session, self._wire, self._questions)
        threading.Thread(target=self._run, args=(session.turn, prompt, request), daemon=True).start()

    def _run(self, turn: Turn, prompt: Prompt, request: Object) -> None:
        try:
            for text in prompt.context:
                turn.session.remember("context", text)
            turn.session.remember("user", "\n".join([prompt.script, *prompt.notes]))
            answer: Object | RpcError = {"stopReason": take(turn, prompt)}
        except Cancelled:
            answer = {"stopReason": "cancelled"}
        except RpcError as error:
            answer = error
        except Exception as error:  # a bug here or a missing program: no turn may end without an answer
            answer = RpcError(INTERNAL_ERROR, f"{type(error).__name__}: {error}")
        turn.session.turn = None  # before the answer, after which the client may prompt again
        if isinstance(answer, RpcError):
            self._wire.refuse(request, answer)
        else:
            self._wire.reply(request, answer)

    def _cancel(self, params: Object, request: Object) -> Object:
        if turn := self._session(params).turn:
            turn.cancel()
        return {}

    # -- which session -------------------------------------------------------------------------------------------

    def _offered(self, capability: str) -> None:
        if capability not in self._capabilities:
            raise RpcError(METHOD_NOT_FOUND, f"Method not found: session/{capability} is not offered")

    def _session(self, params: Object) -> Session:
        """A session that is open in this process."""
        session_id = read.text(params, "sessionId")
        if session := self._sessions.get(session_id):
            return session
        raise _not_found(session_id)

    def _stored(self, capability: str, params: Object) -> Session:
        """A session of this process or, from disk, of an earlier one."""
        self._offered(capability)
        session_id = read.text(params, "sessionId")
        if session := self._sessions.get(session_id) or Session.restored(self._store, session_id):
            return session
        raise _not_found(session_id)

    def _reopen(self, capability: str, params: Object) -> Session:
        session, servers = self._stored(capability, params), read.server_names(params)
        session.cwd = read.directory(params, session.cwd)
        return self._open(session, servers)

    def _open(self, session: Session, servers: list[Json]) -> Session:
        session.servers = servers
        self._sessions[session.id] = session
        return session

    def _drop(self, session: Session) -> None:
        if turn := session.turn:
            turn.cancel()
        self._sessions.pop(session.id, None)


def _not_found(session_id: str) -> RpcError:
    return RpcError(RESOURCE_NOT_FOUND, f"Resource not found: session {session_id}", {"uri": session_id})


def main() -> int:
    """Serve stdin and stdout until the end of input; returns the exit status."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # ends without a traceback
    stubbornness.install()
    wire, questions = Wire(), Questions()
    agent = Agent(wire, Store(home(os.environ)), questions, os.environ)
    Router(wire, questions, agent.methods, echo_everything=os.environ.get("MOCK_AGENT_ECHO") == "1").serve()
    while stubbornness.on:
        signal.pause()
    return 0
