"""The tree of errors has a class for everything that a server says, and none that nobody says."""

from __future__ import annotations

import copy
import pickle

import pytest

import sandbox_agent
from sandbox_agent import errors
from sandbox_agent.errors import (
    AgentError,
    ApiError,
    Conflict,
    InvalidRequest,
    NotFound,
    QueueFull,
    SandboxAgentError,
    ServerError,
    SessionNotFound,
    TokenInvalid,
    Unavailable,
    api_error,
)
from sandbox_http.problems import TABLE, Problem


def leaves(kind: type[ApiError] = ApiError) -> list[type[ApiError]]:
    return [kind, *(leaf for below in kind.__subclasses__() for leaf in leaves(below))]


@pytest.mark.parametrize("name", TABLE)
def test_each_problem_of_the_server_has_a_class_of_its_own(name: str) -> None:
    problem = Problem(name, "a sentence")
    error = api_error(problem.status, problem.members)
    assert type(error).kind == name
    assert error.type == name
    assert error.status == problem.status
    assert "a sentence" in str(error)
    assert error.problem == problem.members


def test_each_class_stands_for_a_problem_of_the_server() -> None:
    told = [leaf.kind for leaf in leaves() if leaf.kind]
    assert set(told) == set(TABLE)
    assert len(told) == len(set(told))


def test_all_errors_are_handed_on_by_the_package() -> None:
    for leaf in leaves():
        assert getattr(errors, leaf.__name__) is leaf
        assert leaf.__name__ in errors.__all__


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "BadRequest"),
        (401, "Unauthorized"),
        (404, "NotFound"),
        (409, "Conflict"),
        (418, "BadRequest"),
        (429, "Unavailable"),
        (500, "ServerError"),
        (502, "Unavailable"),
        (503, "Unavailable"),
        (504, "Unavailable"),
    ],
)
def test_an_unknown_type_is_told_by_its_status(status: int, kind: str) -> None:
    error = api_error(status, {"type": "urn:sandbox-agent:error:of_tomorrow", "title": "Tomorrow"})
    assert type(error).__name__ == kind
    assert error.type == "of_tomorrow"
    assert str(error) == "Tomorrow"


def test_classes_say_how_to_react() -> None:
    assert issubclass(QueueFull, Unavailable)
    assert issubclass(SessionNotFound, NotFound)
    assert issubclass(errors.SessionClosed, Conflict)
    assert issubclass(errors.PortUnreachable, ServerError)
    assert issubclass(InvalidRequest, errors.BadRequest)
    assert issubclass(ApiError, SandboxAgentError)


def test_what_was_wrong_is_told_once() -> None:
    error = api_error(401, Problem("token_invalid", "the token has ended").members)
    assert isinstance(error, TokenInvalid)
    assert str(error) == "token invalid: the token has ended"
    assert str(api_error(409, Problem("conflict", "it is there").members)) == "conflict: it is there"


@pytest.mark.parametrize("problem", [{}, {"type": None}, {"type": 7, "detail": 3}, {"details": "no object"}])
def test_a_problem_that_is_none_is_still_an_error(problem: dict[str, object]) -> None:
    error = api_error(500, problem)
    assert isinstance(error, ServerError)
    assert str(error)


def test_an_error_of_the_agent_tells_whose_it_is() -> None:
    ours = AgentError(-32603, "gone", {"type": "urn:sandbox-agent:error:agent_process_exited"})
    theirs = AgentError(-32602, "no such mode", ["anything"])
    assert (ours.type, ours.code, str(ours)) == ("agent_process_exited", -32603, "gone")
    assert (theirs.type, theirs.data) == ("", ["anything"])


def test_every_public_name_is_there() -> None:
    for name in sandbox_agent.__all__:
        assert getattr(sandbox_agent, name) is not None
        assert name in dir(sandbox_agent)
    with pytest.raises(AttributeError, match="no_such_name"):
        sandbox_agent.no_such_name  # noqa: B018


@pytest.mark.parametrize(
    "error",
    [
        api_error(429, {"type": "urn:sandbox-agent:error:queue_full", "detail": "no"}, 1.5),
        AgentError(-32000, "no", {"type": "x:agent_limit"}),
        errors.LeaseHeld("no", "backend-1", 2.0),
        errors.SandboxDestroyed("no"),
    ],
)
def test_errors_get_to_other_processes_as_they_are(error: Exception) -> None:
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(other) is type(error)
        assert str(other) == str(error)
        assert vars(other) == vars(error)
