"""Scripts that run inside guests and nodes: send a frame, listen for frames. No privilege needed.

They are texts because they run in another process, in another namespace.
"""

# argv: interface, frames in hex
SEND = """
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind((sys.argv[1], 0))
for frame in sys.argv[2:]:
    s.send(bytes.fromhex(frame))
"""

# argv: interface, seconds. Prints "ready", then each frame as "in|out HEX".
LISTEN = """
import select, socket, sys, time
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind((sys.argv[1], 3))
index = socket.if_nametoindex(sys.argv[1])
s.setsockopt(263, 1, index.to_bytes(4, 'little') + (1).to_bytes(2, 'little') + bytes(10))
print('ready', flush=True)
end = time.monotonic() + float(sys.argv[2])
while (left := end - time.monotonic()) > 0:
    if select.select([s], [], [], left)[0]:
        frame, address = s.recvfrom(2048)
        print('out' if address[2] == 4 else 'in', frame.hex(), flush=True)
"""

BROADCAST = "ff" * 6


def octets(address: str) -> str:
    """A dotted address in hex."""
    return bytes(map(int, address.split("."))).hex()


def mac_hex(mac: str) -> str:
    return mac.replace(":", "")


def arp(
    source: str,
    *,
    operation: int = 1,
    sender_ip: str = "0.0.0.0",
    target_ip: str,
    sender_mac: str | None = None,
    destination: str = BROADCAST,
) -> str:
    """An ARP frame in hex; MACs as text with colons."""
    sender = mac_hex(sender_mac or source)
    return (
        f"{mac_hex(destination)}{mac_hex(source)}0806"
        f"000108000604{operation:04x}{sender}{octets(sender_ip)}{'00' * 6}{octets(target_ip)}"
    )


def udp(source: str, destination: str, sender_ip: str, target_ip: str, payload: bytes) -> str:
    """A UDP datagram in hex, without a UDP checksum."""
    length = 28 + len(payload)
    header = bytes.fromhex(
        f"4500{length:04x}000000004011" + "0000" + octets(sender_ip) + octets(target_ip)
    )
    total = sum(int.from_bytes(header[i : i + 2], "big") for i in range(0, 20, 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    header = header[:10] + (~total & 0xFFFF).to_bytes(2, "big") + header[12:]
    body = f"30393039{8 + len(payload):04x}0000{payload.hex()}"
    return f"{mac_hex(destination)}{mac_hex(source)}0800{header.hex()}{body}"
