"""A claimant driven by hand: exact times, and a log of what it did and when."""

from random import Random

from netemu.linklocal import arp
from netemu.linklocal.arp import Arp
from netemu.linklocal.claimant import Claimant, Effect, Effects, Send
from netemu.linklocal.timing import Timing

MAC = bytes.fromhex("02004e000001")
OTHER_MAC = bytes.fromhex("02004e000002")
THIRD_MAC = bytes.fromhex("02004e000003")


class Steady(Random):
    """Every draw lies at the same fraction of its interval."""

    def __init__(self, fraction: float) -> None:
        super().__init__(0)
        self.fraction = fraction

    def uniform(self, a: float, b: float) -> float:
        return a + self.fraction * (b - a)


def sent(effects: Effects) -> list[Arp]:
    frames = [arp.parse(effect.frame) for effect in effects if isinstance(effect, Send)]
    assert None not in frames
    return [frame for frame in frames if frame is not None]


def packet(
    operation: int, sender_mac: bytes, sender_ip: int, target_ip: int, target_mac: bytes = bytes(6)
) -> Arp:
    return Arp(operation, sender_mac, sender_ip, target_mac, target_ip, sender_mac, arp.BROADCAST)


def probe_by(mac: bytes, address: int) -> Arp:
    return packet(arp.REQUEST, mac, 0, address)


def request_by(mac: bytes, sender_ip: int, target_ip: int) -> Arp:
    return packet(arp.REQUEST, mac, sender_ip, target_ip)


def reply_by(mac: bytes, sender_ip: int, target_ip: int = 0) -> Arp:
    return packet(arp.REPLY, mac, sender_ip, target_ip)


class Driven:
    """With jitter 0.5: wait 0.5 s, gaps 1.5 s, so probes at 0.5, 2, 3.5 and claimed at 5.5 s."""

    def __init__(
        self,
        mac: bytes = MAC,
        *,
        jitter: float = 0.5,
        remembered: int | None = None,
        timing: Timing | None = None,
    ) -> None:
        self.claimant = Claimant(
            mac, timing=timing or Timing(), jitter=Steady(jitter), remembered=remembered
        )
        self.log: list[tuple[float, Effect]] = []

    def _did(self, now: float, effects: Effects) -> Effects:
        self.log += [(now, effect) for effect in effects]
        return effects

    def until(self, now: float) -> None:
        """Let time pass, waking the claimant at each of its deadlines."""
        while (deadline := self.claimant.deadline) is not None and deadline <= now:
            self._did(deadline, self.claimant.expire(deadline))

    def up(self, now: float = 0.0) -> "Driven":
        self.until(now)
        self._did(now, self.claimant.link_up(now))
        return self

    def down(self, now: float) -> Effects:
        self.until(now)
        return self._did(now, self.claimant.link_down(now))

    def hear(self, heard: Arp, now: float) -> Effects:
        self.until(now)
        return self._did(now, self.claimant.receive(heard, now))

    def effects(self, kind: type) -> list[tuple[float, Effect]]:
        return [(at, effect) for at, effect in self.log if isinstance(effect, kind)]

    @property
    def sends(self) -> list[tuple[float, Arp]]:
        return [(at, frame) for at, effect in self.log for frame in sent((effect,))]

    @property
    def probes(self) -> list[tuple[float, int]]:
        return [(at, frame.target_ip) for at, frame in self.sends if frame.is_probe]
