"""A frame goes to the machine where its station was heard last, or to all."""

from netemu.tunnel.switch import Switch

BROADCAST = b"\xff" * 6
A, B = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")


def test_a_station_is_where_it_was_heard_last() -> None:
    switch: Switch[str] = Switch()
    switch.become(["x", "y"])
    assert switch.machines(A + B) == ("x", "y")
    switch.heard(B + A, "x")
    assert switch.machines(A + B) == ("x",)
    assert switch.machines(BROADCAST + B) == ("x", "y")
    switch.heard(B + A, "y")
    assert switch.machines(A + B) == ("y",)


def test_stations_of_a_machine_that_is_gone_may_be_anywhere() -> None:
    switch: Switch[str] = Switch()
    switch.become(["x", "y"])
    switch.heard(B + A, "x")
    switch.become(["y", "z"])
    assert switch.machines(A + B) == ("y", "z")


def test_no_end_of_stations_is_remembered() -> None:
    switch: Switch[str] = Switch()
    switch.become(["x", "y"])
    for number in range(5000):
        switch.heard(bytes(6) + number.to_bytes(6, "big"), "x")
    assert switch.machines((4999).to_bytes(6, "big") + B) == ("x", "y")
    assert switch.machines((17).to_bytes(6, "big") + B) == ("x",)
