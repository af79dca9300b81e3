"""The runtime on the emulated device: results bit for bit, pipelining, thousands of calls, and every fault."""

from __future__ import annotations

import gc
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from pynq import Clocks

from host.accelerator import Accelerator
from host.board import Board
from host.lock import Lock
from host.measure import measure, summary_table
from hw.generate import make_project, write_project
from hw.interface import KERNEL_CELL, Error
from hw.step_table import HEADER
from hw.target import resolve_target
from sim.device.emulated import NEVER, EmulatedDevice, Fault
from spvit.errors import (
    BundleError,
    DeviceBusyError,
    DeviceError,
    DeviceMemoryError,
    DeviceTimeoutError,
    ImageError,
    RefusedError,
    WeightsChangedError,
)
from spvit.images.sources import ImageSet

ROOT = Path(__file__).parents[2]
CLOCK_MHZ = 199.998  # twice the PL0 that PYNQ reads: 33.333 MHz x 90 / 2 / 15


def check(build, result, images=None):
    """A result is the golden's, bit for bit."""
    chosen = range(len(build.pixels)) if images is None else images
    assert np.array_equal(result.logits, build.golden.logits[list(chosen)])
    assert result.tokens.tolist() == [build.tokens[image] for image in chosen]
    for image, own in zip(chosen, result.images, strict=True):
        assert [patches.tolist() for patches in own.kept] == build.kept(image)


# --- results ---


@pytest.mark.parametrize("wait", ["interrupt", "polling", "auto"])
@pytest.mark.parametrize("clear_on_read", [True, False])
def test_results_are_the_goldens(build, wait, clear_on_read):
    device = build.device(clear_on_read=clear_on_read)
    with Accelerator(build.folder, device, wait) as accelerator:
        assert accelerator.waits_by_interrupt == (wait != "polling")
        for _ in range(3):  # what an interrupt leaves behind would show the second time
            check(build, accelerator.infer(build.pixels))
        assert device.kernel.read(0x0C) == 0  # IP_ISR: acknowledged
    assert device.kernel.runs == 3 * len(build.pixels)
    assert device.kernel.failures == []
    assert len(set(map(tuple, build.tokens))) > 1  # the images differ in what they keep


def test_an_overlay_without_interrupt_is_polled(build):
    with Accelerator(build.folder, build.device(interrupt=False)) as accelerator:
        assert not accelerator.waits_by_interrupt
        check(build, accelerator.infer(build.pixels))
    sentence = rf".*/spvit.bit: its {KERNEL_CELL}/interrupt reaches no interrupt of the PS; use wait=\"polling\""
    with pytest.raises(DeviceError, match=f"^{sentence}$"):
        Accelerator(build.folder, build.device(interrupt=False), wait="interrupt")


def test_scores_and_classes_follow_the_logits(build):
    with Accelerator(build.folder, build.device()) as accelerator:
        result = accelerator.infer(build.pixels)
    frac_bits = build.design.network.frac_bits["head"]
    assert np.array_equal(result.scores, build.golden.logits / 2.0**frac_bits)
    assert np.array_equal(result.classes, build.golden.logits.argmax(axis=1))


def test_every_form_of_image(build, tmp_path):
    shown = Image.fromarray(build.pixels[1])
    for name in ("a.png", "b.png"):
        shown.resize((40, 30)).save(tmp_path / name)
    with Accelerator(build.folder, build.device()) as accelerator:
        check(build, accelerator.infer(build.pixels[2]), [2])
        check(build, accelerator.infer(ImageSet(("x", "y"), build.pixels[:2], None)), [0, 1])
        check(build, accelerator.infer(iter([build.pixels[3], build.pixels[0]])), [3, 0])
        seen = accelerator.network.pixels(shown.resize((40, 30)))
        expected = accelerator.infer(seen).logits[0]
        for images in (tmp_path, [tmp_path / "a.png", str(tmp_path / "b.png")], [shown.resize((40, 30))] * 2):
            assert np.array_equal(accelerator.infer(images).logits, [expected] * 2)
        assert np.array_equal(accelerator.infer(shown.resize((40, 30))).logits, [expected])
        none = accelerator.infer([])
    assert none.logits.shape == (0, 7)
    assert none.tokens.shape == (0, 3)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "I;16", "CMYK"])
def test_images_of_other_modes(build, tmp_path, mode):
    image = Image.fromarray(build.pixels[0])
    image = image.convert("L").convert(mode) if mode == "I;16" else image.convert(mode)
    with Accelerator(build.folder, build.device()) as accelerator:
        seen = accelerator.network.preprocessing.to_uint8(image)
        assert np.array_equal(accelerator.infer([image]).logits, accelerator.infer(seen).logits)


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (np.zeros((16, 16, 1), np.uint8), r"an array of uint8 \[16, 16, 1\]: pixels are uint8 \[16, 16, 3\]; .*"),
        (np.zeros((16, 16, 3), np.int16), r"an array of int16 \[16, 16, 3\]: pixels are uint8 \[16, 16, 3\]; .*"),
        (np.zeros((32, 16, 3), np.uint8), r"an array of uint8 \[32, 16, 3\]: .*"),
        (7, "a int is no image; give a path, a Pillow image or an array"),
        ("nowhere.png", "nowhere.png: no such file or folder; .*"),
        (Image.new("F", (4, 4)), "its pixels are of Pillow's mode F; .*"),
    ],
)
def test_what_is_no_image_is_one_sentence_and_the_next_call_is_right(build, image, sentence):
    with Accelerator(build.folder, build.device()) as accelerator:
        stream = accelerator.stream([build.pixels[0], image, build.pixels[1]])
        assert np.array_equal(next(stream).logits, build.golden.logits[0])
        with pytest.raises(ImageError, match=f"^{sentence}$"):
            next(stream)
        check(build, accelerator.infer(build.pixels))


def test_a_broken_file_is_named(build, tmp_path):
    path = tmp_path / "broken.png"
    Image.fromarray(build.pixels[0]).save(path)
    path.write_bytes(path.read_bytes()[:60])
    with (
        Accelerator(build.folder, build.device()) as accelerator,
        pytest.raises(ImageError, match=f"^{re.escape(str(path))}: "),
    ):
        accelerator.infer(tmp_path)


# --- pipelining, threads, many calls ---


def test_the_next_image_is_prepared_while_one_runs(build):
    events = []

    def camera():
        for i, pixels in enumerate(build.pixels[:3]):
            events.append(f"take {i}")
            yield pixels

    device = build.device()
    device.faults = [Fault(delay_s=0.3), Fault(delay_s=0.3)]
    with Accelerator(build.folder, device) as accelerator:
        for i, result in enumerate(accelerator.stream(camera())):
            events.append(f"result {i}")
            assert np.array_equal(result.logits, build.golden.logits[i])
    assert events == ["take 0", "take 1", "result 0", "take 2", "result 1", "result 2"]


def test_one_at_a_time(build):
    with Accelerator(build.folder, build.device()) as accelerator:
        stream = accelerator.stream(build.pixels)
        next(stream)
        with pytest.raises(
            DeviceBusyError, match=r"^.*: another thread, or a stream that was not read to its end, is "
        ):
            accelerator.infer(build.pixels)
        stream.close()
        check(build, accelerator.infer(build.pixels))


def test_another_thread_is_refused_while_one_waits(build):
    device = build.device()
    device.faults = [Fault(delay_s=0.5)]
    with Accelerator(build.folder, device) as accelerator:
        results = []
        thread = threading.Thread(target=lambda: results.append(accelerator.infer(build.pixels)))
        thread.start()
        while not device.kernel.runs:
            pass
        with pytest.raises(DeviceBusyError):
            accelerator.infer(build.pixels)
        thread.join()
    check(build, results[0])


def test_a_thousand_calls_leave_memory_flat(build):
    """Python's and numpy's memory to the kilobyte, the C++'s by the process's size; threads, descriptors, buffers."""
    device = build.device()
    process = psutil.Process()
    with Accelerator(build.folder, device) as accelerator:

        def call(times):
            for _ in range(times):
                result = accelerator.infer(build.pixels[0])
            check(build, result, [0])
            gc.collect()
            resources = threading.active_count(), process.num_fds(), device.memory.bytes_in_use
            return resources, tracemalloc.get_traced_memory()[0], process.memory_info().rss

        tracemalloc.start()
        try:
            before, traced_before, size_before = call(200)
            after, traced_after, size_after = call(1000)
        finally:
            tracemalloc.stop()
    assert after == before
    assert traced_after - traced_before < 50_000  # bytes; a result kept per call would be some 500,000
    assert size_after - size_before < 4_000_000
    assert device.memory.bytes_in_use == 0


def test_opening_and_closing_leaves_nothing(build):
    device = build.device()
    descriptors = []
    for _ in range(20):
        with Accelerator(build.folder, device) as accelerator:
            accelerator.infer(build.pixels[0])
        assert device.memory.bytes_in_use == 0
        descriptors.append(psutil.Process().num_fds())
    assert len(set(descriptors)) == 1


def test_close_twice_and_no_call_after(build):
    device = build.device()
    accelerator = Accelerator(build.folder, device)
    assert device.memory.bytes_in_use > 0
    accelerator.close()
    accelerator.close()
    assert device.memory.bytes_in_use == 0
    with pytest.raises(DeviceError, match=r"^.*: closed; make a new Accelerator$"):
        accelerator.infer(build.pixels)


def test_the_weights_are_sent_once(build):
    device = build.device()
    flushed = []
    flush = device.flush
    device.flush = lambda bo, *rest: (flushed.append(len(bo.ddr)), flush(bo, *rest))
    with Accelerator(build.folder, device) as accelerator:
        weights = -(-build.packed.weights[0].stat().st_size // 4096) * 4096
        assert flushed == [weights] * 2
        flushed.clear()
        accelerator.infer(build.pixels)
    assert weights not in flushed
    assert len(flushed) == 2 * len(build.pixels)  # image and status


# --- times ---


def test_times_are_the_cycle_models_or_not_given(build):
    with Accelerator(build.folder, build.device()) as accelerator:
        assert accelerator.clock_mhz == pytest.approx(CLOCK_MHZ)
        timing = accelerator.infer(build.pixels[0]).images[0].timing
    assert (timing.preprocess_ms, timing.transfer_ms, timing.compute_ms, timing.cycles) == (None,) * 4
    for wait in ("interrupt", "polling"):
        with Accelerator(build.folder, build.device(cycles=lambda tokens: 100 * sum(tokens)), wait) as accelerator:
            result = accelerator.infer(build.pixels)
        for image, tokens in zip(result.images, build.tokens, strict=True):
            assert image.timing.cycles == 100 * sum(tokens)
            assert image.timing.compute_ms == pytest.approx(100 * sum(tokens) / CLOCK_MHZ / 1e3)
            assert (image.timing.preprocess_ms, image.timing.transfer_ms) == (None, None)


def test_on_a_board_every_part_is_measured(build):
    device = build.device(cycles=lambda _: 2000)
    device.is_emulated = False
    with Accelerator(build.folder, device) as accelerator:
        timing = accelerator.infer(build.pixels[0]).images[0].timing
    assert timing.cycles == 2000
    assert timing.compute_ms == pytest.approx(2000 / CLOCK_MHZ / 1e3)
    assert timing.preprocess_ms >= 0
    assert timing.transfer_ms > 0


# --- the clock: what PYNQ reads, times the wizard's ratio ---


@pytest.mark.parametrize("pl0_mhz", [107.1, 150, 300])
def test_a_clock_above_the_designs_is_refused(build, pl0_mhz):
    device = build.device(pl0_mhz=pl0_mhz)
    with pytest.raises(DeviceError) as error:
        Accelerator(build.folder, device)
    found = Clocks.fclk0_mhz
    assert str(error.value) == (
        f"{device.bitstream}: the accelerator's clock is {2 * found:.2f} MHz (PL0 at {found:.2f}, times 2 by the design's "
        "Clocking Wizard), above the 200 that the bundle was built for; load it beside the .hwh that make bitstream left, "
        "which sets PL0 to 99.99, and leave Clocks.fclk0_mhz alone"
    )
    assert device.memory.bytes_in_use == 0
    Accelerator(build.folder, build.device(tag=device.tag)).close()  # the lock was given back


def test_a_clock_below_the_designs_is_said_and_used(build):
    device = build.device(pl0_mhz=93.75, cycles=lambda _: 1000)
    with pytest.warns(
        UserWarning, match=r"clock is 187\.50 MHz .*, below the 200 that the bundle was built for; figur"
    ):
        accelerator = Accelerator(build.folder, device)
    with accelerator:
        assert accelerator.clock_mhz == pytest.approx(187.498, abs=1e-3)
        result = accelerator.infer(build.pixels)
        own, _ = measure(accelerator.network, list(build.pixels))
    check(build, result)
    assert result.images[0].timing.compute_ms == pytest.approx(1000 / 187.498e3, rel=1e-5)
    assert own.clock_mhz == accelerator.clock_mhz
    assert "187.50 MHz, built for 200" in summary_table(own)


def test_a_clock_at_which_the_wizard_does_not_lock_is_refused(build):
    with pytest.raises(DeviceError, match=r"and its MMCM does not lock with PL0 below 66\.67; load it beside"):
        Accelerator(build.folder, build.device(pl0_mhz=46.87))


def test_a_clock_that_is_raised_later_is_refused_too(build):
    with Accelerator(build.folder, build.device()) as accelerator:
        check(build, accelerator.infer(build.pixels))
        Clocks.fclk0_mhz = 150
        with pytest.raises(DeviceError, match=r"clock is 300\.00 MHz \(PL0 at 150\.00, times 2"):
            accelerator.infer(build.pixels)
        Clocks.fclk0_mhz = 99.99
        check(build, accelerator.infer(build.pixels))


def test_pl0_itself_as_the_clock(build, tmp_path):
    design, target = build.design, replace(resolve_target("zcu102"), clock_source="pl0", clock_mhz=187.5)
    write_project(make_project(design, target), tmp_path / "pl0")
    shutil.copytree(build.folder / "csim", tmp_path / "pl0" / "csim")
    with Accelerator(tmp_path / "pl0", EmulatedDevice(tmp_path / "pl0")) as accelerator:
        assert accelerator.clock_mhz == pytest.approx(33.333 * 90 / 2 / 8)
        check(build, accelerator.infer(build.pixels))
    with pytest.raises(DeviceError, match=r"clock is 214\.28 MHz \(PL0 at 214\.28\), above the 187\.5 that"):
        Accelerator(tmp_path / "pl0", EmulatedDevice(tmp_path / "pl0", pl0_mhz=214.26))


# --- faults: the named error, buffers freed, the next call right ---


FAULTS = [
    (
        Fault(delay_s=NEVER),
        DeviceTimeoutError,
        r"/weights: no result after 0\.25 s; 1 of 3 token selectors were passed \(CTRL=0x1, running\); the accelerator was reset, "
        "raise timeout_s if the time was too short",
    ),
    (
        Fault(delay_s=0.5),
        DeviceTimeoutError,
        r"/weights: no result after 0\.25 s; 0 of 3 token selectors were passed .*",
    ),
    (
        Fault(error=Error.NUM_WORDS),
        RefusedError,
        "/weights: the weight stream is not as long as the step table that heads it says; pack the network again, for "
        "this design",
    ),
    (
        Fault(error=Error.TABLE_VERSION),
        RefusedError,
        "/weights: the bitstream reads another version of the step table that heads the weights; pack the network again, "
        "for this design",
    ),
    (
        Fault(error=Error.DIGEST),
        RefusedError,
        ": the bitstream was built from another design than digest=[0-9a-f]{8}; deploy the bundle with its own bitstream",
    ),
    (
        Fault(error=77),
        DeviceError,
        ": the accelerator finished and answered error 77, which this runtime does not know; deploy the bundle with its "
        "own bitstream",
    ),
    (
        Fault(error=-1),
        DeviceError,
        ": the accelerator finished and answered nothing; deploy the bundle with its own bitstream",
    ),
]


@pytest.mark.parametrize("wait", ["interrupt", "polling"])
@pytest.mark.parametrize(("fault", "kind", "sentence"), FAULTS, ids=lambda value: str(value)[:24])
def test_faults(build, fault, kind, sentence, wait):
    device = build.device()
    with Accelerator(build.folder, device, wait, timeout_s=0.25) as accelerator:
        check(build, accelerator.infer(build.pixels))
        device.faults = [fault]
        with pytest.raises(kind, match=f"^{re.escape(str(build.folder))}{sentence}$") as caught:
            accelerator.infer(build.pixels)
        assert type(caught.value) is kind
        assert device.memory.bytes_in_use == 0
        check(build, accelerator.infer(build.pixels))
        if fault.delay_s:  # what comes late, comes into nobody's memory
            threading.Event().wait(0.4)
            check(build, accelerator.infer(build.pixels))
    assert device.kernel.failures == []


def test_late_but_in_time_is_no_fault(build):
    device = build.device()
    device.faults = [Fault(delay_s=0.3)]
    with Accelerator(build.folder, device, timeout_s=5) as accelerator:
        check(build, accelerator.infer(build.pixels))
    assert device.downloads == 1


@pytest.mark.parametrize(
    ("port", "word", "bit"),
    [
        *(
            (bit // 128, 0, bit % 128)
            for bit in map(HEADER.first_bit, ("checksum", "version", "num_steps", "num_classes"))
        ),
        (0, 1, 0),  # of a step
        (1, 77, 127),
        (0, -1, 64),
    ],
)
def test_a_flipped_bit_in_the_weights_is_found_and_mended(build, port, word, bit):
    device = build.device()
    with Accelerator(build.folder, device) as accelerator:
        check(build, accelerator.infer(build.pixels))
        device.flip_weight_bit(port, word % build.packed.shapes.num_words, bit)
        with pytest.raises(
            WeightsChangedError,
            match=r"^.*: the weights reached the accelerator changed, checksum 0x[0-9a-f]{8} in place of "
            rf"0x{build.packed.weights_checksum:08x}; the next call loads them again, .*$",
        ):
            accelerator.infer(build.pixels)
        assert device.memory.bytes_in_use == 0
        check(build, accelerator.infer(build.pixels))
    assert device.downloads == 1  # it had ended: nothing to reset


def test_no_contiguous_memory(build):
    small = build.device(contiguous_bytes=build.packed.weights[0].stat().st_size + 4 * 4096)
    with pytest.raises(
        DeviceMemoryError,
        match=r"^no contiguous memory for weights_1, 0\.\d MB, beside the image and its results \(0\.0 MB\) and "
        r".*/micro-zcu102/weights \(0\.\d MB\) \(BO allocation failed: Cannot allocate memory\); close networks that are "
        r"not in use, or other notebooks that hold buffers, or boot with a larger cma= on the kernel's command line$",
    ):
        Accelerator(build.folder, small)
    assert small.memory.bytes_in_use == 0
    small.memory.size *= 4
    with Accelerator(build.folder, small) as accelerator:  # the lock was given back
        check(build, accelerator.infer(build.pixels))


def test_no_memory_after_a_fault(build):
    device = build.device()
    with Accelerator(build.folder, device) as accelerator:
        device.faults = [Fault(error=77)]
        with pytest.raises(DeviceError):
            accelerator.infer(build.pixels)
        size, device.memory.size = device.memory.size, 0
        with pytest.raises(DeviceMemoryError):
            accelerator.infer(build.pixels)
        device.memory.size = size
        check(build, accelerator.infer(build.pixels))


def test_an_interrupt_from_the_keyboard_resets_and_frees(build, monkeypatch):
    device = build.device()
    with Accelerator(build.folder, device) as accelerator:
        wait = Board.wait

        def interrupted(board, timeout_s):
            raise KeyboardInterrupt

        monkeypatch.setattr(Board, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            accelerator.infer(build.pixels)
        monkeypatch.setattr(Board, "wait", wait)
        assert device.memory.bytes_in_use == 0
        assert device.downloads == 2
        check(build, accelerator.infer(build.pixels))


# --- waits that were given up ---


def give_up_by_timeout(accelerator, pixels):
    accelerator.timeout_s = 0.1
    with pytest.raises(DeviceTimeoutError):
        accelerator.infer(pixels)


def give_up_by_ctrl_c(accelerator, pixels):
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        accelerator.infer(pixels)
    timer.join()


@pytest.mark.parametrize("give_up", [give_up_by_timeout, give_up_by_ctrl_c])
@pytest.mark.parametrize("wait", ["interrupt", "polling"])
def test_after_a_wait_that_was_given_up_all_goes_at_its_usual_speed(build, monkeypatch, give_up, wait):
    """In this Accelerator and in the next ones. A lost interrupt would cost half a minute here."""
    monkeypatch.setattr("host.board.LOOK_SECONDS", 30.0)
    device = build.device()

    def infer(accelerator):
        accelerator.timeout_s = 30.0
        device.faults = [Fault(delay_s=0.03)] * len(build.pixels)  # so that each is surely waited for
        start = time.monotonic()
        check(build, accelerator.infer(build.pixels))
        assert time.monotonic() - start < 10

    for _ in range(2):
        with Accelerator(build.folder, device, wait) as accelerator:
            infer(accelerator)
            for _ in range(2):
                device.faults = [Fault(delay_s=NEVER)]
                give_up(accelerator, build.pixels[0])
                infer(accelerator)
    assert accelerator.waits_by_interrupt == (wait == "interrupt")


def test_interrupts_that_never_arrive_are_said_and_polling_goes_on(build, monkeypatch):
    device = build.device()
    monkeypatch.setattr(device.controller.line, "set_level", lambda level: None)
    device.faults = [Fault(delay_s=0.03)] * 2 * len(build.pixels)
    with Accelerator(build.folder, device) as accelerator:
        with pytest.warns(
            UserWarning, match=r"^.*/spvit.bit: the accelerator finished and no interrupt arrived; it is p"
        ):
            check(build, accelerator.infer(build.pixels))
        assert not accelerator.waits_by_interrupt
        check(build, accelerator.infer(build.pixels))


def test_a_loading_that_was_interrupted_is_done_again(build, monkeypatch):
    device = build.device()
    with Accelerator(build.folder, device) as accelerator:
        device.faults = [Fault(delay_s=NEVER)]
        monkeypatch.setattr(Board, "_check_registers", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        accelerator.timeout_s = 0.1
        with pytest.raises(KeyboardInterrupt):
            accelerator.infer(build.pixels)
        monkeypatch.undo()
        accelerator.timeout_s = 10.0
        check(build, accelerator.infer(build.pixels))
    assert device.downloads == 3


# --- who may have it ---


def test_no_lock_is_left_behind(build, tmp_path, monkeypatch):
    """Not by a close, not by an Accelerator that nobody closes, and a stale file of a process that was killed is no bar."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    locks = lambda: [path.name for path in tmp_path.glob("*.lock")]  # noqa: E731
    device = build.device()
    with Accelerator(build.folder, device):
        assert locks() == [f"spvit-{device.tag}.lock"]
    assert locks() == []
    left = Accelerator(build.folder, device)
    del left
    gc.collect()
    assert locks() == []
    (tmp_path / f"spvit-{device.tag}.lock").write_text("1")
    Accelerator(build.folder, device).close()
    assert locks() == []


def test_a_lock_is_taken_once_by_whoever_comes(tmp_path, monkeypatch):
    """Who releases takes the file away; who waited at it must not end with a file that is gone."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    held, most, failures = [], [], []

    def contend():
        for _ in range(200):
            try:
                lock = Lock("contended")
            except DeviceBusyError:
                continue
            except BaseException as error:  # noqa: BLE001
                failures.append(error)
                return
            held.append(1)
            most.append(len(held))
            time.sleep(0)
            held.pop()
            lock.release()

    threads = [threading.Thread(target=contend) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [] and max(most) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_second_accelerator_in_this_process(build):
    device = build.device()
    with Accelerator(build.folder, device) as accelerator:
        with pytest.raises(
            DeviceBusyError, match=r"^this process already uses the accelerator \(.*\); close it there fi"
        ):
            Accelerator(build.folder, device)
        check(build, accelerator.infer(build.pixels))
    Accelerator(build.folder, device).close()


def test_a_second_process(build):
    program = (
        "import sys\n"
        "from host.accelerator import Accelerator\n"
        "from sim.device.emulated import EmulatedDevice\n"
        "from spvit.errors import exit_on_user_error\n"
        "exit_on_user_error(lambda: Accelerator(sys.argv[1], EmulatedDevice(sys.argv[1], tag=sys.argv[2])).close())\n"
    )
    tag = f"shared-{os.getpid()}"
    command = [sys.executable, "-c", program, str(build.folder), tag]
    with Accelerator(build.folder, build.device(tag=tag)) as accelerator:
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert run.returncode == 2
        assert re.fullmatch(
            rf"error: process {os.getpid()} uses the accelerator \(.*spvit-{tag}.lock\); close it there first\n",
            run.stderr,
        )
        check(build, accelerator.infer(build.pixels))
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")


# --- overlays that do not fit ---


def test_an_overlay_whose_registers_lie_elsewhere(build):
    interface = build.bundle.interface
    device = build.device(overlay=replace(interface, weight_ports=interface.weight_ports + 1))
    with pytest.raises(
        DeviceError,
        match=r"^.*/spvit.bit: register num_words is at 0x34, the manifest has it at 0x28; the bitstream belongs to another "
        "design, make it again$",
    ):
        Accelerator(build.folder, device)
    assert device.memory.bytes_in_use == 0


def test_an_overlay_without_a_register(build):
    interface = build.bundle.interface
    device = build.device(overlay=replace(interface, weight_ports=1))
    with pytest.raises(DeviceError, match=r"^.*: register weights_1_1 is missing, the manifest has it at 0x1c; .*$"):
        Accelerator(build.folder, device)


def test_an_overlay_of_something_else(build):
    device = build.device()
    handoff = device.bitstream.with_suffix(".hwh")
    handoff.write_text(handoff.read_text().replace(KERNEL_CELL, "resizer_0"))
    with pytest.raises(
        DeviceError,
        match=f"^.*: it has no {KERNEL_CELL}, only axi_intc_0, axi_timer_0, resizer_0, zynq_ultra_ps_e_0; .*$",
    ):
        Accelerator(build.folder, device)


@pytest.mark.parametrize("text", ["", "<EDKSYSTEM>", "<EDKSYSTEM/>"])
def test_an_overlay_that_cannot_be_read(build, text):
    device = build.device()
    device.bitstream.with_suffix(".hwh").write_text(text)
    with pytest.raises(
        DeviceError, match=r"^.*/spvit.bit: PYNQ could not load it \([^\n]+\); run as root, with the PYNQ"
    ):
        Accelerator(build.folder, device)
    Accelerator(build.folder, build.device(tag=device.tag)).close()  # the lock was given back


def test_a_bitstream_of_another_design(build):
    other = replace(build.bundle, interface=replace(build.bundle.interface, digest=1))
    device = build.device()
    with (
        Accelerator(other, device) as accelerator,
        pytest.raises(RefusedError, match=r"^.*: the bitstream was built from another design than digest="),
    ):
        accelerator.infer(build.pixels)


def test_another_board(build):
    with pytest.raises(
        BundleError, match=r"^.*: made for zcu102, and this board is ZCU104; make it again with TARGET=zcu104$"
    ):
        Accelerator(build.folder, build.device(board="ZCU104"))


def test_no_bitstream_and_no_emulated_device(build):
    device = build.device()
    device.bitstream = None
    with pytest.raises(
        DeviceError,
        match=r"^.*: no bitstream/spvit.bit, it was packed before make bitstream ran; make it where Vivado is",
    ):
        Accelerator(build.folder, device)


def test_no_board(build):
    program = (
        "import sys; from host.accelerator import Accelerator; from spvit.errors import exit_on_user_error\n"
        "exit_on_user_error(lambda: Accelerator(sys.argv[1]) and None)"
    )
    run = subprocess.run([sys.executable, "-c", program, str(build.folder)], cwd=ROOT, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (2, "")
    assert re.fullmatch(
        "error: PYNQ finds no board here; run this on the ZCU102 as root, or use the emulated [^\n]+\n", run.stderr
    )


def test_the_device_is_pynqs():
    from pynq import Device

    assert issubclass(EmulatedDevice, Device)
