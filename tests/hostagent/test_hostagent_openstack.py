"""OpenStack's metadata, to the byte."""

import base64
import gzip
import json

import pytest

from hostagent.dialects import DEFAULT, NAMES, Options
from hostagent.properties import data_url
from tests.hostagent.asking import Asker, event

OPTIONS = Options(enabled=NAMES)


@pytest.fixture
def ask():
    return Asker(OPTIONS)


def test_the_versions_and_their_files(ask):
    status, text = ask("/openstack")
    versions = text.split("\n")
    assert (status, versions[0], versions[-1]) == (200, "2012-08-10", "latest")
    assert ask("/openstack/") == (status, text)
    for version, files in (
        ("2012-08-10", "meta_data.json"),
        ("2013-04-04", "meta_data.json\npassword"),
        ("2015-10-15", "meta_data.json\nnetwork_data.json\npassword\nvendor_data.json"),
        ("latest", "meta_data.json\nnetwork_data.json\npassword\nvendor_data.json\n"
         "vendor_data2.json"),
    ):  # fmt: skip
        assert ask(f"/openstack/{version}") == ask(f"/openstack/{version}/") == (200, files)
        for name in files.split():
            assert ask(f"/openstack/{version}/{name}")[0] == 200


def test_the_document(ask):
    given = Asker(OPTIONS, properties={"tags.team": "web", "ssh_public_key": "ssh-ed25519 A me"})
    told = json.loads(given("/openstack/latest/meta_data.json")[1])
    assert len(base64.b64decode(told.pop("random_seed"))) == 512
    assert told == {
        "availability_zone": "nova",
        "dedicated_cpus": [],
        "devices": [],
        "hostname": "web1.novalocal",
        "launch_index": 0,
        "name": "web1",
        "project_id": "941011cbe8010aeba0a72bf584f8e5a3",
        "uuid": "7c3c4f8a-63ca-5da2-bb74-dc6f8fc4553a",
        "meta": {"team": "web"},
        "public_keys": {"default": "ssh-ed25519 A me"},
        "keys": [{"data": "ssh-ed25519 A me", "name": "default", "type": "ssh"}],
    }
    first = json.loads(ask("/openstack/2012-08-10/meta_data.json")[1])
    assert set(first) == {"availability_zone", "hostname", "launch_index", "name", "uuid"}
    named = Asker(OPTIONS, properties={"hostname": "x.example"})
    assert json.loads(named("/openstack/latest/meta_data.json")[1])["hostname"] == "x.example"


def test_the_network(ask):
    told = json.loads(ask("/openstack/latest/network_data.json")[1])
    (link,) = told["links"]
    assert link["ethernet_mac_address"] == "02:4e:61:95:7f:52"
    assert told["networks"][0]["link"] == link["id"]
    assert told["networks"][0]["type"] == "ipv4_dhcp"


def test_user_data(ask):
    assert ask("/openstack/latest/user_data")[0] == 404
    raw = gzip.compress(b"#cloud-config\n")
    given = Asker(OPTIONS, properties={"user_data": data_url(raw)})
    assert given.outcome("/openstack/latest/user_data").body == raw
    assert "user_data" in given("/openstack/latest")[1].split()


@pytest.mark.parametrize(
    "path",
    ["/openstack/2099-01-01", "/openstack/latest/else", "/openstack/latest/meta_data.json/x",
     "/openstack/2012-08-10/network_data.json", "/openstack//latest"],
)  # fmt: skip
def test_what_is_not_there(ask, path):
    assert ask(path)[0] == 404


def test_methods_and_other_paths(ask):
    assert ask("/openstack/latest/password", "POST")[0] == 405
    assert ask("/openstack/latest/password", "HEAD")[0] == 200
    assert ask("/openstacks")[0] == 404
    assert Asker()("/openstack")[0] == 404  # it is off unless it is said
    assert (*DEFAULT, "openstack") == NAMES


def test_it_tells_of_no_event(ask):
    before = ask("/openstack/latest/meta_data.json")
    ask.tell(event())
    assert ask("/openstack/latest/meta_data.json") == before
