from __future__ import annotations

import pytest
from msgspec import UNSET, Raw

from sandbox_actors.envelope import Head
from sandbox_actors.errors import AgentBusy
from sandbox_actors.in_flight import ANSWERED_REMEMBERED, LIMIT, Call, InFlight, Questions, Waiting
from sandbox_supervisor import Reply

SEVEN = Raw(b"7")
RUN = "run"


def waiting(id: Raw, own_id: Raw = SEVEN) -> Waiting:
    return Waiting(id, own_id, "session/prompt", UNSET, "s", Reply[bytes]())


def call(muted: str | None = None) -> Call:
    return Call("session/load", muted, Reply[Head]())


async def test_a_request_keeps_its_id_while_it_is_the_only_one_with_it() -> None:
    requests = InFlight(RUN)
    for _ in range(2):
        id = requests.id_for(SEVEN)
        assert bytes(id) == b"7"
        requests.add(id, waiting(id))
        requests.discard(id)


async def test_a_second_request_with_the_same_id_gets_one_of_its_own() -> None:
    requests = InFlight(RUN)
    first = waiting(requests.id_for(SEVEN))
    requests.add(first.id, first)
    second = waiting(requests.id_for(SEVEN))
    requests.add(second.id, second)
    assert bytes(second.id) != b"7"
    assert requests.get(second.id) is second
    assert requests.get(first.id) is first
    requests.discard(first.id)
    assert requests.get(first.id) is None


async def test_ids_that_only_look_alike_do_not_collide() -> None:
    requests = InFlight(RUN)
    for text in (b"7", b'"7"', b"7.0"):
        id = requests.id_for(Raw(text))
        assert bytes(id) == text
        requests.add(id, waiting(id, Raw(text)))


async def test_an_id_of_the_daemons_is_never_one_that_a_client_uses() -> None:
    requests = InFlight(RUN)
    greedy = [waiting(requests.id_for(id), id) for id in (Raw(b'"sandbox-agent:run:%d"' % n) for n in range(1, 4))]
    for entry in greedy:
        requests.add(entry.id, entry)
    id = requests.new_id()
    requests.add(id, call())
    assert [requests.get(entry.id) for entry in greedy] == greedy


async def test_an_answer_may_write_the_id_in_another_way() -> None:
    requests = InFlight(RUN)
    entry = waiting(Raw(b'"ab"'))
    requests.add(entry.id, entry)
    assert requests.get(Raw(rb'"\u0061b"')) is entry


async def test_too_many_requests_without_an_answer_are_refused() -> None:
    requests = InFlight(RUN)
    for number in range(LIMIT):
        requests.check()
        requests.add(Raw(b"%d" % number), waiting(Raw(b"%d" % number)))
    with pytest.raises(AgentBusy):
        requests.check()


def test_questions_that_nobody_answers_are_forgotten_in_the_end() -> None:
    questions = Questions()
    for number in range(LIMIT + 5):
        questions.add(Raw(b"%d" % number), "m")
    assert len(questions.clear()) == LIMIT


async def test_clearing_yields_the_clients_requests_in_their_order() -> None:
    requests = InFlight(RUN)
    entries = [waiting(Raw(b"%d" % n)) for n in (3, 1, 2)]
    requests.add(entries[0].id, entries[0])
    requests.add(requests.new_id(), call("s"))
    for entry in entries[1:]:
        requests.add(entry.id, entry)
    assert list(requests.clear()) == entries
    assert list(requests.clear()) == []
    assert requests.get(entries[0].id) is None


def test_the_first_answer_to_a_question_counts_and_later_ones_come_too_late() -> None:
    questions = Questions()
    questions.add(SEVEN, "session/request_permission")
    assert questions.answer(SEVEN)
    assert not questions.answer(SEVEN)
    assert not questions.answer(SEVEN)


def test_an_answer_to_what_nobody_asked_is_left_to_the_agent() -> None:
    questions = Questions()
    questions.add(SEVEN, "session/request_permission")
    assert questions.answer(Raw(b'"7"'))
    assert questions.answer(SEVEN)


def test_a_question_may_use_an_id_again() -> None:
    questions = Questions()
    for _ in range(2):
        questions.add(SEVEN, "session/request_permission")
        assert questions.answer(SEVEN)
        assert not questions.answer(SEVEN)


def test_questions_of_an_agent_that_is_gone_are_settled_and_answers_to_them_late() -> None:
    questions = Questions()
    questions.add(SEVEN, "session/request_permission")
    questions.add(Raw(b'"x"'), "fs/read_text_file")
    assert [(bytes(id), method) for id, method in questions.clear()] == [
        (b"7", "session/request_permission"),
        (b'"x"', "fs/read_text_file"),
    ]
    assert questions.clear() == []
    assert not questions.answer(SEVEN)
    assert not questions.answer(Raw(b'"x"'))


def test_late_answers_are_recognised_for_a_bounded_number_of_questions() -> None:
    questions = Questions()
    for number in range(ANSWERED_REMEMBERED + 1):
        questions.add(Raw(b"%d" % number), "m")
        questions.answer(Raw(b"%d" % number))
    assert not questions.answer(Raw(b"%d" % ANSWERED_REMEMBERED))
    assert not questions.answer(Raw(b"1"))
    assert questions.answer(Raw(b"0"))
