"""The runtime on the emulated device: results bit for bit, pipelining, thousands of calls, and every fault."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
import threading
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from host.accelerator import Accelerator
from host.board import Board
from hw.interface import KERNEL_CELL, Error
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
CLOCK_MHZ = 199.998  # what PYNQ's dividers make of 33.333 MHz


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
        seen = accelerator.pixels(shown.resize((40, 30)))
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
        seen = accelerator.bundle.preprocessing.to_uint8(image)
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
        weights = -(-build.bundle.interface.weights[0].nbytes // 4096) * 4096
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


# --- faults: the named error, buffers freed, the next call right ---


FAULTS = [
    (
        Fault(delay_s=NEVER),
        DeviceTimeoutError,
        r": no result after 0\.25 s; 1 of 3 token selectors were passed \(CTRL=0x1, running\); the accelerator was reset, "
        "raise timeout_s if the time was too short",
    ),
    (Fault(delay_s=0.5), DeviceTimeoutError, r": no result after 0\.25 s; 0 of 3 token selectors were passed .*"),
    (
        Fault(error=Error.NUM_WORDS),
        RefusedError,
        r": the bitstream was built for a weight stream of another length than port_words=\d+; deploy the bundle with its "
        "own bitstream",
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


@pytest.mark.parametrize(("port", "word", "bit"), [(0, 0, 0), (1, 77, 127), (0, -1, 64)])
def test_a_flipped_bit_in_the_weights_is_found_and_mended(build, port, word, bit):
    device = build.device()
    with Accelerator(build.folder, device) as accelerator:
        check(build, accelerator.infer(build.pixels))
        device.flip_weight_bit(port, word % build.bundle.interface.port_words, bit)
        with pytest.raises(
            WeightsChangedError,
            match=r"^.*: the weights reached the accelerator changed, checksum 0x[0-9a-f]{8} in place of "
            rf"0x{build.bundle.weights_checksum:08x}; the next call loads them again, .*$",
        ):
            accelerator.infer(build.pixels)
        assert device.memory.bytes_in_use == 0
        check(build, accelerator.infer(build.pixels))
    assert device.downloads == 1  # it had ended: nothing to reset


def test_no_contiguous_memory(build):
    small = build.device(contiguous_bytes=build.bundle.interface.weights[0].nbytes + 8192)
    with pytest.raises(
        DeviceMemoryError,
        match=r"^no contiguous memory for weights_1, 0\.\d MB of 0\.\d MB in all \(BO allocation failed: Cannot allocate "
        r"memory\); close other notebooks that hold buffers, or boot with a larger cma= on the kernel's command line$",
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


# --- who may have it ---


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
