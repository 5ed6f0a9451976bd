"""A sync service in a process of its own, that sends a stream from a file as fast as it is read.

Run as `python -m tests.benchmarks.service FILE`: it prints its port, and serves until its standard input ends.
"""

from __future__ import annotations

import socket
import sys
import threading
from pathlib import Path

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
_CHUNK = 64 * 1024


def write_body(path: Path, lines: object) -> None:
    """Write lines to a file as HTTP chunks, as a service sends them: at most 64 KiB each."""
    with path.open("wb") as file:
        for line in lines:  # type: ignore[attr-defined]
            for start in range(0, len(line), _CHUNK):
                chunk = line[start : start + _CHUNK]
                file.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))


def _serve(connection: socket.socket, body: Path) -> None:
    with connection:
        received = b""
        while b"\r\n\r\n" not in received:
            received += connection.recv(65536)
        try:
            if received.startswith(b"POST /sync/stream"):
                connection.sendall(_HEAD)
                with body.open("rb") as file:
                    connection.sendfile(file)
            while connection.recv(65536):
                pass
        except ConnectionError:
            pass


def main() -> None:
    body = Path(sys.argv[1])
    server = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            connection, _ = server.accept()
            threading.Thread(target=_serve, args=(connection, body), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    print(server.getsockname()[1], flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
