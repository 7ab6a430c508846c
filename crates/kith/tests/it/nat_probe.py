"""Which mapping and filtering a NAT has (RFC 5780 §4, in small), or the two servers that answer this.

nat_probe.py serve A B      answers on ports 7001 and 7002 of its own two addresses
nat_probe.py ask A B        prints "mapping filtering" of what is in between
Each question is one byte: 0 "what do you see?", 1 "the same from your other port", 2 "from the other address".
"""

import select
import socket
import sys

what, one, other = sys.argv[1:4]


def bound(host, port):
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((host, port))
    return made


if what == "serve":
    sockets = {(host, port): bound(host, port) for host in (one, other) for port in (7001, 7002)}
    print("ready", flush=True)
    while True:
        for ready in select.select(list(sockets.values()), [], [])[0]:
            question, asker = ready.recvfrom(16)
            host, port = ready.getsockname()
            if question[:1] == b"\x01":
                port = 14003 - port
            if question[:1] == b"\x02":
                host = other if host == one else one
            seen = f"{asker[0]}:{asker[1]}"
            sockets[host, port].sendto(question[1:2] + seen.encode(), asker)

asking = bound("0.0.0.0", 0)
asking.settimeout(1)


def ask(question, host, port, number):
    """What the server saw, or nothing where its answer does not come."""
    for _ in range(3):
        asking.sendto(bytes([question, number]), (host, port))
        try:
            while True:
                answer = asking.recv(100)
                if answer[0] == number:
                    return answer[1:].decode()
        except TimeoutError:
            pass
    return None


# The filter first: nothing but one port of one address has been sent to yet.
seen = ask(0, one, 7001, 1)
from_port = ask(1, one, 7001, 2)
from_address = ask(2, one, 7001, 3)
same_address = ask(0, one, 7002, 4)
same = ask(0, other, 7001, 5)
mapping = "endpoint-independent" if seen == same_address == same else "address-and-port-dependent"
filtering = (
    "endpoint-independent"
    if from_address
    else "address-dependent"
    if from_port
    else "address-and-port-dependent"
)
print(mapping, filtering)
