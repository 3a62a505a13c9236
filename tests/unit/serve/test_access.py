"""Keys, addresses, host names."""

import ast
from pathlib import Path

import pytest

from treetune.core.errors import UsageError
from treetune.serve import access
from treetune.serve.access import Keys, check_binding, host_names, is_loopback, name_of_host, read_key

KEY = "0123456789abcdef0123"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "[::1]", "localhost"])
def test_this_machine_needs_no_key(host: str) -> None:
    assert is_loopback(host)
    check_binding(host, "")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.5", "10.0.0.1", "example.org", "localhost.evil.org", "",
                                  "127.0.0.1.evil.org", "0", "::ffff:10.0.0.1"])
def test_nothing_listens_beyond_it_without_a_key(host: str) -> None:
    """Row 34."""
    with pytest.raises(UsageError) as caught:
        check_binding(host, "")
    assert caught.value.code == "E2704"
    check_binding(host, KEY)


def test_the_key_comes_from_a_file_or_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(f"{KEY}\n")
    assert read_key(str(path), {}) == KEY
    assert read_key("", {"TREETUNE_API_KEY": KEY}) == KEY
    assert read_key("", {}) == ""


@pytest.mark.parametrize("content", [b"", b"\n", b"pw-1", "schlüssel-aus-zwanzig".encode()])
def test_a_key_that_keeps_nobody_out_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_key(str(path), {})
    assert caught.value.code == "E2703"
    assert content.decode().strip() not in str(caught.value) or len(content) < 2


def test_a_missing_key_file_is_no_key_less_server(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        read_key(str(tmp_path / "nothing"), {"TREETUNE_API_KEY": KEY})


def test_keys_are_compared_whole_and_in_constant_time() -> None:
    keys = Keys(KEY)
    assert keys.fits(f"Bearer {KEY}".encode())
    assert keys.fits(f"bearer {KEY}".encode())
    for wrong in ("", "Bearer", "Bearer ", KEY, f"Basic {KEY}", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", "Bearer ü"):
        assert not keys.fits(wrong.encode())
    assert Keys("").fits(b"")
    tree = ast.parse(Path(access.__file__).read_text("utf-8"))
    [fits] = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "fits"]
    compared = [ast.unparse(node) for node in ast.walk(fits) if isinstance(node, ast.Compare)]
    assert compared == ["scheme.lower() == b'bearer'"]  # nothing that depends on the key
    assert "compare_digest" in ast.unparse(fits)


def test_a_link_is_for_one_path_and_one_minute() -> None:
    keys = Keys(KEY)
    ticket = keys.ticket("/v1/runs/a/report", now=1000)
    assert keys.ticket_fits("/v1/runs/a/report", ticket, now=1059)
    assert not keys.ticket_fits("/v1/runs/a/report", ticket, now=1061)
    assert not keys.ticket_fits("/v1/runs/b/report", ticket, now=1001)
    until, signature = ticket.split("-")
    assert not keys.ticket_fits("/v1/runs/a/report", f"{int(until) + 1000}-{signature}", now=1001)
    assert not Keys(KEY).ticket_fits("/v1/runs/a/report", ticket, now=1001)  # another start, another secret
    for junk in ("", "-", "x-y", "99999999999999999999-a", "١٢٣-a", "1", f"{until}-", f"{until}-ü"):
        assert not keys.ticket_fits("/v1/runs/a/report", junk, now=1001)


def test_host_names_are_a_closed_list() -> None:
    names = host_names("0.0.0.0", ("Example.org",))
    assert {name_of_host(each) for each in ("localhost:8000", "127.0.0.1", "[::1]:8000", "EXAMPLE.org:1")} <= names
    for other in ("evil.org", "127.0.0.1.evil.org", "localhost.evil.org", "", "[::2]:80", "example.org.evil.org"):
        assert name_of_host(other) not in names
