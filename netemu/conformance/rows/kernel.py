"""The kernel: what a guest's root asks of it that would reach the machine or another guest.

Each attack is a script that runs in the attacking guest and prints what it got through. It asks in
a way that changes nothing where it is allowed: it opens and does not write, or does so in a child.
"""

import sys
from collections.abc import Callable
from typing import Final

from netemu.conformance.labstage import LabStage
from netemu.conformance.row import FAILED, REFUSED, Observed, Row, refused
from netemu.conformance.rows.lab import scripted

_LIBC: Final = """
import ctypes, errno, fcntl, os, resource, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
x86 = os.uname().machine == 'x86_64'
def call(name, numbers, *arguments, lets=()):
    ctypes.set_errno(0)
    done = libc.syscall(numbers[0] if x86 else numbers[1], *arguments)
    if done >= 0 or ctypes.get_errno() in lets:
        print(name, flush=True)
    return done
def in_a_child(act):
    child = os.fork()
    if child == 0:
        try:
            act()
        finally:
            sys.stdout.flush()
            os._exit(0)
    os.waitpid(child, 0)
"""

_OWN_PROC: Final = (
    _LIBC
    + """
os.makedirs('/run/netemu-row', exist_ok=True)
def look():
    if libc.mount(b'proc', b'/run/netemu-row', b'proc', 0, None) == 0:
        for path in ('sys/kernel/core_pattern', 'sysrq-trigger', 'sys/user/max_user_namespaces'):
            if os.access(f'/run/netemu-row/{path}', os.W_OK):
                print(path, 'in a /proc of its own')
def nested():
    if libc.unshare(0x20000 | 0x20000000) == 0:
        in_a_child(look)
def nested_user():
    own = os.getuid(), os.getgid()
    if libc.unshare(0x10000000) == 0:
        for name, text in (('setgroups', 'deny'), ('uid_map', f'0 {own[0]} 1'),
                           ('gid_map', f'0 {own[1]} 1')):
            try:
                open(f'/proc/self/{name}', 'w').write(text)
            except OSError:
                pass
        nested()
in_a_child(nested)
in_a_child(nested_user)
os.rmdir('/run/netemu-row')
"""
)
_LIFT: Final = (
    _LIBC
    + """
def lift():
    if libc.unshare(0x20000) != 0 or libc.mount(b'none', b'/', None, 16384 | 1 << 18, None) != 0:
        return
    for path in ('/proc/sys', '/proc', '/dev', '/sys', '/run', '/etc/hosts'):
        if os.path.ismount(path) and libc.umount2(path.encode(), 2) == 0:
            print('lifted', path)
    for path in ('/', '/etc', '/usr', '/sys', '/proc/sys'):
        read_only = os.path.ismount(path) and os.statvfs(path).f_flag & os.ST_RDONLY
        if read_only and libc.mount(b'none', path.encode(), None, 32 | 4096, None) == 0:
            print('writes', path)
    if libc.mount(b'/', b'/mnt', None, 4096, None) == 0 and os.path.exists('/mnt/dev/kmsg'):
        print('saw what is beneath')
in_a_child(lift)
"""
)
_RAISE: Final = (
    _LIBC
    + """
for name in os.listdir('/proc/sys/user'):
    if os.access(f'/proc/sys/user/{name}', os.W_OK):
        print(name)
if int(open('/proc/sys/user/max_inotify_instances').read()) > 64:
    print('none of its own')
def more():
    for name in ('NOFILE', 'NPROC', 'SIGPENDING', 'MSGQUEUE', 'CORE', 'MEMLOCK', 'RTPRIO', 'NICE'):
        kind = getattr(resource, f'RLIMIT_{name}')
        soft, hard = resource.getrlimit(kind)
        if hard != resource.RLIM_INFINITY:
            try:
                resource.setrlimit(kind, (soft, hard + 1))
                print(name)
            except (OSError, ValueError):
                pass
in_a_child(more)
"""
)
_WATCHES: Final = (
    _LIBC
    + """
for name, most, take in (
    ('inotify instances', 64, lambda: libc.inotify_init1(0)),
    ('fanotify groups', 64, lambda: libc.fanotify_init(0x200, 0)),
):
    def count():
        count = 0
        while count <= most and take() >= 0:
            count += 1
        if count > most:
            print('more than', most, name)
    in_a_child(count)
"""
)
_NAMESPACES: Final = (
    _LIBC
    + """
def many():
    kept = []
    for kind, flag in (('uts', 0x4000000), ('ipc', 0x8000000), ('cgroup', 0x2000000)):
        for number in range(100):
            if libc.unshare(flag) != 0:
                break
            kept.append(os.open(f'/proc/self/ns/{kind}', os.O_RDONLY))
        else:
            print('a hundred namespaces of', kind)
in_a_child(many)
"""
)
_IN_FLIGHT: Final = (
    _LIBC
    + """
import array
def send():
    most = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 40000)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    null = os.open('/dev/null', os.O_RDONLY)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [null] * 253))]
    pairs, sent = [], 0
    while sent <= 2 * most and len(pairs) < most // 2 - 50:
        pairs.append(socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
        pairs[-1][0].setblocking(False)
        try:
            while sent <= 2 * most:
                pairs[-1][0].sendmsg([b'x'], rights)
                sent += 253
        except BlockingIOError:
            continue
        except OSError:
            return
    print('more than', sent, 'descriptors in flight')
in_a_child(send)
"""
)
_SET_ID: Final = (
    _LIBC
    + """
path = '/run/netemu-row'
def attempt(name, act):
    try:
        act()
        if os.stat(path).st_mode & 0o6000:
            print(name)
    except OSError:
        pass
    if os.path.exists(path):
        os.unlink(path)
def made(mode=0o755):
    return os.open(path, os.O_CREAT | os.O_WRONLY, mode)
os.umask(0)
attempt('open', lambda: made(0o4755))
attempt('chmod', lambda: (made(), os.chmod(path, 0o4755)))
attempt('fchmod', lambda: os.fchmod(made(), 0o2755))
attempt('mknod', lambda: os.mknod(path, 0o104755))
attempt('openat2', lambda: libc.syscall(437, -100, path.encode(),
                                         (ctypes.c_uint64 * 3)(0o101, 0o4755, 0), 24))
attempt('fchmodat2', lambda: (made(), libc.syscall(452, -100, path.encode(), 0o4755, 0)))
def temporary():
    made_there = os.open('/run', os.O_TMPFILE | os.O_RDWR, 0o4755)
    os.link(f'/proc/self/fd/{made_there}', path, follow_symlinks=True)
attempt('O_TMPFILE', temporary)
made()
import struct
capability = struct.pack('<5I', 0x02000001, 1 << 7, 0, 0, 0)
try:
    os.setxattr(path, 'security.capability', capability)
    print('a capability')
except OSError:
    pass
os.unlink(path)
"""
)
_LOOK: Final = (
    _LIBC
    + """
attributes = (ctypes.c_uint64 * 16)()
call('bpf', (321, 280), 0, 0, 0, lets=(errno.EINVAL, errno.EFAULT, errno.E2BIG))
call('perf_event_open', (298, 241), attributes, 0, -1, -1, 0,
     lets=(errno.EINVAL, errno.ENOENT, errno.E2BIG))
"""
)
_LOG: Final = (
    _LIBC
    + """
buffer = ctypes.create_string_buffer(4096)
call('the last lines', (103, 116), 3, buffer, 4096)
call('its size', (103, 116), 10, None, 0)
for path in ('/dev/kmsg', '/proc/kmsg'):
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        print(path)
    except OSError:
        pass
"""
)
_FIRST: Final = (
    _LIBC
    + """
def attempts():
    def fifo():
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    def kept():
        os.write(os.open('/proc/self/oom_score_adj', os.O_WRONLY), b'-1000')
    for name, act in (
        ('nice', lambda: os.setpriority(os.PRIO_PROCESS, 0, -5)),
        ('real time', fifo),
        ('kept when memory is short', kept),
    ):
        try:
            act()
            print(name)
        except OSError:
            pass
    call('before others at the disk', (251, 30), 1, 0, 1 << 13)
in_a_child(attempts)
"""
)
_HANDLES: Final = (
    _LIBC
    + """
handle = ctypes.create_string_buffer(136)
ctypes.c_uint32.from_buffer(handle).value = 128
mount = ctypes.c_int()
if libc.name_to_handle_at(-100, b'/etc/passwd', handle, ctypes.byref(mount), 0) == 0:
    root = os.open('/', os.O_RDONLY)
    if libc.open_by_handle_at(root, handle, os.O_RDONLY) >= 0:
        print('opened a file by its handle')
"""
)
_LEASES: Final = (
    _LIBC
    + """
for path in ('/etc/passwd', '/etc/hostname', '/etc/os-release', '/usr/bin/env'):
    try:
        file = os.open(path, os.O_RDONLY)
        fcntl.fcntl(file, 1024, fcntl.F_RDLCK)
        print(path)
        fcntl.fcntl(file, 1024, fcntl.F_UNLCK)
    except OSError:
        pass
"""
)
_DUMPS: Final = (
    _LIBC
    + """
def raised():
    if resource.getrlimit(resource.RLIMIT_CORE)[0] != 1:
        print('a crash is handed to the program of', open('/proc/sys/kernel/core_pattern').read())
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (4096, 4096))
        print('and may be')
    except (OSError, ValueError):
        pass
in_a_child(raised)
"""
)
# Arguments that fail only behind the check of privileges.
_STEER: Final = (
    _LIBC
    + """
behind = (errno.EINVAL, errno.EFAULT, errno.ENOENT, errno.ENOEXEC, errno.EBADF, errno.ENODEV)
call('reboot', (169, 142), 1, 2, 3, lets=behind)
call('swapon', (167, 224), b'/none', 0, lets=behind)
call('init_module', (175, 105), None, 0, None, lets=behind)
call('kexec_load', (246, 104), 0, 99, None, 0, lets=behind)
call('acct', (163, 89), b'/none', lets=behind)
call('delete_module', (176, 106), b'netemu_row', 0x800, lets=behind)
"""
)
# RTM_GETLINK with IFLA_TARGET_NETNSID, and RTM_NEWLINK with it or with IFLA_LINK_NETNSID: the other
# end of a wire has given its namespace a number.
_BY_NUMBER: Final = (
    _LIBC
    + """
import struct
def asked(kind, flags, *attributes):
    body = struct.pack('=BBHiII', 0, 0, 0, 0, 0, 0)
    for number, value in attributes:
        body += struct.pack('=HH', 4 + len(value), number) + value + bytes(-len(value) % 4)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as link:
        link.settimeout(5)
        link.send(struct.pack('=IHHII', 16 + len(body), kind, flags, 1, 0) + body)
        answer = link.recv(65536)
    kind, = struct.unpack_from('=H', answer, 4)
    return struct.unpack_from('=i', answer, 16)[0] if kind in (2, 3) else 1
def info(kind):
    return 0x8012, struct.pack('=HH', 4 + len(kind), 1) + kind + bytes(-len(kind) % 4)
name = 3, b'netemu-row\\0'
for number in range(4):
    target = 46, struct.pack('=i', number)
    if asked(18, 0x301, target) > 0:
        print('links of', number)
    if asked(16, 0x605, target, name, info(b'dummy')) == 0:
        print('a link in', number)
        asked(17, 5, target, name)
    if asked(16, 0x605, (37, struct.pack('=i', number)), (5, struct.pack('=i', 2)), name,
             info(b'macvlan')) == 0:
        print('a link over one of', number)
        asked(17, 5, name)
"""
)

# What the attacker leaves, and how the victim looks for it.
_LEAVE: Final = {
    "shared memory": (
        """
import ctypes
libc = ctypes.CDLL(None)
print(libc.shmget(0x6e657431, 4096, 0o1666) >= 0)
""",
        """
import ctypes
libc = ctypes.CDLL(None)
found = libc.shmget(0x6e657431, 4096, 0o666)
if found >= 0:
    print('shared memory')
    libc.shmctl(found, 0, None)
""",
    ),
    "files": (
        """
import os
for path in ('/dev/shm/netemu-row', '/run/netemu-row-file'):
    open(path, 'w').close()
""",
        """
import os
for path in ('/dev/shm/netemu-row', '/run/netemu-row-file'):
    if os.path.exists(path):
        print(path)
""",
    ),
    "processes": (
        """
import subprocess, sys
subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(20)', 'netemu-row-process'],
                 stdin=-3, stdout=-3, stderr=-3, start_new_session=True)
""",
        """
import os
for process in filter(str.isdigit, os.listdir('/proc')):
    try:
        if 'netemu-row-process' in open(f'/proc/{process}/cmdline').read().split('\\0'):
            os.kill(int(process), 9)
            print('process', process)
    except OSError:
        pass
""",
    ),
}


def _left(what: str) -> Callable[[LabStage], Observed]:
    """Have the attacker leave something, and the victim, a neighbour on its node, look for it."""
    leave, look = _LEAVE[what]

    def play(stage: LabStage) -> Observed:
        with stage.process_of_attacker() as guest:
            code, _, err = guest.run(sys.executable, "-c", leave)
            if code != 0:
                return Observed(FAILED, err.splitlines()[-3:])
            with stage.process_of(stage.two) as victim:
                code, out, err = victim.run(sys.executable, "-c", look)
        if code != 0:
            return Observed(FAILED, err.splitlines()[-3:])
        return Observed("found" if out else REFUSED, out.splitlines()[:20])

    return play


def _between(number: int, title: str, reference: str, what: str) -> Row:
    return refused(number, title, reference, _left(what))


_PRIVILEGED: Final = "an ordinary user's lab has no rights there, guest or not"

ROWS: Final = (
    scripted(94, "A /proc of its own, to be written", "mount_namespaces(7)", _OWN_PROC),
    scripted(95, "Lift what hides the machine", "mount_namespaces(7)", _LIFT),
    scripted(96, "Raise its own limits", "namespaces(7), setrlimit(2)", _RAISE),
    scripted(97, "Take all watches of a user", "inotify(7), fanotify(7)", _WATCHES),
    scripted(98, "Take all namespaces of a user", "namespaces(7)", _NAMESPACES),
    scripted(99, "Take all descriptors in flight", "unix(7)", _IN_FLIGHT),
    scripted(100, "Leave programs that run as another", "CVE-2018-18955", _SET_ID),
    scripted(101, "Look into the kernel", "bpf(2), perf_event_open(2)", _LOOK),
    scripted(102, "Read the kernel's log", "syslog(2)", _LOG),
    scripted(103, "Go before others", "sched(7)", _FIRST, held=_PRIVILEGED),
    scripted(104, "Open files by their handles", "CVE-2014-3519", _HANDLES, held=_PRIVILEGED),
    scripted(105, "Have the machine wait for a lease", "fcntl(2)", _LEASES),
    scripted(106, "Have the machine run a program", "core(5), CVE-2022-0847", _DUMPS),
    scripted(107, "Steer the machine", "capabilities(7)", _STEER, held=_PRIVILEGED),
    _between(108, "Shared memory of a neighbour", "ipc_namespaces(7)", "shared memory"),
    _between(109, "Files of a neighbour in memory", "tmpfs(5)", "files"),
    _between(110, "Processes of a neighbour", "pid_namespaces(7)", "processes"),
    scripted(117, "The node's links, by their namespace's number", "ip-netns(8)", _BY_NUMBER),
)
