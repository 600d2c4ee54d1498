from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Raw

from sandbox_actors.envelope import (
    Head,
    InvalidEnvelope,
    decode,
    error_response,
    id_text,
    notification,
    replace_members,
    request,
)
from sandbox_actors.errors import PROBLEM_PREFIX, AgentProcessExited, AgentUnavailable
from sandbox_supervisor.process import ExitStatus

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
MEMBERS = ("id", "method", "params", "result")
objects = st.dictionaries(st.sampled_from([*MEMBERS, "jsonrpc", "error", "x"]) | st.text(), json_values, max_size=8)


def raw(text: str) -> Raw:
    return Raw(text.encode())


@given(objects, st.booleans(), st.sampled_from([None, 2]))
def test_the_head_is_the_text_of_its_members(value: dict[str, Any], ascii: bool, indent: int | None) -> None:
    head = decode(json.dumps(value, ensure_ascii=ascii, indent=indent).encode())
    for name in MEMBERS:
        text = getattr(head, name)
        assert (text is not UNSET) == (name in value)
        if isinstance(text, Raw):
            assert json.loads(bytes(text)) == value[name]


@pytest.mark.parametrize(
    ("text", "request_id", "is_response", "method"),
    [
        ('{"jsonrpc":"2.0","id":7,"method":"a/b","params":{}}', b"7", False, "a/b"),
        ('{"jsonrpc":"2.0","method":"a/b"}', None, False, "a/b"),
        ('{"jsonrpc":"2.0","id":"7","result":null}', None, True, ""),
        ('{"jsonrpc":"2.0","id":7,"error":{"code":1,"message":"no"}}', None, True, ""),
        ('{"method":7}', None, False, ""),
        ("{}", None, False, ""),
    ],
)
def test_requests_notifications_and_responses_are_told_apart(
    text: str, request_id: bytes | None, is_response: bool, method: str
) -> None:
    head = decode(text.encode())
    assert (None if head.request_id is None else bytes(head.request_id)) == request_id
    assert (head.is_response, head.method_name) == (is_response, method)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b'{"method":"\xff"}', "not UTF-8: invalid start byte at byte 11"),
        (b'{"method":"\xed\xa0\xbd"}', "not UTF-8"),
        (b"\xff\xfe{\x00}\x00", "not UTF-8"),
        (b"[1]", "not a JSON object"),
        (b'"text"', "not a JSON object"),
        (b"7", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'["\\ud83d"]', "not a JSON object"),
        (b"", None),
        (b"Loading the model...", None),
        (b'{"id":1', None),
        (b'{"id":1}{"id":2}', None),
        (b"{'id':1}", None),
        (b'{"id":NaN}', None),
        (b'{"text":"\\ud83d"', None),
        (b'{"text":"\\uZZZZ"}', None),
    ],
)
def test_what_is_no_json_object_is_refused_and_the_reason_told(text: bytes, reason: str | None) -> None:
    with pytest.raises(InvalidEnvelope, match=reason):
        decode(text)


@pytest.mark.parametrize("member", ["params", "other"])
@pytest.mark.parametrize("tail", [b"", b',"text":"\\ud83d"'])
def test_deep_nesting_is_refused(member: str, tail: bytes) -> None:
    deep = b"[" * 200_000 + b"]" * 200_000
    with pytest.raises(InvalidEnvelope):
        decode(b'{"id":1,"%s":%s%s}' % (member.encode(), deep, tail))


@given(st.binary())
def test_any_bytes_are_either_read_or_refused(text: bytes) -> None:
    with suppress(InvalidEnvelope):
        assert isinstance(decode(text), Head)


@pytest.mark.parametrize("lone", [r"\ud83d", r"\uDE00", r"\ud83d\ud83d", r"\ud83dx", r"\\\ud83d", r"a\ud83d\n"])
def test_half_of_a_surrogate_pair_is_accepted(lone: str) -> None:
    head = decode(b'{"id":7,"method":"m","params":{"sessionId":"s","text":"%s"}}' % lone.encode())
    assert head.method_name == "m"
    assert head.request_id == raw("7")
    assert head.member("params", "sessionId") == "s"
    assert isinstance(head.member("params", "text"), str)


def test_half_of_a_surrogate_pair_does_not_harm_its_neighbours() -> None:
    head = decode(
        rb'{"id":1e400,"method":"\ud83d\ude00","params":{"n":1.10,"pair":"\ud83d\ude00","t":"\\ud83d \ud83d"}}'
    )
    assert head.request_id == raw("1e400")
    assert head.method_name == "\N{GRINNING FACE}"
    assert head.member("params", "pair") == "\N{GRINNING FACE}"
    assert head.member("params", "t") == "\\ud83d \N{REPLACEMENT CHARACTER}"


def test_an_id_and_its_text_and_its_fraction_are_three_ids() -> None:
    assert len({id_text(raw(text)) for text in ("7", '"7"', "7.0")}) == 3


@pytest.mark.parametrize(
    ("one", "other"),
    [('"ab"', r'"\u0061b"'), ('"a/b"', r'"a\/b"'), ("7.0", "70e-1"), ("-7", "-7"), ('{"a":1,"b":2}', '{"b":2, "a":1}')],
)
def test_two_ways_to_write_an_id_are_one_id(one: str, other: str) -> None:
    assert id_text(raw(one)) == id_text(raw(other))


@given(st.integers(-(2**53), 2**53) | st.text(), st.integers(-(2**53), 2**53) | st.text())
def test_ids_are_the_same_if_and_only_if_their_values_are(one: int | str, other: int | str) -> None:
    same = id_text(raw(json.dumps(one))) == id_text(raw(json.dumps(other)))
    assert same == (type(one) is type(other) and one == other)
    assert id_text(raw(json.dumps(one))) == id_text(Raw(msgspec.json.encode(one)))


@pytest.mark.parametrize("text", [r'"\ud83d"', "1e400", "[" * 100_000 + "]" * 100_000, "null", "true"])
def test_an_odd_id_still_has_a_text(text: str) -> None:
    assert id_text(raw(text))


def test_replacing_a_member_keeps_digits_order_and_text_of_the_others() -> None:
    text = rb'{"jsonrpc":"2.0","params":{"n":1.10,"big":123456789012345678901234567890,"e":1E5,"t":"\u00e4"},"id":7}'
    replaced = replace_members(text, {"id": raw('"new"')})
    assert replaced == text.replace(b'"id":7', b'"id":"new"')


def test_a_member_that_was_not_there_is_added() -> None:
    assert replace_members(b'{"a":1}', {"id": raw("7")}) == b'{"a":1,"id":7}'


@given(objects, st.sampled_from(MEMBERS), json_values)
def test_only_the_replaced_member_changes(value: dict[str, Any], name: str, new: object) -> None:
    replaced = replace_members(json.dumps(value).encode(), {name: raw(json.dumps(new))})
    assert json.loads(replaced) == {**value, name: new}
    assert list(json.loads(replaced)) == list({**value, name: new})


def test_a_member_is_replaced_also_beside_half_of_a_surrogate_pair() -> None:
    replaced = replace_members(rb'{"id":7,"n":1.10,"text":"cut \ud83d","pair":"\ud83d\ude00"}', {"id": raw("8")})
    assert decode(replaced).id == raw("8")
    assert b'"n":1.10' in replaced
    assert json.loads(replaced)["pair"] == "\N{GRINNING FACE}"
    assert json.loads(replaced)["text"].startswith("cut ")


@pytest.mark.parametrize("params", ["[1]", "7", '"sessionId"', "null"])
def test_a_member_of_what_is_no_object_is_none(params: str) -> None:
    head = decode(b'{"params":%s}' % params.encode())
    assert head.member("params", "sessionId") is None
    assert head.member("result", "sessionId") is None


def test_what_the_daemon_says_is_json_rpc() -> None:
    assert json.loads(request(raw('"x:1"'), "session/load", {"sessionId": "s"})) == {
        "jsonrpc": "2.0",
        "id": "x:1",
        "method": "session/load",
        "params": {"sessionId": "s"},
    }
    assert json.loads(notification("_a/b", {"n": None})) == {"jsonrpc": "2.0", "method": "_a/b", "params": {"n": None}}


def test_an_error_in_the_agents_place_says_what_a_program_can_act_on() -> None:
    exited = json.loads(error_response(raw('"7"'), AgentProcessExited(ExitStatus(None, 9), ["last words"])))
    assert exited["id"] == "7"
    assert exited["error"]["code"] == -32603
    assert exited["error"]["message"] == "the agent process was ended by signal 9 before it answered"
    assert exited["error"]["data"] == {
        "type": PROBLEM_PREFIX + "agent_process_exited",
        "detail": exited["error"]["message"],
        "signal": 9,
        "stderr": ["last words"],
    }
    unavailable = json.loads(error_response(raw("7"), AgentUnavailable("not now", 0.25)))
    assert unavailable["error"]["data"]["retryAfterMs"] == 250
