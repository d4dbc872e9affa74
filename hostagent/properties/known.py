"""The keys of properties, their defaults and allowed values. Pure."""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from hashlib import sha256
from typing import Final, Literal, TypeAlias
from uuid import NAMESPACE_DNS, uuid5

from msgspec import Struct

from hostagent.model import Guest
from hostagent.properties.contents import is_content

Cloud: TypeAlias = Literal["azure", "ec2", "gce"]
CLOUDS: Final[tuple[Cloud, ...]] = ("azure", "ec2", "gce")


class Property(Struct, frozen=True):
    """One key: its meaning, its allowed values, and its default."""

    about: str
    pattern: str = r"[^\x00-\x1f\x7f]{0,255}"
    hint: str = "one line of at most 255 characters"
    default: str | Callable[[Guest], str] = ""
    possible: Callable[[str], bool] = lambda _: True  # besides the pattern


def _digest(guest: Guest, what: str) -> str:
    return sha256(f"{what}:{guest.name}".encode()).hexdigest()


def _digits(guest: Guest, what: str, count: int) -> str:
    return str(10 ** (count - 1) + int(_digest(guest, what), 16) % (9 * 10 ** (count - 1)))


def _mac(guest: Guest) -> str:
    digest = _digest(guest, "mac")
    return ":".join(["02", *(digest[i : i + 2] for i in range(0, 10, 2))])  # locally administered


_WORD: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
_WORD_HINT: Final = "letters, digits, and . _ - within"
_UUID: Final = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_UUID_HINT: Final = "a UUID in lower case"
_IPV4: Final = r"([0-9]{1,3}\.){3}[0-9]{1,3}"
_TEXT: Final = r"[\s\S]{0,131072}"
_TEXT_HINT: Final = "a text of at most 128 Ki characters"
_DATA_HINT: Final = f"{_TEXT_HINT}, or bytes as data:;base64,…"


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


_TIME: Final = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z"

KNOWN: Final[Mapping[str, Property]] = {
    # Identity
    "hostname": Property(
        "The name by which it calls itself.",
        r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}",  # HOST_NAME_MAX of Linux
        "up to 64 letters, digits, and . _ - within",
        lambda g: g.name,
    ),
    "vm_id": Property(
        "Azure's vmId.", _UUID, _UUID_HINT, lambda g: str(uuid5(NAMESPACE_DNS, g.name))
    ),
    "instance_id": Property(
        "EC2's instance ID.",
        r"i-[0-9a-f]{8,17}",
        "i- and 8 to 17 hexadecimal digits",
        lambda g: f"i-{_digest(g, 'instance')[:17]}",
    ),
    "numeric_id": Property(
        "GCE's instance ID.",
        r"[0-9]{1,19}",
        "up to 19 digits",
        lambda g: _digits(g, "instance", 19),
    ),
    "mac": Property(
        "MAC address of its network interface.",
        r"[0-9a-f]{2}(:[0-9a-f]{2}){5}",
        "like 02:00:00:00:00:01",
        _mac,
    ),
    "address": Property(
        "Its IPv4 address.",
        rf"({_IPV4})?",
        "like 169.254.3.7",
        lambda g: g.address or "",
    ),
    # Location
    "region": Property(
        "Region (Azure: location), told by the clouds that have it; each has its own default.",
        r"[a-z][a-z0-9-]{0,127}",
        "a name like westeurope, us-east-1 or us-central1",
    ),
    "zone": Property(
        "A letter or digit (`b` is Azure's 2, us-east-1b, us-central1-b) or a whole name.",
        r"[A-Za-z0-9]|[a-z][a-z0-9-]{1,127}",
        "a letter, a digit or the name of a zone",
        "a",
    ),
    "zone_id": Property(
        "EC2's ID of its zone; by default that zone's own, if it is known.",
        r"([a-z0-9]+(-[a-z0-9]+)+)?",
        "like use1-az4",
    ),
    # Type and image
    "vm_size": Property("Azure's size.", _WORD, _WORD_HINT, "Standard_D2s_v3"),
    "instance_type": Property("EC2's type.", _WORD, _WORD_HINT, "t3.medium"),
    "machine_type": Property("GCE's type.", _WORD, _WORD_HINT, "e2-medium"),
    "lifecycle": Property(
        "How it is paid for.", r"on-demand|spot", "on-demand or spot", "on-demand"
    ),
    "image.publisher": Property("Of its image, as Azure says it.", default="Debian"),
    "image.offer": Property("Of its image, as Azure says it.", default="debian-12"),
    "image.sku": Property("Of its image, as Azure says it.", default="12-gen2"),
    "image.version": Property("Of its image, as Azure says it.", default="0.20240201.1644"),
    "image.ami": Property(
        "Of its image, as EC2 says it.",
        r"ami-[0-9a-f]{8,17}",
        "ami- and 8 to 17 hexadecimal digits",
        "ami-0123456789abcdef0",
    ),
    "kernel_id": Property(
        "EC2's kernel; none by default.", r"(aki-[0-9a-f]{8,17})?", "aki- and hexadecimal digits"
    ),
    "ramdisk_id": Property(
        "EC2's RAM disk; none by default.", r"(ari-[0-9a-f]{8,17})?", "ari- and hexadecimal digits"
    ),
    "ancestor_amis": Property("The images that EC2's was made of, separated by spaces."),
    "product_codes": Property("EC2's marketplace product codes, separated by spaces."),
    "architecture": Property(
        "EC2's processor architecture.", r"x86_64|arm64|i386", "x86_64, arm64 or i386", "x86_64"
    ),
    "system": Property(
        "EC2's hypervisor.", r"nitro|xen|xen-on-nitro", "nitro, xen or xen-on-nitro", "nitro"
    ),
    "image.path": Property(
        "Of its image, as GCE says it.",
        default="projects/debian-cloud/global/images/debian-12-bookworm-v20240213",
    ),
    # In EC2: how it was launched, and what it is in
    "launch_time": Property(
        "When it was launched (EC2, GCE).",
        _TIME,
        "like 2024-01-01T00:00:00Z",
        "2024-01-01T00:00:00Z",
        _is_time,
    ),
    "launch_index": Property(
        "Its number among those that EC2 launched together.", r"[0-9]{1,5}", "a number", "0"
    ),
    "monitoring": Property(
        "EC2's detailed monitoring.", r"enabled|disabled", "enabled or disabled", "disabled"
    ),
    "security_groups": Property("EC2's security groups, separated by spaces.", default="default"),
    "placement.group_name": Property("EC2's placement group; none by default."),
    "placement.group_id": Property(
        "The ID of EC2's placement group.", r"(pg-[0-9a-f]{8,17})?", "pg- and hexadecimal digits"
    ),
    "placement.host_id": Property(
        "EC2's dedicated host; none by default.",
        r"(h-[0-9a-f]{8,17})?",
        "h- and hexadecimal digits",
    ),
    "placement.partition_number": Property(
        "Its partition in EC2's placement group.", r"[0-9]{0,3}", "a number"
    ),
    "autoscaling_state": Property(
        "The target state of EC2's Auto Scaling, whose group it is in; none by default.",
        r"(Detached|InService|Standby|Terminated|Warmed:(Hibernated|Running|Stopped|Terminated))?",
        "Detached, InService, Standby, Terminated or Warmed: and Hibernated, Running, Stopped or"
        " Terminated",
    ),
    # How EC2 tells events
    "spot_action": Property(
        "What a spot interruption does to it in EC2.",
        r"terminate|stop|hibernate",
        "terminate, stop or hibernate",
        "terminate",
    ),
    "rebalance": Property(
        "When EC2 recommends to rebalance: seconds before a spot interruption, or a time of its"
        " own; by default with the event.",
        rf"([0-9]{{1,7}}|{_TIME})?",
        "a number of seconds, or a time like 2026-01-01T00:00:00Z",
        "",
        lambda text: "T" not in text or _is_time(text),
    ),
    "event_not_after": Property(
        "Whether EC2's scheduled events have NotAfter; the cloud has none for instance-stop and"
        " instance-retirement.",
        r"cloud|always|never",
        "cloud, always or never",
        "cloud",
    ),
    "event_days": Property(
        "The days of EC2's scheduled events: 1 Jan, as in the cloud, or 01 Jan.",
        r"unpadded|padded",
        "unpadded or padded",
        "unpadded",
    ),
    # Owner
    "subscription_id": Property(
        "Azure's subscription.", _UUID, _UUID_HINT, "8d10da13-8125-4ba9-a717-bf7490507b3d"
    ),
    "resource_group": Property("Azure's resource group.", _WORD, _WORD_HINT, "lab"),
    "vm_scale_set": Property("Azure's scale set; none by default.", rf"({_WORD})?", _WORD_HINT),
    "account_id": Property("EC2's account.", r"[0-9]{12}", "12 digits", "123456789012"),
    "reservation_id": Property(
        "EC2's reservation.",
        r"r-[0-9a-f]{8,17}",
        "r- and 8 to 17 hexadecimal digits",
        lambda g: f"r-{_digest(g, 'reservation')[:17]}",
    ),
    "project_id": Property("GCE's project.", _WORD, _WORD_HINT, "lab-project"),
    "numeric_project_id": Property(
        "GCE's project, as a number.", r"[0-9]{1,19}", "up to 19 digits", "739419398126"
    ),
    "iam_role": Property(
        "EC2's role; none by default. With one, made-up credentials are given.",
        r"[A-Za-z0-9+=,.@_-]{0,64}",
        "at most 64 of letters, digits and +=,.@_-",
    ),
    "managed_identity": Property(
        "The client ID of Azure's managed identity; none by default. With one, a made-up token"
        " is given.",
        rf"({_UUID})?",
        _UUID_HINT,
    ),
    "managed_identity_name": Property(
        "The name in its resource ID, which a guest may ask for it by.", _WORD, _WORD_HINT, "lab"
    ),
    "tenant_id": Property(
        "Azure's tenant.", _UUID, _UUID_HINT, "72f988bf-86f1-41af-91ab-2d7cd011db47"
    ),
    "service_account": Property(
        "GCE's service account, an e-mail address; none by default. With one, a made-up token is.",
        r"([A-Za-z0-9._-]+@[A-Za-z0-9.-]+)?",
        "an e-mail address",
    ),
    "licenses": Property(
        "GCE's license codes of its image, separated by spaces.",
        r"([0-9]{1,20}( [0-9]{1,20}){0,15})?",
        "numbers, separated by spaces",
        "2147286739765738111",
    ),
    "preemption_notice": Property(
        "Seconds before a preemption from which GCE says so: up to 120.",
        r"[0-9]|[1-9][0-9]|1[01][0-9]|120",
        "a number from 0 to 120",
        "30",
    ),
    # Network and disks
    "public_ipv4": Property(
        "Its public IPv4 address; none by default.", rf"({_IPV4})?", "like 203.0.113.7"
    ),
    "load_balancer": Property(
        "Azure's load balancer before it: its address, and what it forwards; none by default.",
        rf"({_IPV4}( (tcp|udp)/[0-9]{{1,5}}:[0-9]{{1,5}})*)?",
        "like 203.0.113.1 tcp/80:8080 tcp/443:8443",
    ),
    "data_disks": Property(
        "The sizes of its data disks in GB (Azure); none by default.",
        r"([0-9]{1,5}(,[0-9]{1,5}){0,63})?",
        "like 128,256",
    ),
    # User data
    "user_data": Property("User data.", _TEXT, _DATA_HINT, "", is_content),
    "custom_data": Property("Azure's custom data.", _TEXT, _DATA_HINT, "", is_content),
    "admin_username": Property(
        "Azure's administrator.", r"[a-z_][a-z0-9_-]{0,31}", "a user's name", "azureuser"
    ),
    "ssh_public_key": Property(
        "Its user's public key, one line; none by default.",
        r"[^\x00-\x1f\x7f]{0,8192}",
        "one line of at most 8192 characters",
    ),
}


class Prefix(Struct, frozen=True):
    """Keys that begin alike: what the value of each is, and what may stand after the prefix.

    Values of keys that end in one of `ends` have a meaning of their own.
    """

    value: Property
    rest: str
    hint: str
    ends: Mapping[str, Property] = {}

    @property
    def about(self) -> str:
        """What the keys mean."""
        return self.value.about


_NAME: Final = r"[A-Za-z0-9_-]{1,128}"
_NAME_HINT: Final = "at most 128 letters, digits, - and _"


def _several(one: str, hint: str) -> Property:
    return Property("", rf"{one}( {one}){{0,49}}", hint)


_IPV6: Final = r"[0-9a-f]{0,4}(:[0-9a-f]{0,4}){2,7}"
_MAC: Final = Property("", r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", "like 02:00:00:00:00:01")
_INTERFACE: Final = {
    "ipv4s": _several(_IPV4, "like 10.1.0.5 10.1.0.6"),
    "public_ipv4s": _several(_IPV4, "like 203.0.113.7"),
    "ipv6s": _several(_IPV6, "like 2001:db8::5"),
    "ipv4_prefixes": _several(rf"{_IPV4}/[0-9]{{1,2}}", "like 10.1.16.0/28"),
    "ipv6_prefixes": _several(rf"{_IPV6}/[0-9]{{1,3}}", "like 2001:db8::/80"),
    "subnet": _several(rf"{_IPV4}/[0-9]{{1,2}}", "like 10.1.0.0/24"),
    "vpc": _several(rf"{_IPV4}/[0-9]{{1,2}}", "like 10.0.0.0/8"),
    "subnet_ipv6": _several(rf"{_IPV6}/[0-9]{{1,3}}", "like 2001:db8::/64"),
    "vpc_ipv6": _several(rf"{_IPV6}/[0-9]{{1,3}}", "like 2001:db8::/56"),
    "network_card": Property("", r"[0-9]", "a digit"),
}

PREFIXES: Final[Mapping[str, Prefix]] = {
    "tags.": Prefix(
        Property("A tag (Azure, EC2).", r"[^\x00-\x1f\x7f]{0,256}", "one line of 256 characters"),
        r"[^\x00-\x1f\x7f<>%&\\?/]{1,128}",
        "at most 128 characters, none of <>%&\\?/",
    ),
    "attributes.": Prefix(
        Property("A metadata attribute (GCE).", _TEXT, _TEXT_HINT), _NAME, _NAME_HINT
    ),
    "project_attributes.": Prefix(
        Property("One of its project's (GCE).", _TEXT, _TEXT_HINT), _NAME, _NAME_HINT
    ),
    "interfaces.": Prefix(
        Property("Of its network interface N in EC2, as interfaces.1.mac; lists have spaces."),
        rf"[0-9]\.({'|'.join(_INTERFACE)})|[1-9]\.mac",
        f"a digit, a dot and {', '.join(_INTERFACE)}, or mac from 1 on",
        _INTERFACE | {"mac": _MAC},
    ),
    "block_devices.": Prefix(
        Property("A block device in EC2: block_devices.ebs0 is sdb."), _NAME, _NAME_HINT
    ),
    "elastic_inference.": Prefix(
        Property("The type of an accelerator in EC2, by its ID."), _NAME, _NAME_HINT
    ),
}
_ec2_tag = re.compile(r"(?!(?:\.|\.\.|_index)$)[A-Za-z0-9+=.,_:@-]{1,128}")


def is_ec2_tag(key: str) -> bool:
    """Whether EC2 allows the tag's key in instance metadata; Azure allows more."""
    return _ec2_tag.fullmatch(key) is not None


PER_CLOUD: Final = frozenset(
    {"region", "zone", "hostname", "mac", "address", "user_data", "ssh_public_key", "lifecycle"}
)
"""Keys that may have a value for one cloud."""
