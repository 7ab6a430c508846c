"""A blinded record set, made anew from docs/protocol-dht.md: the record set and the key of the vectors of kith-identity.

    python3 blinded.py > blinded.txt

The curve is RFC 8032's, written out; the seal needs the package cryptography.
"""

from hashlib import sha3_256, sha3_512, sha512
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

P, L = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P


def recover(y):
    """The even x of a point."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    return P - x if x % 2 else x


BASE = (recover(4 * pow(5, -1, P) % P), 4 * pow(5, -1, P) % P)


def add(a, b):
    (x, y), (u, v) = a, b
    t = D * x * y * u * v
    return ((x * v + u * y) * pow(1 + t, -1, P) % P, (y * v + x * u) * pow(1 - t, -1, P) % P)


def times(number, point):
    total = (0, 1)
    while number:
        if number & 1:
            total = add(total, point)
        point, number = add(point, point), number >> 1
    return total


def encode(point):
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def number(data):
    return int.from_bytes(data, "little") % L


def spki(key):
    return bytes.fromhex("302a300506032b6570032100") + key


vectors = Path(__file__).parent / "../../../identity/tests/it/vectors"
record_set = bytes.fromhex((vectors / "record-set.hex").read_text())
pem = (vectors / "key.pem").read_text().splitlines()[1]
seed = __import__("base64").b64decode(pem)[-32:]
reader_seed = bytes([9] * 32)
network, contributions, day, version, nonce = bytes([5] * 32), [bytes([1] * 32), bytes([2] * 32)], 20484, 1769860801, bytes([7] * 12)


def expanded(seed):
    """The scalar and the prefix of an identity (RFC 8032 5.1.5)."""
    wide = bytearray(sha512(seed).digest())
    wide[0] &= 248
    wide[31] = wide[31] & 127 | 64
    return int.from_bytes(wide[:32], "little"), bytes(wide[32:])


scalar, prefix = expanded(seed)
key = encode(times(scalar, BASE))
publisher = sha3_256(spki(key)).digest()
reader = sha3_256(spki(encode(times(expanded(reader_seed)[0], BASE)))).digest()
pair = sorted([(publisher, contributions[0]), (reader, contributions[1])])
secret = sha3_256(b"kithnet dht pair secret v1" + pair[0][0] + pair[1][0] + pair[0][1] + pair[1][1]).digest()
alias = sha3_256(b"kithnet dht alias v1" + secret + network + key + reader + day.to_bytes(4, "big")).digest()
blinding = number(sha3_512(b"kithnet dht blinding v1" + alias).digest())
seal = sha3_256(b"kithnet dht blinded seal v1" + alias).digest()
blinded = scalar * blinding % L
blinded_key = encode(times(blinded, BASE))
assert blinded_key == encode(times(blinding, times(scalar, BASE)))
place = sha3_256(b"kithnet dht blinded key v1" + blinded_key).digest()
head = blinded_key + day.to_bytes(4, "big") + version.to_bytes(8, "big") + nonce
plain = (len(record_set).to_bytes(2, "big") + record_set).ljust(1024, b"\0")
content = head + ChaCha20Poly1305(seal).encrypt(nonce, plain, head)
message = b"kithnet dht blinded value v1" + content
nonces = sha512(b"kithnet blinded nonces v1" + prefix + blinded_key).digest()[:32]
r = number(sha512(nonces + message).digest())
commitment = encode(times(r, BASE))
challenge = number(sha512(commitment + blinded_key + message).digest())
signature = commitment + ((r + challenge * blinded) % L).to_bytes(32, "little")
value = content + signature
for name in ["publisher", "reader", "secret", "alias", "seal", "blinded_key", "place", "signature"]:
    print(name, globals()[name].hex())
print("value", sha3_256(value).hexdigest())
