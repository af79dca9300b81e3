"""How the accelerator is spoken to: registers, ports, buffers, and the names of its block design. The one description.

The renderer writes it into the C++ and the manifest, the block design and its .hwh are made from it, the runtime and
the emulated device drive it. Standard library alone: the board imports this module too.

Registers lie as Vitis HLS's s_axilite lays them: control at 0x00 .. 0x0c, then the arguments from 0x10 in order, 12
bytes for a 64-bit address and 8 for a 32-bit scalar. `top.cpp` also pins each offset in its pragma, so that a tool that
would lay them out otherwise has no say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Annotated, Any

from spvit.config import ModelConfig
from spvit.model_config import MOST_BLOCKS
from spvit.schema import Whole, check_fields, kinds

# The block design. PYNQ's ip_dict has the cells under these names.
TOP = "spvit_top"
KERNEL_VLNV = "xilinx.com:hls:spvit_top:1.0"
KERNEL_CELL = "spvit_top_0"
CONTROL_BUNDLE = "control"  # the AXI-Lite port is s_axi_control
INTERRUPT_PIN = "interrupt"
INTERRUPT_VLNV = "xilinx.com:ip:axi_intc:4.1"
INTERRUPT_CELL = "axi_intc_0"  # PYNQ waits for what arrives here; its `irq` goes to the PS's pl_ps_irq0
TIMER_VLNV = "xilinx.com:ip:axi_timer:2.0"
TIMER_CELL = "axi_timer_0"  # 32 bits, in the kernel's clock; capturetrig0 is the kernel's interrupt
KERNEL_ADDRESS = 0xA000_0000
INTERRUPT_ADDRESS = 0xA001_0000
TIMER_ADDRESS = 0xA002_0000
ADDRESS_RANGE = 0x1_0000
BITSTREAM_FOLDER = "bitstream"  # within the build folder, and within a bundle
BITSTREAM = "spvit.bit"  # beside it spvit.hwh and spvit.xsa

MOST_WORDS = 2**31 - 1

# AXI-Lite control, bit by bit
AP_START, AP_DONE, AP_IDLE, AP_READY = (1 << bit for bit in range(4))

# Words of the status buffer, int32. The host fills it with UNWRITTEN before each run.
UNWRITTEN = -1
STATUS_ERROR = 0  # Error, written last
STATUS_STAGES = 1  # token selectors passed so far
STATUS_CHECKSUM = 2  # of the weight stream, as it arrived
STATUS_NETWORK = 3  # digest of the network that ran
STATUS_HEADER = 4  # then one record per token selector: tokens after it, keep flags of the rows before it
KEEP_ROWS_PER_WORD = 32  # row r is bit r % 32 of word r / 32; prefix and package rows are never asked: 1


class Error(IntEnum):
    """What the accelerator answers in the status buffer's first word."""

    NONE = 0
    NUM_WORDS = 1  # the weight stream is not as long as its steps, or the register, say
    DIGEST = 2  # the network was packed for another design
    TABLE_VERSION = 3  # the step table has another layout
    TABLE_CHECKSUM = 4  # the step table did not arrive as it was sent
    STEP = 5  # a step would leave the memories, or has a format that no unit has bits for
    SIZES = 6  # the network is larger than the memories
    IMAGE_WORDS = 7  # the image is not as large as the register says, or its patches are not the network's rows


@dataclass(frozen=True)
class Register:
    """One 32-bit AXI-Lite register as PYNQ's register map has it.

    fields  name -> (first bit, bits, access)
    """

    name: str
    offset: int
    access: str
    description: str
    fields: Mapping[str, tuple[int, int, str]]


@dataclass(frozen=True)
class Buffer:
    """Memory that the host allocates and whose address it writes to registers.

    bundle  the m_axi port that reaches it: AXI interface m_axi_<bundle>
    """

    name: str
    bundle: str
    dtype: str
    shape: tuple[int, ...]
    is_read: bool  # by the accelerator

    @property
    def nbytes(self) -> int:
        size = int(self.dtype.lstrip("uint")) // 8
        for extent in self.shape:
            size *= extent
        return size

    @property
    def address_registers(self) -> tuple[str, str]:
        """Low and high half."""
        return f"{self.name}_1", f"{self.name}_2"


@dataclass(frozen=True)
class Shapes:
    """What a network brings and takes, and how many tokens it begins with.

    num_words   of the weight stream
    num_stages  token selectors
    num_tokens  rows before the first of them
    """

    num_words: Annotated[int, Whole(1, MOST_WORDS)]
    img_size: Annotated[int, kinds(ModelConfig)["img_size"]]
    in_chans: Annotated[int, kinds(ModelConfig)["in_chans"]]
    num_classes: Annotated[int, kinds(ModelConfig)["num_classes"]]
    num_stages: Annotated[int, Whole(0, MOST_BLOCKS)]
    num_prefix_tokens: Annotated[int, Whole(0, 2)]
    num_tokens: Annotated[int, Whole(1, MOST_WORDS)]

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def image(self) -> tuple[int, int, int]:
        return self.img_size, self.img_size, self.in_chans


@dataclass(frozen=True)
class Interface:
    """Of one design; sizes are the largest that it takes.

    digest       the first 32 bits of the design's digest: the bitstream refuses another design's network
    port_words   of the weight stream; each port has stripe_lanes int16 of every one
    image_lanes  pixels in a word of the image port
    image_words  of an image
    num_stages   token selectors
    rows         tokens
    """

    digest: Annotated[int, Whole(0, 2**32 - 1)]
    weight_ports: Annotated[int, Whole(1, 64)]
    port_words: Annotated[int, Whole(1, MOST_WORDS)]
    stripe_lanes: Annotated[int, Whole(1, 1024)]
    image_lanes: Annotated[int, Whole(1, 16)]
    image_words: Annotated[int, Whole(1, MOST_WORDS)]
    num_classes: Annotated[int, kinds(ModelConfig)["num_classes"]]
    num_stages: Annotated[int, Whole(0, MOST_BLOCKS)]
    rows: Annotated[int, Whole(1, MOST_WORDS)]

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def keep_words(self) -> int:
        """Of one token selector's keep flags."""
        return -(-self.rows // KEEP_ROWS_PER_WORD)

    @property
    def stage_words(self) -> int:
        """Of one token selector's record in the status buffer."""
        return 1 + self.keep_words

    @property
    def status_words(self) -> int:
        return STATUS_HEADER + self.num_stages * self.stage_words

    @property
    def stripe_bytes(self) -> int:
        """Of a word, that come through one port."""
        return 2 * self.stripe_lanes

    def weights(self, num_words: int | None = None) -> tuple[Buffer, ...]:
        """Each port's stripe: a file of a network's weights/ as it is.

        num_words  of the network; None: the most
        """
        shape = (num_words or self.port_words, self.stripe_lanes)
        return tuple(Buffer(f"weights_{p}", f"weights_{p}", "int16", shape, True) for p in range(self.weight_ports))

    @property
    def image(self) -> Buffer:
        return Buffer("image", "image", "uint8", (self.image_words * self.image_lanes,), True)

    @property
    def logits(self) -> Buffer:
        return Buffer("logits", "logits", "int16", (self.num_classes,), False)

    @property
    def status(self) -> Buffer:
        return Buffer("status", "status", "int32", (self.status_words,), False)

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """As large as they can be."""
        return (*self.weights(), self.image, self.logits, self.status)

    @property
    def arguments(self) -> tuple[tuple[str, int], ...]:
        """The top function's arguments in order, with their widths in bits."""
        addresses = [(buffer.name, 64) for buffer in self.weights()]
        host = [("num_words", 32), ("digest", 32), ("image", 64), ("image_words", 32), ("logits", 64), ("status", 64)]
        return (*addresses, *host)

    def registers_of(self, shapes: Shapes) -> dict[str, int]:
        """What the host writes to the registers that are no addresses, for a network's image."""
        size = shapes.img_size**2 * shapes.in_chans
        return {"num_words": shapes.num_words, "digest": self.digest, "image_words": size // self.image_lanes}

    @property
    def offsets(self) -> dict[str, int]:
        """Argument -> address offset of its first register."""
        offset, offsets = 0x10, {}
        for name, bits in self.arguments:
            offsets[name] = offset
            offset += bits // 8 + 4
        return offsets

    @property
    def registers(self) -> tuple[Register, ...]:
        """All of them, with the names that Vitis HLS writes into the .hwh."""
        registers = list(CONTROL_REGISTERS)
        for name, bits in self.arguments:
            offset = self.offsets[name]
            if bits == 32:
                registers.append(_data_register(name, name, offset))
            else:
                registers += [_data_register(f"{name}_{i + 1}", name, offset + 4 * i) for i in range(2)]
        return tuple(registers)

    @property
    def bundles(self) -> tuple[str, ...]:
        """The m_axi ports, m_axi_<bundle>."""
        return tuple(dict.fromkeys(buffer.bundle for buffer in self.buffers))

    def to_manifest(self) -> dict[str, Any]:
        """With what follows from the fields, for readers in other languages and for the runtime's checks."""
        return asdict(self) | {
            "kernel": KERNEL_VLNV,
            "registers": {register.name: register.offset for register in self.registers},
            "buffers": {
                buffer.name: {"bundle": buffer.bundle, "dtype": buffer.dtype, "shape": list(buffer.shape)}
                for buffer in self.buffers
            },
        }


def _data_register(name: str, argument: str, offset: int) -> Register:
    return Register(name, offset, "write-only", f"Data signal of {argument}", {argument: (0, 32, "write-only")})


CONTROL_REGISTERS = (
    Register("CTRL", 0x00, "read-write", "Control signals", {
        "AP_START": (0, 1, "read-write"), "AP_DONE": (1, 1, "read-only"), "AP_IDLE": (2, 1, "read-only"),
        "AP_READY": (3, 1, "read-only"), "AUTO_RESTART": (7, 1, "read-write"), "INTERRUPT": (9, 1, "read-only"),
    }),
    Register("GIER", 0x04, "read-write", "Global Interrupt Enable Register", {"Enable": (0, 1, "read-write")}),
    Register("IP_IER", 0x08, "read-write", "IP Interrupt Enable Register", {
        "CHAN0_INT_EN": (0, 1, "read-write"), "CHAN1_INT_EN": (1, 1, "read-write"),
    }),
    Register("IP_ISR", 0x0C, "read-write", "IP Interrupt Status Register", {
        "CHAN0_INT_ST": (0, 1, "read-write"), "CHAN1_INT_ST": (1, 1, "read-write"),
    }),
)  # fmt: skip
