"""Finding a graph by `module:attr`, and telling what is wrong with it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncline import Graph, GraphError, LoadError, SettingsError
from asyncline.loader import load

GRAPH = """
from asyncline import Graph, Request, op

@op(cpu="inline")
def same(value):
    return value

graph = Graph("{name}", same(Request()))
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory, whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    for name in list(sys.modules):
        if name.partition(".")[0] in ("loaded_app", "inner"):
            del sys.modules[name]


def write(path: Path, text: str = GRAPH, name: str = "found") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.replace("{name}", name))


@pytest.mark.parametrize("app", ["loaded_app:graph", "loaded_app.py:graph", "./loaded_app.py:graph"])
def test_a_graph_is_found_in_the_working_directory(folder: Path, app: str) -> None:
    write(folder / "loaded_app.py")
    graph = load(app)
    assert isinstance(graph, Graph)
    assert graph.name == "found"


@pytest.mark.parametrize("app", ["inner.deep.loaded_app:graph", "inner/deep/loaded_app.py:graph"])
def test_a_graph_is_found_in_a_folder(folder: Path, app: str) -> None:
    write(folder / "inner" / "deep" / "loaded_app.py")
    assert load(app).name == "found"


def test_a_graph_may_be_that_of_a_service(folder: Path) -> None:
    write(folder / "loaded_app.py", GRAPH + "\nclass service:\n    pass\n\nservice.graph = graph\n")
    assert load("loaded_app:service").name == "found"


def test_a_graph_may_be_an_attribute_of_something(folder: Path) -> None:
    write(folder / "loaded_app.py", GRAPH + "\nclass graphs:\n    main = graph\n")
    assert load("loaded_app:graphs.main").name == "found"


def test_the_working_directory_comes_before_what_is_installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder / "elsewhere" / "loaded_app.py", name="installed")
    write(folder / "loaded_app.py", name="here")
    monkeypatch.syspath_prepend(str(folder / "elsewhere"))
    assert load("loaded_app:graph").name == "here"


@pytest.mark.parametrize("app", ["app", "app:", ":graph", "", ":", ".app:graph", "a..b:graph", "app.:graph"])
def test_a_malformed_name_says_how_to_write_it(app: str) -> None:
    with pytest.raises(LoadError, match="write it as module:attr, for example app:graph"):
        load(app)


@pytest.mark.parametrize("app", ["/srv/app.py:graph", "../app.py:graph", "inner/../../app.py:graph"])
def test_a_path_outside_the_working_directory_is_refused(folder: Path, app: str) -> None:
    with pytest.raises(LoadError, match="write the path from the working directory, ") as caught:
        load(app)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("app", ["nowhere:graph", "nowhere.py:graph", "nowhere.at.all:graph"])
def test_a_missing_module_says_where_it_was_looked_for(folder: Path, app: str) -> None:
    with pytest.raises(LoadError, match=r"there is no module 'nowhere.*' in ") as caught:
        load(app)
    assert str(folder) in str(caught.value)


def test_a_missing_module_of_a_package_that_is_there_is_missing_too(folder: Path) -> None:
    write(folder / "inner" / "__init__.py", "")
    with pytest.raises(LoadError, match=r"there is no module 'inner\.loaded_app'"):
        load("inner.loaded_app:graph")


def test_a_module_that_imports_a_missing_package_names_the_package_and_the_line(folder: Path) -> None:
    write(folder / "loaded_app.py", "import os\nimport package_that_is_not_there.inner\n")
    with pytest.raises(LoadError) as caught:
        load("loaded_app:graph")
    assert str(caught.value) == (
        "module 'loaded_app' needs 'package_that_is_not_there', which is not installed (loaded_app.py:2)"
    )


def test_a_module_whose_neighbour_is_missing_is_not_called_missing_itself(folder: Path) -> None:
    write(folder / "loaded_app.py", "import loaded_app_helper\n")
    with pytest.raises(LoadError, match="module 'loaded_app' needs 'loaded_app_helper'"):
        load("loaded_app:graph")


def test_a_package_that_fails_to_import_a_package_is_not_called_missing(folder: Path) -> None:
    write(folder / "inner" / "__init__.py", "import package_that_is_not_there\n")
    write(folder / "inner" / "loaded_app.py")
    with pytest.raises(
        LoadError, match=r"module 'inner\.loaded_app' needs 'package_that_is_not_there'.*__init__\.py:1"
    ):
        load("inner.loaded_app:graph")


def test_a_module_that_fails_names_the_error_and_the_line(folder: Path) -> None:
    write(folder / "loaded_app.py", "def fail():\n    raise ValueError('no such luck')\n\nfail()\n")
    with pytest.raises(LoadError) as caught:
        load("loaded_app:graph")
    assert str(caught.value) == "module 'loaded_app' fails: ValueError: no such luck (loaded_app.py:2)"
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_module_that_cannot_import_a_name_fails(folder: Path) -> None:
    write(folder / "loaded_app.py", "from os import nothing_of_that_name\n")
    with pytest.raises(
        LoadError, match=r"module 'loaded_app' fails: ImportError: cannot import name .*loaded_app\.py:1"
    ):
        load("loaded_app:graph")


def test_a_module_with_a_syntax_error_names_its_line(folder: Path) -> None:
    write(folder / "loaded_app.py", "graph = 1\ngraph = (\n")
    with pytest.raises(LoadError, match=r"module 'loaded_app' fails: SyntaxError: .*\(loaded_app\.py, line 2\)"):
        load("loaded_app:graph")


def test_a_module_that_raises_an_import_error_by_hand_keeps_its_words(folder: Path) -> None:
    write(folder / "loaded_app.py", "raise ModuleNotFoundError('pip install this')\n")
    with pytest.raises(LoadError, match="module 'loaded_app' fails: ModuleNotFoundError: pip install this"):
        load("loaded_app:graph")


def test_a_module_that_exits_does_not_end_the_server_in_silence(folder: Path) -> None:
    write(folder / "loaded_app.py", "import sys\nsys.exit(0)\n")
    with pytest.raises(LoadError, match=r"module 'loaded_app' fails: SystemExit: 0 \(loaded_app\.py:2\)"):
        load("loaded_app:graph")


@pytest.mark.parametrize("kind", [GraphError, SettingsError, LoadError])
def test_an_error_of_ours_keeps_its_type_and_gets_the_line(folder: Path, kind: type[Exception]) -> None:
    write(folder / "loaded_app.py", f"from asyncline import {kind.__name__}\nraise {kind.__name__}('no good')\n")
    with pytest.raises(kind) as caught:
        load("loaded_app:graph")
    assert str(caught.value) == "loaded_app: no good (loaded_app.py:2)"


def test_a_bad_graph_points_at_the_users_line_and_not_at_ours(folder: Path) -> None:
    write(folder / "loaded_app.py", GRAPH + "\nbad = Graph('v2', same(Request()))\n", name="good")
    with pytest.raises(GraphError, match=r"loaded_app: graph 'v2': .* \(loaded_app\.py:10\)"):
        load("loaded_app:graph")


def test_an_outcome_raised_at_import_is_a_failure(folder: Path) -> None:
    write(folder / "loaded_app.py", "from asyncline import ProductError\nraise ProductError(5, 'sold out')\n")
    with pytest.raises(LoadError, match="module 'loaded_app' fails: ProductError: sold out"):
        load("loaded_app:graph")


def test_a_missing_attribute_lists_the_graphs_that_are_there(folder: Path) -> None:
    write(folder / "loaded_app.py")
    with pytest.raises(LoadError, match=r"^module 'loaded_app' has no 'grpah'; its graphs: graph$"):
        load("loaded_app:grpah")


def test_a_missing_attribute_of_a_module_without_graph_says_so(folder: Path) -> None:
    write(folder / "loaded_app.py", "x = 1\n")
    with pytest.raises(LoadError, match=r"^module 'loaded_app' has no 'graph'; it has no Graph$"):
        load("loaded_app:graph")


def test_a_missing_attribute_of_a_graph_is_named_whole(folder: Path) -> None:
    write(folder / "inner" / "loaded_app.py")
    with pytest.raises(LoadError, match=r"^module 'inner\.loaded_app' has no 'graph\.x'; its graphs: graph$"):
        load("inner.loaded_app:graph.x")


@pytest.mark.parametrize(("attribute", "kind"), [("same", "type"), ("Graph", "type"), ("number", "int")])
def test_an_attribute_that_is_no_graph_is_refused_by_type(folder: Path, attribute: str, kind: str) -> None:
    write(folder / "loaded_app.py", GRAPH + "\nnumber = 5\n")
    with pytest.raises(LoadError, match=f"^loaded_app:{attribute} is a {kind}, not a Graph$"):
        load(f"loaded_app:{attribute}")
