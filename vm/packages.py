# SPDX-License-Identifier: GPL-2.0-only
"""Kernels from Debian's suites, fetched by apt into a cache, the machine's own state untouched.

Each suite has an apt state of its own (lists, archives, sources). The mirror is the one that
the machine's sources name; apt verifies all against the Debian archive keyring. A kernel that
is in the cache is taken from there, and nothing is fetched. Of a package only what a guest
needs is unpacked: image, configuration and modules.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cmp_to_key
from pathlib import Path

from vm.errors import VmError

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_WANTED = re.compile(
    r"(usr/)?(boot/(vmlinuz|config)-|lib/modules/[^/]+/(vmlinuz|config|kernel/"
    r"(fs/(9p|netfs|fscache|ext4|jbd2|mbcache|xfs)|net/9p|drivers/(block|virtio)|mm|lib|crypto)\b))"
)
_FIELD = re.compile(r"^(Package|Version|Depends|Filename|Size|SHA256): (.*)$", re.MULTILINE)


def cache() -> Path:
    """Where kernels are kept between runs."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "uffd-wp" / "kernels"


@dataclass(frozen=True)
class Package:
    """The newest kernel package of a suite whose name matches a shell pattern."""

    suite: str
    pattern: str

    @property
    def cached(self) -> Path:
        """Where the kernel lies once it was fetched, with the files that are wanted of it."""
        wanted = f"{self.suite} {self.pattern} {_WANTED.pattern}"
        key = hashlib.sha256(wanted.encode()).hexdigest()[:8]
        return cache() / f"{self.suite}-{key}"

    def folder(self, *, fresh: bool = False) -> Path:
        """The unpacked kernel, fetched when the cache has none, or when `fresh`.

        Raises VmError, or OSError where the cache can't be written.
        """
        folder = self.cached
        if not folder.is_dir() or fresh:
            apt = Apt(self.suite)
            apt.update()
            chosen = apt.newest(self.pattern)
            with tempfile.TemporaryDirectory(dir=cache()) as scratch:
                unpack(apt.download([chosen, *apt.parts(chosen)], Path(scratch)), folder)
        return folder


@dataclass(frozen=True)
class Entry:
    """What an index says of a package."""

    name: str
    version: str
    depends: str


class Apt:
    """The private apt state of a suite."""

    def __init__(self, suite: str) -> None:
        for tool in ("apt-get", "dpkg-deb"):
            if not shutil.which(tool):
                raise VmError(
                    f"Debian's kernels need {tool}, which isn't here: name a bzImage, "
                    "a build tree or a folder instead"
                )
        if not KEYRING.exists():
            raise VmError(f"{KEYRING} is missing: apt-get install debian-archive-keyring")
        self.suite = suite
        self._root = cache() / "apt" / suite
        for part in ("lists/partial", "cache/archives/partial"):
            (self._root / part).mkdir(parents=True, exist_ok=True)
        sources = self._root / "sources.list"
        sources.write_text(f"deb [signed-by={KEYRING}] {_mirror()} {suite} main\n")
        settings = {
            "APT::Sandbox::User": "root",  # the cache may lie where apt's own user can't go
            "Acquire::Languages": "none",
            "Dir::Cache": self._root / "cache",
            "Dir::Etc::SourceList": sources,
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::State::Lists": self._root / "lists",
            "Dir::State::status": "/dev/null",
        }
        self._options = [f"-o{key}={value}" for key, value in settings.items()]

    def _run(self, tool: str, *arguments: str, cwd: Path | None = None) -> str:
        command = [tool, "-q", *self._options, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.startswith("E:")]
            detail = (said or done.stderr.splitlines() or ["no word of why"])[0]
            raise VmError(f"{tool} {arguments[0]} for the suite {self.suite} failed: {detail}")
        return done.stdout

    def update(self) -> None:
        """Reads the suite's index anew."""
        self._run("apt-get", "--error-on=any", "update")

    def newest(self, pattern: str) -> Entry:
        """The package of the highest version whose name matches."""
        names = self._run("apt-cache", "pkgnames", "linux-").split()
        found = [entry for name in names if fnmatchcase(name, pattern) for entry in self.show(name)]
        if not found:
            raise VmError(f"no package of the suite {self.suite} matches {pattern}")
        return max(found, key=cmp_to_key(_by_version))

    def show(self, name: str) -> list[Entry]:
        """The index' entries of a package."""
        texts = self._run("apt-cache", "show", name).strip().split("\n\n")
        fields = [dict(_FIELD.findall(text)) for text in texts]
        return [Entry(f["Package"], f["Version"], f.get("Depends", "")) for f in fields]

    def parts(self, entry: Entry) -> list[Entry]:
        """The packages into which a kernel package is divided: those it pins to its version."""
        pinned = re.findall(r"(linux-[^ ,]+) \(= ([^)]+)\)", entry.depends)
        return [Entry(name, version, "") for name, version in pinned if version == entry.version]

    def download(self, entries: list[Entry], folder: Path) -> list[Path]:
        """Fetches packages, verified, into a folder."""
        names = [f"{entry.name}={entry.version}" for entry in entries]
        self._run("apt-get", "download", *names, cwd=folder)
        return sorted(folder.glob("*.deb"))


def _by_version(one: Entry, other: Entry) -> int:
    compare = ["dpkg", "--compare-versions", one.version, "lt", other.version]
    return -1 if subprocess.run(compare, check=False).returncode == 0 else 1


def _mirror() -> str:
    """The Debian mirror that the machine's own sources name."""
    form = "$(SITE) $(ORIGIN) $(LABEL) $(REPO_URI)"
    command = ["apt-get", "indextargets", "--format", form, "Created-By: Packages"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    for line in listed.splitlines():
        uri = line.rpartition(" ")[2]
        if " Debian Debian " in line or uri.rstrip("/").endswith("/debian"):
            return uri
    raise VmError(
        "the machine's apt sources name no Debian mirror: name a bzImage, a build tree "
        "or a folder instead of a Debian package"
    )


def unpack(debs: list[Path], folder: Path) -> None:
    """Unpacks what a guest needs of some packages; `folder` appears when all is there.

    Raises VmError.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        for deb in debs:
            extract(deb, Path(scratch) / "new", _WANTED)
        if folder.exists():
            folder.rename(Path(scratch) / "old")
        (Path(scratch) / "new").rename(folder)


def extract(deb: Path, folder: Path, wanted: re.Pattern[str]) -> None:
    """Unpacks the files of a package whose path begins as wanted. Raises VmError."""
    folder.mkdir(exist_ok=True)
    command = ["dpkg-deb", "--fsys-tarfile", str(deb)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                # Python before 3.11.4 has no filters
                archive.extraction_filter = getattr(tarfile, "data_filter", None)
                for member in archive:
                    if member.isfile() and wanted.match(member.name.removeprefix("./")):
                        archive.extract(member, folder)
        except tarfile.TarError as error:
            raise VmError(f"{deb} is no Debian package that can be read: {error}") from error
