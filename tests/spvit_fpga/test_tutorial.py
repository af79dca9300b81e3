"""The tutorial, executed: a newcomer's first page holds what it says, and uses the facade alone.

What is committed has outputs, so that it reads without being run; `.venv/bin/jupyter execute --inplace
docs/tutorial.ipynb` makes them again; the times of day that it notes down are taken out.
"""

import ast
import json
import os
import tempfile
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from traitlets.config import Config

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "docs" / "tutorial.ipynb"
FACTS = """
import json
print(json.dumps({
    "mismatches": result.mismatches, "values": result.values_compared, "images": result.images,
    "constructed": len(result.constructed), "accuracy": result.accuracy, "accuracy_float": result.accuracy_float,
    "tokens": result.tokens, "latency_ms": estimate.latency_ms, "latencies": latencies, "gmacs": net.gmacs,
    "folder": str(accelerator.folder), "agreement": report.top1_agreement,
}))
"""


def read():
    return nbformat.read(TUTORIAL, as_version=4)


def code(book):
    return [cell for cell in book.cells if cell.cell_type == "code"]


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The notebook after it ran in a folder of its own, and what its variables were."""
    folder, book = tmp_path_factory.mktemp("tutorial"), read()
    book.cells.append(nbformat.v4.new_code_cell(FACTS))
    with tempfile.TemporaryDirectory() as sockets:
        config = Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets}/kernel"}})
        client = NotebookClient(book, timeout=900, kernel_name="python3", config=config)
        client.execute(cwd=str(folder), env=os.environ | {"PYTHONPATH": str(ROOT)})
    facts = json.loads("".join(output.text for output in book.cells[-1].outputs if output.get("name") == "stdout"))
    return book, facts, folder


def test_it_ends_bit_exact_and_with_a_report(executed):
    _, facts, folder = executed
    assert (facts["mismatches"], facts["images"]) == (0, 20) and facts["values"] > 50_000 and facts["constructed"] > 3
    place = folder / facts["folder"]
    assert facts["folder"] == "build/my_vit-zcu102"
    assert {"src", "network", "csim.json", "estimate.json", "report.html"} <= {path.name for path in place.iterdir()}
    assert json.loads((place / "csim.json").read_text())["mismatches"] == 0


def test_it_teaches_something_true(executed):
    """Trained in seconds, it knows most digits; images keep what they need; fewer tokens take less time."""
    _, facts, _ = executed
    assert facts["accuracy_float"] >= 0.6 and abs(facts["accuracy"] - facts["accuracy_float"]) <= 0.1
    assert facts["agreement"] >= 0.9 and len({tuple(one) for one in facts["tokens"]}) > 3
    packed = facts["latencies"][1:]  # where all are kept there are no package tokens
    assert packed == sorted(packed, reverse=True)
    assert facts["latencies"][0] > 1.2 * facts["latencies"][-1] and 0 < facts["latency_ms"] < 1


@pytest.mark.parametrize("which", ["committed", "executed"])
def test_it_has_pictures_and_no_errors(which, request):
    book = read() if which == "committed" else request.getfixturevalue("executed")[0]
    outputs = [output for cell in code(book) for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    assert not [output for output in outputs if output.output_type == "error"]
    text = "".join(output.get("text", "") for output in outputs)
    assert "20 images compared, 0 mismatches" in text and "msa_block_top" in text


def test_it_uses_the_facade_alone():
    tree = ast.parse("\n".join(cell.source.replace("%matplotlib inline", "") for cell in code(read())))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert imported == {"matplotlib", "spvit_fpga"}


def test_what_is_committed_was_run_from_top_to_bottom():
    counts = [cell.execution_count for cell in code(read())]
    assert counts == list(range(1, len(counts) + 1))
    assert TUTORIAL.stat().st_size < 500_000
    assert not [cell for cell in read().cells if cell.metadata]
