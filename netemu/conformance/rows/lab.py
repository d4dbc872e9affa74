"""The lab: attacks of a guest's root on the kernel, the lab's processes and the machine.

Each attack is a script that runs in the attacking guest and prints what succeeded. It changes
nothing outside. Whether a freeze holds is read from the guest's own clock afterwards.
"""

import sys
import time
from collections.abc import Callable
from typing import Final

from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from hostagent.model import EventType
from netemu.client import labs
from netemu.client.maintenance import Maintenance
from netemu.conformance.inside import Inside
from netemu.conformance.labstage import LabStage
from netemu.conformance.roles import BROADCAST
from netemu.conformance.row import ALLOWED, DROPPED, FAILED, REFUSED, Observed, Row, refused
from netemu.conformance.rows.arp import arp
from netemu.conformance.rows.ethernet import syn

# Seconds for which the attacker is frozen, and how many of them its clock must have stood still.
_FROZEN: Final = 1.0
_STOOD: Final = 0.8
# Seconds that the lab may take to carry out an event.
_PATIENCE: Final = 20.0

_FAMILIES: Final = """
import socket
for family in range(1, 64):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
        try:
            socket.socket(family, kind).close()
        except OSError:
            continue
        if family not in (1, 2, 10, 16, 17):
            print('a socket of family', family)
"""
_KEYS: Final = """
import ctypes, os
libc = ctypes.CDLL(None)
add, ask, control = {'x86_64': (248, 249, 250), 'aarch64': (217, 218, 219)}[os.uname().machine]
for ring in (-3, -4, -5):
    key = libc.syscall(add, b'user', b'netemu-row', b'x', 1, ring)
    if key > 0:
        print('a key in ring', ring)
        libc.syscall(control, 21, key)  # KEYCTL_INVALIDATE: none is left
if libc.syscall(control, 0, -3, 1) > 0:
    print('a session keyring')
"""
_CALLS: Final = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
calls = {'x86_64': {'io_setup': 206, 'io_uring_setup': 425, 'io_uring_enter': 426,
                    'io_uring_register': 427, 'getpid of x32': 0x40000027},
         'aarch64': {'io_setup': 0, 'io_uring_setup': 425, 'io_uring_enter': 426,
                     'io_uring_register': 427}}[os.uname().machine]
for name, number in calls.items():
    ctypes.set_errno(0)
    if libc.syscall(number, 0, 0, 0, 0, 0) != -1 or ctypes.get_errno() != 38:
        print(name)
"""
_TYPING: Final = """
import fcntl, os, termios
if os.fork() == 0:
    os.setsid()
    own, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)
    for name, call in (('TIOCSTI', 0x5412), ('TIOCLINUX', 0x541c)):
        for high in (0, 1 << 32):
            try:
                fcntl.ioctl(theirs, (call | high) & 0xffffffff, b'x')
                print(name, flush=True)
            except OSError:
                pass
    os._exit(0)
os.wait()
"""
_DEVICES: Final = """
import os, stat
own = {'null', 'zero', 'full', 'random', 'urandom', 'tty', 'net/tun', 'pts/ptmx'}
for where, _, names in os.walk('/dev'):
    for name in names:
        path = os.path.join(where, name)
        kind = os.lstat(path).st_mode
        if (stat.S_ISCHR(kind) or stat.S_ISBLK(kind)) and path[5:] not in own:
            print(path)
for kind, number in ((stat.S_IFBLK, os.makedev(7, 0)), (stat.S_IFCHR, os.makedev(1, 11))):
    try:
        os.mknod('/run/netemu-row', kind | 0o600, number)
        os.unlink('/run/netemu-row')
        print('a device node of its own')
    except OSError:
        pass
"""
_FIRST: Final = """
import ctypes, os
libc = ctypes.CDLL(None)
if libc.ptrace(0x4206, 1, 0, 0) == 0:
    print('traced')
    libc.ptrace(17, 1, 0, 0)
process = libc.syscall(434, 1, 0)  # pidfd_open
if process >= 0 and libc.syscall(438, process, 0, 0) >= 0:  # pidfd_getfd
    print('took a descriptor')
for name in ('environ', 'mem', 'maps', 'fd/0', 'root/etc/hostname', 'cwd/etc/hostname'):
    try:
        with open(f'/proc/1/{name}', 'rb') as file:
            if name == 'mem':
                file.seek(0x1000)
        print('read', name)
    except OSError:
        pass
"""
_MOUNTS: Final = """
import ctypes, os
libc = ctypes.CDLL(None)
kinds = [('cgroup2', '')] + [('cgroup', one) for one in
    ('freezer', 'memory', 'pids', 'devices', 'cpu', 'blkio', 'none,name=systemd')]
kinds += [(one, '') for one in ('debugfs', 'tracefs', 'securityfs', 'pstore', 'configfs', 'bpf',
                                'efivarfs', 'devtmpfs', 'fusectl')]
def look(how):
    for kind, options in kinds:
        if libc.mount(b'none', b'/run/netemu-row', kind.encode(), 0, options.encode()) != 0:
            continue
        writable = [one for one in ('.', 'cgroup.procs', 'tasks', 'freezer.state', 'cgroup.freeze')
                    if os.access(f'/run/netemu-row/{one}', os.W_OK)]
        # A file system of one's own harms nobody.
        if writable and not (kind == 'bpf' and how):
            print(kind, options, *writable, flush=True)
        libc.umount2(b'/run/netemu-row', 2)
os.makedirs('/run/netemu-row', exist_ok=True)
look('')
if os.fork() == 0:
    if libc.unshare(0x02000000 | 0x20000) == 0:
        look('in a cgroup namespace of its own')
    os._exit(0)
os.wait()
os.rmdir('/run/netemu-row')
"""
_SETTINGS: Final = """
import os
for path in ('/proc/sys/kernel/core_pattern', '/proc/sys/vm/drop_caches', '/proc/sys/fs/file-max',
             '/proc/sysrq-trigger', '/proc/irq/default_smp_affinity', '/sys/power/state',
             '/sys/kernel/uevent_helper', '/sys/module/kernel/parameters/panic',
             '/proc/sys/net/netfilter/nf_hooks_lwtunnel'):
    try:
        os.close(os.open(path, os.O_WRONLY))
        print(path)
    except OSError:
        pass
"""
_FILES: Final = """
import os
for path in ('/etc', '/usr/bin', '/var/lib', '/boot', '/home', '/opt'):
    if os.path.isdir(path) and os.access(path, os.W_OK):
        print(path)
"""
_PROCESSES: Final = """
import os
for process in filter(str.isdigit, os.listdir('/proc')):
    try:
        line = open(f'/proc/{process}/cmdline').read().split('\\0')
    except OSError:
        continue
    if {'hostagent', 'netemu.supervisor.boot.pid1'} & set(line):
        print(process, *line)
"""
_DESCRIPTORS: Final = """
import os
fds = '/proc/self/fd/'
held = [one for one in os.listdir(fds) if os.path.exists(fds + one) and int(one) > 2]
for one in held:
    print(one, os.readlink(fds + one))
for one in range(3):
    if os.isatty(one):
        print('a terminal:', one)
"""


def tried(script: str) -> Callable[[LabStage], Observed]:
    """Run a script in the attacking guest. The verdict is refused if it prints nothing."""

    def play(stage: LabStage) -> Observed:
        with stage.process_of_attacker() as guest:
            code, out, err = guest.run(sys.executable, "-c", script)
        if code != 0:
            return Observed(FAILED, err.splitlines()[-3:])
        return Observed("reached" if out else REFUSED, out.splitlines()[:20])

    return play


class _Frozen:
    """The attacker is frozen while the `with` block runs."""

    def __init__(self, stage: LabStage) -> None:
        self._stage = stage

    def __enter__(self) -> None:
        plan = Maintenance(self._stage.lab)
        guests = [self._stage.one.name]
        self._event = plan.schedule(guests, EventType.FREEZE, notice=0, duration=3600).id
        self._until("frozen")

    def __exit__(self, *_: object) -> None:
        Maintenance(self._stage.lab).complete(self._event)
        self._until("running")

    def _until(self, power: str) -> None:
        end = time.monotonic() + _PATIENCE
        while self._power() != power and time.monotonic() < end:
            time.sleep(0.02)

    def _power(self) -> str:
        nodes = labs.status(self._stage.lab)["nodes"]
        found = {one["name"]: one["power"] for node in nodes for one in node["guests"]}
        return str(found[self._stage.one.name])


# Records its longest pause. A timer sends SIGCONT every ten milliseconds, with a handler, and the
# clock runs in a PID namespace below.
_CLOCK: Final = """
import ctypes, os, signal, sys, time
libc = ctypes.CDLL(None)
libc.unshare(0x20000000)
if os.fork():
    os.wait()
    sys.exit()
signal.signal(signal.SIGCONT, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
signal.signal(signal.SIGALRM, lambda *_: os.kill(0, signal.SIGCONT))
os.setpgid(0, 0)
open('/run/netemu-begun', 'w').close()
last, longest = time.monotonic(), 0.0
end = last + 60
while time.monotonic() < end and not os.path.exists('/run/netemu-stop'):
    now = time.monotonic()
    longest, last = max(longest, now - last), now
    time.sleep(0.005)
with open('/run/netemu-longest.new', 'w') as file:
    file.write(str(longest))
os.rename('/run/netemu-longest.new', '/run/netemu-longest')
"""


def _clock(stage: LabStage) -> Observed:
    """Freeze a guest whose processes are prepared for it, and read how long they stood still."""
    with stage.process_of_attacker() as guest:
        guest.run("rm", "-f", "/run/netemu-begun", "/run/netemu-stop", "/run/netemu-longest")
        wrong = guest.call(Inside.start, [sys.executable, "-c", _CLOCK], {})
        if wrong:
            return Observed(FAILED, [wrong])
        end = time.monotonic() + _PATIENCE
        while guest.run("test", "-e", "/run/netemu-begun")[0]:
            if time.monotonic() > end:
                return Observed(FAILED, ["the guest's clock does not begin"])
            time.sleep(0.05)
        with _Frozen(stage):
            time.sleep(_FROZEN)
        guest.run("touch", "/run/netemu-stop")
        end = time.monotonic() + _PATIENCE
        while (longest := guest.call(Inside.read, "/run/netemu-longest"))[:1].isalpha():
            if time.monotonic() > end:
                return Observed(FAILED, ["the guest's clock does not end"])
            time.sleep(0.05)
        guest.call(Inside.stop)
    stood = float(longest) >= _STOOD * _FROZEN
    return Observed("stood" if stood else "ran", [f"{longest} s, frozen for {_FROZEN:g} s"])


def _frozen_wire(stage: LabStage) -> Observed:
    """Send by a frozen guest's wire, and set its link down and up: no frame may pass."""
    frames = [
        arp(stage, psrc=stage.i1, pdst=stage.md),
        Ether(dst=stage.bridge, src=stage.m1) / syn(stage),
        Ether(dst=stage.m2, src=stage.m1) / IP(src=stage.i1, dst=stage.i2) / UDP(dport=9),
        Ether(dst=BROADCAST, src=stage.m1, type=0x88B5) / Raw(b"x" * 46),
    ]
    with _Frozen(stage):
        stage.attacker.run("ip", "link", "set", stage.attacker.interface, "down")
        stage.attacker.run("ip", "link", "set", stage.attacker.interface, "up")
        stage.sent = [stage.signed(frame) for frame in frames]
        stage.attacker.send(stage.sent)
    if not stage.await_bound(stage.one.name):
        return Observed(FAILED, [f"{stage.one.name} is not bound again"])
    seen = stage.sightings()
    return Observed(ALLOWED if seen else DROPPED, [], seen[:20])


def scripted(number: int, title: str, reference: str, script: str, *, held: str = "") -> Row:
    return refused(number, title, reference, tried(script), held=held)


_ORDINARY: Final = "an ordinary user's lab has no rights there, guest or not"
_NO_LAB: Final = "every lab's commands close all but three: close_range(2)"

ROWS: Final = (
    scripted(81, "Sockets that are one for the machine", "vsock(7)", _FAMILIES),
    scripted(82, "Keys that others can read", "keyrings(7)", _KEYS),
    scripted(83, "io_uring, aio and foreign ABIs", "seccomp(2)", _CALLS),
    scripted(84, "Type into a terminal", "CVE-2005-4890, CVE-2023-28339", _TYPING),
    scripted(85, "Disks, the kernel's log, others' terminals", "devices of the machine", _DEVICES),
    scripted(86, "Trace and read the first process", "ptrace(2)", _FIRST),
    scripted(
        87, "Control groups and the kernel's file systems", "CVE-2022-0492", _MOUNTS, held=_ORDINARY
    ),
    scripted(88, "The machine's settings", "proc(5)", _SETTINGS, held=_ORDINARY),
    scripted(89, "The machine's files", "CVE-2019-5736", _FILES, held=_ORDINARY),
    scripted(90, "Descriptors left open", "CVE-2024-21626", _DESCRIPTORS, held=_NO_LAB),
    scripted(91, "The lab's processes", "pid_namespaces(7)", _PROCESSES),
    Row(
        "92",
        "Run while frozen: SIGCONT timers, namespaces below",
        "ptrace(2)",
        "stood",
        in_lab=_clock,
    ),
    Row(
        "93",
        "Speak while frozen: the link set down and up",
        "the guard's set of frozen ports",
        in_lab=_frozen_wire,
    ),
)
