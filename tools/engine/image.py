"""Write a root file system like that of Lambda's Python image: `image.py BUSYBOX TARBALL`.

It has this machine's Python, the runtime that aws-lambda-rie starts, and boto3, as the lock file
says, with busybox as its shell. It tests how SAM and functions are wired, not Amazon Linux. Where
things lie is as in AWS's image (https://docs.aws.amazon.com/lambda/latest/dg/python-image.html).
"""

import re
import subprocess
import sys
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "functions")]

from local.sam.host import link_runtime  # noqa: E402 -- only now is it found

_PYTHON = f"python{sys.version_info[0]}.{sys.version_info[1]}"
_LIBRARY = Path(sys.base_prefix) / "lib" / _PYTHON
_LEFT_OUT = re.compile(
    r"/(test|tests|idlelib|tkinter|turtledemo|site-packages|ensurepip|__pycache__|config-[^/]*)(/|$)"
    r"|\.a$"
)
# SAM's own layer needs mv and chmod, with Lambda layers cp and rm as well.
_COMMANDS = ("sh", "mv", "chmod", "cp", "rm", "mkdir")
_BOOTSTRAP = f"""#!/bin/sh
export PYTHONHOME=/var/lang PYTHONPATH=/var/task:/opt/python:/var/runtime
exec /var/lang/bin/{_PYTHON} -m awslambdaric "$_HANDLER"
"""
_LINKED = re.compile(r"(/\S+\.so\S*) \(0x")


def write(busybox: Path, tarball: Path) -> None:
    """Write the tarball; `docker import` makes an image of it."""
    with tempfile.TemporaryDirectory() as folder, tarfile.open(tarball, "w") as tar:
        tar.dereference = True
        runtime = Path(folder)
        link_runtime(runtime)
        interpreter = Path(sys.executable).resolve()
        tar.add(busybox, "bin/busybox")
        for command in _COMMANDS:
            _link(tar, f"bin/{command}", "busybox")
        for name in ("tmp", "proc", "sys", "dev", "opt", "var/task", "var/rapid"):
            _folder(tar, name)
        _text(tar, "etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
        _text(tar, "var/runtime/bootstrap", _BOOTSTRAP)
        tar.add(interpreter, f"var/lang/bin/{_PYTHON}")
        tar.add(_LIBRARY, f"var/lang/lib/{_PYTHON}", filter=_wanted)
        tar.add(runtime, "var/runtime", filter=_wanted)
        compiled = [*_LIBRARY.glob("lib-dynload/*.so"), *runtime.rglob("*.so"), interpreter]
        for library in sorted(_libraries(compiled)):
            tar.add(library, library.lstrip("/"))


def _wanted(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if _LEFT_OUT.search(member.name) else member


def _libraries(compiled: list[Path]) -> set[str]:
    """Return the shared libraries that these need and the loader, where the loader finds them."""
    found = subprocess.run(  # noqa: S603 -- our own interpreter's files
        ["ldd", *compiled],  # noqa: S607 -- the C library's
        capture_output=True,
        text=True,
        check=False,
    )
    return set(_LINKED.findall(found.stdout))


def _text(tar: tarfile.TarFile, name: str, text: str) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(text.encode()), 0o755
    tar.addfile(member, BytesIO(text.encode()))


def _folder(tar: tarfile.TarFile, name: str) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.mode = tarfile.DIRTYPE, 0o1777
    tar.addfile(member)


def _link(tar: tarfile.TarFile, name: str, target: str) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    tar.addfile(member)


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
