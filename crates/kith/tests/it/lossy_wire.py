"""A wire between two network devices, 'near' and 'far', that loses, delays and reorders what goes over it.

lossy_wire.py LOSS DELAY JITTER SEED    a share of 1, and seconds; every frame has a delay of its own
Says 'ready', or 'unable' where there are no such devices.
"""

import fcntl
import heapq
import os
import random
import select
import struct
import sys
import time

loss, delay, jitter = map(float, sys.argv[1:4])
chance = random.Random(int(sys.argv[4]))
SET_DEVICE, TAP, NO_HEADER = 0x400454CA, 0x0002, 0x1000


def device(name):
    wire = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(wire, SET_DEVICE, struct.pack("16sH", name.encode(), TAP | NO_HEADER))
    return wire


try:
    near, far = device("near"), device("far")
except OSError:
    print("unable", flush=True)
    sys.exit()
print("ready", flush=True)
other, under_way = {near: far, far: near}, []
while True:
    now = time.monotonic()
    while under_way and under_way[0][0] <= now:
        _, to, frame = heapq.heappop(under_way)
        try:
            os.write(to, frame)
        except OSError:
            pass  # The device is not up.
    wait = max(0, under_way[0][0] - now) if under_way else None
    for ready in select.select([near, far], [], [], wait)[0]:
        try:
            frame = os.read(ready, 65536)
        except OSError:
            continue  # As above.
        if chance.random() >= loss:
            due = time.monotonic() + delay + chance.uniform(-jitter, jitter)
            heapq.heappush(under_way, (due, other[ready], frame))
