"""Install the wheels of /wheels into /opt/venv, cut what is never read, compile the rest.

Runs inside the build, by the image's python3: no network, pip straight from its wheel in /pip, so that pip is in no
image. With `--system` it compiles the modules of the image's own Python instead.

Bytecode holds no time, neither its source's nor its own, and is never checked against its source at run time: the root
file system is read-only there.
"""

import compileall
import pathlib
import py_compile
import shutil
import subprocess
import sys

VENV = pathlib.Path("/opt/venv")
WHEELS = pathlib.Path("/wheels")
PIP = pathlib.Path("/pip")
SYSTEM = [pathlib.Path("/usr/lib"), pathlib.Path("/usr/share")]
OPTIONS = (
    *("--no-index", "--no-deps", "--require-hashes", "--no-compile", "--no-cache-dir", "--quiet"),
    *("--disable-pip-version-check", "--root-user-action=ignore"),
    *("--find-links", str(WHEELS), "--requirement", str(WHEELS / "requirements.txt")),
)
SUFFIXES = (".pyi", ".pxd", ".pyx", ".a", ".h", ".hpp", ".c", ".cpp", ".map")
CUTS = (
    "pyarrow/include",
    "pyarrow/src",
    "pyarrow/libarrow_flight.so*",
    "pyarrow/libarrow_python_flight.so*",
    "pyarrow/_flight*.so",
    "pyarrow/libarrow_python.so",  # a second and a third copy of one that is linked by its short version
    "pyarrow/libarrow_python.so.*.*",
    "numpy/_core/include",
    "numpy/_core/lib",
    "matplotlib/mpl-data/sample_data",
    "Crypto/SelfTest",  # tests, with keys of their own
)
AWS_SERVICES = {"s3", "sts", "sso", "sso-oidc", "signin"}


def install() -> None:
    """Make the venv where the parent has none, and add the wheels of requirements.txt, each checked by its digest."""
    if not (VENV / "bin/python").exists():
        subprocess.run(["python3", "-m", "venv", "--without-pip", str(VENV)], check=True)
    python, pip = VENV / "bin/python", next(PIP.glob("pip-*.whl")) / "pip"
    subprocess.run([python, "-B", pip, "install", *OPTIONS], check=True)


def size(path: pathlib.Path) -> int:
    """Bytes of a file, or of all files under a folder."""
    if path.is_dir() and not path.is_symlink():
        return sum(size(child) for child in path.iterdir())
    return path.lstat().st_size


def unused(site: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """What no program of ours ever reads, by kind."""
    found = {
        "tests": [p for p in site.rglob("*") if p.is_dir() and p.name == "tests"],
        "sources and headers": [p for p in site.rglob("*") if p.suffix in SUFFIXES and p.is_file()],
        "named": [p for cut in CUTS for p in site.glob(cut)],
    }
    services = site / "botocore/data"
    if services.is_dir():
        found["cloud services"] = [
            p for p in services.iterdir() if p.is_dir() and p.name not in AWS_SERVICES
        ]
    return found


def cut(site: pathlib.Path) -> None:
    """Remove what is unused, and say how much it was."""
    for kind, paths in unused(site).items():
        total = files = 0
        for path in paths:
            if not path.exists() and not path.is_symlink():
                continue  # inside a folder that has just gone
            total += size(path)
            files += sum(1 for p in path.rglob("*")) if path.is_dir() else 1
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        sys.stdout.write(f"cut {kind}: {total / 1e6:.1f} MB, {files} files\n")


def compile_new(site: pathlib.Path, *, deep: bool = True) -> None:
    """Compile what has no bytecode yet: a parent's files are not written again."""
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    for source in sorted(site.rglob("*.py") if deep else site.glob("*.py")):
        if not any(source.parent.glob(f"__pycache__/{source.stem}.cpython-*.pyc")):
            compileall.compile_file(source, quiet=2, invalidation_mode=mode)


def recompile(folders: list[pathlib.Path]) -> None:
    """Make the bytecode anew that the packages' own scripts made, which follows times."""
    for folder in folders:
        caches = sorted(folder.rglob("__pycache__"))
        for cache in caches:
            shutil.rmtree(cache)
        for cache in caches:
            compile_new(cache.parent, deep=False)


def main(arguments: list[str]) -> None:
    """Install, cut, compile."""
    if arguments == ["--system"]:
        recompile(SYSTEM)
        return
    install()
    site = next(VENV.glob("lib/python3.*/site-packages"))
    cut(site)
    compile_new(site)
    sys.stdout.write(f"venv {size(VENV) / 1e6:.1f} MB\n")


if __name__ == "__main__":
    main(sys.argv[1:])
