"""Who listens: real sockets of this process and of children, and the kernel's table as text."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
import trio

from sandbox_actors.ports import NobodyListens, listeners, parse_sockets, wait_for_listener

TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0000000000000000 100
   1: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 222 1 0000000000000000 100
   2: 0100007F:0BB8 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 333 1 0000000000000000 100
   3: 0200A8C0:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 444 1 0000000000000000 100
 broken
"""
TABLE6 = """\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when
   0: 00000000000000000000000001000000:0BB9 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 555 1 0 100
   1: 00000000000000000000000000000000:0BBA 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 666 1 0 100
   2: 0000000000000000FFFF00000100007F:0BBB 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 777 1 0 100
   3: 000080FE000000000000000001000000:0BBC 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 888 1 0 100
"""

needs_little_endian = pytest.mark.skipif(sys.byteorder != "little", reason="the tables are those of such a machine")


@needs_little_endian
def test_the_table_tells_address_port_and_inode_of_what_listens() -> None:
    found = [(str(each.address), each.port, each.inode, each.on_loopback) for each in parse_sockets(TABLE)]
    assert found == [
        ("127.0.0.1", 3000, "111", True),
        ("0.0.0.0", 80, "222", True),
        ("192.168.0.2", 8080, "444", False),
    ]


@needs_little_endian
def test_so_does_the_table_of_ipv6() -> None:
    found = [(str(each.address), each.port, each.on_loopback) for each in parse_sockets(TABLE6)]
    assert found == [
        ("::1", 3001, True),
        ("::", 3002, True),
        ("::ffff:7f00:1", 3003, True),
        ("fe80::1", 3004, False),
    ]


async def test_a_listener_is_told_with_its_process() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (found,) = [each for each in await listeners() if each.port == port]
        assert found.addresses == ("127.0.0.1",)
        assert found.on_loopback
        assert found.pid == os.getpid()
        assert found.command is not None
        assert "py" in found.command
        assert port not in [each.port for each in await listeners(without=[port])]
    assert port not in [each.port for each in await listeners()]


async def test_both_addresses_of_a_port_are_one_listener() -> None:
    with socket.create_server(("127.0.0.1", 0)) as four:
        port = four.getsockname()[1]
        with socket.create_server(("::1", port), family=socket.AF_INET6):
            (found,) = [each for each in await listeners() if each.port == port]
            assert found.addresses == ("127.0.0.1", "::1")


async def test_waiting_ends_as_soon_as_a_child_listens_and_does_not_connect_to_it() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = (
        "import socket, sys\n"
        "sys.stdin.readline()\n"
        f"server = socket.create_server(('127.0.0.1', {port}))\n"
        "sys.stdin.readline()\n"
        "server.settimeout(0.1)\n"
        "try:\n"
        "    server.accept(); print('somebody came')\n"
        "except TimeoutError:\n"
        "    print('nobody came')\n"
    )
    child = await trio.lowlevel.open_process(
        [sys.executable, "-I", "-S", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdin is not None
    assert child.stdout is not None
    with trio.fail_after(20):
        with pytest.raises(NobodyListens, match=rf"nobody has listened on port {port} within 0\.05 s"):
            await wait_for_listener(port, 0.05)
        await child.stdin.send_all(b"\n")
        found = await wait_for_listener(port, 15)
        assert (found.port, found.pid) == (port, child.pid)
        assert found == await wait_for_listener(port, 0)
        async with child.stdin, child.stdout:
            await child.stdin.send_all(b"\n")
            assert await child.stdout.receive_some() == b"nobody came\n"
        await child.wait()


async def test_who_listens_on_other_addresses_only_is_not_waited_for() -> None:
    with socket.create_server(("127.9.9.9", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(NobodyListens):
            await wait_for_listener(port, 0)
