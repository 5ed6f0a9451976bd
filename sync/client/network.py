"""The network's return: a hint that an attempt is worth it now.

Owns the question to the operating system. On Linux a netlink socket (rtnetlink(7)) tells of links and addresses that
change; elsewhere Python's standard library offers nothing of the kind, and the waits simply run out.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Callable

logger = logging.getLogger("sync.connection")

_RTMGRP_LINK, _RTMGRP_IPV4_IFADDR, _RTMGRP_IPV6_IFADDR = 0x1, 0x10, 0x100
_MESSAGE_BYTES = 65536
_SETTLE_SECONDS = 0.5


async def follow_network(on_change: Callable[[], None]) -> None:
    """Call `on_change` when a network link or address changed, a burst of changes once, until cancelled.

    Returns at once where the operating system does not tell.
    """
    if sys.platform != "linux":
        return
    try:
        netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    except OSError as error:
        logger.debug("changes of the network cannot be followed: %s", error)
        return
    loop = asyncio.get_running_loop()
    with netlink:
        try:
            netlink.settimeout(0)
            netlink.bind((0, _RTMGRP_LINK | _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV6_IFADDR))
            while True:
                await loop.sock_recv(netlink, _MESSAGE_BYTES)
                await asyncio.sleep(_SETTLE_SECONDS)
                _discard_what_waits(netlink)
                on_change()
        except OSError as error:
            logger.debug("changes of the network cannot be followed any further: %s", os.strerror(error.errno or 0))


def _discard_what_waits(netlink: socket.socket) -> None:
    try:
        while netlink.recv(_MESSAGE_BYTES):
            pass
    except BlockingIOError:
        pass
