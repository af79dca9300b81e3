# Stands in for the Tcl of Vitis HLS and Vivado: tclsh vendor.tcl SCRIPT
# Every command of theirs is noted down in the file $RECORD, a line each, its words separated by tabs. A command that they
# don't have, an option that a command doesn't take, or a wrong number of words is an error, as it is there.
# $FAIL names a command that fails; $NO_BOARD, $NO_DDR_HIGH and $STOPPED change what Vivado answers.

# command {fewest most} {option words ...}: how many words beside the options, and how many words each option takes
array set signatures {
    open_project          {{1 1} {-reset 0}}
    set_top               {{1 1} {}}
    add_files             {{1 1} {-tb 0 -cflags 1 -norecurse 0}}
    open_solution         {{1 1} {-reset 0 -flow_target 1}}
    set_part              {{1 1} {}}
    create_clock          {{0 0} {-period 1 -name 1}}
    set_clock_uncertainty {{1 2} {}}
    config_compile        {{0 0} {-pipeline_style 1}}
    config_interface      {{0 0} {-m_axi_addr64 0}}
    config_export         {{0 0} {-format 1 -rtl 1 -vendor 1 -library 1 -ipname 1 -version 1}}
    csim_design           {{0 0} {-O 0 -argv 1}}
    csynth_design         {{0 0} {}}
    export_design         {{0 0} {}}
    cosim_design          {{0 0} {-O 0 -rtl 1 -argv 1}}

    create_project        {{2 2} {-force 0 -part 1}}
    get_board_parts       {{1 1} {-quiet 0}}
    current_project       {{0 0} {}}
    current_fileset       {{0 0} {}}
    set_property          {{2 3} {-dict 1}}
    get_property          {{2 2} {}}
    update_ip_catalog     {{0 0} {}}
    create_bd_design      {{1 1} {}}
    create_bd_cell        {{1 1} {-type 1 -vlnv 1}}
    apply_bd_automation   {{1 1} {-rule 1 -config 1}}
    get_bd_cells          {{1 1} {}}
    get_bd_pins           {{1 1} {}}
    get_bd_intf_pins      {{1 1} {}}
    get_bd_addr_spaces    {{1 1} {}}
    get_bd_addr_segs      {{1 1} {-quiet 0}}
    connect_bd_net        {{2 99} {}}
    connect_bd_intf_net   {{2 2} {}}
    assign_bd_address     {{1 1} {-offset 1 -range 1 -target_address_space 1 -force 0}}
    exclude_bd_addr_seg   {{1 1} {-target_address_space 1}}
    validate_bd_design    {{0 0} {}}
    save_bd_design        {{0 0} {}}
    get_files             {{1 1} {}}
    make_wrapper          {{0 0} {-files 1 -top 0}}
    get_runs              {{1 1} {}}
    launch_runs           {{1 1} {-to_step 1 -jobs 1}}
    wait_on_run           {{1 1} {}}
    open_run              {{1 1} {}}
    report_utilization    {{0 0} {-file 1}}
    report_timing_summary {{0 0} {-file 1}}
    report_power          {{0 0} {-file 1}}
    write_hw_platform     {{0 0} {-fixed 0 -include_bit 0 -force 0 -file 1}}
}

proc unknown {command args} {
    if {![info exists ::signatures($command)]} {
        error "invalid command name \"$command\""
    }
    lassign $::signatures($command) range options
    set words {}
    for {set i 0} {$i < [llength $args]} {incr i} {
        set word [lindex $args $i]
        if {![string match {-[a-zA-Z]*} $word]} {
            lappend words $word
        } elseif {[dict exists $options $word]} {
            incr i [dict get $options $word]
            if {$i >= [llength $args]} {
                error "$command: $word needs a value"
            }
            if {$word eq "-dict"} {
                lappend words dict [lindex $args $i]
            }
        } else {
            error "$command: unknown option $word"
        }
    }
    lassign $range fewest most
    if {[llength $words] < $fewest || [llength $words] > $most} {
        error "$command: [llength $words] arguments, it takes $fewest to $most"
    }
    set record [open $::env(RECORD) a]
    puts $record [join [list $command {*}$args] "\t"]
    close $record
    if {[info exists ::env(FAIL)] && $::env(FAIL) eq $command} {
        error "'$command' failed"
    }
    return [answer $command $words]
}

# What the properties that were set make of PL0, at a pin: the memory ports may have a clock of their own
proc pin_mhz {pin} {
    set mhz $::set(CONFIG.PSU__CRL_APB__PL0_REF_CTRL__FREQMHZ)
    if {[info exists ::set(CONFIG.MMCM_CLKFBOUT_MULT_F)]} {
        set divide $::set(CONFIG.MMCM_CLKOUT0_DIVIDE_F)
        if {[string match */saxihp*_fpd_aclk $pin] && [info exists ::set(CONFIG.MMCM_CLKOUT1_DIVIDE)]} {
            set divide [expr {[info exists ::env(PORT_DIVIDE)] ? $::env(PORT_DIVIDE) : $::set(CONFIG.MMCM_CLKOUT1_DIVIDE)}]
        }
        set mhz [expr {$mhz * $::set(CONFIG.MMCM_CLKFBOUT_MULT_F) / $::set(CONFIG.MMCM_DIVCLK_DIVIDE) / $divide}]
    }
    return $mhz
}

proc answer {command words} {
    switch $command {
        get_board_parts {
            if {[info exists ::env(NO_BOARD)]} { return {} }
            return [list [string map {* 3.3} [lindex $words 0]] [string map {* 3.10} [lindex $words 0]]]
        }
        get_bd_addr_segs {
            # what an HP port of a Zynq UltraScale+ reaches (UG1085)
            set segments [lmap kind {DDR_LOW DDR_HIGH QSPI LPS_OCM PCIE_LOW} {string map [list * $kind] [lindex $words 0]}]
            if {[string match {*[*]*} [lindex $words 0]]} { return $segments }
            if {[info exists ::env(NO_DDR_HIGH)] && [string match *_DDR_HIGH [lindex $words 0]]} { return {} }
            return [lindex $words 0]
        }
        get_property {
            lassign $words name object
            switch $name {
                STATUS { return "route_design ERROR" }
                CONFIG.PSU__CRL_APB__PL0_REF_CTRL__ACT_FREQMHZ {
                    return [expr {[info exists ::env(PL0_MHZ)] ? $::env(PL0_MHZ) : $::set(CONFIG.PSU__CRL_APB__PL0_REF_CTRL__FREQMHZ)}]
                }
                CONFIG.FREQ_HZ { return [expr {[pin_mhz $object] * 1e6}] }
            }
            return [expr {[info exists ::env(STOPPED)] ? "72%" : "100%"}]
        }
        set_property {
            if {[lindex $words 0] eq "dict"} { array set ::set [lindex $words 1] }
        }
        launch_runs {
            foreach result {spvit.runs/impl_1/spvit_wrapper.bit spvit.gen/sources_1/bd/spvit/hw_handoff/spvit.hwh} {
                set path [file join $::env(PROJECT) $result]
                file mkdir [file dirname $path]
                close [open $path w]
            }
        }
        current_project - current_fileset - make_wrapper { return $command }
    }
    return [lindex $words 0]
}

source [lindex $argv 0]
