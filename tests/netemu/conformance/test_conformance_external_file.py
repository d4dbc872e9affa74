"""The file that describes nodes which are no lab: whatever is in it, it is read or refused."""

from pathlib import Path

import pytest

from netemu.conformance.external import stage_of
from netemu.errors import BadInput


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe",
        b"",
        b"node: !!bool foo\n",
        b'node: !!int ""\n',
        b"a: &a [1]\nnode: {x: [*a, *a]}\n",
        b"a: &a [x, x]\nb: &b [*a, *a]\n"
        + b"".join(
            b"%c: &%c [*%c, *%c, *%c, *%c]\n" % (n, n, n - 1, n - 1, n - 1, n - 1)
            for n in range(ord("c"), ord("v"))
        ),
    ],
)
def test_a_file_that_is_no_such_description_is_refused(tmp_path: Path, content: bytes) -> None:
    """Not UTF-8, empty, with tags that do not fit, or a billion values by aliases."""
    path = tmp_path / "nodes.yaml"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"nodes\.yaml"):
        stage_of(path)
