"""The system's own apt with lists and downloads of our own; the system's state is left alone.

Mirror, keys, proxies and logins are the system's; the architecture and the release are ours. Everything apt
writes goes under one private folder.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from workbench.errors import InputError, MissingToolError, WorkbenchError

#: Debian's archive key ring, where the system has one: it knows more releases than a single entry's key.
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

_TOOLS = ("apt-get", "apt-cache", "apt-config", "dpkg-deb")
_RELEASE_NAMES = frozenset("bullseye bookworm trixie forky sid stable testing unstable oldstable".split())

_CONFIG = """\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear APT::Default-Release;
#clear APT::Architectures;
Dir::State "{root}/state";
Dir::State::lists "lists";
Dir::State::status "{root}/state/status";
Dir::State::extended_states "{root}/state/extended_states";
Dir::Cache "{root}/cache";
Dir::Cache::archives "archives";
Dir::Cache::srcpkgcache "";
Dir::Cache::pkgcache "";
Dir::Etc::SourceList "/dev/null";
Dir::Etc::SourceParts "{root}/sources";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::Log "{root}/log";
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
Acquire::Languages "none";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
"""


class AptError(WorkbenchError):
    """apt could not fetch or verify what was asked of it."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class Mirror:
    """Debian's main archive and what signs it: ``signed_by`` is a key ring's path, a key, or empty."""

    uri: str
    signed_by: str = ""


def system_mirror() -> Mirror:
    """Return the archive that the system's own sources name.

    Raises:
        MissingToolError: there is no apt here.
        InputError: no source is a Debian archive; give one by ``--mirror``.
    """
    require_tools()
    shell = _run(
        ["apt-config", "shell", "LIST", "Dir::Etc::sourcelist/f", "PARTS", "Dir::Etc::sourceparts/d"]
    )
    where = dict(re.findall(r"^(LIST|PARTS)='(.*)'$", shell, re.MULTILINE))
    files = [Path(where["LIST"])] if where.get("LIST") else []
    if where.get("PARTS") and Path(where["PARTS"]).is_dir():
        parts = sorted(Path(where["PARTS"]).iterdir())
        files += [path for path in parts if path.suffix in (".list", ".sources")]
    mirrors: list[Mirror] = []
    for path in files:
        if path.is_file() and os.access(path, os.R_OK):
            text = path.read_text(encoding="utf-8", errors="replace")
            mirrors += parse_deb822(text) if path.suffix == ".sources" else parse_one_line(text)
    if not mirrors:
        raise InputError(
            "guest fetch: none of the system's apt sources is a Debian archive; name one: --mirror URL"
        )
    return mirrors[0]


def parse_one_line(text: str) -> list[Mirror]:
    """Return the Debian archives among the entries of a ``sources.list``.

    Spec: sources.list(5), one-line-style format.
    """
    mirrors = []
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s+(\S[^#]*)", line)
        if match is None:
            continue
        options, uri, suite, components = match.groups()
        signed_by = re.search(r"(?:^|\s)signed-by=(\S+)", options or "", re.IGNORECASE)
        if _is_debian_main(uri, [suite], components.split()):
            mirrors.append(Mirror(uri, signed_by.group(1) if signed_by else ""))
    return mirrors


def parse_deb822(text: str) -> list[Mirror]:
    """Return the Debian archives among the stanzas of a ``.sources`` file.

    Spec: sources.list(5), deb822-style format.
    """
    mirrors = []
    text = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line[:1] in (" ", "\t"):
                fields[name] = fields.get(name, "") + "\n" + line
            elif ":" in line:
                name, value = line.split(":", 1)
                name = name.strip().lower()
                fields[name] = value.strip()
        if fields.get("enabled", "yes").lower() in ("no", "false", "0"):
            continue
        if "deb" not in fields.get("types", "").split():
            continue
        suites, components = fields.get("suites", "").split(), fields.get("components", "").split()
        signed_by = fields.get("signed-by", "")
        for uri in fields.get("uris", "").split():
            if _is_debian_main(uri, suites, components):
                mirrors.append(Mirror(uri, signed_by))
    return mirrors


def _is_debian_main(uri: str, suites: list[str], components: list[str]) -> bool:
    """Tell whether a source is a release of Debian's main archive, not its security or a vendor's one."""
    return "main" in components and any(suite in _RELEASE_NAMES for suite in suites) and "security" not in uri


def require_tools() -> None:
    """Raise MissingToolError, which names the way without apt, unless apt and dpkg are here."""
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        raise MissingToolError(
            f"guest fetch: this system has no {missing[0]}; get Debian's riscv64 kernel image and a static "
            "riscv64 busybox yourself and name them: --kernel-file vmlinuz --busybox-file busybox"
        )


class PrivateApt:
    """apt for another architecture and release, with all its state under ``root``."""

    def __init__(self, root: Path, architecture: str, mirror: Mirror, suite: str) -> None:
        require_tools()
        if any(c in str(root) for c in '"\\\n'):
            raise InputError(f"guest fetch: apt cannot work in a folder of this name: {root}")
        self.suite = suite
        self.root = root
        self._config = root / "apt.conf"
        self._downloads = root / "downloads"
        #: where ``download_all`` leaves packages; what is not whole yet is in its folder ``partial``
        self.archives = root / "cache/archives"
        for folder in ("state/lists/partial", "cache/archives/partial", "sources", "log", "downloads"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        (root / "state/status").touch()
        self._config.write_text(_CONFIG.format(root=root, architecture=architecture))
        (root / "sources/guest.sources").write_text(_source_stanza(architecture, mirror, suite))

    def update(self) -> None:
        """Fetch and verify the release's package lists.

        Raises:
            AptError: the mirror can't be reached, or a signature or a hash is wrong.
        """
        try:
            output = self._apt("apt-get", "-q", "update", "-o", "APT::Update::Error-Mode=any")
        except AptError as error:
            raise AptError(f"guest fetch: {self.suite}: {error}") from error
        # An old apt ignores the mode and reports a failure as a warning only.
        if re.search(r"^(E:|W: (Failed to fetch|GPG error|An error occurred))", output, re.MULTILINE):
            raise AptError(f"guest fetch: {self.suite}: {_first_complaint(output)}")

    def fields(self, package: str) -> dict[str, str]:
        """Return a package's entry in the lists, its field names in lower case.

        Raises:
            AptError: the release has no such package.
        """
        try:
            output = self._apt("apt-cache", "show", "--no-all-versions", package)
        except AptError as error:
            raise AptError(f"guest fetch: package {package} of {self.suite}: {error}") from error
        fields = dict(re.findall(r"^([A-Za-z0-9-]+): ?(.*)$", output, re.MULTILINE))
        if not fields:
            raise AptError(f"guest fetch: {self.suite} has no package {package}")
        return {name.lower(): value for name, value in fields.items()}

    def download(self, package: str) -> Path:
        """Fetch a package, verified against the signed lists, and return the .deb's path."""
        fields = self.fields(package)
        name = f"{package}_{quote(fields['version'], safe='+~-.')}_{fields['architecture']}.deb"
        path = self._downloads / name.replace("%3A", "%3a")
        if not path.exists():
            self._apt("apt-get", "-q", "download", package, cwd=self._downloads)
        if not path.exists():
            raise AptError(f"guest fetch: apt downloaded {package}, but not as {path.name}")
        return path

    def download_all(self, packages: Sequence[str]) -> list[Path]:
        """Fetch packages with everything that they need, verified, in an order in which they can be unpacked.

        Args:
            packages: names or apt's patterns, such as ``?essential``.
        """
        install = ["-y", "-q", "--no-install-recommends", "-o", "Debug::NoLocking=1", "install", *packages]
        # apt lists only what it has not got, so it looks into an empty folder.
        (self.root / "cache" / "none" / "partial").mkdir(parents=True, exist_ok=True)
        listed = self._apt("apt-get", "--print-uris", "-o", "Dir::Cache::archives=none", *install)
        names = re.findall(r"^'\S+' (\S+\.deb) ", listed, re.MULTILINE)
        archives = self.archives
        if not all((archives / name).exists() for name in names):
            self._apt("apt-get", "--download-only", *install)
        missing = [name for name in names if not (archives / name).exists()]
        if missing or not names:
            raise AptError(f"guest fetch: apt did not download {', '.join(missing) or 'anything'}")
        return [archives / name for name in names]

    def _apt(self, tool: str, *arguments: str, cwd: Path | None = None) -> str:
        return _run([tool, "-c", str(self._config), *arguments], cwd=cwd)


def _source_stanza(architecture: str, mirror: Mirror, suite: str) -> str:
    signed_by = mirror.signed_by
    if (not signed_by or signed_by.startswith("/usr/share/keyrings/debian-archive")) and KEYRING.exists():
        signed_by = str(KEYRING)
    lines = [
        "Types: deb",
        f"URIs: {mirror.uri}",
        f"Suites: {suite}",
        "Components: main",
        f"Architectures: {architecture}",
    ]
    if signed_by:
        lines.append(f"Signed-By: {signed_by}")
    return "\n".join(lines) + "\n"


def _run(command: list[str], cwd: Path | None = None) -> str:
    """Run a tool of apt's and return its output; a failure is an AptError with its first complaint."""
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise AptError(f"{command[0]} failed: {_first_complaint(done.stderr + done.stdout)}")
    # Errors that apt does not fail for come on stderr.
    return done.stdout + "".join(line + "\n" for line in done.stderr.splitlines() if line[:2] in ("E:", "W:"))


def _first_complaint(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    for prefix in ("E:", "Err:", "W:"):
        for line in lines:
            if line.startswith(prefix):
                return line.removeprefix(prefix).strip()
    return lines[-1] if lines else "it said nothing"
