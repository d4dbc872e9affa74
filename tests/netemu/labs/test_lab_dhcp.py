"""DHCP by port, in a lab of its own: what a guest is leased, and what it finds by it.

`a` may be leased its address, `c` may not. What a hostile guest gets is in the catalogue, rows 301
on.
"""

import json
from collections.abc import Callable

from netemu.topology import mac_address
from tests.conftest import RunningLab

LAB = """
nodes:
  node1:
    dhcp: true
    guests: [a, {name: c, dhcp: false}]
"""

# Sends a client's messages in a guest, and prints the answers: their kind, address and source.
CLIENT = r"""
import json, socket, struct, sys, time
own = bytes.fromhex(open("/sys/class/net/eth0/address").read().replace(":", ""))
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
wire.bind(("eth0", 0))
ip = socket.inet_aton

def frame(kind, requested=None, sender="0.0.0.0", target="255.255.255.255", to="ff" * 6):
    wanted = b"\x32\4" + ip(requested) if requested else b""
    body = struct.pack("!4B4s4x4s12x16s192x", 1, 1, 6, 0, b"xidx", ip(sender), own)
    body += b"\x63\x82\x53\x63" + bytes([53, 1, kind]) + wanted + b"\xff"
    udp = struct.pack("!HHHH", 68, 67, 8 + len(body), 0) + body
    ends = ip(sender), ip(target)
    head = struct.pack("!BBHHHBBH4s4s", 69, 0, 20 + len(udp), 0, 0, 9, 17, 0, *ends)
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xffff) + (total >> 16)
    head = head[:10] + struct.pack("!H", ~(total + (total >> 16)) & 0xffff) + head[12:]
    return bytes.fromhex(to) + own + b"\x08\0" + head + udp

def answer(seconds):
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        wire.settimeout(left)
        try:
            got, (_, _, way, *_) = wire.recvfrom(2048)
        except TimeoutError:
            break
        if way != 4 and got[12:14] == b"\x08\0" and got[23] == 17 and len(got) > 284:
            return [got[284], socket.inet_ntoa(got[58:62]), got[6:12].hex(":")]
    return None

heard = []
for order in json.loads(sys.argv[1]):
    wire.send(frame(**order))
    heard.append(answer(float(sys.argv[2])))
print(json.dumps(heard))
"""
OFFER, ACK, NAK = 2, 5, 6


# Resolves a name as programs do, and asks the server itself for a name that it does not know.
RESOLVE = r"""
import socket, sys
for name in ("metadata.google.internal", "metadata.google.internal."):
    try:
        print(socket.getaddrinfo(name, 80, socket.AF_INET)[0][4][0])
    except OSError:
        print("none")
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
    asking.settimeout(1)
    asking.connect((sys.argv[1], 53))
    asking.send(b"\x12\x34\1\0\0\1\0\0\0\0\0\0\6debian\3org\0\0\1\0\1")
    try:
        print("refused" if asking.recv(512)[3] & 15 == 5 else "answered")
    except OSError:
        print("silent")
"""


def say(lab: RunningLab, guest: str, seconds: int, *orders: dict[str, object]) -> list[object]:
    """Have a guest send this. Returns the answer to each, which may take so many seconds."""
    heard: list[object] = json.loads(
        lab.python(guest, CLIENT, json.dumps(orders), str(seconds)).stdout
    )
    return heard


def test_a_port_is_leased_its_own_address_a_name_server_and_azures_wire_server(
    fresh_lab: Callable[..., RunningLab],
) -> None:
    lab = fresh_lab(LAB)
    node, address, other = mac_address(lab.name, "node1"), lab.address("a"), lab.address("c")
    server = "169.254.169.254"
    renewal = {"kind": 3, "sender": address, "target": server, "to": node.replace(":", "")}
    # Discovered, requested, and renewed from the address that it has; another's is refused.
    orders = ({"kind": 1}, {"kind": 3, "requested": address}, renewal)
    assert say(lab, "a", 30, *orders, {"kind": 3, "requested": other}) == [
        [OFFER, address, node],
        *[[ACK, address, node]] * 2,
        [NAK, "0.0.0.0", node],
    ]
    # A guest that may not be leased anything is not answered.
    assert say(lab, "c", 1, {"kind": 1}) == [None]
    # The metadata service's names, with the last dot too; and a name server, for `a` alone.
    resolved = [lab.python(guest, RESOLVE, server).stdout.split() for guest in ("a", "c")]
    assert resolved == [[server, server, "refused"], [server, server, "silent"]]
    # Azure's wire server, on the link: a namespace's addresses are link-local.
    goal = "http://168.63.129.16/machine/?comp=goalstate"
    asked = f"ip route add 168.63.129.16 dev eth0; curl -s --max-time $1 {goal}"
    told = [
        lab.exec(guest, "sh", "-c", asked, "sh", seconds, check=None).stdout
        for guest, seconds in (("a", "20"), ("c", "1"))
    ]
    assert "<InstanceId>_a</InstanceId>" in told[0]
    assert told[1] == ""
