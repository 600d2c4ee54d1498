"""What no client should send: broken, wrong, too long, forged. What is no HTTP at all comes with what may answer it."""

from __future__ import annotations

__all__ = [
    "ACCEPTS",
    "BODIES",
    "EVENT_IDS",
    "HOSTS",
    "MALFORMED",
    "METHODS",
    "NAMES",
    "ORIGINS",
    "PARAMETERS",
    "QUERIES",
    "TARGETS",
    "TYPES",
]

BODIES: list[bytes] = [
    b"",
    b" ",
    b"{",
    b"[]",
    b"null",
    b"7",
    b'"{}"',
    b"{}",
    b"{}{}",
    b"NaN",
    b'{"id":NaN,"method":"x"}',
    b'{"method":"x"}',
    b'{"id":1}',
    b'{"id":null,"method":null}',
    b'{"id":{},"method":[]}',
    b'{"id":"\\ud83d","method":"\\udc00"}',
    b'{"id":1,"method":"session/prompt","params":"\\ud83d"}',
    b'{"id":1e400,"method":"initialize","params":7}',
    b'{"id":' + b"9" * 400 + b',"method":"session/new","params":{"sessionId":7}}',
    b'{"id":' + b"[" * 900 + b"]" * 900 + b',"method":"x"}',
    b'{"id":1,"method":"x","params":' + b"[" * 1900 + b"]" * 1900 + b"}",
    b'{"id":1,"id":2,"method":"x","method":"y"}',
    b'{"id":1,"method":"x"}\x00',
    b'\xef\xbb\xbf{"id":1,"method":"x"}',
    b'{"id":1,"method":"\xff"}',
    b'{"id":1,"method":"x\ny"}',
    b"\xff\xfe",
    b"[" * 4096,
    b"x" * 4096,
    b" " * 4097,
    b"x" * (50_000),
    b"--b\r\nContent-Disposition: form-data; name=x\r\n\r\n{}\r\n--b--",
]
PARAMETERS = [
    "s",
    "unknown",
    "%2F",
    "a%2Fb",
    "..%2f..",
    "%00",
    "%0d%0aSet-Cookie:%20x",
    "%ff%fe",
    "%",
    "%zz%0",
    "%E2%80%AE",
    "%F0%9F%98%80",
    "x" * 20_000,
    ".",
    "..",
    "~",
    "a;b",
    "a+b",
    "'--",
    "{}",
]
NAMES: list[bytes] = [
    "naïve".encode(),
    "nai\N{COMBINING DIAERESIS}ve".encode(),
    "\N{GRINNING FACE}".encode(),
    "\N{RIGHT-TO-LEFT OVERRIDE}gpj.exe".encode(),
    "\N{LEFT-TO-RIGHT ISOLATE}x".encode(),
    "\N{ZERO WIDTH NO-BREAK SPACE}x".encode(),
    "\N{LINE SEPARATOR}".encode(),
    "\N{FULLWIDTH SOLIDUS}\N{DIVISION SLASH}".encode(),
    b"\xff\xfe",
    b"\xed\xa0\x80",  # half of a pair, which UTF-8 has not
    b"\xc0\xaf",  # a slash, longer than need be
    b"\xf4\x90\x80\x80",  # beyond the last character
    b"\xe2\x80",  # cut off
    b"\0",
    b"a\0b",
    b"\r\nSet-Cookie: a=b",
    b"\x1b[2J",
    b"a" * 256,
    b"a" * 20_000,
    b"a/" * 2_500,
    b"%ff",
    b"%",
    b"-x",
    b"--upload-pack=x",
    b" ",
    b"a=b&c;d",
    b"..",
    b"../../..",
    b"/",
    b"//etc/passwd",
    b"/proc/self/root",
    b"~",
    b"$(id)",
]
"""Of files, directories, processes, branches: names that some reader stumbles over."""

QUERIES = [
    "",
    "agent=mock",
    "agent=",
    "agent=nope",
    "agent=MOCK",
    "agent=..%2f..%2fetc",
    "agent=%00",
    "agent=%ff",
    "agent=" + "m" * 5000,
    "agent=mock&agent=nope",
    "after=-1",
    "after=1e3",
    "after=99999999999999999999999",
    "after=%D9%A1",
    "after=5&seq=maybe&epoch=%ff",
    "epoch=nope",
    "access_token=x",
    "&&=;&%ff=%fe",
    "?",
]
TYPES = ["application/json", "application/json; charset=utf-16", "text/plain", "multipart/form-data; boundary=b"]
TYPES += ["application/x-www-form-urlencoded", "application/json-rpc", "", ";", "\xff", "application/json,text/plain"]
ACCEPTS = ["*/*", "application/json", "text/event-stream", "text/event-stream;q=0", "", ",", "\xff/\xff", "a" * 3000]
EVENT_IDS = ["", " ", "+5", "-5", "0", "18446744073709551616", "1" * 50, "\xb2", "1.0", "0x1", "none"]
ORIGINS = ["http://127.0.0.1", "null", "http://localhost.evil", "http://[", "", "http://127.0.0.1@evil.com", "\xff://x"]
HOSTS = ["127.0.0.1", "evil.com", "", "[", "a" * 3000, "127.0.0.1:99999999", "\xff", "x@y@z"]
METHODS = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "PROPFIND",
    "post",
    "X" * 200,
]
TARGETS = [
    "/v1",
    "/v1/",
    "/v1/acp/",
    "//v1/acp",
    "/v1//acp",
    "/v1/acp/s/",
    "/%2e%2e/",
    "/v1/acp%2Fs",
    "/\\",
    "/;",
    "/*",
]


def _head(target: str, *headers: str, method: str = "GET", version: str = "1.1") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/{version}", *headers, "", ""]).encode("latin-1")


HOST = "Host: 127.0.0.1"
SHAKE = [HOST, "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
SOCKET = "/v1/acp/w?agent=mock"
H2C = [HOST, "Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings"]


def _http2(path: bytes) -> bytes:
    """A request for a path on HTTP/2, begun by prior knowledge."""
    import h2.config
    import h2.connection

    config = h2.config.H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False)
    client = h2.connection.H2Connection(config)
    client.initiate_connection()
    headers = [(b":method", b"GET"), (b":path", path), (b":scheme", b"http"), (b":authority", b"127.0.0.1")]
    client.send_headers(1, headers, end_stream=True)
    sent: bytes = client.data_to_send()
    return sent


HUNG_UP = None
"""The connection was closed without an answer that HTTP/1.1 knows."""

MALFORMED: dict[str, tuple[bytes, tuple[int | None, ...]]] = {
    "no target": (_head("?x", HOST), (404,)),
    "a star": (_head("*", HOST), (404,)),
    "no slash": (_head("v1/health", HOST), (404,)),
    "two slashes": (_head("//v1/health", HOST), (404,)),
    "an encoded slash alone": (_head("%2F", HOST), (404,)),
    "the absolute form": (_head("http://127.0.0.1/v1/health", HOST), (200,)),
    "a broken absolute form": (_head("http://[/nope", HOST), (404,)),
    "another scheme": (_head("ftp://127.0.0.1/v1/health", HOST), (404,)),
    "a tunnel": (_head("127.0.0.1:22", HOST, method="CONNECT"), (404,)),
    "a broken Origin": (_head("/v1/health", HOST, "Origin: http://[evil"), (403,)),
    "a broken Origin on a WebSocket": (_head(SOCKET, *SHAKE, KEY, "Origin: http://[evil"), (403,)),
    "no Host": (_head("/v1/health"), (400,)),
    "no Host on HTTP/1.0": (_head("/v1/health", version="1.0"), (403,)),
    "two Hosts": (_head("/v1/health", HOST, HOST), (400,)),
    "HTTP/3.7": (_head("/v1/health", HOST, version="3.7"), (200, 400, 505)),
    "a header without a colon": (_head("/v1/health", HOST, "x"), (400,)),
    "a header with a control character": (_head("/v1/health", HOST, "X: \x01"), (200, 400)),
    "a folded header": (_head("/v1/health", HOST, "X: 1", " 2"), (200, 400)),
    "a length that is none": (_head("/v1/acp/x", HOST, "Content-Length: x", method="POST"), (400,)),
    "two lengths": (_head("/v1/acp/x", HOST, "Content-Length: 1", "Content-Length: 2", method="POST"), (400,)),
    "an unknown coding": (_head("/v1/acp/x", HOST, "Transfer-Encoding: gzip", method="POST"), (400, 501)),
    "a broken chunk": (_head("/v1/acp/x", HOST, "Transfer-Encoding: chunked", method="POST") + b"zz\r\n", (400,)),
    "an expectation": (_head("/v1/health", HOST, "Expect: 200-nope"), (200, 417)),
    "a head without an end": (_head("/" + "a" * 300_000, HOST), (HUNG_UP, 431)),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 60, (400,)),
    "zeros": (b"\0" * 1000, (400,)),
    "SMTP": (b"EHLO localhost\r\n\r\n", (400,)),
    "no key": (_head(SOCKET, *SHAKE), (400,)),
    "another version": (_head(SOCKET, HOST, *SHAKE[1:3], "Sec-WebSocket-Version: 12", KEY), (400,)),
    "a WebSocket by POST": (_head(SOCKET, *SHAKE, KEY, "Content-Length: 0", method="POST"), (415,)),
    "a WebSocket on HTTP/1.0": (_head(SOCKET, *SHAKE, KEY, version="1.0"), (400,)),
    "extensions without sense": (
        _head(SOCKET, *SHAKE, KEY, "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=abc"),
        (101,),
    ),
    "extensions that are no list": (_head(SOCKET, *SHAKE, KEY, "Sec-WebSocket-Extensions: ;;=,\t,;"), (101,)),
    "extensions that are no ASCII": (_head(SOCKET, *SHAKE, KEY, "Sec-WebSocket-Extensions: \xff"), (HUNG_UP, 400)),
    "subprotocols without names": (_head(SOCKET, *SHAKE, KEY, "Sec-WebSocket-Protocol: ,,"), (101,)),
    "subprotocols that are no ASCII": (_head(SOCKET, *SHAKE, KEY, "Sec-WebSocket-Protocol: \xff"), (HUNG_UP, 400)),
    "frames before the handshake is answered": (_head(SOCKET, *SHAKE, KEY) + b"\xff" * 200, (400, 101)),
    "upgrade to HTTP/2 with broken settings": (_head("/v1/health", *H2C, "HTTP2-Settings: AAAA"), (101,)),
    "upgrade to HTTP/2 with settings that are no base64": (_head("/v1/health", *H2C, "HTTP2-Settings: !!!"), (101,)),
    "upgrade to HTTP/2 without settings": (_head("/v1/health", *H2C), (101,)),
    "HTTP/2 with a path that is no ASCII": (_http2(b"/\xff"), (HUNG_UP,)),
    "HTTP/2 with a query that is no ASCII": (_http2(b"/v1/acp/x?agent=\xff"), (HUNG_UP,)),
    "HTTP/2 with no path": (_http2(b""), (HUNG_UP,)),
    "HTTP/2 with noise": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"noise" * 20, (HUNG_UP,)),
}
