"""A lab file may hold anything: it ends as a lab, or as one line that says what is wrong."""

import json
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from netemu.errors import BadInput
from netemu.topology import MAX_BYTES, Lab
from netemu.topology.document import MAX_CHARACTERS
from netemu.wire import lab_file

# 297 bytes that stand for 9 ** 9 values.
ALIASES = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(n + 1)}: &{chr(n + 1)} [{','.join(['*' + chr(n)] * 9)}]\n"
    for n in range(ord("a"), ord("i"))
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{chr(n + 1)}: &{chr(n + 1)} {{<<: [{','.join(['*' + chr(n)] * 9)}]}}\n"
    for n in range(ord("a"), ord("i"))
)
# Deep by aliases, none of whose own texts is deep.
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{n + 1}: &a{n + 1} [[[*a{n}]]]\n" for n in range(900))


def outcome(text: str, **more: Any) -> Lab | str:
    try:
        return lab_file.parse(text, source="lab.yaml", **more)
    except BadInput as error:
        assert str(error).startswith("lab.yaml: ")
        return str(error)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ALIASES, "line 6: stands for more than 250,000 values"),
        (MERGES, "stands for more than 250,000 values"),
        (CHAIN, "is nested more than 20 deep"),
        ("[" * 100_000, "is nested more than 20 deep"),
        ("{a: " * 100_000, "is nested more than 20 deep"),
        ("- " * 100_000, "is nested more than 20 deep"),
        ("x" * (MAX_CHARACTERS + 1), "is longer than"),
        ("nodes: {n: {guests: " + "9" * 100_000 + "}}", "is no !!int"),
        ("nodes: ${LONG}" * 50_000, "not set"),
    ],
    ids=["aliases", "merges", "chain", "lists", "maps", "dashes", "long", "digits", "variables"],
)
def test_what_is_small_and_stands_for_much_is_refused_at_once(text: str, said: str) -> None:
    tracemalloc.start()
    started = time.process_time()
    try:
        told = outcome(text, variables={})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(told, str)
    assert said in told
    assert peak < 200 * 2**20
    assert time.process_time() - started < 60  # minutes without a bound


def test_a_variable_cannot_stand_for_more_than_a_file_may_hold() -> None:
    told = outcome("nodes: ['${LONG}', '${LONG}']", variables={"LONG": "x" * 600_000})
    assert "variables stand for more than" in str(told)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("!!int ''", "'' is no !!int"),
        ("!!bool foo", "'foo' is no !!bool"),
        ("!!timestamp x", "'x' is no !!timestamp"),
        ("!!float x", "'x' is no !!float"),
        ("!!int [1]", "not YAML"),
        ("!!binary 'ä'", "not YAML"),
        ("!!set {a, b}", "a set cannot stand in a lab file"),
        ("2001-01-01", "this is a date"),
        ("!!python/name:os.system ''", "not YAML"),
        (".nan", "is expected here"),
    ],
)
def test_a_value_that_is_not_of_its_kind_is_named_with_its_line(value: str, said: str) -> None:
    told = str(outcome(f"name: x\nnodes:\n  n:\n    guests: {value}\n"))
    assert said in told
    assert "line 4" in told


@pytest.mark.parametrize(
    "place",
    [
        "name: '%s'\nnodes: {n: {guests: 1}}",
        "nodes: {n: {guests: 1, run: '%s'}}",
        "nodes: {n: {guests: 1, properties: {tags.x: '%s'}}}",
    ],
)
def test_nul_is_refused_everywhere(place: str) -> None:
    assert "NUL" in str(outcome(place.replace("'%s'", '"a\\0b"')))


@pytest.mark.parametrize("rate", [".nan", ".inf", "-.inf", "-1", "1e400"])
def test_a_rate_is_a_number(rate: str) -> None:
    text = f"dialects: {{azure: {{rate: {rate}}}}}\nnodes: {{n: {{guests: 1}}}}"
    assert "dialects.azure" in str(outcome(text))


@pytest.mark.parametrize(
    ("address", "good"),
    [
        ("169.254.1.0", True),
        ("169.254.254.255", True),
        ("169.254.7.0", True),
        ("169.254.7.255", True),
        ("169.254.0.255", False),
        ("169.254.255.0", False),
        ("169.254.169.254", False),
        ("169.254.1", False),
        ("10.0.0.1", False),
    ],
)
def test_an_address_of_before_is_one_that_a_guest_can_have_had(address: str, good: bool) -> None:
    told = outcome(f"nodes: {{n: {{guests: [{{name: g, last_address: {address}}}]}}}}")
    assert isinstance(told, Lab) is good
    assert good or "last_address" in str(told)


OF_NODE = "availability_set, dhcp, dialects, fault_domain"
LEVELS = {
    "": ("gests: 1\nnodes: {n: {guests: 1}}", "dialects, faults, ipv6, name, nodes, policy"),
    "nodes.n": ("nodes: {n: {guests: 1, gest: 1}}", OF_NODE),
    "nodes.a.b": ("nodes: {a.b: {guests: 1, gest: 1}}", OF_NODE),
    "nodes.n.guests[0]": ("nodes: {n: {guests: [{name: g, nam: 1}]}}", "link, machine, name"),
    "dialects": ("dialects: {x: 1}\nnodes: {n: {guests: 1}}", "azure, azure-v1, ec2, gce"),
    "dialects.azure": ("dialects: {azure: {x: 1}}\nnodes: {n: {guests: 1}}",
        "known here are events_delay, incarnation_restarts, rate"),
    "nodes.n.dialects.ec2": (
        "nodes: {n: {guests: 1, dialects: {ec2: {x: 1}}}}", "known here are hop_limit, imdsv1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("place", LEVELS)
def test_an_unknown_key_is_told_with_those_that_can_stand_there(place: str) -> None:
    text, known = LEVELS[place]
    told = str(outcome(text))
    assert known in told
    assert f": {place}{'.' if place else ''}" in told
    if "." not in place and place:
        assert "hop_limit" not in told


ENVIRONMENT = {"N": "3", "WHO": "web", "EVIL": "x, y: {guests: 9}", "EMPTY": ""}


def expanded(text: str) -> Lab:
    told = outcome(text, variables=ENVIRONMENT)
    assert isinstance(told, Lab), told
    return told


def test_variables_stand_for_values_and_keys() -> None:
    lab = expanded("# ${UNSET} in a comment\nnodes: {${WHO}: {guests: ${N}}}")
    assert [guest.name for guest in lab.guests] == ["web-1", "web-2", "web-3"]
    assert len(expanded("nodes:\n  n:\n    guests: ${M:-2}\n").guests) == 2
    assert len(expanded("nodes:\n  n:\n    guests: ${EMPTY:-2}\n").guests) == 2
    lab = expanded("name: 'a-${WHO}'\nnodes: {n: {guests: 1, run: 'echo $${x} ${x%y} $x ${N}'}}")
    assert lab.name == "a-web"
    assert lab.guests[0].run[-1] == "echo ${x} ${x%y} $x 3"


def test_a_variable_is_a_value_and_never_yaml() -> None:
    lab = expanded("nodes: {n: {guests: 1, run: ${EVIL}}}")
    assert lab.guests[0].run[-1] == ENVIRONMENT["EVIL"]


def test_a_variable_that_is_not_set_is_told_with_its_line() -> None:
    told = outcome("name: x\nnodes: {n: {guests: ${UNSET}}}", variables=ENVIRONMENT)
    assert str(told).startswith("lab.yaml: line 2: the variable UNSET is not set; ${UNSET:-text}")


def test_what_a_program_gives_is_not_expanded() -> None:
    lab = lab_file.given({"nodes": {"n": {"guests": 1, "run": "echo ${UNSET}"}}}, name="x")
    assert lab.guests[0].run[-1] == "echo ${UNSET}"


@pytest.mark.parametrize("odd", [float("nan"), {1, 2}, b"x"])
def test_what_a_program_gives_and_no_file_can_hold_is_bad_input(odd: object) -> None:
    with pytest.raises(BadInput):
        lab_file.given({"nodes": {"n": {"guests": odd}}}, name="x")


@pytest.mark.parametrize("path", ["/dev/zero", "/", "a\0b", "/no/such", "\udcff"])
def test_a_path_of_any_kind_is_refused_in_one_line(path: str) -> None:
    with pytest.raises(BadInput, match=r"is longer than|cannot be read"):
        lab_file.load(Path(path))
    assert MAX_BYTES < 2**23


KEYS = [
    "nodes",
    "name",
    "policy",
    "guests",
    "run",
    "tenant",
    "properties",
    "dialects",
    "azure",
    "rate",
    "n1",
    "web1",
    "<<",
    "last_address",
    "vm_size",
    "tags.x",
    "azure-v1",
    "ec2",
]
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from([*KEYS, "same-node", "169.254.3.3", "${N}", "1:2:3", "0x1_", "=", "~"])
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.binary(max_size=200))
@example(b"!!int ''")
@example(b"? [a]\n: b")
@example(b"nodes: {n: {guests: {}}}\nx: {y: 1}")
def test_any_bytes_are_a_lab_or_bad_input(data: bytes) -> None:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return
    outcome(text, variables=ENVIRONMENT)


@given(st.text(alphabet="nodesguests:{}[]-&*!|>'\"\n ,?#%@`0123.~<${}\\x\x00\ue000", max_size=60))
def test_any_yaml_is_a_lab_or_bad_input(text: str) -> None:
    outcome("nodes: {n: {guests: 1}}\n" + text, variables=ENVIRONMENT)
    outcome(text, variables=None)


@given(
    st.sampled_from(
        [
            "int",
            "bool",
            "float",
            "timestamp",
            "binary",
            "set",
            "omap",
            "pairs",
            "null",
            "str",
            "seq",
            "map",
            "merge",
            "value",
        ]
    ),
    SCALARS.map(str).map(json.dumps) | st.sampled_from(["[a, {b: c}]", "{a: [1]}", ""]),
)
def test_any_tag_on_anything_is_a_lab_or_bad_input(tag: str, value: str) -> None:
    outcome(f"nodes: {{n: {{guests: !!{tag} {value}}}}}")
    outcome(f"nodes: {{? !!{tag} {value} : {{guests: 1}}}}")


@given(VALUES, st.sampled_from(["%s", "nodes: %s", "nodes: {n: %s}", "nodes: {n: {guests: %s}}"]))
def test_any_values_are_a_lab_or_bad_input(value: Any, frame: str) -> None:
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6).strip()
    outcome(frame % text.removesuffix("...").strip(), variables=ENVIRONMENT)
