"""The journal: what is saved comes back, what is another's is refused, and nothing is ever half-written."""

import os
import resource
import signal

import pytest
import torch

from spvit import distributed
from spvit.errors import CheckpointError, ConfigError
from spvit.training.state import Journal

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
