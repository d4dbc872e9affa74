"""User data that is bytes, or stands in a file."""

import gzip

import pytest

from hostagent.properties import PropertyError, check, content
from hostagent.terminal.contents import MAX_CONTENTS, ContentsError, taken

PACKED = gzip.compress(b"#cloud-config\n", mtime=0)


@pytest.mark.parametrize("key", ["user_data", "custom_data", "ec2.user_data"])
@pytest.mark.parametrize("raw", [PACKED, b"#!/bin/sh\n", b"", b"\xff", b"a\0b", b"data:;base64,x"])
def test_bytes_are_kept_whole(key, raw, tmp_path):
    (tmp_path / "data").write_bytes(raw)
    for value in (raw, "@data"):
        text = taken(key, value, tmp_path)
        assert content(text) == raw
        check({key: text})


def test_text_stays_text(tmp_path):
    (tmp_path / "data").write_text("#cloud-config\n")
    assert taken("user_data", "@data", tmp_path) == "#cloud-config\n"
    assert taken("user_data", "plain", tmp_path) == "plain"
    for key in ("tags.a", "attributes.user_data", "tags.user_data"):
        assert taken(key, "@data", tmp_path) == "@data"
        assert taken(key, b"x", tmp_path) == b"x"


def test_a_file_that_cannot_be_read(tmp_path):
    (tmp_path / "big").write_bytes(b"x" * (MAX_CONTENTS + 1))
    for name, said in (("none", "no such file"), (".", "no such file"), ("big", "longer than 96"),
                       ("a\0b", "no such file|cannot be read")):  # fmt: skip
        with pytest.raises(ContentsError, match=said):
            taken("user_data", f"@{name}", tmp_path)


@pytest.mark.parametrize("text", ["data:;base64,%", "data:;base64,YQ", "data:;base64,YQ==\n"])
def test_a_broken_data_url_is_refused(text):
    with pytest.raises(PropertyError, match="or bytes as data:;base64"):
        check({"user_data": text})
