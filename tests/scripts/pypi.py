"""Packages from PyPI for tests that check our files with readers we did not write. Nothing else needs them."""
import fcntl
import importlib.util
import subprocess
import sys
from pathlib import Path

PACKAGES = ("tensorboard", "safetensors", "numpy")  # about 45 MB to fetch, once for a build folder
SECONDS = 150


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(77)


def use_packages(folder):
    """Installs PACKAGES into the folder, unless they are there, and puts it on the path. Ends with 77 if they cannot be had."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / ".complete"
    wanted = " ".join((sys.version.split()[0], *PACKAGES))
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run beside each other
        if not (done.exists() and done.read_text() == wanted):
            install(folder)
            done.write_text(wanted)
    sys.path.insert(0, str(folder))


def install(folder):
    if importlib.util.find_spec("pip") is None:
        skip(f"{sys.executable} has no pip to install {', '.join(PACKAGES)} with")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile", "--upgrade",
               "--retries", "0", "--timeout", "15", "--only-binary", ":all:", "--target", str(folder), *PACKAGES]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        skip(f"PyPI gave {', '.join(PACKAGES)} not within {SECONDS} s")
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip() or "no message").splitlines()[-1]
        skip(f"{', '.join(PACKAGES)} cannot be had from PyPI: {last}")
