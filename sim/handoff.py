"""The .hwh of the block design, as far as PYNQ reads it: for the emulated device, which no Vivado has seen.

Enters: an `Interface`. Leaves: XML with the PS, the kernel with its registers, interrupt controller and timer.
"""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement, indent, tostring

from hw import interface as names
from hw.interface import Interface, Register

PS_CELL = "zynq_ultra_ps_e_0"
PS_VLNV = "xilinx.com:ip:zynq_ultra_ps_e:3.5"
AXIMM_VLNV = "xilinx.com:interface:aximm:1.0"
SLAVES = {
    names.KERNEL_CELL: (f"s_axi_{names.CONTROL_BUNDLE}", names.KERNEL_ADDRESS, names.KERNEL_VLNV),
    names.INTERRUPT_CELL: ("s_axi", names.INTERRUPT_ADDRESS, names.INTERRUPT_VLNV),
    names.TIMER_CELL: ("S_AXI", names.TIMER_ADDRESS, names.TIMER_VLNV),
}
KERNEL_IRQ, PS_IRQ = "kernel_irq", "ps_irq"  # the two nets that matter to PYNQ


def handoff(interface: Interface, pl0_mhz: float, interrupt: bool = True) -> str:
    """The file's text.

    pl0_mhz    what PYNQ is to set PL0 to before it loads the bitstream
    interrupt  whether the kernel's interrupt reaches the PS
    """
    root = Element("EDKSYSTEM", EDWVERSION="1.2", VIVADOVERSION="none: emulated")
    SubElement(root, "SYSTEMINFO", ARCH="zynquplus", DEVICE="xczu9eg", NAME="spvit")
    SubElement(root, "EXTERNALPORTS")
    SubElement(root, "EXTERNALINTERFACES")
    modules = SubElement(root, "MODULES")
    _processing_system(modules, pl0_mhz, interrupt)
    kernel = _slave(modules, names.KERNEL_CELL, interface.registers)
    controller = _slave(modules, names.INTERRUPT_CELL)
    timer = _slave(modules, names.TIMER_CELL)
    if interrupt:
        listeners = [(names.INTERRUPT_CELL, "intr"), (names.TIMER_CELL, "capturetrig0")]
        _port(kernel, names.INTERRUPT_PIN, "O", KERNEL_IRQ, listeners)
        _port(controller, "intr", "I", KERNEL_IRQ, [(names.KERNEL_CELL, names.INTERRUPT_PIN)])
        _port(timer, "capturetrig0", "I", KERNEL_IRQ, [(names.KERNEL_CELL, names.INTERRUPT_PIN)])
        _port(controller, "irq", "O", PS_IRQ, [(PS_CELL, "pl_ps_irq0")])
    indent(root)
    return tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _processing_system(modules: Element, pl0_mhz: float, interrupt: bool) -> None:
    parameters = {"PSU__CRL_APB__PL0_REF_CTRL__ACT_FREQMHZ": f"{pl0_mhz:.6f}"}
    for clock in range(4):
        parameters[f"PSU__FPGA_PL{clock}_ENABLE"] = "1" if clock == 0 else "0"
        parameters[f"PSU__CRL_APB__PL{clock}_REF_CTRL__SRCSEL"] = "IOPLL"
        for divisor in range(2):
            parameters[f"PSU__CRL_APB__PL{clock}_REF_CTRL__DIVISOR{divisor}"] = "1"
    module = _module(modules, PS_CELL, PS_VLNV, parameters)
    _bus(module, "M_AXI_HPM0_FPD", "MASTER")
    memory_map = SubElement(module, "MEMORYMAP")
    for cell, (bus, address, _) in SLAVES.items():
        SubElement(
            memory_map, "MEMRANGE", ADDRESSBLOCK="Reg", INSTANCE=cell, MASTERBUSINTERFACE="M_AXI_HPM0_FPD",
            SLAVEBUSINTERFACE=bus, MEMTYPE="REGISTER", BASEVALUE=f"0x{address:08X}",
            HIGHVALUE=f"0x{address + names.ADDRESS_RANGE - 1:08X}", BASENAME="C_BASEADDR", HIGHNAME="C_HIGHADDR",
            IS_DATA="TRUE", IS_INSTRUCTION="TRUE",
        )  # fmt: skip
    if interrupt:
        _port(module, "pl_ps_irq0", "I", PS_IRQ, [(names.INTERRUPT_CELL, "irq")])


def _slave(modules: Element, cell: str, registers: tuple[Register, ...] = ()) -> Element:
    bus, _, vlnv = SLAVES[cell]
    module = _module(modules, cell, vlnv, {})
    blocks = SubElement(module, "ADDRESSBLOCKS")
    block = SubElement(
        blocks, "ADDRESSBLOCK", ACCESS="read-write", INTERFACE=bus, NAME="Reg", USAGE="register",
        RANGE=str(names.ADDRESS_RANGE),
    )  # fmt: skip
    listed = SubElement(block, "REGISTERS")
    for register in registers:
        element = SubElement(listed, "REGISTER", NAME=register.name)
        properties = {
            "DESCRIPTION": register.description, "ADDRESS_OFFSET": str(register.offset), "SIZE": "32",
            "ACCESS": register.access, "IS_ENABLED": "true", "RESET_VALUE": "0",
        }  # fmt: skip
        _properties(element, properties)
        fields = SubElement(element, "FIELDS")
        for name, (first_bit, bits, access) in register.fields.items():
            properties = {
                "DESCRIPTION": register.description, "ADDRESS_OFFSET": str(first_bit), "ACCESS": access,
                "BIT_OFFSET": str(first_bit), "BIT_WIDTH": str(bits),
            }  # fmt: skip
            _properties(SubElement(fields, "FIELD", NAME=name), properties)
    _bus(module, bus, "SLAVE")
    return module


def _module(modules: Element, cell: str, vlnv: str, parameters: dict[str, str]) -> Element:
    module = SubElement(
        modules, "MODULE", FULLNAME=f"/{cell}", INSTANCE=cell, IPTYPE="PERIPHERAL", IS_ENABLE="1",
        MODCLASS="PERIPHERAL", MODTYPE=vlnv.split(":")[2], VLNV=vlnv,
    )  # fmt: skip
    listed = SubElement(module, "PARAMETERS")
    for name, value in parameters.items():
        SubElement(listed, "PARAMETER", NAME=name, VALUE=value)
    SubElement(module, "PORTS")
    SubElement(module, "BUSINTERFACES")
    return module


def _bus(module: Element, name: str, kind: str) -> None:
    buses = module.find("BUSINTERFACES")
    assert buses is not None
    bus = SubElement(buses, "BUSINTERFACE", BUSNAME="axi", NAME=name, TYPE=kind, VLNV=AXIMM_VLNV)
    SubElement(bus, "PORTMAPS")


def _port(module: Element, name: str, direction: str, net: str, others: list[tuple[str, str]]) -> None:
    ports = module.find("PORTS")
    assert ports is not None
    port = SubElement(ports, "PORT", DIR=direction, NAME=name, SIGIS="INTERRUPT", SIGNAME=net)
    connections = SubElement(port, "CONNECTIONS")
    for cell, pin in others:
        SubElement(connections, "CONNECTION", INSTANCE=cell, PORT=pin)


def _properties(element: Element, values: dict[str, str]) -> None:
    for name, value in values.items():
        SubElement(element, "PROPERTY", NAME=name, VALUE=value)
