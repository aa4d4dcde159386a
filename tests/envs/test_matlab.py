"""MATLAB data files: every spelling of a table reads equal, arithmetic is NumPy's, and the rest is refused by line."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from steersman.envs.grid.files.matlab import MatlabFile

NAMES = {"idx_x": {"ONE": 1.0, "TWO": 2.0, "AGAIN": 1.0}, "constants": {"ONE": 1.0, "TWO": 2.0}}


def run(folder: Path, text: str) -> MatlabFile:
    path = folder / "data.m"
    path.write_text(text)
    return MatlabFile(path, NAMES)


def value(folder: Path, expression: str, before: str = "") -> np.ndarray:
    return np.atleast_2d(np.asarray(run(folder, f"{before}\nx = {expression};").values["x"], dtype=float))


@st.composite
def spelled(draw: DrawFn, number: float) -> str:
    plain = repr(number)
    forms = [plain, f"({plain})", f"+{plain}" if number >= 0 else plain, f"{plain}/1", f"2*{plain}/2", f"({plain} - 0)"]
    if "e" in plain:
        forms += [plain.replace("e", "d"), plain.replace("e", "D"), plain.replace("e", "E")]
    else:
        forms += [f"{plain}e0", f"{plain}d+00"]
    return draw(st.sampled_from(forms))


@st.composite
def tables(draw: DrawFn) -> tuple[np.ndarray, str]:
    """A table and one of its spellings."""
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    numbers = st.one_of(st.integers(-99, 99).map(float), st.floats(-1e9, 1e9, allow_subnormal=False))
    entries = np.array(draw(st.lists(numbers, min_size=shape[0] * shape[1], max_size=shape[0] * shape[1])))
    table = entries.reshape(shape)
    gap = st.sampled_from([" ", "\t", ", ", ",", " ,  ", " ... the rest is a comment\n  ", ", ...\n"])
    end = st.sampled_from(
        ["\n", ";", " ; ", ";\n", "; % end, of [row\n", " # so\n", ";\r\n", "\n%{\n9 9 9\n%}\n", ",\n", "\n\n"]
    )
    text = draw(st.sampled_from(["", "\n", " % bus data\n", "\n% 7 7 7\n"]))
    for i, row in enumerate(table):
        text += draw(st.sampled_from(["", " ", "\t"])) if i else ""
        text += draw(spelled(float(row[0])))
        for number in row[1:]:
            text += draw(gap) + draw(spelled(float(number)))
        text += draw(end) if i + 1 < len(table) else draw(st.sampled_from(["", ";", "\n", " ;\n"]))
    return table, f"x = [{text}]"


@settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=tables())
def test_spellings_of_a_table_read_equal(tmp_path: Path, case: tuple[np.ndarray, str]) -> None:
    table, text = case
    np.testing.assert_array_equal(np.atleast_2d(run(tmp_path, text).values["x"]), table, err_msg=text)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("[1 -2]", [1, -2]), ("[1 - 2]", [-1]), ("[1 -2 + 3]", [1, 1]), ("[1, -2]", [1, -2]), ("[1-2 3]", [-1, 3]),
        ("[a' 1]", [5, 1]), ("[a (1)]", [5, 1]), ("[a(1)]", [5]), ("[1 2]'", [1, 2]), ("[2 .^ 2 -1]", [4, -1]),
        ("[(1 -2) 3]", [-1, 3]), ("[1.5.*2 .5]", [3, 0.5]), ("[1./2 3.]", [0.5, 3]), ("[1:3]", [1, 2, 3]),
        ("[~0 1]", [1, 1]), ("[1 ~= 2]", [1]), ("[a]", [5]), ("[[1 2] 3]", [1, 2, 3]), ("[1 2 ...\n 3]", [1, 2, 3]),
        ("[1,2,]", [1, 2]), ("[ 1\t2 ]", [1, 2]), ("[1 ; % two\n]", [1]), ("[-a -a]", [-5, -5]), ("[a - a]", [0]),
        ("[+1 +2]", [1, 2]), ("[1e3 1D3 1.5E-1]", [1000, 1000, 0.15]), ("[Inf -Inf]", [math.inf, -math.inf]),
    ],
)  # fmt: skip
def test_blanks_separate_entries_as_in_matlab(tmp_path: Path, text: str, entries: list[float]) -> None:
    assert value(tmp_path, text, "a = 5;").ravel().tolist() == entries


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-2^2", -4.0), ("2^-1", 0.5), ("2^3^2", 64.0), ("-2^-2*4", -1.0), ("1/100", 0.01), ("1d-2", 0.01),
        ("2 + 3*4 - 6/2", 11.0), ("(2 + 3)*4", 20.0), ("12.66^2/10", 12.66**2 / 10), ("2\\6", 3.0), ("--3", 3.0),
        ("sqrt(3) * sin(acos(0.8))", math.sqrt(3) * math.sin(math.acos(0.8))), ("1 - 2 - 3", -4.0), ("8/4/2", 1.0),
        ("pi/180", math.pi / 180), ("1 < 2 & 2 > 3 | true", 1.0), ("-a.^2", -9.0), ("1/0", math.inf), ("a(end)", 3.0),
        ("size(b, 1) + numel(b) + length(b)", 11.0), ("sum(b(:))", 21.0), ("sum(sum(b))", 21.0), ("b(end, 1)", 4.0),
        ("b(2, end)", 6.0), ("b(end)", 6.0), ("b(2)", 4.0), ("sum(b(b > 4))", 11.0), ("b(find(b(:, 1) == 4), 3)", 6.0),
    ],
)  # fmt: skip
def test_arithmetic(tmp_path: Path, text: str, expected: float) -> None:
    assert value(tmp_path, text, "a = 3; b = [1 2 3; 4 5 6];").item() == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("b / 2", [[0.5, 1, 1.5], [2, 2.5, 3]]), ("b .* [1; 10]", [[1, 2, 3], [40, 50, 60]]), ("b * b'", [[14, 32], [32, 77]]),
        ("b(:, [1 3])", [[1, 3], [4, 6]]), ("b(2, :)", [[4, 5, 6]]), ("b(:, 1)'", [[1, 4]]), ("b(1, 2:end)", [[2, 3]]),
        ("b(:, 1) * [0.8 0.6]", [[0.8, 0.6], [3.2, 2.4]]), ("repmat([2 0], 2, 1)", [[2, 0], [2, 0]]), ("zeros(1, 3)", [[0, 0, 0]]),
        ("[b; 7 8 9]", [[1, 2, 3], [4, 5, 6], [7, 8, 9]]), ("[b(:, 1), ones(2, 1)]", [[1, 1], [4, 1]]), ("3:-1:1", [[3, 2, 1]]),
        ("b(b(:, 1) > 2, :)", [[4, 5, 6]]), ("1 ./ [1 2; 4 5]", [[1, 0.5], [0.25, 0.2]]), ("sum(b)", [[5, 7, 9]]),
        ("b(:)'", [[1, 4, 2, 5, 3, 6]]), ("[1 2 3](2)", None),
    ],
)  # fmt: skip
def test_matrices(tmp_path: Path, text: str, expected: list[list[float]] | None) -> None:
    if expected is None:
        with pytest.raises(ValueError, match=r"data.m line 2: nothing may follow"):
            value(tmp_path, text, "b = 1;")
    else:
        np.testing.assert_allclose(value(tmp_path, text, "b = [1 2 3; 4 5 6];"), expected, rtol=1e-15)


def test_assignments_to_parts(tmp_path: Path) -> None:
    text = "s.a = [1 2 3\n4 5 6];\ns.a(:, [TWO 3]) = s.a(:, [TWO 3]) / 10; s.a(2, ONE) = 7, s.a(:, 3) = [8 9]\ns.a(1) = -1;"
    found = run(tmp_path, f"constants;\n{text}")
    np.testing.assert_allclose(found.values["s.a"], [[-1, 0.2, 8], [7, 0.5, 9]])  # type: ignore[arg-type]
    assert found.lines["s.a"] == [2, 3]
    assert run(tmp_path, "k = 2;\nt = [1\n2\n3];\nu = t / k; v = k * t;").lines["v"] == [2, 3, 4]


def test_names_are_bound_by_position(tmp_path: Path) -> None:
    found = run(tmp_path, "[a, b, ...\n  c] = idx_x; [~, d] = idx_x;\n[e] = idx_x").values
    assert found == {"a": 1.0, "b": 2.0, "c": 1.0, "d": 2.0, "e": 1.0}


@pytest.mark.parametrize(
    ("text", "name", "output"),
    [
        ("function mpc = case9\nx = 1;\n", "case9", "mpc"), ("function [s] = case9(a, b)\nx = 1;\nend\n", "case9", "s"),
        ("% note\nx = 1;\nfunction mpc = \n", "data", "mpc"), ("x = 1", "data", "mpc"), ("function case9; x = 1; return", "case9", "mpc"),
    ],
)  # fmt: skip
def test_function_lines(tmp_path: Path, text: str, name: str, output: str) -> None:
    found = run(tmp_path, text)
    assert (found.name, found.output, found.values) == (name, output, {"x": 1.0})


def test_texts_and_cells(tmp_path: Path) -> None:
    text = "a = 'it''s 100% here; [1';\nb = \"say \"\"x\"\"\";\nc = {'Bus 1', 'x'; 'Bus; 2', 'y' % z\n};\nd = {};\ne = {'p'; 'q'}';"
    assert run(tmp_path, text).values == {
        "a": "it's 100% here; [1", "b": 'say "x"', "c": [["Bus 1", "x"], ["Bus; 2", "y"]], "d": [], "e": [["p", "q"]],
    }  # fmt: skip


def test_block_comments_nest_and_hide(tmp_path: Path) -> None:
    text = "x = [1\n%{\n2\n  %{\nfor ever\n  %}\n'never closed\n%}\n3];\n%{ is no block\ny = 4; %}"
    found = run(tmp_path, text)
    np.testing.assert_array_equal(found.values["x"], [[1], [3]])
    assert found.lines["x"] == [1, 9] and found.values["y"] == 4.0


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("x = 1;\nfor i = 1:3\n x = i;\nend", 2, "'for' is not supported"),
        ("x = 1;\n\nif x, y = 2; end", 3, "'if' is not supported"),
        ("x = 1;\ny = mystery(x);", 2, "'mystery' is not known"),
        ("disp('hello')", 1, "'disp' is not known"),
        ("loadcase case9", 1, "'loadcase' is no assignment"),
        ("clear;", 1, "'clear' is no assignment"),
        ("s = other;", 1, "'other' is not known"),
        ("x = [1 2\n3 4 5\n];", 2, r"the row has 3 columns, the first \(line 1\) 2"),
        ("x = [1 2\n3 oops];", 2, "'oops' is not known"),
        ("x = [1 2\n3 4", 1, r"'\[' has no end"),
        ("x = [1 2);", 1, "'[)]' cannot follow an entry"),
        ("x = 12a;", 1, "cannot read '12a;'"),
        ("x = 2i;", 1, "cannot read '2i;'"),
        ("x = [1.2.3 4];", 1, "'.3' cannot follow"),
        ("x = [1,,2];", 1, "a value expected, got ','"),
        ("x = 'open;\n", 1, "cannot read"),
        ("x = 1;\n%{\nnever", 2, "the block comment has no end"),
        ("x = [1 2; 3 4];\nx(3, 1) = 0;", 2, "index 3 must be a whole number from 1 to 2"),
        ("x = [1 2; 3 4];\nx(:, 0) = 0;", 2, "index 0 must be"),
        ("x = [1 2; 3 4];\nx(:, 1.5) = 0;", 2, "index 1.5 must be"),
        ("x = [1 2; 3 4];\nx(:, 1) = [1 2 3];", 2, "1 by 3 values do not fit 2 by 1 places"),
        ("x = [1 2; 3 4];\nx(1, :) = [];", 2, "0 by 0 values do not fit"),
        ("x = [1 2; 3 4];\ny = x / x;", 2, "operator '/' is not supported for sizes 2 by 2 and 2 by 2"),
        ("x = [1 2; 3 4];\ny = x * [1 2 3];", 2, "do not fit the product"),
        ("x = [1 2; 3 4] + [1 2 3];", 1, "sizes 2 by 2 and 1 by 3 do not fit"),
        ("x = acos(2);", 1, "not a real number"),
        ("x = (-8)^(1/3);", 1, "not a real number"),
        ("x = 'a' + 1;", 1, "a text, a cell array or a colon"),
        ("x(2) = 1;", 1, "'x' is not known"),
        ("x = 1;\nx += 2;", 2, "'x' is no assignment"),
        ("x = 1 y = 2", 1, "nothing may follow but a new statement, got 'y'"),
        ("[a, b] = size(x);", 1, "'size' with 2 outputs is not known"),
        ("[a, b, c, d] = idx_x;", 1, "'idx_x' with 4 outputs"),
        ("function a = f\nx = 1;\nfunction b = g\n", 3, "a second function is not supported"),
        ("function [a, b] = f\n", 1, "version 1 of the format"),
        ("x = 1;\nend\ny = 2;", 2, "statements after 'end'"),
        ("x = @(t) t;", 1, "a value expected, got '@'"),
        ("x = a.b(1).c;", 1, "cannot read"),
        ("x.y(1).z = 2;", 1, "cannot read"),
        ("x{1} = 2;", 1, "'x' is no assignment"),
        ("3;", 1, "a statement must be an assignment"),
    ],
)  # fmt: skip
def test_the_rest_is_refused_with_its_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    with pytest.raises(ValueError, match=rf"data.m line {line}: .*{message}") as caught:
        run(tmp_path, text)
    assert text.split("\n")[line - 1].strip()[:60] in str(caught.value).replace("\\'", "'")


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(alphabet="ab12.[](){}';,:%=+-*/^~ \n&<\"\\", max_size=40))
def test_no_text_breaks_the_reader(tmp_path: Path, text: str) -> None:
    """Anything is either run or refused with a line."""
    try:
        found = run(tmp_path, text)
    except ValueError as error:
        assert str(error).startswith("data.m line ")
    else:
        assert all(isinstance(part, float | str | list | np.ndarray) for part in found.values.values())
