#!/usr/bin/env python3
"""Tests of verify_record_set.py over sets that are signed here."""
import base64
import hashlib
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True  # the tree stays as it was cloned

import verify_record_set as v

NOW = v.seconds("2026-01-31T12:00:00Z")


def encode(point):
    inverse = pow(point[2], -1, v.P)
    x, y = point[0] * inverse % v.P, point[1] * inverse % v.P
    return (y | (x & 1) << 255).to_bytes(32, "little")


class Key:
    """An Ed25519 key that signs, after RFC 8032, section 5.1."""

    def __init__(self, seed):
        digest = hashlib.sha512(seed).digest()
        number = int.from_bytes(digest[:32], "little")
        self.secret, self.prefix = number & ~7 & (2**255 - 1) & ~(2**255) | 2**254, digest[32:]
        self.public = encode(v.times(self.secret, v.BASE))

    def sign(self, message):
        number = lambda data: int.from_bytes(hashlib.sha512(data).digest(), "little") % v.L
        r = number(self.prefix + message)
        point = encode(v.times(r, v.BASE))
        s = (r + number(point + self.public + message) * self.secret) % v.L
        return point + s.to_bytes(32, "little")


KEY = Key(b"k" * 32)


def ni_of(spki):
    value = base64.urlsafe_b64encode(hashlib.sha3_256(spki).digest()).decode().rstrip("=")
    return f"ni://example.org/sha3-256;{value}"


NI = ni_of(v.SPKI + KEY.public)
NEIGHBOUR = ni_of(v.SPKI + Key(b"n" * 32).public)


def records(**changes):
    """A signed set with two relays, a binary blob and an unknown type; `changes` replace values before signing."""
    values = {
        "address": [b"tcp://192.0.2.1:7117", b"quic://[2001:db8::1]:7117"],
        "relay": [f"20 {NEIGHBOUR}".encode(), f"10 {NI}".encode()],
        "blob": [bytes(range(256)), b""],
        "future-type": [b"\x00\xff\"\\="],
        "timestamp": [b"2026-01-31T12:00:00Z"],
        "ttl": [b"3600"],
        "version": [b"1"],
        "pubkey": [v.SPKI + KEY.public],
    }
    values.update(changes)
    made = [(kind, value) for kind, many in values.items() for value in many]
    return made + [("signature", KEY.sign(v.signed_bytes(made)))]


def as_text(kind, value):
    return value if kind in v.TEXT else base64.b64encode(value)


def to_txt(made):
    """Lines as dig prints them, in character strings of at most 255 bytes."""
    shown = lambda byte: f"\\{chr(byte)}" if byte in b'"\\' else chr(byte) if 32 <= byte <= 126 else f"\\{byte:03}"
    lines = []
    for kind, value in made:
        whole = kind.encode() + b"=" + as_text(kind, value)
        parts = [whole[at : at + 255] for at in range(0, len(whole), 255)]
        lines.append(" ".join('"' + "".join(map(shown, part)) + '"' for part in parts))
    return "\n".join(lines).encode() + b"\n"


def to_json(made):
    members = {}
    for kind, value in made:
        text = as_text(kind, value).decode()
        if kind in v.ONCE:
            members[kind] = int(text) if kind in ("ttl", "version") else text
        else:
            members.setdefault("addresses" if kind == "address" else kind, []).append(text)
    return json.dumps(members).encode()


class Verify(unittest.TestCase):
    def refused(self, reason, made, ni=NI, now=NOW):
        with self.assertRaisesRegex(v.Refused, reason):
            v.verify(ni, made, now)

    def test_vectors_of_rfc_8032_are_made_and_verified(self):
        key = Key(bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"))
        self.assertEqual(key.public.hex(), "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
        signature = key.sign(b"")
        self.assertEqual(
            signature.hex(),
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
            "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        )
        v.check_signature(key.public, b"", signature)

    def test_shuffled_txt_and_json_are_accepted(self):
        made = records()
        for seed in range(5):
            random.Random(seed).shuffle(made)
            self.assertEqual(v.verify(NI, v.from_txt(to_txt(made)), NOW), NOW + 3600)
            self.assertEqual(v.verify(NI, v.from_json(to_json(made)), NOW), NOW + 3600)

    def test_what_dig_remarks_is_skipped(self):
        self.assertEqual(v.from_txt(b';; Truncated, retrying in TCP mode.\n"relay=1 ni:///a\\;b" \r\n'), [("relay", b"1 ni:///a;b")])

    def test_every_altered_dropped_or_added_record_is_refused(self):
        made = records()
        v.verify(NI, made, NOW)
        for at, (kind, value) in enumerate(made):
            for bit in {0, len(value) * 4, len(value) * 8 - 1} if value else ():
                other = bytearray(value)
                other[bit // 8] ^= 1 << bit % 8
                self.refused("", made[:at] + [(kind, bytes(other))] + made[at + 1 :])
            self.refused("", made[:at] + made[at + 1 :])
            self.refused("", made + [made[at]])
        self.refused("signature is wrong", made + [("blob", b"more")])

    def test_a_set_lives_from_a_minute_before_its_time_to_the_end_of_its_ttl(self):
        made = records()
        v.verify(NI, made, NOW - 60)
        v.verify(NI, made, NOW + 3599)
        self.refused("future", made, now=NOW - 61)
        self.refused("ended at 2026-01-31T13:00:00Z", made, now=NOW + 3600)

    def test_properly_signed_sets_that_break_a_rule_are_refused(self):
        many = [b"tcp://192.0.2.1:%d" % port for port in range(1, 70)]
        for reason, changes in [
            ("version", {"version": [b"2"]}),
            ("version must stand once", {"version": []}),
            ("ttl must stand once", {"ttl": [b"10", b"11"]}),
            ("16 addresses", {"address": many[:17]}),
            ("64 records", {"note": many}),
            ("16 KiB", {"blob": [b"x" * 16384]}),
            ("two records are equal", {"blob": [b"x", b"x"]}),
        ] + [("ttl", {"ttl": [ttl]}) for ttl in (b"0", b"86401", b"060", b"+60", b"6e1", b"")]:
            self.refused(reason, records(**changes))
        for stamp in (b"2026-01-31T12:00:60Z", b"2026-02-30T12:00:00Z", b"2026-01-31 12:00:00Z", b"2026-1-31T12:00:00Z"):
            self.refused("time", records(timestamp=[stamp]))

    def test_another_fingerprint_is_refused(self):
        self.refused("not the fingerprint's", records(), ni=NEIGHBOUR)
        for wrong in (NI.replace("sha3-256", "sha-256"), NI + "=", NI[:-1], "example.org", NI[:-1] + "B"):
            self.refused("fingerprint", records(), ni=wrong)

    def test_small_orders_and_large_scalars_are_refused(self):
        made = dict(records())
        message = v.signed_bytes(records())
        good = made["signature"]
        large = (int.from_bytes(good[32:], "little") + v.L).to_bytes(32, "little")
        for reason, key, signature in [
            ("malformed", KEY.public, good[:32] + large),
            ("malformed", KEY.public, good + b"\0"),
            ("small order", (1).to_bytes(32, "little"), good),
            ("small order", bytes(32), good),
            ("small order", KEY.public, (1).to_bytes(32, "little") + good[32:]),
            ("not canonical", (v.P + 1).to_bytes(32, "little"), good),
            ("no point", (2).to_bytes(32, "little"), good),
        ]:
            with self.assertRaisesRegex(v.Refused, reason):
                v.check_signature(key, message, signature)

    def test_malformed_txt_is_refused(self):
        for line in (b"blob=eA==", b'"blob"', b'"Blob=eA=="', b'"addresses=x"', b'"blob=eA"', b'"blob=eB=="', b'"ttl=\\001"',
                     b'"' + b"t" * 33 + b'=eA=="', b'"blob=eA==', b'"blob=\\226"'):
            with self.assertRaises(v.Refused, msg=line):
                v.from_txt(line)

    def test_malformed_json_is_refused(self):
        for text in ("[]", "{", '{"ttl":"3600"}', '{"ttl":3600.0}', '{"ttl":true}', '{"ttl":[1]}', '{"blob":"eA=="}',
                     '{"address":["x"]}', '{"ttl":1,"ttl":1}', '{"blob":[1]}', '{"addresses":["\\u00e9"]}', '{"x y":[]}' + " " * 49152,
                     "[" * 40000):
            with self.assertRaises(v.Refused, msg=text[:40]):
                v.from_json(text.encode())

    def test_the_command_prints_its_verdict(self):
        program = pathlib.Path(v.__file__)
        run = lambda *args: subprocess.run([sys.executable, program, *args], capture_output=True, text=True)
        with tempfile.TemporaryDirectory() as folder:
            txt, js = pathlib.Path(folder, "set.txt"), pathlib.Path(folder, "set.json")
            txt.write_bytes(to_txt(records()))
            js.write_bytes(to_json(records()))
            for form, path in (("--txt", txt), ("--json", js)):
                done = run(NI, form, path, "--at", "2026-01-31T12:30:00Z")
                self.assertEqual((done.returncode, done.stdout), (0, "valid: until 2026-01-31T13:00:00Z\n"), done.stderr)
                done = run(NI, form, path, "--at", "2026-01-31T13:30:00Z")
                self.assertEqual((done.returncode, done.stdout), (1, "refused: the set ended at 2026-01-31T13:00:00Z\n"))
        self.assertEqual(run(NI).returncode, 2)


if __name__ == "__main__":
    unittest.main()
