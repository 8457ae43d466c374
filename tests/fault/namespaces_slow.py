"""A slow and lossy router in user space: ``namespaces_slow.py DEVICE DELAY LOSS``.

Not every kernel has netem. Packets come in by a TUN device and leave by it, later or not at all; the
kernel routes them on. Says ``ready`` once the device is there, and at SIGTERM how many it relayed and lost.
"""

import fcntl
import heapq
import json
import os
import select
import signal
import struct
import sys
import time
from random import Random

_TUNSETIFF = 0x4004_54CA
_TUN_WITHOUT_HEADER = 0x1001
_LARGEST = 65_535


def main(device: str, delay: float, loss: float) -> None:
    random = Random(74)
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", device.encode(), _TUN_WITHOUT_HEADER))
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
    print("ready", flush=True)
    waiting: list[tuple[float, int, bytes]] = []
    relayed = lost = 0
    while not ended:
        patience = max(0.0, waiting[0][0] - time.monotonic()) if waiting else 0.2
        if select.select([tun], [], [], patience)[0]:
            packet = os.read(tun, _LARGEST)
            if random.random() < loss:
                lost += 1
            else:
                relayed += 1
                heapq.heappush(waiting, (time.monotonic() + delay, relayed, packet))
        while waiting and waiting[0][0] <= time.monotonic():
            os.write(tun, heapq.heappop(waiting)[2])
    print(json.dumps([relayed, lost]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]))
