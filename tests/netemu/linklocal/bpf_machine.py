"""A tiny classic BPF machine, pure: what the kernel would do with a program and a frame."""

from hostagent import classic_bpf
from netemu.linklocal import bpf

ANCILLARY = 0xFFFF_F000  # SKF_AD_OFF: from here up, k names what is not in the frame


WIDTHS = {classic_bpf.LOAD_WORD: 4, classic_bpf.LOAD_HALF: 2, classic_bpf.LOAD_BYTE: 1}


def run(
    program: bytes, frame: bytes, *, packet_type: int = 0, link: int = 1, tagged: bool = False
) -> int:
    """How many bytes of the frame are passed on; 0 is a drop."""
    accumulator = 0
    at = 0
    instructions = list(classic_bpf.SOCK_FILTER.iter_unpack(program))
    while True:
        code, if_true, if_false, k = instructions[at]
        at += 1
        if code == classic_bpf.RETURN:
            return int(k)
        if code == classic_bpf.LOAD_LENGTH:
            accumulator = len(frame)
        elif code in WIDTHS:
            width = {classic_bpf.LOAD_WORD: 4, classic_bpf.LOAD_HALF: 2, classic_bpf.LOAD_BYTE: 1}[
                code
            ]
            if k >= ANCILLARY:
                accumulator = {
                    bpf.PACKET_TYPE: packet_type,
                    bpf.LINK_INDEX: link,
                    bpf.VLAN_TAGGED: int(tagged),
                }[k]
            elif k + width > len(frame):
                return 0
            else:
                accumulator = int.from_bytes(frame[k : k + width], "big")
        elif code == classic_bpf.JUMP_EQUAL:
            at += if_true if accumulator == k else if_false
        elif code == classic_bpf.JUMP_AT_LEAST:
            at += if_true if accumulator >= k else if_false
        else:
            raise AssertionError(f"unknown instruction {code:#x}")
