"""The journal: what is saved comes back, what is another's is refused, and nothing is ever half-written."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from spvit import distributed
from spvit.errors import CheckpointError, ConfigError
from spvit.training.state import Journal

ROOT = Path(__file__).parents[3]
IDENTITY = {"model": {"name": "tiny", "locations": (1, 2)}, "recipe": {"seed": 0}}


def test_everything_comes_back(tmp_path):
    path = tmp_path / "weights.state"
    journal = Journal(path, IDENTITY)
    journal.finish("backbone", {"net": {"x": torch.arange(3.0)}})
    journal.save("selectors", {"step": 7, "aims": torch.tensor([0.5])})
    again = Journal.resume(path, IDENTITY)
    assert torch.equal(again.done["backbone"]["net"]["x"], torch.arange(3.0))
    assert again.progress_of("selectors") == {"step": 7, "aims": torch.tensor([0.5])}
    assert again.progress_of("backbone") is None
    again.finish("selectors", {})
    assert Journal.resume(path, IDENTITY).running is None
    again.remove()
    assert list(tmp_path.iterdir()) == []


def test_without_a_path_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    journal = Journal(None, IDENTITY)
    journal.save("selectors", {"step": 7})
    journal.remove()
    assert journal.progress_of("selectors") == {"step": 7}
    assert list(tmp_path.iterdir()) == []


def test_only_the_first_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    Journal(tmp_path / "weights.state", IDENTITY).save("selectors", {})
    assert list(tmp_path.iterdir()) == []


def test_anothers_state_is_refused(tmp_path):
    path = tmp_path / "weights.state"
    Journal(path, IDENTITY).save("selectors", {})
    with pytest.raises(ConfigError) as refused:
        Journal.resume(path, {**IDENTITY, "recipe": {"seed": 1}})
    assert str(refused.value) == (
        f"{path}: was begun with seed=0, but seed=1 is asked for now; resume with seed=0, or begin anew without RESUME="
    )


@pytest.mark.parametrize("content", [b"", b"not a state", None])
def test_what_is_no_state(tmp_path, content):
    path = tmp_path / "weights.state"
    if content is None:
        torch.save({"net": torch.zeros(1)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(CheckpointError) as refused:
        Journal.resume(path, IDENTITY)
    assert str(refused.value) == f"{path}: not the state of a training, or cut short; begin anew without RESUME="


def test_a_missing_state(tmp_path):
    with pytest.raises(
        CheckpointError, match=r"none: there is no such file; RESUME= takes the \.state file of a training$"
    ):
        Journal.resume(tmp_path / "none", {})


def test_a_full_disk_loses_nothing(tmp_path):
    """A limit on the size of files, in a process of its own: the kernel refuses the write half-way, as a full disk does."""
    path = tmp_path / "weights.state"
    Journal(path, IDENTITY).save("selectors", {"step": 1})
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
            Journal(path, IDENTITY).save("selectors", {"step": 2, "weights": torch.zeros(100_000)})
        except CheckpointError as error:
            os.write(write_end, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as answer:
        sentence = answer.read().decode()
    assert sentence == (f"{path}: cannot be written (File too large); what was saved before is still there; make room")
    assert [file.name for file in tmp_path.iterdir()] == ["weights.state"]
    assert Journal.resume(path, IDENTITY).progress_of("selectors") == {"step": 1}


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        CheckpointError,
        match=r"weights\.state: cannot be written \(a part of its path is a file\); choose another place$",
    ):
        Journal(tmp_path / "file" / "weights.state", IDENTITY).save("selectors", {})


def test_a_flipped_bit_is_found(tmp_path):
    """torch looks at no checksum, so a training would go on from other weights."""
    path, weights = tmp_path / "a.state", torch.arange(64.0)
    Journal(path, IDENTITY).save("phase", {"net": weights})
    whole = path.read_bytes()
    place = whole.index(weights.numpy().tobytes()) + 9
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
    with pytest.raises(CheckpointError) as refused:
        Journal.resume(path, IDENTITY)
    assert str(refused.value).startswith(
        f"{path}: not the state of a training, or cut short; begin anew without RESUME="
    )


# --- where a training may stand ---


def beside(out, resume=None):
    return Journal.beside(out, resume, IDENTITY)


def refused(out, resume=None):
    with pytest.raises(ConfigError) as caught:
        beside(out, resume)
    return str(caught.value)


def test_weights_that_are_there_are_not_lost(tmp_path):
    out = tmp_path / "weights.safetensors"
    out.write_text("of last week")
    sentence = f"{out}: is there already and would be lost; choose another OUT=, or remove it first"
    assert refused(out) == sentence
    other = tmp_path / "other.state"
    Journal(other, IDENTITY).save("selectors", {})
    assert refused(out, other) == sentence
    assert sorted(file.name for file in tmp_path.iterdir()) == ["other.state", "weights.safetensors"]


def test_a_training_that_was_stopped_after_it_wrote_its_weights_goes_on(tmp_path):
    out = tmp_path / "weights.safetensors"
    Journal(out.with_suffix(".state"), IDENTITY).save("selectors", {"step": 3})
    out.write_text("its own")
    with beside(out, out.with_suffix(".state")) as journal:
        assert journal.progress_of("selectors") == {"step": 3}


def test_an_unfinished_training_is_not_begun_anew(tmp_path):
    path = tmp_path / "weights.state"
    Journal(path, IDENTITY).save("selectors", {})
    sentence = (
        f"{path}: a training stands there unfinished; go on with RESUME={path}, choose another OUT=, or delete it"
    )
    assert refused(tmp_path / "weights.safetensors") == sentence


HOLD = """
import sys
from pathlib import Path
from spvit.training.state import Journal
with Journal.beside(Path(sys.argv[1]), None, {}) as journal:
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that trains to the same place."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "weights.safetensors")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("resumes", [False, True])
def test_a_second_process_at_the_same_place_is_refused(tmp_path, holder, resumes):
    path = tmp_path / "weights.state"
    if resumes:
        Journal(path, IDENTITY).save("selectors", {})
    said = refused(tmp_path / "weights.safetensors", path if resumes else None)
    assert said == f"{path}: process {holder.pid} trains there; wait for its end, or choose another OUT="
    with beside(tmp_path / "others.safetensors"):
        pass
    holder.kill()  # whatever ends it
    holder.wait()
    with beside(tmp_path / "weights.safetensors", path if resumes else None) as journal:
        assert journal.lock is not None
    assert [file.name for file in tmp_path.iterdir()] == (["weights.state"] if resumes else [])


def test_a_place_is_free_after_a_refusal_and_after_a_mistake(tmp_path):
    out = tmp_path / "weights.safetensors"
    out.write_text("")
    refused(out)
    out.unlink()
    with pytest.raises(ZeroDivisionError), beside(out):
        1 / 0  # noqa: B018
    with beside(out):
        assert [file.name for file in tmp_path.iterdir()] == [".weights.state.lock"]
    with beside(tmp_path / "a" / "b" / "weights.safetensors"):
        assert (tmp_path / "a" / "b").is_dir()
    assert list(tmp_path.iterdir()) == []
