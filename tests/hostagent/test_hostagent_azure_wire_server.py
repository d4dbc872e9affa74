"""Azure's wire server, asked as cloud-init and waagent ask it."""

from xml.etree import ElementTree

import pytest

from hostagent.addresses import WIRE_SERVER
from hostagent.dialects import Options
from hostagent.properties import value
from tests.hostagent.asking import Asker

HOST = {"host": WIRE_SERVER, "x-ms-agent-name": "WALinuxAgent", "x-ms-version": "2012-11-30"}


@pytest.fixture
def ask():
    return Asker()


def tree(answer):
    status, text = answer
    assert status == 200
    return ElementTree.fromstring(text)


def test_an_agent_learns_its_goal_and_reports_that_it_is_ready(ask):
    versions = tree(ask("/?comp=versions", **HOST))
    assert "2012-11-30" in [one.text for one in versions.iterfind("./Supported/Version")]
    goal = tree(ask("/machine/?comp=goalstate", **HOST))
    assert goal.findtext("./Incarnation") == "1"
    assert goal.findtext("./Container/ContainerId") == value(ask.view.guest, "vm_id")
    instance = goal.find("./Container/RoleInstanceList/RoleInstance")
    assert instance.findtext("InstanceId") == "_web1"
    assert instance.find("Configuration/Certificates") is None
    for name in ("HostingEnvironmentConfig", "SharedConfig"):
        url = instance.findtext(f"Configuration/{name}")
        config = tree(ask(url.removeprefix(f"http://{WIRE_SERVER}:80"), **HOST))
        assert config.tag == name
        assert config.find("Incarnation").get("instance") == "_web1"
        assert config.find("Deployment").get("name") == config.find("Role").get("name") == "web1"
    for what in ("health", "roleProperties", "telemetrydata"):
        assert ask(f"/machine?comp={what}", "POST", b"<Health/>", **HOST) == (200, "")


@pytest.mark.parametrize(
    ("target", "method", "status"),
    [
        ("/machine/?comp=certificates", "GET", 404),
        ("/machine/another/_vm?comp=config&type=sharedConfig", "GET", 404),
        ("/metadata/instance?api-version=2021-02-01", "GET", 404),
        ("/latest/meta-data/", "GET", 404),
        ("/machine?comp=evil", "POST", 404),
        ("/machine/x?comp=health", "POST", 404),
        ("/machine?comp=health", "DELETE", 405),
    ],
)
def test_it_has_nothing_else(ask, target, method, status):
    assert ask(target, method, **HOST)[0] == status


def test_what_a_guest_is_called_stays_text_in_its_configuration():
    ask = Asker(name='a{0}"<&>')
    path = f"/machine/{value(ask.view.guest, 'vm_id')}/_{ask.view.guest.name}"
    config = tree(ask(f"{path}?comp=config&type=sharedConfig", **HOST))
    goal = tree(ask("/machine/?comp=goalstate", **HOST))
    assert config.find("Role").get("name") == 'a{0}"<&>'
    assert goal.findtext(".//InstanceId") == '_a{0}"<&>'


def test_the_metadata_address_is_not_the_wire_server():
    assert Asker()("/machine/?comp=goalstate", host="169.254.169.254")[0] == 404
    without = Asker(Options(enabled=("ec2",)))
    assert without("/machine/?comp=goalstate", **HOST)[0] == 404
