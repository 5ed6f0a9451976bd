"""The network's return: a hint that an attempt is worthwhile now.

Owns asking the operating system. On Linux, a netlink socket (rtnetlink(7)) reports changes of links and addresses;
elsewhere Python's standard library offers nothing of the kind, and waits simply run out.
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
    """Call `on_change` when a network link or address changed, once per burst of changes, until cancelled.

    Returns immediately where the operating system offers no notifications.
    """
    if sys.platform != "linux":
        return
    try:
        netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    except OSError as error:
        logger.debug("network changes cannot be followed: %s", error)
        return
    loop = asyncio.get_running_loop()
    with netlink:
        try:
            netlink.settimeout(0)
            netlink.bind((0, _RTMGRP_LINK | _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV6_IFADDR))
            while True:
                await loop.sock_recv(netlink, _MESSAGE_BYTES)
                await asyncio.sleep(_SETTLE_SECONDS)
                _discard_pending(netlink)
                on_change()
        except OSError as error:
            logger.debug("network changes can no longer be followed: %s", os.strerror(error.errno or 0))


def _discard_pending(netlink: socket.socket) -> None:
    try:
        while netlink.recv(_MESSAGE_BYTES):
            pass
    except BlockingIOError:
        pass
