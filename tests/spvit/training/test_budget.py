"""What BUDGET=, TARGET= and COST= mean, and what they cannot mean."""

import ast
from pathlib import Path

import pytest

import spvit
from hw.model.budget import cycles, latency_ms
from hw.target import resolve_target
from spvit.cost import count_macs
from spvit.errors import ConfigError
from spvit.training.budget import macs_budget, parse_budget
from tests.spvit.training.tiny import SPEC


@pytest.mark.parametrize(
    ("text", "limit"), [("2.64GMACs", 2.64e9), ("900 MMACs", 9e8), ("1e3kMACs", 1e6), ("165000MACs", 165e3)]
)
def test_macs(text, limit):
    found, unit, cost_of = parse_budget(text, None, None)
    assert (found, unit) == (pytest.approx(limit), "MACs")
    assert cost_of(SPEC)((9, 4)) == count_macs(SPEC.model, SPEC.pruning, (9, 4)).total


def test_the_boards_own():
    limit, unit, cost_of = parse_budget("6ms", None, "zcu102")
    assert (limit, unit) == (6.0, "ms")
    assert cost_of(SPEC)((9, 4)) == latency_ms(SPEC, resolve_target("zcu102"))((9, 4))
    limit, unit, cost_of = parse_budget("1.2Mcycles", None, "kv260")
    assert (limit, unit) == (1.2e6, "cycles")
    assert cost_of(SPEC)((9, 4)) == cycles(SPEC, resolve_target("kv260"))((9, 4))


def test_a_cost_of_ones_own(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def joules(model, pruning, kept):\n    return model.depth + len(pruning.locations) + sum(kept)\n")
    limit, unit, cost_of = parse_budget("30mJ", f"{file}:joules", None)
    assert (limit, unit, cost_of(SPEC)((9, 4))) == (30.0, "mJ", 4 + 2 + 13)


def test_no_budget():
    assert parse_budget(None, None, "zcu102") is None
    budget = macs_budget(SPEC)
    assert (budget.limit, budget.unit) == (count_macs(SPEC.model, SPEC.pruning).total, "MACs")


WITH_A_UNIT = (
    " must be a number with a unit, as 2.64GMACs, 6ms or 1.2Mcycles; with COST=FILE.py:FUNCTION its unit is yours"
)


@pytest.mark.parametrize(
    ("text", "cost", "target", "sentence"),
    [
        *((text, None, "zcu102", f"BUDGET={text}{WITH_A_UNIT}") for text in ("fast", "6", "6ns", "0ms", "1.2.3GMACs", "6kms", "-6ms")),
        ("6ms", None, None, "BUDGET=6ms needs the board that it is counted on; add TARGET=zcu102"),
        ("6ms", None, "zcu103", "TARGET=zcu103 "),
        (None, "mine.py:f", None, "COST=mine.py:f says how to count, but not how much may be spent; give BUDGET=, too"),
        ("6", "mine", None, "COST=mine must be FILE.py:FUNCTION, a function of model, pruning and kept patches"),
        ("6", "none.py:f", None, "COST=none.py:f: there is no file none.py"),
        ("6", "mine.py:g", None, "COST=mine.py:g: mine.py has no function g"),
        ("6", "broken.py:f", None, "COST=broken.py:f: broken.py cannot be run (ZeroDivisionError at line 1: division by zero); mend it there"),
    ],
)  # fmt: skip
def test_what_cannot_be(tmp_path, monkeypatch, text, cost, target, sentence):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("def f(model, pruning, kept):\n    return None\n")
    Path("broken.py").write_text("1 / 0\n")
    with pytest.raises(ConfigError) as refused:
        parse_budget(text, cost, target)
    assert str(refused.value).startswith(sentence)


def test_a_cost_that_is_no_number(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("def f(model, pruning, kept):\n    return None\n")
    _, _, cost_of = parse_budget("6", "mine.py:f", None)
    with pytest.raises(
        ConfigError,
        match=r"^COST=mine\.py:f: f gave None for kept=\[9, 4\], but a cost must be a number from -1e\+30 to 1e\+30$",
    ):
        cost_of(SPEC)((9, 4))


def test_spvit_imports_nothing_of_the_hardware():
    for file in Path(spvit.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not any(name.split(".")[0] in ("hw", "quant", "sim") for name in names), (file, names)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return 1 / 0", "stopped for kept=[9, 4] (ZeroDivisionError at line 2: division by zero); mend it there"),
        ("raise SystemExit('a\\nb')", "stopped for kept=[9, 4] (SystemExit at line 2: a b); mend it there"),
        (
            "return f(model, pruning, kept)",
            "stopped for kept=[9, 4] (RecursionError at line 2: maximum recursion depth exceeded)",
        ),
        ("return 10 ** 5000", "gave a number of thousands of digits for kept=[9, 4], but a cost must be a number from"),
        ("return float('nan')", "gave nan for kept=[9, 4], but a cost must be a number from -1e+30 to 1e+30"),
    ],
)
def test_a_cost_that_raises_is_its_writers(tmp_path, monkeypatch, body, reason):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(f"def f(model, pruning, kept):\n    {body}\n", encoding="utf-8")
    budget = parse_budget("6", "mine.py:f", None)
    with pytest.raises(ConfigError) as refused:
        budget[2](SPEC)([9, 4])
    assert str(refused.value).startswith(f"COST=mine.py:f: f {reason}") and "\n" not in str(refused.value)
