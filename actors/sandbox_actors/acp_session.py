"""One ACP session, as the daemon knows it: how it was opened, what the agent says of it, and what was set in it.

An agent tells of modes, models and config options when it opens a session, and of every change. What somebody has set
since is to be set again where an incarnation does not know it any more. (ACP protocol version 1, Session Modes and
Session Config Options; `models` and `session/set_model` are what agents had before those.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET, Raw, UnsetType

from .envelope import members_of, replace_members, text_of

if TYPE_CHECKING:
    from .envelope import Json

__all__ = ["SETTING", "AcpSession", "ConfigOption", "Told"]

SETTING = ("session/set_mode", "session/set_model", "session/set_config_option")

TOLD_LIMIT = 256 << 10
"""Bytes of one such list that are kept: the longest that a real agent tells is a tenth of this."""


class _Mode(msgspec.Struct):
    id: str


class _Modes(msgspec.Struct, rename="camel"):
    current_mode_id: str | None = None
    available_modes: list[_Mode] = []


class _Model(msgspec.Struct, rename="camel"):
    model_id: str


class _Models(msgspec.Struct, rename="camel"):
    current_model_id: str | None = None
    available_models: list[_Model] = []


class _Choice(msgspec.Struct):
    """A value, or a group of them."""

    value: str | None = None
    options: list[_Choice] = []


class ConfigOption(msgspec.Struct, rename="camel"):
    """What can be set in an ACP session, beside or in the place of modes and models."""

    id: str
    category: str | None = None
    type: str = "select"
    current_value: str | bool | None = None
    options: list[_Choice] = []

    @property
    def values(self) -> list[str]:
        """What a select may be set to."""
        return [
            choice.value
            for group in self.options
            for choice in ([group] if group.value is not None else group.options)
            if choice.value is not None
        ]


class Told(msgspec.Struct, omit_defaults=True):
    """What the agent says can be set in an ACP session, and what is, as its own JSON."""

    modes: Raw | UnsetType = UNSET
    models: Raw | UnsetType = UNSET
    config_options: Raw | UnsetType = UNSET

    @classmethod
    def of(cls, result: Raw | UnsetType) -> Told:
        """What is in the answer to a request that opens a session."""
        given = members_of(result)
        return cls(_kept(given.get("modes")), _kept(given.get("models")), _kept(given.get("configOptions")))

    @property
    def mode(self) -> str | None:
        return self._modes.current_mode_id

    @property
    def modes_offered(self) -> list[str]:
        return [mode.id for mode in self._modes.available_modes]

    @property
    def model(self) -> str | None:
        return self._models.current_model_id

    @property
    def models_offered(self) -> list[str]:
        return [model.model_id for model in self._models.available_models]

    @property
    def options(self) -> list[ConfigOption]:
        """The config options that can be understood."""
        try:
            listed = msgspec.json.decode(self.config_options, type=list[Raw]) if self.config_options else []
        except (msgspec.MsgspecError, RecursionError):
            return []
        found: list[ConfigOption] = []
        for one in listed:
            try:
                found.append(msgspec.json.decode(one, type=ConfigOption))
            except (msgspec.MsgspecError, RecursionError):
                continue
        return found

    def option(self, *, id: str | None = None, category: str | None = None) -> ConfigOption | None:
        """The option of an id, or the first of a category."""
        return next((one for one in self.options if (one.id == id if id else one.category == category)), None)

    def has_changed(self, method: str, given: dict[str, Raw], answer: dict[str, Raw]) -> None:
        """Take in a request that set something, and its answer."""
        if method == "session/set_mode" and (mode := text_of(given.get("modeId"))) is not None:
            self._now("modes", "currentModeId", mode)
            self._now_option(self.option(category="mode"), mode)
        elif method == "session/set_model" and (model := text_of(given.get("modelId"))) is not None:
            self._now("models", "currentModelId", model)
            self._now_option(self.option(category="model"), model)
        elif "configOptions" in answer:
            self.options_are(answer["configOptions"])

    def options_are(self, options: Raw) -> None:
        """Take in the config options as they are now; where they stand for mode and model, these are so, too."""
        self.config_options = _kept(options)
        for category, member, name in (("mode", "modes", "currentModeId"), ("model", "models", "currentModelId")):
            option = self.option(category=category)
            if option is not None and isinstance(option.current_value, str):
                self._now(member, name, option.current_value)

    @property
    def _modes(self) -> _Modes:
        try:
            return msgspec.json.decode(self.modes, type=_Modes) if self.modes else _Modes()
        except (msgspec.MsgspecError, RecursionError):
            return _Modes()

    @property
    def _models(self) -> _Models:
        try:
            return msgspec.json.decode(self.models, type=_Models) if self.models else _Models()
        except (msgspec.MsgspecError, RecursionError):
            return _Models()

    def _now(self, member: str, name: str, value: str) -> None:
        whole: Raw | UnsetType = getattr(self, member)
        if isinstance(whole, Raw) and members_of(whole):
            setattr(self, member, Raw(replace_members(bytes(whole), {name: Raw(msgspec.json.encode(value))})))

    def _now_option(self, option: ConfigOption | None, value: str) -> None:
        if option is None or value not in option.values or not isinstance(self.config_options, Raw):
            return
        listed = msgspec.json.decode(self.config_options, type=list[Raw])
        changed = {"currentValue": Raw(msgspec.json.encode(value))}
        for place, one in enumerate(listed):
            if text_of(members_of(one).get("id")) == option.id:
                listed[place] = Raw(replace_members(bytes(one), changed))
        self.config_options = Raw(msgspec.json.encode(listed))


class AcpSession(msgspec.Struct, omit_defaults=True):
    """See the module.

    Attributes:
      agent_id: the id by which the agent knows it now. It differs from the clients' id after a recovery that had to
        open a new one.
      params: what it was opened with: `cwd`, `mcpServers` and whatever else the client said.
      told: what the agent last said of it.
      mode, model, config: what was set since it was opened, by whomever.
      owes_context: the agent has lost the conversation, and has not been told of it yet.
    """

    agent_id: str
    params: dict[str, Raw]
    told: Told = msgspec.field(default_factory=Told)
    mode: str | None = None
    model: str | None = None
    config: dict[str, str | bool] = {}
    owes_context: bool = False

    def learn(self, method: str, given: dict[str, Raw], result: Raw | UnsetType) -> None:
        """Take in a request that set something in it, which the agent has answered."""
        match method:
            case "session/set_mode":
                self.mode = text_of(given.get("modeId")) or self.mode
            case "session/set_model":
                self.model = text_of(given.get("modelId")) or self.model
            case _:
                value: Json = _value(given.get("value"))
                if (id := text_of(given.get("configId"))) is not None and isinstance(value, str | bool):
                    self.config[id] = value
        self.told.has_changed(method, given, members_of(result))

    def hear(self, kind: str, update: dict[str, Raw]) -> bool:
        """Take in an update of the agent's; tell whether there was anything to learn."""
        if kind == "current_mode_update" and (mode := text_of(update.get("currentModeId"))) is not None:
            self.mode = mode
            self.told.has_changed("session/set_mode", {"modeId": update["currentModeId"]}, {})
            return True
        if kind == "config_option_update" and "configOptions" in update:
            before = {option.id: option.current_value for option in self.told.options}
            self.told.options_are(update["configOptions"])
            for option in self.told.options:
                value = option.current_value
                if value is not None and (value != before.get(option.id) or option.id in self.config):
                    self.config[option.id] = value
            return True
        return False


def _value(raw: Raw | None) -> Json:
    try:
        return None if raw is None else msgspec.json.decode(raw)
    except (msgspec.MsgspecError, RecursionError):
        return None


def _kept(raw: Raw | None) -> Raw | UnsetType:
    # A copy: a Raw out of a decoder keeps the whole message alive that it was cut from.
    text = b"null" if raw is None else bytes(raw)
    return UNSET if text == b"null" or len(text) > TOLD_LIMIT else Raw(text)
