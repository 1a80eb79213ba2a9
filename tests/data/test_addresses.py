"""Which addresses are public, and what a mirror changes."""

from __future__ import annotations

import pytest

from mt.data import addresses
from mt.errors import DownloadError


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1::1", "::ffff:93.184.216.34"])
def test_addresses_of_the_internet_are_public(address):
    assert addresses.is_public(address)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.0.0.1", "::1", "fe80::1%eth0", "2002:a00:1::"]
)
def test_addresses_of_this_machine_and_of_private_networks_are_not(address):
    assert not addresses.is_public(address)


def test_a_mirror_stands_for_every_https_host(monkeypatch):
    monkeypatch.setenv("MT_MIRROR", "http://mirror:8000/")
    assert addresses.through_mirror("https://a.b/c") == ("http://mirror:8000/a.b/c", True)
    assert addresses.through_mirror("http://a.b/c") == ("http://a.b/c", False)
    monkeypatch.delenv("MT_MIRROR")
    assert addresses.through_mirror("https://a.b/c") == ("https://a.b/c", False)


@pytest.mark.parametrize("url", ["https://[::1", "https://", "https:///x", "gopher://a", ""])
def test_what_is_no_url_is_refused_in_one_line(url):
    with pytest.raises(DownloadError) as error:
        addresses.parse_url(url, True, url or "nothing")
    assert len(str(error.value).splitlines()) == 2
