"""Check what is in a built wheel and source distribution: all that should be, and nothing else.

check_dist.py DIRECTORY
"""

import email
import re
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSION = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
BASE_REQUIREMENTS = {"numpy", "click", "rich"}
MAX_WHEEL_MB = 5.0


def modules() -> set[str]:
    """Python files and sweeps of the package, relative to the checkout's python folder."""
    files = (path for kind in ("*.py", "*.yaml") for path in (ROOT / "python/crl").rglob(kind))
    return {path.relative_to(ROOT / "python").as_posix() for path in files}


def check_wheel(path: Path) -> None:
    # abi3 for 3.11: one wheel for all later versions.
    assert re.fullmatch(rf"crl-{re.escape(VERSION)}-cp311-abi3-\w+(\.\w+)*\.whl", path.name), path.name
    with zipfile.ZipFile(path) as wheel:
        names = {name for name in wheel.namelist() if not name.endswith("/")}
        info = f"crl-{VERSION}.dist-info/"
        metadata = email.message_from_bytes(wheel.read(info + "METADATA"))
    extension = {name for name in names if re.fullmatch(r"crl/_core(\.abi3\.so|\.pyd)", name)}
    assert len(extension) == 1, f"{path.name} needs one extension module, has {sorted(extension)}"
    expected = modules() | extension | {"crl/_core.pyi", "crl/py.typed", "crl/envs/canary.json", "crl/lab/page.html"}
    expected |= {info + name for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")}
    missing = expected - names
    assert not missing, f"{path.name} lacks {sorted(missing)}"
    # The build backend adds a bill of materials of the compiled crates.
    strange = {name for name in names - expected if not name.startswith(info + "sboms/")}
    assert not strange, f"{path.name} has what nobody asked for: {sorted(strange)}"

    required = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    base = {re.split(r"[^\w-]", line)[0].lower() for line in required}
    assert base == BASE_REQUIREMENTS, f"base requirements {base}, expected {BASE_REQUIREMENTS}"
    assert metadata["Version"] == VERSION
    assert metadata["Requires-Python"] == ">=3.11"
    megabytes = path.stat().st_size / 1e6
    assert megabytes < MAX_WHEEL_MB, f"{path.name} has {megabytes:.1f} MB, allowed {MAX_WHEEL_MB} MB"
    print(f"OK {path.name}: {len(names)} files, {megabytes:.1f} MB")


def check_sdist(path: Path) -> None:
    prefix = f"crl-{VERSION}/"
    with tarfile.open(path) as archive:
        names = {name.removeprefix(prefix) for name in archive.getnames()}
    needed = {"Cargo.toml", "Cargo.lock", "LICENSE", "README.md", "pyproject.toml", "PKG-INFO"}
    needed |= {f"python/{name}" for name in modules()} | {"python/crl/py.typed", "python/crl/_core.pyi"}
    needed |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "rust").glob("*/src/*.rs")}
    missing = needed - names
    assert not missing, f"{path.name} lacks {sorted(missing)}"
    strange = {name for name in names if re.search(r"(^|/)(target|\.venv|runs|__pycache__)/|\.so$", name)}
    assert not strange, f"{path.name} has build products: {sorted(strange)}"
    print(f"OK {path.name}: {len(names)} files, {path.stat().st_size / 1e6:.1f} MB")


def main() -> None:
    directory = Path(sys.argv[1])
    (wheel,) = directory.glob("*.whl")
    (sdist,) = directory.glob("*.tar.gz")
    check_wheel(wheel)
    check_sdist(sdist)


if __name__ == "__main__":
    main()
