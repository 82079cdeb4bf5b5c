"""The package as a whole: what importing it costs, what it exports, and what its code never does."""

import ast
import importlib.metadata
import importlib.resources
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import crl
from crl.config import SETTINGS
from crl.metrics import METRICS

ROOT = Path(__file__).parents[1]
PACKAGE = Path(crl.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
TREES = {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in MODULES}


def nodes(kind: type[ast.AST], *, outside: tuple[str, ...] = ()) -> Iterator[tuple[str, ast.AST]]:
    for name, tree in TREES.items():
        if not name.startswith(outside):
            yield from ((name, node) for node in ast.walk(tree) if isinstance(node, kind))


def loaded_by(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after `code`."""
    program = f"{code}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


HEAVY = {"torch", "mujoco", "gymnasium", "safetensors", "yaml", "matplotlib", "scipy", "sklearn", "tensorboard"}


@pytest.mark.parametrize(
    "code",
    [
        "import crl",
        "import crl; crl.TrajectoryBuffer, crl.Batch, crl.Loader",
        "import crl; crl.TrainConfig(env='ant', depth=8)",
        "import crl; crl.envs.spec('ant_maze'), crl.envs.names()",
        "from crl.cli import main; main(['--help'], standalone_mode=False)",
    ],
)
def test_what_the_base_install_offers_loads_nothing_heavy(code):
    loaded = loaded_by(code)
    assert "crl" in loaded
    assert not loaded & HEAVY


def test_importing_is_cheap():
    """Nothing but the standard library at first, and NumPy for the buffer: `python -X importtime` shows the rest."""
    known = loaded_by("") | sys.stdlib_module_names | {"crl"}
    assert loaded_by("import crl") <= known
    assert loaded_by("import crl; crl.TrajectoryBuffer, crl.Batch") <= known | {"numpy"}


def test_heavy_modules_would_be_noticed():
    assert {"torch", "safetensors"} <= loaded_by("import crl; crl.train")


@pytest.mark.parametrize("name", crl.__all__)
def test_public_name_resolves(name):
    value = getattr(crl, name)
    assert value.__doc__, f"crl.{name} has no docstring"
    assert name in dir(crl)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'Trian'"):
        crl.Trian  # noqa: B018


def test_version_is_that_of_the_workspace():
    cargo = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))
    assert importlib.metadata.version("crl") == cargo["workspace"]["package"]["version"]


def test_types_are_shipped():
    assert importlib.resources.files("crl").joinpath("py.typed").is_file()
    assert importlib.resources.files("crl").joinpath("_core.pyi").is_file()


UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = {"eval", "exec", "torch.load", "torch.save", "yaml.load", "yaml.full_load", "yaml.unsafe_load"}


def test_nothing_can_run_code_from_a_file():
    """No pickle, no eval, no loader that may unpickle: a checkpoint or a settings file is data and nothing else."""
    for where, node in nodes(ast.Import):
        assert not {alias.name.partition(".")[0] for alias in node.names} & UNSAFE_MODULES, (where, node.lineno)
    for where, node in nodes(ast.ImportFrom):
        assert (node.module or "").partition(".")[0] not in UNSAFE_MODULES, (where, node.lineno)
        assert not {f"{node.module}.{alias.name}" for alias in node.names} & UNSAFE_CALLS, (where, node.lineno)
    for where, node in nodes(ast.Call):
        assert ast.unparse(node.func) not in UNSAFE_CALLS, (where, node.lineno)
        assert all(keyword.arg != "allow_pickle" for keyword in node.keywords), (where, node.lineno)


def test_nothing_is_left_to_do():
    for path in MODULES:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            assert not re.search(r"\b(TODO|FIXME|XXX)\b|NotImplementedError", line), f"{path.name}:{number}"


SETTINGS_HOMES = ("config.py", "presets.py", "cli/")
"""Where settings are defined, filled and parsed: a read there does not make a setting do anything."""


def settings_read() -> set[str]:
    """Names read as attributes of something called config or settings, outside of the settings' own homes."""
    return {
        node.attr
        for _, node in nodes(ast.Attribute, outside=SETTINGS_HOMES)
        if isinstance(node.ctx, ast.Load)
        and ast.unparse(node.value).rpartition(".")[2].lstrip("_") in ("config", "settings")
    }


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_does_something(name):
    # A preset is a bundle of other settings, spent when the configuration is resolved; two are read as `env_kwargs`.
    assert name in settings_read() | {"preset", "layout", "env_options"}


METRIC = re.compile(r"(train|eval|probe|explore|speed)/\w+")


def metrics_named() -> dict[str, str]:
    """Each metric that a string in the code names, outside of the list of metrics itself, with the module."""
    strings = nodes(ast.Constant, outside=("metrics.py",))
    return {
        node.value: where for where, node in strings if isinstance(node.value, str) and METRIC.fullmatch(node.value)
    }


def test_every_metric_is_explained():
    unknown = {name: where for name, where in metrics_named().items() if name not in METRICS}
    assert not unknown, "name them, with their meaning, in crl.metrics.METRICS"


# Names put together out of a network's and a block's: those of `block_metrics`, which the agent's tests look for.
COMPOSED = re.compile(r"train/\w+_(first|middle|last)_(stream|grad)_norm")


@pytest.mark.parametrize("name", [name for name in METRICS if METRIC.fullmatch(name) and not COMPOSED.fullmatch(name)])
def test_every_metric_is_measured(name):
    assert name in metrics_named()
