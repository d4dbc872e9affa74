"""Fixtures: a node's daemons as real processes."""

import tempfile
from pathlib import Path

import pytest

from hostagent.model import Guest
from tests.hostagent.daemons import Node, wait_for


@pytest.fixture
def short_path():
    """A directory with a path short enough for unix sockets, whatever --basetemp says."""
    with tempfile.TemporaryDirectory(prefix="ha-") as path:
        yield Path(path)


@pytest.fixture
def node(short_path):
    """A node whose daemons are not running yet."""
    made = Node(short_path)
    yield made
    made.close()


@pytest.fixture
def full_node(node):
    """A node with its daemons running, and the guests web1 and web2 on 127.0.0.1 and .2."""
    node.start_agent()
    node.start_responder()
    with node.controller() as controller:
        controller.place(
            [
                Guest(name="web1", address="127.0.0.1"),
                Guest(name="web2", address="127.0.0.2", fault_domain=1),
            ]
        )
    wait_for(lambda: node.get(source="127.0.0.2")[0] == 200)
    return node
