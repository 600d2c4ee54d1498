"""What runs in a pod where it does not matter what that is: it says that it is well, whoever asks. It starts quickly.

Run as a script, with the address and the port to listen on.
"""

from __future__ import annotations

import socket
import sys

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\nConnection: close\r\n\r\n"
ANSWER = HEAD + b'{"status":"ok"}'


def serve(address: str, port: int) -> None:
    """Answer until somebody ends us."""
    with socket.create_server((address, port), backlog=32) as listener:
        while True:
            client, _ = listener.accept()
            with client:
                client.settimeout(5)
                asked = b""
                try:
                    while b"\r\n\r\n" not in asked and (piece := client.recv(65536)):
                        asked += piece
                    if asked:  # a probe says nothing
                        client.sendall(ANSWER)
                except OSError:  # the client has left
                    continue


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
