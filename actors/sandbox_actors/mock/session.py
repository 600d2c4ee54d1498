"""A session: its conversation, its mode and its options, kept in memory and, once there is something, on disk."""

from __future__ import annotations

import os
import time

from .params import invalid
from .store import timestamp
from .wire import chunk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .store import Store
    from .turn import Turn
    from .wire import Json, Object

MODES = {"normal": "Normal", "plan": "Plan"}
OPTIONS = {
    "model": ("Model", {"mock": "Mock", "mock-fast": "Mock Fast"}),
    "mode": ("Mode", MODES),
    "thought_level": ("Thought Level", {"low": "Low", "medium": "Medium", "high": "High"}),
}
# Who said it in the conversation -> what it is when `session/load` replays it. Context is what came before the
# prompt's own text: a transcript that a client hands over to a new session, or an embedded resource.
REPLAYED_AS = {"context": "user_message_chunk", "user": "user_message_chunk", "agent": "agent_message_chunk"}
TITLE_LENGTH = 60


def new_id() -> str:
    return f"mock-{os.urandom(8).hex()}"


class Session:
    def __init__(self, store: Store, session_id: str, cwd: str) -> None:
        self.id = session_id
        self.cwd = cwd
        self.servers: list[Json] = []
        self.entries: list[tuple[str, str]] = []
        self.chosen = {option: next(iter(values)) for option, (_, values) in OPTIONS.items()}
        self.title: str | None = None
        self.turn: Turn | None = None
        self._store = store

    @classmethod
    def restored(cls, store: Store, session_id: str) -> Session | None:
        records = store.read(session_id)
        if not records:
            return None
        session = cls(store, session_id, str(records[0].get("cwd", "/")))
        for record in records[1:]:
            session._apply(record)
        return session

    def fork(self, cwd: str) -> Session:
        """Another session with the same past."""
        twin = Session(self._store, new_id(), cwd)
        for option, value in self.chosen.items():
            twin.choose(option, value)  # also what is so anyway: a session that nothing was said in is on disk by it
        for role, text in self.entries:
            twin.remember(role, text)
        return twin

    def remember(self, role: str, text: str) -> None:
        self._keep({role: text})

    def name(self, title: str) -> None:
        self._keep({"title": title})

    def choose(self, option: str, value: str) -> None:
        if option not in OPTIONS:
            raise invalid(f"no option {option!r}")
        if value not in OPTIONS[option][1]:
            raise invalid(f"{value!r} is no value of {option!r}")
        self._keep({"option": option, "value": value})

    def prompts(self) -> list[tuple[str, str]]:
        """What the user's side has said so far."""
        return [(role, text) for role, text in self.entries if role != "agent"]

    def replay(self) -> list[Object]:
        return [chunk(REPLAYED_AS[role], text) for role, text in self.entries]

    def modes(self) -> Object:
        modes: list[Json] = [{"id": mode, "name": name} for mode, name in MODES.items()]
        return {"currentModeId": self.chosen["mode"], "availableModes": modes}

    def models(self) -> Object:
        models: list[Json] = [{"modelId": model, "name": name} for model, name in OPTIONS["model"][1].items()]
        return {"currentModelId": self.chosen["model"], "availableModels": models}

    def options(self) -> list[Json]:
        return [
            {
                "id": option,
                "name": name,
                "category": option,
                "type": "select",
                "currentValue": self.chosen[option],
                "options": [{"value": value, "name": label} for value, label in values.items()],
            }
            for option, (name, values) in OPTIONS.items()
        ]

    def state(self) -> Object:
        """What the answer to new, load, resume and fork tells about a session."""
        return {"modes": self.modes(), "models": self.models(), "configOptions": self.options()}

    def info(self) -> Object:
        """The session as `session/list` shows it."""
        first = next((text for role, text in self.entries if role == "user"), None)
        title = self.title if self.title is not None else first and first[:TITLE_LENGTH]
        updated = timestamp(self._store.updated_at(self.id))
        return {"sessionId": self.id, "cwd": self.cwd, "title": title, "updatedAt": updated}

    def _keep(self, record: Object) -> None:
        header: Object = {"session": self.id, "cwd": self.cwd, "createdAt": timestamp(time.time())}
        self._store.append(self.id, header, record)
        self._apply(record)

    def _apply(self, record: Object) -> None:
        match record:
            case {"title": str(title)}:
                self.title = title
            case {"option": str(option), "value": str(value)} if option in OPTIONS:
                self.chosen[option] = value
            case _:
                for role, text in record.items():
                    if role in REPLAYED_AS and isinstance(text, str):
                        self.entries.append((role, text))
