"""Which mapping and filtering a NAT has for TCP (RFC 5382, in small), or the servers that answer this.

nat_probe_tcp.py serve A B      answers on ports 7001 and 7002 of its own two addresses
nat_probe_tcp.py ask A B        prints "mapping filtering" of what is in between
Each question is one byte: 0 "what do you see?", 1 "do you reach me from another port?", 2 "from the other address?"
"""

import socket
import sys
import threading

what, one, other = sys.argv[1:4]


def bound(host, port):
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind((host, port))
    return made


def reaches(host, port, to):
    with bound(host, port) as calling:
        calling.settimeout(1.5)
        try:
            calling.connect(to)
        except OSError:
            return b"no"
        return b"yes"


def answer(stream, seen, host):
    while question := stream.recv(1):
        if question == b"0":
            stream.sendall(f"{seen[0]}:{seen[1]}".encode())
        elif question == b"1":
            stream.sendall(reaches(host, 7003, seen))
        else:
            stream.sendall(reaches(other if host == one else one, 7003, seen))


def serve(listener, host):
    while True:
        stream, seen = listener.accept()
        threading.Thread(target=answer, args=(stream, seen, host), daemon=True).start()


if what == "serve":
    for host in (one, other):
        for port in (7001, 7002):
            listener = bound(host, port)
            listener.listen()
            threading.Thread(target=serve, args=(listener, host), daemon=True).start()
    print("ready", flush=True)
    threading.Event().wait()

own = bound("0.0.0.0", 0)
own.listen()
number = own.getsockname()[1]


def server(host, port):
    stream = bound("0.0.0.0", number)
    stream.settimeout(10)
    stream.connect((host, port))
    return stream


def ask(stream, question):
    stream.sendall(question)
    return stream.recv(100).decode()


# The filter first: nothing but one port of one address has been spoken to yet.
first = server(one, 7001)
seen, from_port, from_address = (ask(first, question) for question in (b"0", b"1", b"2"))
second, third = server(one, 7002), server(other, 7001)
mapping = (
    "endpoint-independent"
    if seen == ask(second, b"0") == ask(third, b"0")
    else "address-and-port-dependent"
)
filtering = (
    "endpoint-independent"
    if from_address == "yes"
    else "address-dependent"
    if from_port == "yes"
    else "address-and-port-dependent"
)
print(mapping, filtering)
