"""A sync service of one prepared stream, sent as fast as it is read, and of what is sent after it.

Run as `python -m tests.benchmarks.service FILE`: it prints its port, sends the file to whoever opens a stream, and
afterwards each file whose path it reads from its standard input, printing the moment (of the clock that all processes
share) at which it began to. It serves until its standard input ends.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
_CHUNK = 64 * 1024


def write_body(path: Path, lines: Iterable[bytes]) -> None:
    """Write lines to a file as HTTP chunks, as a service sends them: at most 64 KiB each."""
    with path.open("wb") as file:
        for line in lines:
            for start in range(0, len(line), _CHUNK):
                chunk = line[start : start + _CHUNK]
                file.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))


def _serve(connection: socket.socket, body: Path, streams: list[socket.socket]) -> None:
    with connection:
        received = b""
        while b"\r\n\r\n" not in received:
            received += connection.recv(65536)
        try:
            if received.startswith(b"POST /sync/stream"):
                connection.sendall(_HEAD)
                with body.open("rb") as file:
                    connection.sendfile(file)
                streams.append(connection)
            while connection.recv(65536):
                pass
        except ConnectionError:
            pass
        if connection in streams:
            streams.remove(connection)


def main() -> None:
    body = Path(sys.argv[1])
    server = socket.create_server(("127.0.0.1", 0))
    streams: list[socket.socket] = []

    def accept() -> None:
        while True:
            connection, _ = server.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=_serve, args=(connection, body, streams), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    print(server.getsockname()[1], flush=True)
    for path in sys.stdin:
        content = Path(path.strip()).read_bytes()
        began = time.monotonic_ns()
        for stream in streams:
            with contextlib.suppress(OSError):
                stream.sendall(content)
        print(began, flush=True)


if __name__ == "__main__":
    main()
