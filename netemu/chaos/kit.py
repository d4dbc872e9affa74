"""What a hostile guest does, as scripts to be run in it by its root; and when, drawn from a seed.

Pure: texts and numbers. Each script attacks for two seconds and goes on after whatever is refused;
it takes no more than a small machine has. `TOKEN` is in every frame that a script makes.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

TOKEN: Final = b"HOSTILE!"

# Seconds between two attacks on average. They overlap: each lasts for two.
_PAUSE: Final = 0.7

_BEGIN: Final = f"""
import ctypes, fcntl, os, random, resource, signal, socket, struct, subprocess, sys, time
libc = ctypes.CDLL(None, use_errno=True)
end = time.monotonic() + 2
token = {TOKEN!r}
MD = '169.254.169.254'
def going():
    return time.monotonic() < end
def attempt(act, *arguments):
    try:
        return act(*arguments)
    except (OSError, ValueError, MemoryError, subprocess.SubprocessError):
        time.sleep(0.002)
def ip(*words):
    attempt(lambda: subprocess.run(['ip', *words], capture_output=True, timeout=2))
def wire():
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    made.bind(('eth0', 0))
    return made
def mac():
    return bytes.fromhex(open('/sys/class/net/eth0/address').read().strip().replace(':', ''))
"""

_SCRIPTS: Final = {
    "frames": """
made, own = wire(), mac()
kinds = (0x0800, 0x0806, 0x86dd, 0x8100, 0x88a8, 0x88cc, 0x88b5, 0x0027)
targets = [b'\\xff' * 6, bytes.fromhex('0180c2000000'), bytes.fromhex('01005e0000fb'), own]
while going():
    target = random.choice([*targets, random.randbytes(6)])
    source = random.choice([own, own, random.randbytes(6)])
    kind = random.choice(kinds).to_bytes(2, 'big')
    size = random.choice((28, 46, 300, 1400))
    attempt(made.send, target + source + kind + random.randbytes(size) + token)
""",
    "addresses": """
made, own = wire(), mac()
while going():
    for _ in range(50):
        address = random.choice((socket.inet_aton(MD), bytes([169, 254]) + random.randbytes(2)))
        sender = random.choice((address, bytes(4)))
        head = struct.pack('!HHBBH', 1, 0x800, 6, 4, random.choice((1, 2)))
        target = random.choice((address, socket.inet_aton(MD)))
        frame = b'\\xff' * 6 + own + b'\\x08\\x06' + head + own + sender + bytes(6) + target
        attempt(made.send, frame + token)
    time.sleep(0.01)
""",
    "link": """
number = 0
while going():
    number += 1
    ip('link', 'set', 'eth0', *random.choice((
        ('mtu', random.choice(('68', '1200', '1500', '9000', '65535'))), ('arp', 'off'),
        ('promisc', 'on'), ('down',), ('up',), ('txqueuelen', '0'), ('group', '7'),
        ('address', '02:aa:bb:cc:dd:ee'), ('alias', '\\x1b[2J'), ('multicast', 'off'))))
""",
    "devices": """
for number in range(40):
    kind = random.choice((('dummy',), ('bridge',), ('veth', 'peer', 'name', f'w{number}')))
    ip('link', 'add', f'v{number}', 'index', str(random.randrange(2, 400)), 'type', *kind)
    if not going():
        break
ip('link', 'add', 'link', 'eth0', 'name', 'up', 'type', random.choice(('macvlan', 'ipvlan')))
ip('link', 'set', 'eth0', 'name', 'taken')
""",
    "netlink": """
made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
made.bind((0, 0xffffffff))
while going():
    # Requests for dumps that nobody reads, and noise.
    kind = random.choice((18, 22, 26, 30))
    attempt(made.send, struct.pack('=IHHIIB15x', 32, kind, 0x301, 1, 0, 0))
    attempt(made.send, random.randbytes(64))
""",
    "sockets": """
kept = []
while going() and len(kept) < 3000:
    one = attempt(socket.socket)
    if one is None:
        break
    one.setblocking(False)
    attempt(one.connect, (MD, 80))
    kept.append(one)
while going():
    time.sleep(0.05)
""",
    "http": """
texts = (b'GET / HTTP/1.1\\r\\n', b'GET ' + b'a' * 60000, b'A: b\\r\\n' * 3000, os.urandom(4000),
         b'POST /metadata/v1/InstanceInfo HTTP/1.1\\r\\nContent-Length: 99999999999\\r\\n\\r\\n',
         b'GET /metadata/v1/InstanceInfo HTTP/1.1\\r\\nHost: %s\\r\\n\\r\\n' % MD.encode() * 200)
kept = []
while going():
    one = attempt(lambda: socket.create_connection((MD, 80), 0.5))
    if one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        attempt(one.sendall, random.choice(texts))
        kept = [*kept[-20:], one]
""",
    "descriptors": """
import array
kept, null = [], os.open('/dev/null', os.O_RDONLY)
rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [null] * 253))]
def queue():
    kept.append(socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
    kept[-1][0].setblocking(False)
    while True:
        kept[-1][0].sendmsg([b'x'], rights)
while going():
    attempt(queue)
""",
    "objects": """
kept = []
for take in (lambda: libc.inotify_init1(0), lambda: libc.eventfd(0, 0),
             lambda: libc.timer_create(1, None, (ctypes.c_int * 1)()),
             lambda: libc.epoll_create1(0), lambda: libc.unshare(0x40000000)):
    for _ in range(3000):
        if not going() or take() < 0:
            break
while going():
    time.sleep(0.05)
""",
    "processes": """
children = []
for _ in range(200):
    child = attempt(os.fork)
    if child == 0:
        signal.alarm(3)
        while True:
            attempt(os.kill, -1, random.choice((signal.SIGCONT, signal.SIGWINCH)))
            time.sleep(0.2)
    if child:
        children.append(child)
attempt(os.kill, 1, signal.SIGKILL)
attempt(os.kill, 1, signal.SIGUSR1)
attempt(libc.ptrace, 0x4206, 1, 0, 0)
while going():
    time.sleep(0.05)
for child in children:
    attempt(os.kill, child, signal.SIGKILL)
""",
    "mounts": """
libc.unshare(0x20000)
while going():
    kind = random.choice((b'proc', b'sysfs', b'tmpfs', b'devpts', b'mqueue', b'cgroup2'))
    place = random.choice((b'/mnt', b'/run', b'/proc', b'/dev'))
    libc.mount(kind, place, kind, 0, None)
    libc.umount2(random.choice((b'/proc/sys', b'/', b'/dev', place)), 2)
    libc.unshare(0x20000)
""",
    "settings": """
found = [os.path.join(where, name) for where, _, names in os.walk('/proc/sys') for name in names]
found = [path for path in found if os.access(path, os.W_OK)]
while going() and found:
    value = random.choice((b'0', b'1', b'2147483647', b'-1', b'1 1 1'))
    path = random.choice(found)
    def write():
        with open(path, 'wb', 0) as file:
            file.write(value)
    attempt(write)
""",
    "filters": """
chain = '{ type filter hook ingress device eth0 priority 0; }'
table = f'add table netdev f; add chain netdev f c {chain}'
# They are run for each frame that comes, in the turn of the process that sent it.
for rules in (table, *['add rule netdev f c udp dport 9 counter\\n' * 400] * 20):
    attempt(lambda: subprocess.run(['nft', '-f', '-'], input=rules.encode(),
                                   capture_output=True, timeout=2))
while going():
    one = attempt(lambda: socket.create_connection((MD, 80), 0.5))
    if one:
        attempt(one.sendall, b'GET /metadata/v1/InstanceInfo HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n')
        attempt(one.recv, 4096)
        one.close()
""",
    "timers": """
signal.signal(signal.SIGCONT, lambda *_: None)
signal.signal(signal.SIGALRM, lambda *_: os.kill(0, signal.SIGCONT))
os.setpgid(0, 0)
signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
while going():
    ip('link', 'set', 'eth0', random.choice(('down', 'up')))
    attempt(os.kill, -1, signal.SIGCONT)
""",
    "files": """
kept = []
for where, below, names in os.walk('/'):
    if where in ('/proc', '/sys'):
        below.clear()
        continue
    if not going():
        break
    for name in names[:50]:
        path = os.path.join(where, name)
        def hold():
            file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            if len(kept) < 2000:
                kept.append(file)
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            os.close(file)
        attempt(hold)
        attempt(os.open, path, os.O_WRONLY | os.O_NONBLOCK)
""",
    "memory": """
with open('/run/filled', 'wb') as file:
    while going() and file.tell() < 32 << 20:
        attempt(file.write, bytes(1 << 20))
os.unlink('/run/filled')
""",
}

ATTACKS: Final = {name: _BEGIN + script for name, script in _SCRIPTS.items()}
"""The scripts by name."""

LISTEN: Final = f"""
import socket, sys, threading
made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
made.bind(('eth0', 3))
made.settimeout(0.5)
threading.Thread(target=lambda: (sys.stdin.read(), ending.append(1)), daemon=True).start()
ending, heard = [], 0
print('ready', flush=True)
while not ending:
    try:
        heard += {TOKEN!r} in made.recv(65536)
    except TimeoutError:
        pass
print(heard, flush=True)
"""
"""Says how many of the attackers' frames have come by the wire when its standard input ends."""


POLL: Final = """
import http.client, json, os, select, sys, time
pause = float(sys.argv[1])
def ask():
    link = http.client.HTTPConnection('169.254.169.254', timeout=20)
    try:
        link.request('GET', '/metadata/v1/InstanceInfo')
        answer = link.getresponse()
        return json.loads(answer.read())['ID'] if answer.status == 200 else str(answer.status)
    except Exception as error:
        return repr(error)
    finally:
        link.close()
print('ready', flush=True)
at = time.monotonic()
while not select.select([0], [], [], max(0, at - time.monotonic()))[0]:
    began = time.monotonic()
    print(json.dumps([ask(), time.monotonic() - began]), flush=True)
    at = began + pause
"""
"""Asks who it is every so many seconds, until its standard input ends; a line has what was said and
the seconds that it took.
"""


@dataclass(frozen=True)
class Attack:
    """`guest` begins the attack `name` at `at` seconds from the beginning."""

    at: float
    guest: str
    name: str


def draw(attackers: Sequence[str], *, seed: int, duration: float) -> list[Attack]:
    """Attacks for `duration` seconds, in order, each kind as often as any other."""
    chance = random.Random(seed)
    attacks: list[Attack] = []
    names: list[str] = []
    now = chance.expovariate(1 / _PAUSE)
    while now < duration:
        if not names:
            names = chance.sample(sorted(ATTACKS), len(ATTACKS))
        attacks.append(Attack(now, chance.choice(attackers), names.pop()))
        now += chance.expovariate(1 / _PAUSE)
    return attacks
