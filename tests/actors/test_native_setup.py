"""The terms of a session: kept as they are, and checked before anything begins."""

from __future__ import annotations

import msgspec
import pytest
from msgspec import UNSET, Raw

from sandbox_actors.errors import InvalidRequest
from sandbox_actors.memory import KEYS, Keyed, Memory
from sandbox_actors.native import Setup, check_environment, fingerprint, new_id
from sandbox_actors.redaction import Redactor, telling

FULL = Setup(
    native=True,
    cwd="/work",
    mcp_servers=[Raw(b'{"name":"x"}')],
    env={"A": "b"},
    mode="plan",
    config={"fast": True, "size": "s"},
    tags={"team": "red"},
    idle_limit=0,
    resume="old",
)


def test_the_terms_come_back_as_they_were() -> None:
    again = Memory.load(Memory(setup=FULL, main="m", made_by=("k", "f"), closed=True).dump())
    assert again.setup == FULL
    assert (again.main, again.made_by, again.closed) == ("m", ("k", "f"), True)
    assert Memory.load(b"{}").setup == Setup()
    assert Setup().mcp_servers is UNSET


def test_equal_requests_have_equal_fingerprints() -> None:
    twin = msgspec.structs.replace(FULL, env={"A": "b"}, tags={"team": "red"})
    assert fingerprint(["s", FULL]) == fingerprint(["s", twin])
    assert fingerprint(["s", FULL]) != fingerprint(["t", FULL])
    assert fingerprint([Setup(env={"A": "1", "B": "2"})]) == fingerprint([Setup(env={"B": "2", "A": "1"})])


def test_no_id_comes_twice() -> None:
    ids = {new_id("turn") for _ in range(1000)}
    assert len(ids) == 1000
    assert all(id.startswith("turn_") and len(id) == 25 for id in ids)


@pytest.mark.parametrize("env", [{"": "x"}, {"A=B": "x"}, {"A\0": "x"}, {"A": "\0"}, {"A": "\ud800"}, {"npm_x": "y"}])
def test_variables_that_cannot_be_are_refused(env: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest):
        check_environment(env)


def test_variables_that_can_be_are_not() -> None:
    check_environment({"A": "", "lower.case-odd": "\u00fc\n"})


def test_only_the_newest_keys_are_remembered() -> None:
    memory = Memory()
    for number in range(KEYS + 5):
        memory.keep_key(str(number), Keyed("f", "t", 1, 1))
    assert len(memory.keys) == KEYS
    assert next(iter(memory.keys)) == "5"


def test_any_value_may_be_looked_for_if_it_tells_something() -> None:
    found = telling(["short", "a value to hide", "12345678"])
    assert found == {"a value to hide"}
    assert Redactor(found).redact("it is a value to hide!") == "it is [redacted]!"
