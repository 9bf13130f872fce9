"""The arrows of architecture.md, read from the syntax trees.

Imports point down, some words have one owner, and modules stay short, quiet at import and documented.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]

# One row a layer, top first. A module may import from the rows below its own. A package stands for its modules.
LAYERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("tasks", ("tasks",)),
    ("workflows", ("workflows",)),
    (
        "verbs",
        (
            *("images", "lock", "extras", "seal", "rehearse"),  # on the connected host
            *(
                "intake",
                "preflight",
                "theirs",
                "install",
                "bootstrap",
                "migrations",
                "users",
                "accounts",
                "own",
                "rights",
                "clients",
                "place",
                "access",
                "operate",
                "turnover",
                "recovery",
                "checks",
            ),
            *(
                "pki",
                "reload",
                "takeover",
                "sitecert",
                "jobs",
                "debs",
                "wheels",
                "carry",
                "keys",
                "cutting",
                "packing",
                "blobs",
                "layers",
                "room",
                "door",
                "pulls",
                "push",
                "closed",
                "bare",
                "browse",
                "witness",
            ),
            "bench",
            *("audit", "sso"),
            *("backup", "restore", "prove", "scratch"),
            *("supply", "facts", "modules", "sources", "scan", "hostfacts"),  # what travels
        ),
    ),
    (
        "shared",
        (
            *("site", "vault", "denied", "store", "stock", "registry", "gateway_client", "inside"),
            "mlflow_account",
            *("authority", "expiring", "borrowed", "auditlog", "chainlog", "firewall"),
            *("ledger", "repository", "underway", "copies", "alerts"),
            *("rotation", "prod", "kit"),
        ),
    ),  # parts of the installation that several verbs read
    ("edges", ("run", "files", "crew", "engine", "builder", "host", "console", "streams")),
    (
        "deciding",
        (
            *(
                "config",
                "settings",
                "siteform",
                "words",
                "services",
                "plan",
                "templates",
                "recipes",
            ),
            *("manifest", "delta", "trust", "unseal", "unpack", "kept", "arrive", "parts"),
            *("environment", "fragment", "certificates", "chain", "references"),
            *("chained", "gateway_log", "operators", "provider"),
            *("points", "wal", "claims"),
            *(
                "components",
                "foreign",
                "licences",
                "sbom",
                "notices",
                "provenance",
                "versions",
                "advisories",
                "leaks",
            ),
        ),
    ),
    ("values", ("errors", "model")),
)

# Verbs do not import one another, but these are the helpers of one verb (the verb → its helpers).
HELPERS = {
    "images": {"debs", "wheels"},
    "lock": {"debs", "wheels"},
    "seal": {"keys", "cutting", "carry", "packing"},
    "packing": {"blobs", "layers"},
    "room": {"layers", "packing"},
    "blobs": {"layers"},
    "intake": {"door", "pulls", "push"},
    "push": {"door"},
    "supply": {"facts", "modules", "packing"},
    "sources": {"modules"},
    "rehearse": {"closed", "browse"},
    "closed": {"bare"},
    "users": {"accounts", "own", "rights"},
    "access": {"accounts", "own", "rights"},
    "clients": {"accounts", "own", "rights"},
    "own": {"accounts", "rights"},
    "rights": {"accounts"},
    "turnover": {"accounts", "own"},
    "checks": {"accounts"},
    "preflight": {"theirs"},
    "prove": {"scratch"},
    "restore": {"scratch"},
    "install": {"bootstrap", "migrations", "pki", "sso"},
    "migrations": {"bootstrap"},
    "operate": {"jobs"},
    "browse": {"closed", "witness"},
    "bench": {"closed", "debs", "door", "images", "intake", "lock"},
}

# Inside a layer: who may import whom. Edges build on one another; deciding modules read one another's values.
WITHIN = {"edges", "deciding", "values", "shared"}

# `ops` and `guard` run inside containers of the ops image: values, deciding and the client kit only, or nothing of
# ours. `tracking` is a library of its own.
ASIDE = {"ops": {"values", "deciding"}, "guard": set[str](), "tracking": set[str]()}

OWNERS = {
    "subprocess": {
        "run",
        "ops",
    },  # a container's code starts restic itself: the stream goes through it
    "jinja2": {"templates"},
    "docker": {"engine"},
    "yaml": {"fragment"},
}
ENVIRONMENT_OWNERS = {"config", "engine", "unseal"}  # unseal runs alone, before the product
ENGINE_WORDS = ("docker", "podman")
ENGINE_WORD_OWNERS = {"engine"}
LONGEST_MODULE = 350
LONGER = {
    # one file each, since sh can vouch for one digest only; it says everything in two languages
    "unseal": 580,
    # every task by its name, ten lines each: the one list that invoke reads
    "tasks": 600,
    # one table of every key
    "settings": 700,
    # a field for every key
    "config": 400,
}
LONGEST_FUNCTION = 40
LONGEST_DECLARATION = 60  # a service is one declaration, not steps

MODULES = sorted(
    path
    for path in [*(TOP / "bundle").rglob("*.py"), TOP / "tasks.py"]
    if path.exists() and "__pycache__" not in path.parts
)


def name_of(path: Path) -> str:
    """The first name under the package: `checks` for bundle/checks/x.py, `run` for bundle/run.py."""
    parts = path.relative_to(TOP).with_suffix("").parts
    return parts[0] if len(parts) == 1 else parts[1]


def layer_of(name: str) -> str | None:
    return next((layer for layer, names in LAYERS if name in names), None)


def ids(path: Path) -> str:
    return str(path.relative_to(TOP))


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def type_checking_nodes(tree: ast.Module) -> set[ast.AST]:
    """What stands under `if TYPE_CHECKING:`: no arrow at run time."""
    return {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }


def imports(tree: ast.Module) -> Iterator[str]:
    """Every imported module, in full; `from bundle import x` is `bundle.x`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            module = node.module or ""
            if module == "bundle":
                yield from (f"bundle.{alias.name}" for alias in node.names)
            else:
                yield module


def inner_imports(path: Path) -> set[str]:
    """The members of this package that a module imports."""
    found = {name.split(".")[1] for name in imports(parse(path)) if name.startswith("bundle.")}
    return found - {"__version__"}


def allowed(name: str) -> set[str]:
    """What `name` may import of this package."""
    if name in ASIDE:
        below = {m for layer, names in LAYERS if layer in ASIDE[name] for m in names}
        return below | {name} | ({"tracking"} if name == "ops" else set())
    layers = [layer for layer, _ in LAYERS]
    mine = layer_of(name)
    assert mine is not None
    below = {m for layer, names in LAYERS[layers.index(mine) + 1 :] for m in names}
    beside = set(dict(LAYERS)[mine]) if mine in WITHIN else HELPERS.get(name, set())
    tracking = {"tracking"} if mine in ("workflows", "verbs") else set()
    return below | beside | tracking | {name}


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_module_has_a_place(path: Path) -> None:
    name = name_of(path)
    assert name == "__init__" or layer_of(name) or name in ASIDE, (
        f"{name} stands in no layer: name it in the table at the top of this test"
    )


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_imports_point_down(path: Path) -> None:
    name = name_of(path)
    if name == "__init__":
        assert not inner_imports(path)
        return
    wrong = inner_imports(path) - allowed(name)
    assert not wrong, f"{name} must not import {sorted(wrong)}"


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_imports_are_written_in_full(path: Path) -> None:
    """Only the library that will be a wheel of its own names its parts relatively, and nothing else of ours."""
    relative = [
        node.lineno
        for node in ast.walk(parse(path))
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert name_of(path) == "tracking" or not relative, f"relative: lines {relative}"
    assert name_of(path) != "tracking" or not inner_imports(path)


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_library_has_its_owner(path: Path) -> None:
    name, tree = name_of(path), parse(path)
    free = type_checking_nodes(tree)
    for node in ast.walk(tree):
        if node in free or not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        for module in imports(ast.Module([node], [])):
            owners = OWNERS.get(module.split(".")[0])
            assert owners is None or name in owners, f"{module} belongs to {owners}, not to {name}"


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_environment_has_its_owner(path: Path) -> None:
    name = name_of(path)
    if (
        name in ENVIRONMENT_OWNERS or name in ASIDE
    ):  # a container's code has its environment as its arguments
        return
    found = [
        node.lineno
        for node in ast.walk(parse(path))
        if (isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "environb"))
    ]
    assert not found, f"the environment belongs to {ENVIRONMENT_OWNERS}: lines {found}"


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_engine_is_started_by_its_owner_only(path: Path) -> None:
    """No command line that begins with the engine's client outside its owner; operators' texts may name it."""
    if name_of(path) in ENGINE_WORD_OWNERS:
        return
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.List | ast.Tuple) and node.elts:
            first = node.elts[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                program = first.value.rsplit("/", 1)[-1]
                assert program not in ENGINE_WORDS, f"line {node.lineno} runs {program}"


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_module_is_short(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGER.get(name_of(path), LONGEST_MODULE), f"{lines} lines"
    longest = LONGEST_DECLARATION if name_of(path) == "services" else LONGEST_FUNCTION
    long = {
        f.name: f.end_lineno - f.lineno + 1
        for f in functions(parse(path))
        if f.end_lineno is not None and f.end_lineno - f.lineno + 1 > longest
    }
    assert not long, f"longer than {longest} lines: {long}"


def is_quiet(node: ast.stmt) -> bool:
    """True for a statement that does nothing at import but name things."""
    if isinstance(
        node,
        ast.Import
        | ast.ImportFrom
        | ast.FunctionDef
        | ast.AsyncFunctionDef
        | ast.ClassDef
        | ast.Assign
        | ast.AnnAssign
        | ast.Assert,
    ):
        return True
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.If | ast.Try):
        inner = [*node.body, *node.orelse]
        if isinstance(node, ast.If) and "__main__" in ast.unparse(node.test):
            return True
        if isinstance(node, ast.Try):
            inner += [*node.finalbody, *(s for h in node.handlers for s in h.body)]
        return all(is_quiet(statement) for statement in inner)
    return False


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_import_has_no_effect(path: Path) -> None:
    if path.name in ("tasks.py", "__main__.py"):  # tasks builds its namespace by calls
        return
    loud = [node.lineno for node in parse(path).body if not is_quiet(node)]
    assert not loud, f"statements with an effect at import: lines {loud}"


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_documented_and_finished(path: Path) -> None:
    text, tree = path.read_text(encoding="utf-8"), parse(path)
    assert not text.strip() or ast.get_docstring(tree), "a module says what it is"
    for word in ("TO" + "DO", "FIX" + "ME", "XX" + "X"):
        assert word not in text, f"{word} is left"
    bare = [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert not bare, f"public and undocumented: {bare}"


def test_shell_is_never_asked() -> None:
    for path in MODULES:
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.keyword) and node.arg == "shell":
                pytest.fail(f"{path.name}:{node.value.lineno} goes through a shell")


def test_table_names_what_exists_once() -> None:
    names = [name for _, members in LAYERS for name in members]
    assert len(names) == len(set(names))
    helpers = {helper for group in HELPERS.values() for helper in group}
    assert helpers <= set(names)


def test_root_key_of_the_object_store_is_used_by_bootstrap_only() -> None:
    """Beside the server itself, which takes it from its own files, and its own change."""
    found = {name_of(path) for path in MODULES if "MINIO_ROOT" in path.read_text("utf-8")}
    assert found == {"bootstrap", "services", "turnover", "workflows"}
