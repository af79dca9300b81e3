"""Reports in the tools' own formats, written from a few figures: for the parsers, and for the stand-ins of the tools."""

from __future__ import annotations

VERSION = "2024.2 (Build 5238294 on Nov  8 2024)"


def csynth_xml(top="spvit_top", part="xczu9eg-ffvb1156-2-e", dsp=2381, old=False, best="undef", worst="undef"):
    """`<top>_csynth.xml`; `old` as before 2020.1, with another name for DSPs and no URAM."""
    tag = "DSP48E" if old else "DSP"
    uram = "" if old else "<URAM>0</URAM>"
    return f"""<profile>
<section name = "ReportVersion" level = "0"></section>
<ReportVersion><Version>{VERSION.split()[0]}</Version></ReportVersion>
<UserAssignments>
<unit>ns</unit>
<ProductFamily>zynquplus</ProductFamily>
<Part>{part}</Part>
<TopModelName>{top}</TopModelName>
<TargetClockPeriod>5.00</TargetClockPeriod>
<ClockUncertainty>1.35</ClockUncertainty>
<FlowTarget>vivado</FlowTarget>
</UserAssignments>
<PerformanceEstimates>
<PipelineType>no</PipelineType>
<SummaryOfTimingAnalysis>
<unit>ns</unit>
<EstimatedClockPeriod>3.650</EstimatedClockPeriod>
</SummaryOfTimingAnalysis>
<SummaryOfOverallLatency>
<unit>clock cycles</unit>
<Best-caseLatency>{best}</Best-caseLatency>
<Average-caseLatency>undef</Average-caseLatency>
<Worst-caseLatency>{worst}</Worst-caseLatency>
<Best-caseRealTimeLatency>undef</Best-caseRealTimeLatency>
<Interval-min>undef</Interval-min>
<Interval-max>undef</Interval-max>
</SummaryOfOverallLatency>
</PerformanceEstimates>
<AreaEstimates>
<Resources>
<BRAM_18K>861</BRAM_18K>
<{tag}>{dsp}</{tag}>
<FF>291234</FF>
<LUT>243210</LUT>
{uram}
</Resources>
<AvailableResources>
<BRAM_18K>1824</BRAM_18K>
<{tag}>2520</{tag}>
<FF>548160</FF>
<LUT>274080</LUT>
{uram}
</AvailableResources>
</AreaEstimates>
</profile>
"""


def csynth_rpt(
    top="spvit_top",
    fused=2048,
    chained=1024,
    plain=0,
    banks=64,
    engine_interval=1,
    named="memory_v",
    threes=448,
    exp=32,
    depth=61,
    x=(1, 1024),
    work=(16, 256),
    held="ram_s2p",
):
    """`csynth.rpt`: the summary of a whole design.

    fused    products with a pre-adder; `chained` of them add another's product too
    plain    products whose operands are summed in fabric
    banks    of V; `named` as the report calls them
    threes   additions of three numbers
    exp      blocks of the table of 2^-t
    depth    iteration latency of ENGINE
    x, work  banks, and the bits of their words; `held`, the kind of memory
    """
    operators = []
    for i in range(fused):
        kind = "ama_addmuladd_16s_16s_17s_48s_48_4_1" if i < chained else "am_addmul_16s_16s_17s_34_4_1"
        operators += [(f"{kind}_U{i + 1}", "1", f"left_{i}", "add", "dsp_slice", "3")]
        operators += [(f"{kind}_U{i + 1}", "1", f"product_{i}", "mul", "dsp_slice", "3")]
    operators += [(f"mul_17s_17s_34_1_1_U{9000 + i}", "1", f"plain_{i}", "mul", "auto", "0") for i in range(plain)]
    operators += [(f"add_ln57_{i}_fu_{i}_p2", "", f"add_ln57_{i}", "add", "tadder", "0") for i in range(threes)]
    operators += [("add_ln42_fu_161_p2", "", "add_ln42", "add", "fabric", "0")]
    names = [f"+ {top}", f" + {top}_engine_pass", *(f"  {name[0]}" for name in operators)]
    width = max(map(len, names))
    rule = f"+-{'-' * width}-+-----+--------+-------------+-----+-----------+---------+"
    rows = [f"| {names[0]:{width}} | {fused + plain:<3} |        |             |     |           |         |"]
    rows += [f"| {names[1]:{width}} | {fused + plain:<3} |        |             |     |           |         |"]
    for name, dsp, variable, op, impl, latency in operators:
        rows.append(f"|   {name:{width - 2}} | {dsp:3} |        | {variable:11} | {op:3} | {impl:9} | {latency:7} |")
    storages = [(f"engine_{named}_{i}_U", held, "1", f"engine_{named}_{i}", "16, 384, 1") for i in range(banks)]
    for name, (count, bits) in (("x", x), ("work", work)):
        variables = [f"engine_memory_{name}_{i}" for i in range(count)]
        storages += [(f"{one}_U", held, "8", one, f"{bits}, 1182, 1") for one in variables]
    storages += [("kGeluBase_U", "rom_np", "64", "kGeluBase", "19, 160, 1")]
    storages += [("kExp_U", "rom_np", f"{exp}", "kExp", "18, 1024, 1")]
    return f"""

================================================================
== Synthesis Summary Report of '{top}'
================================================================
+ General Information:
    * Date:           Sat Jan 17 11:06:46 2026
    * Version:        {VERSION}
    * Project:        {top}
    * Solution:       solution1 (Vivado IP Flow Target)
    * Product family: zynquplus
    * Target device:  xczu9eg-ffvb1156-2-e


+ Performance & Resource Estimates:

    PS: '+' for module; 'o' for loop; '*' for dataflow
    +---------------------+------+------+---------+---------+-----------+---------+------+----------+---------+-----+----+----+-----+
    |       Modules       | Issue|      | Latency | Latency | Iteration |         | Trip |          |         |     |    |    |     |
    |       & Loops       | Type | Slack| (cycles)|   (ns)  |  Latency  | Interval| Count| Pipelined|   BRAM  | DSP | FF | LUT| URAM|
    +---------------------+------+------+---------+---------+-----------+---------+------+----------+---------+-----+----+----+-----+
    |+ {top:19}|     -|  0.00|        -|        -|          -|        -|     -|        no|861 (47%)|    -|   -|   -|    -|
    | + engine_pass       |     -|  0.00|        -|        -|          -|        -|     -|        no|        -|    -|   -|   -|    -|
    |  o ENGINE           |{"II" if engine_interval > 1 else "-":>6}|  1.35|        -|        -|{depth:>11}|{engine_interval:>9}|     -|       yes|        -|    -|   -|   -|    -|
    | + decide*           |     -|  0.00|        -|        -|          -|        -|     -|        no|        -|    -|   -|   -|    -|
    |  o DECIDE           |     -|  1.35|        -|        -|         14|        1|     -|       yes|        -|    -|   -|   -|    -|
    |  o PROGRAM          |     -|  1.35|        -|        -|          -|        -|   171|        no|        -|    -|   -|   -|    -|
    +---------------------+------+------+---------+---------+-----------+---------+------+----------+---------+-----+----+----+-----+


================================================================
== HW Interfaces
================================================================
* M_AXI
+-----------------+------------+------------+
| Interface       | Data Width | Address    |
+-----------------+------------+------------+
| m_axi_weights_0 | 128 -> 128 | 64         |
+-----------------+------------+------------+


================================================================
== Bind Op Report
================================================================
{rule}
| {"Name":{width}} | DSP | Pragma | Variable    | Op  | Impl      | Latency |
{rule}
{chr(10).join(rows)}
{rule}


================================================================
== Storage Report
================================================================
+----------------------------+--------+---------+------+------+--------+--------------------+------+---------+------------------+
| Name                       | Usage  | Type    | BRAM | URAM | Pragma | Variable           | Impl | Latency | Bitwidth, Depth, |
|                            |        |         |      |      |        |                    |      |         | Banks            |
+----------------------------+--------+---------+------+------+--------+--------------------+------+---------+------------------+
| + {top:24} |        |         | 861  | 0    |        |                    |      |         |                  |
{chr(10).join(f"|   {n:24} |        | {t:7} | {b:4} |      |        | {v:18} | auto | 1       | {s:16} |" for n, t, b, v, s in storages)}
+----------------------------+--------+---------+------+------+--------+--------------------+------+---------+------------------+


================================================================
== Pragma Report
================================================================
"""


def cosim_rpt(status="Pass", fewest=912345, most=923456):
    """`<top>_cosim.rpt`."""
    return f"""Report time       : Sun Nov 16 15:36:50     2025.
Solution          : solution1.
Simulation tool   : xsim.

+----------+----------+-----------------------------------------------+-----------------------------------------------+----------------------+
|          |          |             Latency(Clock Cycles)             |              Interval(Clock Cycles)           | Total Execution Time |
+   RTL    +  Status  +-----------------------------------------------+-----------------------------------------------+    (Clock Cycles)    +
|          |          |      min      |      avg      |      max      |      min      |      avg      |      max      |                      |
+----------+----------+-----------------------------------------------+-----------------------------------------------+----------------------+
|      VHDL|        NA|             NA|             NA|             NA|             NA|             NA|             NA|                    NA|
|   Verilog|{status:>10}|{fewest:>15}|{(fewest + most) // 2:>15}|{most:>15}|{fewest + 1:>15}|{fewest + 1:>15}|{fewest + 1:>15}|               1835802|
+----------+----------+-----------------------------------------------+-----------------------------------------------+----------------------+
"""


def utilization_rpt():
    """`report_utilization` of a placed design."""
    return """Copyright 1986-2022 Xilinx, Inc. All Rights Reserved. Copyright 2022-2024 Advanced Micro Devices, Inc. All Rights Reserved.
---------------------------------------------------------------------------------------------------
| Tool Version : Vivado v.2024.2 (lin64) Build 5239630 Fri Nov 08 22:34:34 MST 2024
| Design       : spvit_wrapper
| Device       : xczu9eg-ffvb1156-2-e
| Design State : Routed
---------------------------------------------------------------------------------------------------

1. CLB Logic
------------

+----------------------------+--------+-------+------------+-----------+-------+
|          Site Type         |  Used  | Fixed | Prohibited | Available | Util% |
+----------------------------+--------+-------+------------+-----------+-------+
| CLB LUTs*                  | 198765 |     0 |          0 |    274080 | 72.52 |
|   LUT as Logic             | 187654 |     0 |          0 |    274080 | 68.47 |
|   LUT as Memory            |  11111 |     0 |          0 |    144000 |  7.72 |
| CLB Registers              | 301234 |     0 |          0 |    548160 | 54.95 |
+----------------------------+--------+-------+------------+-----------+-------+
* Warning! LUT value is adjusted to account for LUT combining.

3. BLOCKRAM
-----------

+-------------------+-------+-------+------------+-----------+-------+
|     Site Type     |  Used | Fixed | Prohibited | Available | Util% |
+-------------------+-------+-------+------------+-----------+-------+
| Block RAM Tile    | 455.5 |     0 |          0 |       912 | 49.95 |
|   RAMB36/FIFO*    |   400 |     0 |          0 |       912 | 43.86 |
|   RAMB18          |   111 |     0 |          0 |      1824 |  6.09 |
+-------------------+-------+-------+------------+-----------+-------+

4. ARITHMETIC
-------------

+----------------+------+-------+------------+-----------+-------+
|    Site Type   | Used | Fixed | Prohibited | Available | Util% |
+----------------+------+-------+------------+-----------+-------+
| DSPs           | 2377 |     0 |          0 |      2520 | 94.33 |
|   DSP48E2 only | 2377 |       |            |           |       |
+----------------+------+-------+------------+-----------+-------+
"""


def timing_rpt(wns="0.041", clock="clk_out1_spvit_clk_wiz_0_0", mhz="199.980", pl0="99.990"):
    """`report_timing_summary` of a routed design, as far as clocks go; another clock has the worst slack of all."""
    rule = "-" * 96
    period, pl0_period = (f"{1000 / float(text):.3f}" for text in (mhz, pl0))
    return f"""{rule}
| Design Timing Summary
| ---------------------
{rule}

    WNS(ns)      TNS(ns)  TNS Failing Endpoints  TNS Total Endpoints      WHS(ns)      THS(ns)  THS Failing Endpoints
    -------      -------  ---------------------  -------------------      -------      -------  ---------------------
     -9.000       -9.000                      1               812345        0.010        0.000                      0


{rule}
| Clock Summary
| -------------
{rule}

Clock                             Waveform(ns)           Period(ns)      Frequency(MHz)
-----                             ------------           ----------      --------------
clk_pl_0                          {{0.000 5.001}}          {pl0_period}          {pl0}
  {clock}      {{0.000 2.500}}          {period}           {mhz}


{rule}
| Intra Clock Table
| -----------------
{rule}

Clock                                 WNS(ns)      TNS(ns)  TNS Failing Endpoints  TNS Total Endpoints      WHS(ns)
-----                                 -------      -------  ---------------------  -------------------      -------
clk_pl_0                               -9.000       -9.000                      1                    1        0.100
  {clock}           {wns}        0.000                      0               812345        0.010


{rule}
| Inter Clock Table
| -----------------
{rule}

From Clock    To Clock          WNS(ns)      TNS(ns)  TNS Failing Endpoints  TNS Total Endpoints      WHS(ns)
----------    --------          -------      -------  ---------------------  -------------------      -------
"""
