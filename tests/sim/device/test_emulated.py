"""The emulated device by itself: registers, interrupt controller, timer, memory and caches, as AMD's documents say."""

from __future__ import annotations

import time

import numpy as np
import pytest
from pynq import MMIO, Clocks, Overlay, allocate

from host.accelerator import Accelerator
from hw import interface as names
from hw.facts import read_top
from hw.interface import AP_DONE, AP_IDLE, AP_READY, AP_START, STATUS_ERROR, STATUS_STAGES, UNWRITTEN, Error
from hw.model.latency import assumptions
from hw.target import resolve_target
from sim.bridge import load_library, run_top
from sim.build import build_library
from sim.device.clocks import IOPLL_CTRL, PL0_REF_CTRL
from sim.device.emulated import EmulatedDevice, Fault
from sim.device.interrupts import InterruptController, Timer
from sim.device.memory import DDR_BASE, PAGE_BYTES
from sim.timed.timing import TimedAccelerator
from spvit.errors import DeviceError
from tests.host.conftest import Build, build  # noqa: F401 - a fixture


@pytest.fixture
def device(build: Build) -> EmulatedDevice:  # noqa: F811
    device = build.device()
    Overlay(str(device.bitstream), device=device)
    return device


@pytest.fixture
def kernel(device):
    return MMIO(names.KERNEL_ADDRESS, 0x100, device=device)


def prepare(build, device, kernel):  # noqa: F811
    """Buffers filled and flushed, addresses set: ready to start."""
    interface, packed = build.bundle.interface, build.packed
    weights = interface.weights(packed.shapes.num_words)
    needed = (*weights, interface.image, interface.logits, interface.status)
    buffers = {buffer.name: allocate(buffer.shape, buffer.dtype, target=device) for buffer in needed}
    for path, buffer in zip(packed.weights, weights, strict=True):
        buffers[buffer.name][:] = np.fromfile(path, np.int16).reshape(buffer.shape)
    buffers["image"][:] = build.pixels[0].reshape(-1)
    buffers["status"][:] = UNWRITTEN
    for name, buffer in buffers.items():
        buffer.flush()
        kernel.write(interface.offsets[name], buffer.physical_address)
    for name, value in interface.registers_of(packed.shapes).items():
        kernel.write(interface.offsets[name], value)
    device.held = buffers  # PYNQ frees what nobody holds
    return buffers


def finish(kernel, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not (control := kernel.read(0)) & AP_DONE:
        assert time.monotonic() < deadline
        assert control == AP_START
    return control


# --- the kernel's registers ---


def test_a_run_register_by_register(build, device, kernel):  # noqa: F811
    assert kernel.read(0) == AP_IDLE
    buffers = prepare(build, device, kernel)
    kernel.write(0, AP_START)
    assert finish(kernel) == AP_DONE | AP_IDLE | AP_READY
    assert kernel.read(0) == AP_IDLE  # done and ready were cleared by reading
    assert not buffers["logits"].any()  # in DDR, but the caches do not know
    buffers["logits"].invalidate()
    assert np.array_equal(buffers["logits"], build.golden.logits[0])
    buffers["status"].invalidate()
    assert buffers["status"][:2].tolist() == [Error.NONE, build.packed.shapes.num_stages]


def test_what_was_not_flushed_does_not_arrive(build, device, kernel):  # noqa: F811
    buffers = prepare(build, device, kernel)
    buffers["image"][:] = build.pixels[1].reshape(-1)
    for flushed, expected in ((False, 0), (True, 1)):
        if flushed:
            buffers["image"].flush()
        kernel.write(0, AP_START)
        finish(kernel)
        buffers["logits"].invalidate()
        assert np.array_equal(buffers["logits"], build.golden.logits[expected])


def test_a_start_while_it_runs_is_not_a_second_run(build, device, kernel):  # noqa: F811
    prepare(build, device, kernel)
    device.faults = [Fault(delay_s=0.5)]  # so that it surely still runs
    kernel.write(0, AP_START)
    kernel.write(0, AP_START)
    finish(kernel)
    assert device.kernel.runs == 1


@pytest.mark.parametrize("clear_on_read", [True, False])
def test_interrupt_status(build, clear_on_read):  # noqa: F811
    device = build.device(clear_on_read=clear_on_read)
    Overlay(str(device.bitstream), device=device)
    kernel = MMIO(names.KERNEL_ADDRESS, 0x100, device=device)
    prepare(build, device, kernel)
    kernel.write(0, AP_START)
    finish(kernel)
    assert kernel.read(0x0C) == 0  # it was not enabled
    kernel.write(0x08, 1)
    kernel.write(0x04, 1)
    kernel.write(0, AP_START)
    finish(kernel)
    assert device.controller.read(InterruptController.ISR) == 1
    assert kernel.read(0x0C) == 1
    assert kernel.read(0x0C) == (0 if clear_on_read else 1)
    kernel.write(0x0C, 1)
    assert kernel.read(0x0C) == 0
    device.controller.write(InterruptController.IAR, 1)
    assert device.controller.read(InterruptController.ISR) == 0


@pytest.mark.parametrize("name", ["image", "weights_1", "status"])
def test_memory_that_nobody_allocated(build, device, kernel, name):  # noqa: F811
    prepare(build, device, kernel)
    kernel.write(build.bundle.interface.offsets[name], DDR_BASE + (1 << 28))
    kernel.write(0, AP_START)
    deadline = time.monotonic() + 10
    while not device.kernel.failures:
        assert time.monotonic() < deadline
    assert "no buffer has" in device.kernel.failures[0]
    assert kernel.read(0) == AP_START  # a bus error leaves a kernel that does not end


@pytest.mark.parametrize(
    ("register", "change", "error", "is_read"),
    [
        ("num_words", -1, Error.NUM_WORDS, True),
        ("digest", 4, Error.DIGEST, False),
        ("image_words", -1, Error.IMAGE_WORDS, True),
    ],
)
def test_the_accelerator_itself_refuses_another_host(build, device, kernel, register, change, error, is_read):  # noqa: F811
    """The C++ says so, not the emulation."""
    buffers = prepare(build, device, kernel)
    interface = build.bundle.interface
    kernel.write(interface.offsets[register], interface.registers_of(build.packed.shapes)[register] + change)
    kernel.write(0, AP_START)
    finish(kernel)
    for buffer in (buffers["status"], buffers["logits"]):
        buffer.invalidate()
    assert buffers["status"][STATUS_ERROR] == error
    assert buffers["status"][STATUS_STAGES] == 0
    assert (buffers["status"][names.STATUS_CHECKSUM] != UNWRITTEN) == is_read
    assert (buffers["status"][names.STATUS_NETWORK :] == UNWRITTEN).all()
    assert not buffers["logits"].any()


@pytest.mark.parametrize("exact", [pytest.param(True, marks=pytest.mark.slow), False])
def test_both_builds_of_the_top_leave_the_same_status(build, exact):  # noqa: F811
    interface, packed = build.bundle.interface, build.packed
    library = load_library(build_library(build.folder / "src", exact=exact))
    stripes = [np.fromfile(path, np.int16) for path in packed.weights]
    for image in range(len(build.pixels)):
        logits = np.zeros(packed.shapes.num_classes, np.int16)
        status = np.full(interface.status_words, UNWRITTEN, np.int32)
        run_top(library, stripes, interface.registers_of(packed.shapes), (build.pixels[image].copy(), logits, status))
        assert np.array_equal(logits, build.golden.logits[image])
        assert int(status[names.STATUS_CHECKSUM]) & 0xFFFF_FFFF == packed.weights_checksum
        stages = status[names.STATUS_HEADER :: interface.stage_words].tolist()
        assert stages[: packed.shapes.num_stages] == build.tokens[image]
        assert set(stages[packed.shapes.num_stages :]) <= {UNWRITTEN}


# --- memory ---


def test_buffers_are_whole_pages_side_by_side_and_gaps_are_used_again(device):
    sizes = (1, PAGE_BYTES, PAGE_BYTES + 1)
    buffers = [allocate((size,), "u1", target=device) for size in sizes]
    assert [buffer.physical_address for buffer in buffers] == [DDR_BASE + i * PAGE_BYTES for i in range(3)]
    assert device.memory.bytes_in_use == 4 * PAGE_BYTES
    buffers[1].freebuffer()
    assert allocate((2, PAGE_BYTES), "u1", target=device).physical_address == DDR_BASE + 4 * PAGE_BYTES
    again = allocate((PAGE_BYTES // 4,), "i4", target=device)
    assert again.physical_address == DDR_BASE + PAGE_BYTES
    again.freebuffer()
    again.freebuffer()  # PYNQ does it again when the object goes
    for buffer in (buffers[0], buffers[2]):
        buffer.freebuffer()
    assert device.memory.bytes_in_use == 0


def test_a_slice_flushes_the_whole_buffer(device):
    """As PYNQ's do."""
    buffer = allocate((8,), "i4", target=device)
    buffer[:] = np.arange(8)
    buffer[6:].flush()
    buffer[:] = 0
    buffer[:1].invalidate()
    assert buffer.tolist() == list(range(8))


# --- clocks ---


def test_the_pll_is_the_boards(build, device):  # noqa: F811
    """1499.85 MHz by the preset, from which PL0 makes 99.99 and never 200."""
    crl = MMIO(IOPLL_CTRL & ~0xFFF, 0x100, device=device)
    pll, pl0 = crl.read(IOPLL_CTRL & 0xFFF), crl.read(PL0_REF_CTRL & 0xFFF)
    assert (pll >> 8 & 0x7F, pll >> 16 & 1) == (90, 1)
    assert (pl0 >> 8 & 0x3F, pl0 >> 16 & 0x3F) == (15, 1)
    assert Clocks.fclk0_mhz == pytest.approx(33.333 * 90 / 2 / 15)
    with pytest.warns(UserWarning, match="closest possible value 214"):
        Clocks.fclk0_mhz = 200


def test_each_devices_clocks_are_its_own(build):  # noqa: F811
    first, second = build.device(), build.device(pl0_mhz=150)
    for device, mhz in ((first, 99.99), (second, 150), (first, 99.99)):
        Overlay(str(device.bitstream), device=device)
        assert Clocks.fclk0_mhz == pytest.approx(mhz, rel=1e-3)


# --- interrupt controller and timer ---


def test_a_level_latches_again_while_it_lasts():
    controller = InterruptController()
    read, write = controller.read, controller.write
    controller.set_input(True)
    assert (read(controller.ISR), read(controller.IPR)) == (1, 0)
    write(controller.SIE, 1)
    assert read(controller.IPR) == 1
    write(controller.IAR, 1)
    assert read(controller.ISR) == 1
    controller.set_input(False)
    assert read(controller.ISR) == 1  # latched until it is acknowledged
    write(controller.IAR, 1)
    assert read(controller.ISR) == 0
    write(controller.CIE, 1)
    assert read(controller.IER) == 0


@pytest.mark.parametrize(("enabled", "master", "level"), [(1, 3, True), (0, 3, False), (1, 0, False)])
def test_only_an_enabled_interrupt_reaches_the_processor(enabled, master, level):
    controller = InterruptController()
    controller.write(controller.IER, enabled)
    controller.write(controller.MER, master)
    controller.set_input(True)
    assert controller.line._level == level


def test_the_timer_shows_the_cycles_of_the_timed_csimulation(build):  # noqa: F811
    source, assumed = build.folder / "src", assumptions(build.design.architecture, resolve_target("zcu102"))
    timed = TimedAccelerator(build.design, build_library(source, timed=True), assumed, read_top(source))
    expected = [timed.run(pixels)[1].cycles for pixels in build.pixels]
    for wait in ("interrupt", "polling"):
        device = build.device(timed=True)
        with Accelerator(build.folder, device, wait) as accelerator:
            result = accelerator.infer(build.pixels)
            assert [image.timing.cycles for image in result.images] == expected
            assert np.array_equal(result.logits, build.golden.logits)
            device.faults = [Fault(error=77)]
            with pytest.raises(DeviceError):
                accelerator.infer(build.pixels)
            assert accelerator.infer(build.pixels[0]).images[0].timing.cycles == expected[0]
    assert len(set(expected)) > 1


def test_the_timer_captures_when_it_is_told_to():
    timer, mode = Timer(), Timer.CAPTURE_MODE | Timer.CAPTURE_ENABLE | Timer.ENABLE
    timer.capture(7, True)
    assert timer.read(Timer.TLR0) == 0  # not enabled
    timer.write(Timer.TCSR0, mode)
    timer.capture(7, False)
    assert (timer.read(Timer.TCSR0), timer.read(Timer.TLR0)) == (mode, 0)  # no trigger
    timer.capture(7, True)
    assert (timer.read(Timer.TCSR0), timer.read(Timer.TLR0)) == (mode | Timer.CAPTURED, 7)
    timer.write(Timer.TCSR0, mode)
    assert timer.read(Timer.TCSR0) & Timer.CAPTURED  # a written 1 clears it, a 0 does not
    timer.write(Timer.TCSR0, mode | Timer.CAPTURED)
    assert timer.read(Timer.TCSR0) == mode
