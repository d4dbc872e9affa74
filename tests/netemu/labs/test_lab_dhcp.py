"""DHCP by port, in a lab of its own under same-node: what is leased, and what a hostile guest gets.

`a` and `b` may be leased their addresses, `c` may not. All three hear what reaches their wires.
"""

import json
import subprocess
from collections.abc import Callable

from netemu.topology import mac_address
from tests.conftest import RunningLab

LAB = """
policy: same-node
nodes:
  node1:
    dhcp: true
    guests: [a, b, {name: c, dhcp: false}]
"""

# Builds and sends frames in a guest, and prints the DHCP messages that it hears.
CLIENT = r"""
import json, socket, struct, sys, time

orders = json.loads(sys.argv[1])
own = bytes.fromhex(open("/sys/class/net/eth0/address").read().replace(":", ""))
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
wire.bind(("eth0", 0))
wire.settimeout(0.1)

def octets(mac): return bytes.fromhex(mac.replace(":", ""))
def ip(text): return socket.inet_aton(text)

def frame(kind, source=None, chaddr=None, to="ff:ff:ff:ff:ff:ff", sender="0.0.0.0",
          target="255.255.255.255", ports=(68, 67), requested=None, op=1, offered="0.0.0.0"):
    options = bytes([53, 1, kind])
    if requested:
        options += b"\x32\4" + ip(requested)
    body = struct.pack("!4B4s2H4s4s4s4s16s192s", op, 1, 6, 0, b"xidx", 0, 0, ip(sender),
                       ip(offered), ip("0.0.0.0"), ip("0.0.0.0"),
                       octets(chaddr) if chaddr else own, b"")
    body += b"\x63\x82\x53\x63" + options + b"\xff"
    udp = struct.pack("!HHHH", *ports, 8 + len(body), 0) + body
    lengths = (0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0)
    head = struct.pack("!BBHHHBBH4s4s", *lengths, ip(sender), ip(target))
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xffff) + (total >> 16)
    head = head[:10] + struct.pack("!H", ~(total + (total >> 16)) & 0xffff) + head[12:]
    return octets(to) + (octets(source) if source else own) + b"\x08\0" + head + udp

print("listens", flush=True)
heard = []
def listen(seconds, last=None):
    end = time.monotonic() + seconds
    while time.monotonic() < end and (not heard or heard[-1]["to"] != last):
        try:
            got, (_, _, way, *_) = wire.recvfrom(2048)
        except TimeoutError:
            continue
        if way == 4 or got[12:14] != b"\x08\0" or got[23] != 17:
            continue
        ports = struct.unpack_from("!HH", got, 34)
        heard.append({"from": ports[0], "to": ports[1], "source": got[6:12].hex(":"),
                      "kind": got[284] if len(got) > 284 else 0,
                      "address": socket.inet_ntoa(got[58:62]) if len(got) > 62 else ""})
for order in orders:
    if "times" in order:
        many = order.pop("times")
        for number in range(many):
            order["chaddr"] = f"02:99:00:00:{number >> 8:02x}:{number & 255:02x}"
            wire.send(frame(**order))
    elif "until" in order:
        listen(100, order["until"])
    elif "plain" in order:
        wire.send(frame(8, ports=(9999, 9998), target="169.254.255.255", sender=order["plain"]))
    else:
        wire.send(frame(**order))
    listen(0.3)
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
THE_END = 9998
Heard = list[dict[str, object]]


def ears(lab: RunningLab) -> dict[str, "subprocess.Popen[str]"]:
    """Guests that listen until they hear a broadcast that same-node allows."""
    made = {
        name: lab.start_python(name, CLIENT, json.dumps([{"until": THE_END}]))
        for name in ("b", "c")
    }
    for ear in made.values():
        assert ear.stdout is not None
        assert ear.stdout.readline() == "listens\n"
    return made


def say(lab: RunningLab, guest: str, *orders: dict[str, object]) -> Heard:
    """Have a guest send this. Returns what it has heard."""
    heard: Heard = json.loads(lab.python(guest, CLIENT, json.dumps(orders)).stdout.splitlines()[-1])
    return heard


def test_a_port_is_leased_its_own_address_and_no_guest_reaches_anothers(
    fresh_lab: Callable[..., RunningLab],
) -> None:
    """Starvation, a rogue server, a spoofed MAC, another's lease, and a guest without DHCP."""
    lab = fresh_lab(LAB)
    node_mac = mac_address(lab.name, "node1")
    address, other, other_mac = lab.address("a"), lab.address("b"), lab.mac("b")
    server = "169.254.169.254"
    neighbours = ears(lab)

    # Discovered, requested, and renewed from the address that it has.
    heard = say(
        lab,
        "a",
        {"kind": 1},
        {"kind": 3, "requested": address},
        {"kind": 3, "sender": address, "target": server, "to": node_mac},
    )
    leased = [(OFFER, address), (ACK, address), (ACK, address)]
    assert [(one["kind"], one["address"]) for one in heard] == leased
    assert {one["source"] for one in heard} == {node_mac}
    # Another's lease: refused, and the other keeps it.
    assert [one["kind"] for one in say(lab, "a", {"kind": 3, "requested": other})] == [NAK]
    # A spoofed MAC, below and in the message: nobody is answered.
    spoofed = {"kind": 1, "chaddr": other_mac}
    assert say(lab, "a", {**spoofed, "source": other_mac}, spoofed) == []
    # A rogue server: to everybody, to its victim, and as the node.
    rogue = {"kind": OFFER, "op": 2, "ports": (67, 68), "offered": "169.254.9.9"}
    said = say(
        lab,
        "a",
        {**rogue, "sender": address},
        {**rogue, "sender": address, "to": other_mac, "target": other},
        {**rogue, "sender": server},
        {**rogue, "sender": server, "source": node_mac, "to": other_mac},
    )
    assert said == []
    # Starvation: as many clients as it likes, none of which is leased anything.
    assert say(lab, "a", {"kind": 1, "times": 300}) == []
    # A guest that may not be leased anything is not answered.
    assert say(lab, "c", {"kind": 1}) == []

    # The metadata service's names: for a guest that is leased its address, with the last dot too.
    resolved = [lab.python(guest, RESOLVE, server).stdout.split() for guest in ("a", "c")]
    assert resolved == [[server, server, "refused"], [server, "none", "silent"]]

    # Of all this the neighbours have heard nothing, but they hear the broadcast that may pass.
    say(lab, "a", {"plain": address})
    for ear in neighbours.values():
        told = json.loads(ear.communicate(timeout=60)[0])
        assert [(one["from"], one["to"]) for one in told] == [(9999, THE_END)]
    heard = say(lab, "b", {"kind": 1})
    assert [(one["kind"], one["address"]) for one in heard] == [(OFFER, other)]
    assert (lab.address("a"), lab.address("b")) == (address, other)
    assert {one["state"] for one in lab.guests().values()} == {"bound"}
    assert '"_b"' in lab.get("b")
