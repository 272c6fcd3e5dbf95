"""Nothing in the package can run what it reads, and no SQL is put together."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import mixllm_integrations

PACKAGE = Path(mixllm_integrations.__file__).parent
# Whoever calls these runs what a file or a text says.
RUNS = {
    *("eval", "exec", "compile", "__import__", "execfile", "breakpoint"),
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "dill.load", "dill.loads"),
    *("cloudpickle.load", "cloudpickle.loads", "joblib.load", "torch.load"),
    *("marshal.load", "marshal.loads", "shelve.open", "yaml.load", "yaml.unsafe_load"),
    *("os.system", "os.popen", "subprocess.getoutput", "tempfile.mktemp"),
    *("pandas.read_pickle", "pd.read_pickle", "pandas.eval", "pd.eval"),
    *("numpy.fromfile", "np.fromfile", "np.memmap", "runpy.run_path"),
}
FORBIDDEN_MODULES = {"dill", "marshal", "shelve", "yaml", "xml", "jsonpickle"}
# Who may name pickle, and for what; none of them reads one with it.
PICKLE = {
    "benchmark/pickled_table.py": {"Unpickler"},  # a subclass that calls nothing
    "core/copying.py": {"HIGHEST_PROTOCOL", "Pickler", "PicklingError"},
}
SQL = {"text", "execute", "executemany", "executescript", "exec_driver_sql", "scalar"}
TREES = {
    path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text("utf-8"))
    for path in sorted(PACKAGE.rglob("*.py"))
}


def dotted(node: ast.AST) -> str:
    """The name that a call is made by, as far as it is one."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield dotted(node.func), node


def runs_something(tree: ast.AST) -> list[str]:
    found = [f"{name} in line {c.lineno}" for name, c in calls(tree) if name in RUNS]
    for name, call in calls(tree):
        for keyword in call.keywords:
            is_set = not isinstance(keyword.value, ast.Constant) or keyword.value.value
            risky = {"allow_pickle", "trust_remote_code", "shell"}
            if keyword.arg in risky and is_set:
                found.append(f"{name}({keyword.arg}=...) in line {call.lineno}")
    return found


def imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", alias.name) for alias in node.names)


def is_constant(node: ast.AST, known: dict[str, ast.AST]) -> bool:
    """Tell whether an argument is not put together out of values."""
    if isinstance(node, ast.JoinedStr):
        values = [v.value for v in node.values if isinstance(v, ast.FormattedValue)]
        # As many question marks as there are parameters, or a text of the module.
        return all(
            isinstance(v, ast.Name)
            and (v.id == "marks" or isinstance(known.get(v.id), ast.Constant))
            for v in values
        )
    if isinstance(node, ast.BinOp):
        return is_constant(node.left, known) and is_constant(node.right, known)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        is_put_in = node.func.attr in {"format", "join", "replace", "format_map"}
        return not is_put_in
    return True


def put_together(tree: ast.AST) -> list[str]:
    statements = {
        target.id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found = []
    for name, call in calls(tree):
        if name.rpartition(".")[2] not in SQL or not call.args:
            continue
        given = call.args[0]
        if isinstance(given, ast.Name):
            given = statements.get(given.id, given)
        if not is_constant(given, statements):
            found.append(f"{name} in line {call.lineno}")
    return found


@pytest.mark.parametrize(
    "code",
    [
        "eval('1')",
        "pickle.loads(data)",
        "np.load(file, allow_pickle=True)",
        "AutoModel.from_pretrained(x, trust_remote_code=trusted)",
        "subprocess.run('ls', shell=True)",
        "joblib.load(file)",
        "torch.load(file)",
    ],
)
def test_the_check_would_see_it(code):
    assert len(runs_something(ast.parse(code))) == 1


@pytest.mark.parametrize(
    "code",
    [
        "c.execute(text(f'SELECT {x}'))",
        "c.execute('SELECT ' + '{}'.format(x))",
        "q = f'DELETE {x}'\nc.execute(q)",
        "c.exec_driver_sql(f'SELECT {marks} {x}')",
        "c.execute(','.join(xs))",
    ],
)
def test_the_check_would_see_sql_that_is_put_together(code):
    assert put_together(ast.parse(code))


def test_the_check_lets_parameters_pass():
    assert not put_together(ast.parse("c.execute(f'IN ({marks})', xs)"))
    assert not put_together(ast.parse("c.execute(text('SELECT :x'), {'x': x})"))


def test_nothing_runs_what_it_reads():
    found = {name: runs_something(tree) for name, tree in TREES.items()}
    assert len(found) > 200
    assert {name: what for name, what in found.items() if what} == {}


def test_only_two_modules_name_pickle_and_none_reads_one_with_it():
    named: dict[str, set[str]] = {}
    for name, tree in TREES.items():
        for module, what in imported(tree):
            assert module.partition(".")[0] not in FORBIDDEN_MODULES, name
            if module == "pickle" and what:
                named.setdefault(name, set()).add(what)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and dotted(node.value) == "pickle":
                named.setdefault(name, set()).add(node.attr)
    assert named == PICKLE


def test_the_one_reader_of_pickles_admits_nothing_that_does_something():
    from mixllm_integrations.benchmark import pickled_table

    notes = pickled_table._Note
    for name, what in pickled_table._ADMITTED.items():
        is_note = isinstance(what, type) and issubclass(what, notes)
        is_own = getattr(what, "__module__", "") == pickled_table.__name__
        assert is_note or is_own or what is slice, name


def test_no_sql_is_put_together():
    found = {name: put_together(tree) for name, tree in TREES.items()}
    assert {name: what for name, what in found.items() if what} == {}


def test_no_certificate_goes_unchecked():
    for name, tree in TREES.items():
        for _, call in calls(tree):
            for keyword in call.keywords:
                is_false = getattr(keyword.value, "value", None) is False
                is_off = keyword.arg in {"verify", "verify_ssl"} and is_false
                assert not is_off, f"{name}, line {call.lineno}"
