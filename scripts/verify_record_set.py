#!/usr/bin/env python3
"""Verifies a node's record set, sharing no code with the program: standard library only.

    dig +short TXT NAME > set.txt;  verify_record_set.py NI --txt set.txt
    curl -s URL > set.json;         verify_record_set.py NI --json set.json

Prints `valid: until TIME` (exit code 0) or `refused: REASON` (exit code 1).
"""
import argparse
import base64
import binascii
import calendar
import hashlib
import json
import re
import sys
import time

TEXT = {"address", "relay", "timestamp", "ttl", "version"}  # text as received; every other type is base64
ONCE = {"timestamp", "ttl", "version", "pubkey", "signature"}
TAG = b"kithnet record set v1"
SPKI = bytes.fromhex("302a300506032b6570032100")  # DER in front of an Ed25519 key (RFC 8410)


class Refused(Exception):
    """The set is not valid; the text says why."""


def need(condition, reason):
    if not condition:
        raise Refused(reason)


# Ed25519 after RFC 8032, section 6: points are (X, Y, Z, T) with x = X/Z, y = Y/Z, x*y = T/Z.

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
ZERO = (0, 1, 1, 0)


def add(a, b):
    m, n = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P
    c, d = 2 * a[3] * b[3] * D % P, 2 * a[2] * b[2] % P
    e, f, g, h = n - m, d - c, d + c, n + m
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def times(number, point):
    result = ZERO
    while number:
        if number & 1:
            result = add(result, point)
        point, number = add(point, point), number >> 1
    return result


def same(a, b):
    return (a[0] * b[2] - b[0] * a[2]) % P == 0 and (a[1] * b[2] - b[1] * a[2]) % P == 0


def point(encoded, what):
    """A point from its 32 bytes: canonical, on the curve, not of small order."""
    y = int.from_bytes(encoded, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    need(len(encoded) == 32 and y < P, f"{what} is not canonical")
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    x = x if x * x % P == square else x * pow(2, (P - 1) // 4, P) % P
    need(x * x % P == square and (x != 0 or sign == 0), f"{what} is no point of the curve")
    x = x if x & 1 == sign else P - x
    found = (x, y, 1, x * y % P)
    need(not same(times(8, found), ZERO), f"{what} has small order")
    return found


BASE = point((4 * pow(5, -1, P) % P).to_bytes(32, "little"), "the base point")


def check_signature(key, message, signature):
    a, r = point(key, "the public key"), point(signature[:32], "the signature's point")
    s = int.from_bytes(signature[32:], "little")
    need(len(signature) == 64 and s < L, "the signature is malformed")
    digest = hashlib.sha512(signature[:32] + key + message).digest()
    k = int.from_bytes(digest, "little") % L
    need(same(times(s, BASE), add(r, times(k, a))), "the signature is wrong")


# The two forms of a set, both read into pairs of type and value.


def from_base64(text, what):
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Refused(f"{what} is not base64") from None
    canonical = text if isinstance(text, str) else text.decode("ascii")
    need(base64.b64encode(value).decode() == canonical, f"{what} is not canonical base64")
    return value


def record(kind, text):
    need(re.fullmatch(r"[a-z][a-z0-9-]{0,31}", kind) and kind != "addresses", f"type {kind!r} is not allowed")
    if kind not in TEXT:
        return kind, from_base64(text, kind)
    value = text if isinstance(text, bytes) else text.encode()
    need(all(0x20 <= byte <= 0x7E for byte in value), f"{kind} is not printable ASCII")
    return kind, value


def from_txt(data):
    """Lines of `dig +short TXT`: quoted character strings, special bytes as \\DDD or \\C; `;` starts a remark."""
    records = []
    for line in filter(None, map(bytes.strip, data.splitlines())):
        if line.startswith(b";"):
            continue
        need(re.fullmatch(rb'"(?:[^"\\]|\\.)*"(?:\s+"(?:[^"\\]|\\.)*")*', line), "a line is no TXT record")
        joined = b"".join(re.findall(rb'"((?:[^"\\]|\\.)*)"', line))
        plain = lambda m: bytes([int(m[1]) & 255]) if len(m[1]) == 3 else m[1]
        kind, mark, value = re.sub(rb"\\([0-9]{3}|.)", plain, joined).partition(b"=")
        need(mark and value.isascii() and kind.isascii(), "a TXT record is not of the form type=value")
        records.append(record(kind.decode(), value))
    return records


def once(pairs):
    need(len({key for key, _ in pairs}) == len(pairs), "a key of the JSON object stands twice")
    return dict(pairs)


def from_json(data):
    need(len(data) <= 48 * 1024, "the JSON is larger than 48 KiB")
    try:
        members = json.loads(data, object_pairs_hook=once)
    except (ValueError, RecursionError):
        raise Refused("the file is not JSON") from None
    need(isinstance(members, dict) and "address" not in members, "the JSON is not an object of a set's types")
    records = []
    for key, value in members.items():
        kind = "address" if key == "addresses" else key
        need(isinstance(value, list) != (kind in ONCE), f"{key} has the wrong shape")
        for one in value if isinstance(value, list) else [value]:
            number = kind in ("ttl", "version")
            need(type(one) is (int if number else str), f"{key} has the wrong type")
            need(number or one.isascii(), f"{key} is not ASCII")
            records.append(record(kind, str(one)))
    return records


def fingerprint(ni):
    found = re.fullmatch(r"ni://[^/]*/sha3-256;([A-Za-z0-9_-]{43})", ni)
    need(found, "the fingerprint is not of the form ni://AUTHORITY/sha3-256;VALUE")
    value = base64.urlsafe_b64decode(found[1] + "=")
    need(base64.urlsafe_b64encode(value).decode() == found[1] + "=", "the fingerprint has unused bits")
    return value


def seconds(text):
    try:
        return calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ"))
    except ValueError:
        raise Refused(f"{text!r} is no time") from None


def utc(second):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second))


def signed_bytes(records):
    size = lambda value, length: len(value).to_bytes(length, "big") + value
    return TAG + b"".join(sorted(size(k.encode(), 2) + size(v, 4) for k, v in records if k != "signature"))


def verify(ni, records, now):
    """Second at which the valid set ends; raises Refused."""
    need(len(set(records)) == len(records), "two records are equal")
    need(len(records) <= 64, "more than 64 records")
    kinds = [kind for kind, _ in records]
    need(kinds.count("address") <= 16, "more than 16 addresses")
    for kind in sorted(ONCE):
        need(kinds.count(kind) == 1, f"{kind} must stand once")
    values, message = dict(records), signed_bytes(records)
    need(len(message) <= 16 * 1024, "more than 16 KiB of signed bytes")
    need(values["version"] == b"1", "the version is unknown")
    key = values["pubkey"]
    need(hashlib.sha3_256(key).digest() == fingerprint(ni), "the public key is not the fingerprint's")
    need(len(key) == 44 and key.startswith(SPKI), "the public key is not an Ed25519 key")
    check_signature(key[len(SPKI) :], message, values["signature"])
    ttl, stamp = values["ttl"].decode(), values["timestamp"].decode()
    need(re.fullmatch(r"[1-9][0-9]{0,4}", ttl) and int(ttl) <= 86400, "the ttl is not 1 to 86400")
    made = seconds(stamp)
    need(made >= 0 and utc(made) == stamp, "the timestamp is not in its one form")
    need(made - 60 <= now, f"the set comes from the future: {stamp}")
    need(now < made + int(ttl), f"the set ended at {utc(made + int(ttl))}")
    return made + int(ttl)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("ni", metavar="NI", help="the fingerprint, ni://AUTHORITY/sha3-256;VALUE")
    form = arguments.add_mutually_exclusive_group(required=True)
    form.add_argument("--txt", type=argparse.FileType("rb"), metavar="FILE", help="output of dig +short TXT")
    form.add_argument("--json", type=argparse.FileType("rb"), metavar="FILE", help="what curl fetched")
    arguments.add_argument("--at", metavar="TIME", help="judge at this time, 2026-01-31T12:00:00Z; now otherwise")
    chosen = arguments.parse_args()
    try:
        now = seconds(chosen.at) if chosen.at else int(time.time())
        records = from_txt(chosen.txt.read()) if chosen.txt else from_json(chosen.json.read())
        print(f"valid: until {utc(verify(chosen.ni, records, now))}")
        return 0
    except Refused as reason:
        print(f"refused: {reason}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
