"""A router that maps ports: PCP, NAT-PMP or UPnP, as the first argument says; its own address is the second.

Says 'ready', then who asks, and each mapping that it makes or takes away. Lines on standard input change it: 'address A' is its
address on the other side from then on, 'silent' and 'awake' do what they say, 'forget' loses all mappings.
"""
import re
import select
import socket
import struct
import sys
import threading
import time

protocol, own = sys.argv[1], sys.argv[2]
public, silent, began = "93.184.216.34", False, time.monotonic()


def tell(*words):
    print(*words, flush=True)


def epoch():
    return int(time.monotonic() - began)


def mapped(address):
    return b"\0" * 10 + b"\xff\xff" + socket.inet_aton(address)


def pcp(packet):
    if protocol == "nat-pmp":
        return struct.pack(">BBHI", 0, 0x81, 1, epoch())
    life, = struct.unpack(">I", packet[4:8])
    kind, internal, external = packet[36], *struct.unpack(">HH", packet[40:44])
    external = external or internal
    tell("mapped" if life else "unmapped", {6: "tcp", 17: "udp"}[kind], internal, external)
    head = struct.pack(">BBBBII", 2, 0x81, 0, 0, life, epoch()) + b"\0" * 12
    return head + packet[24:42] + struct.pack(">H", external) + mapped(public)


def nat_pmp(packet):
    if packet[1] == 0:
        return struct.pack(">BBHI", 0, 0x80, 0, epoch()) + socket.inet_aton(public)
    internal, external, life = struct.unpack(">HHI", packet[4:12])
    external = external or internal
    tell("mapped" if life else "unmapped", {1: "udp", 2: "tcp"}[packet[1]], internal, external)
    return struct.pack(">BBHIHHI", 0, packet[1] | 0x80, 0, epoch(), internal, external, life)


def by_packet():
    wire = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    wire.bind((own, 5351))
    while True:
        packet, source = wire.recvfrom(2000)
        tell("asked by", source[0])
        if silent:
            continue
        if packet[0] == 2:
            wire.sendto(pcp(packet), source)
        elif packet[0] == 0 and protocol == "nat-pmp":
            wire.sendto(nat_pmp(packet), source)


SERVICE = "urn:schemas-upnp-org:service:WANIPConnection:1"
DESCRIPTION = f"""<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0"><device><deviceList><device>
<serviceList><service><serviceType>{SERVICE}</serviceType><controlURL>/control</controlURL></service></serviceList>
</device></deviceList></device></root>"""


def action(body):
    name = re.search(r"<u:(\w+)", body)[1]
    value = lambda key: (re.search(f"<{key}>(.*?)</{key}>", body) or [0, ""])[1]
    if name == "GetExternalIPAddress":
        return 200, f"<NewExternalIPAddress>{public}</NewExternalIPAddress>"
    if name == "AddPortMapping" and value("NewLeaseDuration") != "0":
        return 500, "<UPnPError><errorCode>725</errorCode></UPnPError>"
    what = {"AddPortMapping": "mapped", "DeletePortMapping": "unmapped"}[name]
    port = value("NewExternalPort")
    tell(what, value("NewProtocol").lower(), value("NewInternalPort") or port, port)
    return 200, ""


def by_http():
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Handler(BaseHTTPRequestHandler):
        def answer(self, status, text):
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def do_GET(self):
            self.answer(200, DESCRIPTION)

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            status, inner = action(body)
            self.answer(status, f'<s:Envelope xmlns:s="e"><s:Body>{inner}</s:Body></s:Envelope>')

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer((own, 5000), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    wire = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    wire.bind(("239.255.255.250", 1900))
    group = socket.inet_aton("239.255.255.250") + socket.inet_aton(own)
    wire.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
    answering = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    answering.bind((own, 0))
    while True:
        packet, source = wire.recvfrom(2000)
        tell("asked by", source[0])
        if packet.startswith(b"M-SEARCH") and not silent:
            answering.sendto(f"HTTP/1.1 200 OK\r\nST: x\r\nLOCATION: http://{own}:5000/d.xml\r\n\r\n".encode(), source)


threading.Thread(target=by_http if protocol == "upnp" else by_packet, daemon=True).start()
tell("ready")
for line in sys.stdin:
    words = line.split()
    if words[0] == "address":
        public = words[1]
    elif words[0] == "forget":
        began = time.monotonic()
    else:
        silent = words[0] == "silent"
