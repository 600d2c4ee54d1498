"""Params: a request's parameters, read one member at a time and refused when their type is wrong."""

from __future__ import annotations

from .wire import INVALID_PARAMS, RpcError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .wire import Json, Object


def invalid(problem: str) -> RpcError:
    return RpcError(INVALID_PARAMS, f"Invalid params: {problem}")


def members(value: Json, where: str = "params") -> Object:
    if not isinstance(value, dict):
        raise invalid(f"{where} must be an object")
    return value


def text(params: Object, name: str, default: str | None = None) -> str:
    value = params.get(name, default)
    if not isinstance(value, str):
        raise invalid(f"{name} must be a string")
    return value


def items(params: Object, name: str, default: list[Json] | None = None) -> list[Json]:
    value = params.get(name, default)
    if not isinstance(value, list):
        raise invalid(f"{name} must be an array")
    return value


def directory(params: Object, default: str) -> str:
    path = text(params, "cwd", default)
    if not path.startswith("/"):
        raise invalid("cwd must be an absolute path")
    return path


def server_names(params: Object) -> list[Json]:
    """The names of the `mcpServers`, which the mock agent takes note of and never starts."""
    return [text(members(server, "mcpServers[]"), "name") for server in items(params, "mcpServers", [])]
