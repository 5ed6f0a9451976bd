"""A network of its own on this machine, whose packets can be swallowed, delayed and lost.

Owns network namespaces that have no name and end with the last process in them, one per host, and a TUN device in each.
What one host sends to another is a packet in this process, which hands it on, or does not: nobody is told of a packet
that is swallowed, no connection is reset, no link goes down. Needs Linux, the rights of root, and `ip` of iproute2.
No packet leaves the namespaces.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import functools
import os
import random
import socket
import struct
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x1, 0x1000
_PACKET_BYTES = 65536
_RST = 0x4
_SUBNET = "10.77.0"


@dataclass
class Host:
    """One namespace with one address. Everything that starts inside it stays inside it.

    Attributes:
        swallows_sent: what it sends is swallowed.
        swallows_received: what is sent to it is swallowed.
        latency: seconds that each packet to and from it takes.
        loss: the share of packets to and from it that is lost, 0 to 1.
        resets: TCP packets that are sent to it arrive as resets of their connection.
        swallowed: how many packets were swallowed or lost.
    """

    name: str
    address: str
    namespace: int
    device: int
    swallows_sent: bool = False
    swallows_received: bool = False
    latency: float = 0.0
    loss: float = 0.0
    resets: bool = False
    swallowed: int = field(default=0)

    @contextmanager
    def inside(self) -> Generator[None]:
        """Sockets that this thread makes, and processes that it starts, belong to this host."""
        with _restored_namespace():
            _set_namespace(self.namespace)
            yield

    def cut(self, *, sent: bool = True, received: bool = True) -> None:
        """Swallow packets of one direction or both."""
        self.swallows_sent, self.swallows_received = sent, received

    def heal(self) -> None:
        """Hand on everything, at once."""
        self.cut(sent=False, received=False)
        self.latency = self.loss = 0.0
        self.resets = False


class Network:
    """Hosts, and the wire between them. Close it with `close`; its sockets end with their processes."""

    def __init__(self, seed: int = 0) -> None:
        self.hosts: dict[str, Host] = {}
        self._by_address: dict[bytes, Host] = {}
        self._random = random.Random(seed)
        self._loop: asyncio.AbstractEventLoop | None = None

    def add(self, name: str) -> Host:
        """Make one more host. Raises OSError if this machine does not let it."""
        address = f"{_SUBNET}.{len(self.hosts) + 1}"
        with _restored_namespace():
            _check(_libc().unshare(_CLONE_NEWNET))
            namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            device = _open_tun()
            for arguments in (
                "link set lo up",
                f"addr add {address}/24 dev fire0",
                "link set fire0 up",
            ):
                subprocess.run(["ip", *arguments.split()], check=True, capture_output=True, timeout=20)
        host = Host(name, address, namespace, device)
        self.hosts[name] = host
        self._by_address[bytes(map(int, address.split(".")))] = host
        return host

    def start(self) -> None:
        """Hand packets on from now on, in the running loop."""
        self._loop = asyncio.get_running_loop()
        for host in self.hosts.values():
            self._loop.add_reader(host.device, self._receive, host)

    def close(self) -> None:
        """Hand nothing on any more, and let go of the namespaces."""
        for host in self.hosts.values():
            if self._loop is not None and not self._loop.is_closed():
                self._loop.remove_reader(host.device)
            os.close(host.device)
            os.close(host.namespace)
        self.hosts.clear()
        self._by_address.clear()

    def heal(self) -> None:
        """Heal all hosts."""
        for host in self.hosts.values():
            host.heal()

    def _receive(self, sender: Host) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                self._hand_on(sender, os.read(sender.device, _PACKET_BYTES))

    def _hand_on(self, sender: Host, packet: bytes) -> None:
        receiver = self._by_address.get(packet[16:20]) if packet[0] >> 4 == 4 else None
        if receiver is None:
            return
        if receiver.resets:
            packet = _as_reset(packet)
        if sender.swallows_sent or self._random.random() < sender.loss:
            sender.swallowed += 1
        elif receiver.swallows_received or self._random.random() < receiver.loss:
            receiver.swallowed += 1
        elif latency := sender.latency + receiver.latency:
            assert self._loop is not None
            self._loop.call_later(latency, self._deliver, receiver, packet)
        else:
            self._deliver(receiver, packet)

    def _deliver(self, receiver: Host, packet: bytes) -> None:
        # Late packets of a closed network have no device any more; a full device loses packets, as devices do.
        if receiver.name in self.hosts:
            with contextlib.suppress(OSError):
                os.write(receiver.device, packet)


def _as_reset(packet: bytes) -> bytes:
    """A TCP packet without its data and with RST set (RFC 9293, 3.5.2); any other packet as it is."""
    header = (packet[0] & 0xF) * 4
    if packet[9] != socket.IPPROTO_TCP:
        return packet
    addresses = packet[12:20]
    segment = bytearray(packet[header : header + 20])
    segment[12] = 5 << 4
    segment[13] |= _RST
    segment[16:18] = bytes(2)
    segment[16:18] = struct.pack("!H", _checksum(addresses + struct.pack("!HH", socket.IPPROTO_TCP, 20) + segment))
    ip = bytearray(packet[:20])
    ip[0] = 4 << 4 | 5
    ip[2:4] = struct.pack("!H", 40)
    ip[10:12] = bytes(2)
    ip[10:12] = struct.pack("!H", _checksum(bytes(ip)))
    return bytes(ip + segment)


def _checksum(data: bytes | bytearray) -> int:
    """The internet checksum (RFC 1071) of an even number of bytes."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@functools.cache
def missing() -> str | None:
    """Why no such network can be made here, or None."""
    if sys.platform != "linux":
        return "it needs the network namespaces of Linux"
    network = Network()
    try:
        network.add("trial")
    except (OSError, subprocess.SubprocessError) as error:
        return f"no network namespace with a TUN device can be made ({error})"
    finally:
        network.close()
    return None


@contextmanager
def _restored_namespace() -> Generator[None]:
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield
    finally:
        _set_namespace(before)
        os.close(before)


def _open_tun() -> int:
    node = Path("/dev/net/tun")
    device = os.open(node, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", b"fire0", _IFF_TUN | _IFF_NO_PI))
    except BaseException:
        os.close(device)
        raise
    return device


def _set_namespace(namespace: int) -> None:
    _check(_libc().setns(namespace, _CLONE_NEWNET))


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
