"""What of the system's apt configuration is taken over, and what apt is told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from workbench.errors import MissingToolError
from workbench.guests import apt

#: Of every mirror here: nobody is asked for anything.
HOST = "http://127.0.0.1"
VENDOR = "https://127.0.0.1/vendor"

DEB822 = f"""\
# the main archive
Types: deb deb-src
URIs: {HOST}/mirror/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: {HOST}/mirror/debian-security
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: {HOST}/off/debian
Suites: trixie
Components: main

Types: deb
URIs: {VENDOR}/apt
Suites: nodistro
Components: main
"""

ONE_LINE = f"""\
# deb {HOST}/old/debian bullseye main
deb [arch=amd64 signed-by=/etc/key.gpg] {HOST}/one/debian trixie main non-free # ours
deb-src {HOST}/src/debian trixie main
deb {HOST}/one/debian-security trixie-security main
deb cdrom:[Debian]/ trixie
"""


def test_deb822_takes_enabled_debian_archives_only() -> None:
    mirrors = apt.parse_deb822(DEB822)
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    assert mirrors == [apt.Mirror(f"{HOST}/mirror/debian", keyring)]


def test_deb822_keeps_an_inline_key() -> None:
    text = (
        f"Types: deb\nURIs: {HOST}/m/debian\nSuites: sid\nComponents: main\n"
        "Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n"
    )
    assert apt.parse_deb822(text)[0].signed_by == "\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc"


def test_one_line_format_takes_uri_and_key_and_skips_comments_and_sources() -> None:
    assert apt.parse_one_line(ONE_LINE) == [apt.Mirror(f"{HOST}/one/debian", "/etc/key.gpg")]


def test_without_apt_the_message_names_the_files_to_supply(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(MissingToolError, match=r"--kernel-file.*--busybox-file") as error:
        apt.require_tools()
    assert error.value.exit_code == 6


@pytest.mark.requires("apt-get", "dpkg-deb")
def test_private_apt_sees_none_of_the_systems_lists_packages_and_hooks(tmp_path: Path) -> None:
    client = apt.PrivateApt(tmp_path, "riscv64", apt.Mirror(f"{HOST}/mirror/debian"), "trixie")
    dump = client._apt("apt-config", "dump")
    assert f'Dir::State "{tmp_path}/state";' in dump
    assert f'dir::etc::sourceparts "{tmp_path}/sources";'.lower() in dump.lower()
    assert 'APT::Architecture "riscv64";' in dump
    assert re.search(r'^APT::Update::[\w-]*Invoke.*:: ".+"', dump, re.MULTILINE) is None
    source = (tmp_path / "sources/guest.sources").read_text()
    assert f"URIs: {HOST}/mirror/debian\nSuites: trixie\n" in source
    with pytest.raises(apt.AptError, match="busybox-static"):
        client.fields("busybox-static")
