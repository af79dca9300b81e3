// What is around the engine's control (engine_control.sv), so that it runs as in the accelerator: weight readers,
// FIFOs, a memory behind AXI-like ports, loading and storing, and the walk over the program (run_program). No
// arithmetic: what is left decides when things happen, and the cycles must be those of the timed
// C-simulation, step for step.
// In the folder that it runs in:
//   program.hex  the program's rows, for the control's ROM
//   steps.hex    per step: cycles, 0 where it is the engine's; tokens and packages after it (sim/rtl/anchor.py)
// and as arguments:
//   +words=N        of the weight stream; behind the program's +position_words=N are loaded, part by part; +pixels=N words of the image
//   +pieces=N       that a record is taken in
//   +rows=N         tokens at first
//   +loop_entry=N, +header_depth=N, +program_depth=N, +check_depth=N, +load_depth=N, +engine_depth=N, +store_cycles=N
//   +read_latency, +outstanding, +burst_beats, +beat_cost (1/256 cycles), +fifo_words, +stripe_words, +arriving_words
`default_nettype none

/// A FIFO whose words can be read LATENCY cycles after they were written.
module fifo #(parameter int LATENCY = 2) (
    input  wire clock,
    input  wire [31:0] depth,
    input  wire push,
    output wire full,
    input  wire pop,
    output wire valid
);
    logic [31:0] pushed = 0, popped = 0;
    logic [31:0] visible [LATENCY-1:0] = '{default: 0};  // `pushed`, as the reader's side knows it
    assign full  = pushed - popped >= depth;
    assign valid = visible[LATENCY-1] != popped;
    always_ff @(posedge clock) begin
        if (push) pushed <= pushed + 1;
        if (pop) popped <= popped + 1;
        visible[0] <= push ? pushed + 1 : pushed;
        for (int i = 1; i < LATENCY; i++) visible[i] <= visible[i-1];
    end
endmodule

/// PORTS read ports of a memory that serves one burst at a time, in turn, at the rate of its bandwidth. Each port requests
/// as many bursts ahead as it may have outstanding.
module memory #(parameter int PORTS = 1, parameter int MOST_OUTSTANDING = 64) (
    input  wire clock,
    input  wire [31:0] beats,  // that each port reads in all
    input  wire [31:0] read_latency, burst_beats, outstanding, beat_cost,
    output logic valid [PORTS-1:0],
    input  wire  pop [PORTS-1:0]
);
    logic [63:0] now = 0;
    logic [31:0] requested [PORTS-1:0] = '{default: 0};  // bursts
    logic [31:0] served [PORTS-1:0] = '{default: 0};
    logic [31:0] popped [PORTS-1:0] = '{default: 0};  // beats
    logic [31:0] landed [PORTS-1:0] = '{default: 0};
    logic [31:0] answered [PORTS-1:0] = '{default: 0};  // beats of served bursts
    logic [63:0] asked_at [PORTS-1:0][MOST_OUTSTANDING-1:0];
    logic [63:0] free = 0;  // 1/256 cycles
    int turn = 0;

    // within a cycle: requests that are old enough are served, one beat per port lands, readers take
    logic [63:0] free_next, start;
    int turn_next;
    logic [31:0] served_next [PORTS-1:0], answered_next [PORTS-1:0], burst;
    always_comb begin
        free_next = free;
        turn_next = turn;
        served_next = served;
        answered_next = answered;
        start = 0;
        burst = 0;
        for (int i = 0; i < PORTS; i++) begin
            if (served_next[turn_next] < requested[turn_next]) begin
                start = (asked_at[turn_next][served_next[turn_next] % MOST_OUTSTANDING] + 64'(read_latency)) * 256;
                if (free_next > start) start = free_next;
                if (start <= now * 256) begin
                    burst = beats - served_next[turn_next] * burst_beats;
                    if (burst > burst_beats) burst = burst_beats;
                    free_next = start + 64'(burst) * 64'(beat_cost);
                    answered_next[turn_next] = answered_next[turn_next] + burst;
                    served_next[turn_next] = served_next[turn_next] + 1;
                    turn_next = turn_next == PORTS - 1 ? 0 : turn_next + 1;
                end
            end
        end
        for (int p = 0; p < PORTS; p++) begin
            valid[p] = landed[p] + (answered_next[p] > landed[p] ? 1 : 0) > popped[p];
        end
    end
    always_ff @(posedge clock) begin
        now <= now + 1;
        free <= free_next;
        turn <= turn_next;
        served <= served_next;
        answered <= answered_next;
        for (int p = 0; p < PORTS; p++) begin
            if (answered_next[p] > landed[p]) landed[p] <= landed[p] + 1;
            if (pop[p]) popped[p] <= popped[p] + 1;
            // whole bursts that have been taken free their places
            if (requested[p] * burst_beats < beats && requested[p] - popped[p] / burst_beats < outstanding) begin
                asked_at[p][requested[p] % MOST_OUTSTANDING] <= now;
                requested[p] <= requested[p] + 1;
            end
        end
    end
endmodule

module skeleton #(
    parameter int PORTS = 4,
    parameter int BEATS = 1,  // of each port, that make a word of the stream
    parameter int LOAD_PARTS = 1,  // of a word, that are loaded one by one
    parameter int STREAM_LATENCY = 2,
    parameter int ENTRY_CYCLES = 0,  // of the control: a run takes them at least, loop_entry where that is more
    parameter int NUM_STEPS = 1,
    parameter int TILE_IN = 8,
    parameter int TILE_OUT = 16,
    parameter int FILL_LANES = 8,
    parameter int PARAM_LANES = 4,
    parameter int PREFIX = 1,
    parameter int HEAD_LANES = 16,
    parameter int BANK_LANES = 64,
    parameter int RMW_CYCLES = 8,
    parameter int PIPELINE_CYCLES = 64,
    parameter int INDEX_BITS = 8,
    parameter int ROW_BITS = 8,
    parameter int LANE_BITS = 12,
    parameter int TILE_BITS = 8,
    parameter int LENGTH_BITS = 8
) (
    input  wire  clock,
    output logic done = 0,
    output logic [63:0] cycles = 0
);
    localparam logic [INDEX_BITS-1:0] BEFORE_FIRST = '1;
    localparam int RECORD_LANES = 16;
    localparam logic [INDEX_BITS-1:0] LAST = INDEX_BITS'(NUM_STEPS);

    // what the clock assumes
    logic [31:0] words, pieces, position_words, pixels, rows;
    logic [31:0] loop_entry, header_depth, program_depth, check_depth, load_depth, engine_depth, store_cycles;
    logic [31:0] read_latency, burst_beats, outstanding, beat_cost, fifo_words, stripe_words, arriving_words;
    logic [95:0] steps [NUM_STEPS-1:0];
    initial begin
        $readmemh("steps.hex", steps);
        if (!$value$plusargs("words=%d", words)) $fatal(1, "+words is missing");
        if (!$value$plusargs("pieces=%d", pieces)) $fatal(1, "+pieces is missing");
        if (!$value$plusargs("position_words=%d", position_words)) $fatal(1, "+position_words is missing");
        if (!$value$plusargs("pixels=%d", pixels)) $fatal(1, "+pixels is missing");
        if (!$value$plusargs("rows=%d", rows)) $fatal(1, "+rows is missing");
        if (!$value$plusargs("loop_entry=%d", loop_entry)) $fatal(1, "+loop_entry is missing");
        if (!$value$plusargs("header_depth=%d", header_depth)) $fatal(1, "+header_depth is missing");
        if (!$value$plusargs("program_depth=%d", program_depth)) $fatal(1, "+program_depth is missing");
        if (!$value$plusargs("check_depth=%d", check_depth)) $fatal(1, "+check_depth is missing");
        if (!$value$plusargs("load_depth=%d", load_depth)) $fatal(1, "+load_depth is missing");
        if (!$value$plusargs("engine_depth=%d", engine_depth)) $fatal(1, "+engine_depth is missing");
        if (!$value$plusargs("store_cycles=%d", store_cycles)) $fatal(1, "+store_cycles is missing");
        if (!$value$plusargs("read_latency=%d", read_latency)) $fatal(1, "+read_latency is missing");
        if (!$value$plusargs("burst_beats=%d", burst_beats)) $fatal(1, "+burst_beats is missing");
        if (!$value$plusargs("outstanding=%d", outstanding)) $fatal(1, "+outstanding is missing");
        if (!$value$plusargs("beat_cost=%d", beat_cost)) $fatal(1, "+beat_cost is missing");
        if (!$value$plusargs("fifo_words=%d", fifo_words)) $fatal(1, "+fifo_words is missing");
        if (!$value$plusargs("stripe_words=%d", stripe_words)) $fatal(1, "+stripe_words is missing");
        if (!$value$plusargs("arriving_words=%d", arriving_words)) $fatal(1, "+arriving_words is missing");
    end

    // read_port: memory -> stripes
    logic beat_valid [PORTS-1:0], beat_pop [PORTS-1:0], stripe_full [PORTS-1:0], stripe_valid [PORTS-1:0];
    logic all_stripes_valid, join_fires;
    memory #(.PORTS(PORTS)) weights_memory (
        .clock, .beats(words * BEATS), .read_latency, .burst_beats, .outstanding, .beat_cost, .valid(beat_valid),
        .pop(beat_pop)
    );
    for (genvar p = 0; p < PORTS; p++) begin : stripes
        assign beat_pop[p] = beat_valid[p] && !stripe_full[p];
        fifo #(.LATENCY(STREAM_LATENCY)) stripe (
            .clock, .depth(stripe_words), .push(beat_pop[p]), .full(stripe_full[p]), .pop(join_fires),
            .valid(stripe_valid[p])
        );
    end

    // join_ports, checksum_words: stripes -> arriving -> weights
    wire arriving_full, arriving_valid, weights_full, weights_valid, checksum_fires;
    logic weights_pop;
    always_comb begin
        all_stripes_valid = 1;
        for (int p = 0; p < PORTS; p++) all_stripes_valid &= stripe_valid[p];
    end
    // a word is written with its last beat
    logic [31:0] beat = 0;
    wire last_beat = beat == BEATS - 1;
    assign join_fires = all_stripes_valid && !(last_beat && arriving_full);
    always_ff @(posedge clock) if (join_fires) beat <= last_beat ? 0 : beat + 1;
    fifo #(.LATENCY(STREAM_LATENCY)) arriving (
        .clock, .depth(arriving_words), .push(join_fires && last_beat), .full(arriving_full), .pop(checksum_fires),
        .valid(arriving_valid)
    );
    assign checksum_fires = arriving_valid && !weights_full;
    fifo #(.LATENCY(STREAM_LATENCY)) weights (
        .clock, .depth(fifo_words), .push(checksum_fires), .full(weights_full), .pop(weights_pop), .valid(weights_valid)
    );

    // read_image: memory -> pixels
    logic pixel_beat_valid [0:0], pixel_beat_pop [0:0];
    wire pixels_full, pixels_valid;
    logic pixels_pop;
    memory #(.PORTS(1)) image_memory (
        .clock, .beats(pixels), .read_latency, .burst_beats, .outstanding, .beat_cost, .valid(pixel_beat_valid),
        .pop(pixel_beat_pop)
    );
    assign pixel_beat_pop[0] = pixel_beat_valid[0] && !pixels_full;
    fifo #(.LATENCY(STREAM_LATENCY)) image (
        .clock, .depth(stripe_words), .push(pixel_beat_pop[0]), .full(pixels_full), .pop(pixels_pop), .valid(pixels_valid)
    );

    // the engine
    logic [INDEX_BITS-1:0] index = BEFORE_FIRST;  // that the walk stands at
    logic [ROW_BITS-1:0] tokens, packages = 0;
    wire begin_run, control_pop, control_has_token, ends_run, starts_step;
    wire [INDEX_BITS-1:0] step_index;
    wire [ROW_BITS-1:0] row;
    wire [1:0] source_bank, dest_bank;
    wire [LANE_BITS-1:0] source_lane, dest_lane;
    wire fill_accesses, fill_params;
    engine_control #(
        .NUM_STEPS(NUM_STEPS), .TILE_IN(TILE_IN), .TILE_OUT(TILE_OUT), .FILL_LANES(FILL_LANES),
        .PARAM_LANES(PARAM_LANES), .PREFIX(PREFIX), .HEAD_LANES(HEAD_LANES), .BANK_LANES(BANK_LANES),
        .RMW_CYCLES(RMW_CYCLES), .PIPELINE_CYCLES(PIPELINE_CYCLES), .INDEX_BITS(INDEX_BITS), .ROW_BITS(ROW_BITS),
        .LANE_BITS(LANE_BITS), .TILE_BITS(TILE_BITS), .LENGTH_BITS(LENGTH_BITS)
    ) control (
        .clock, .begin_run, .index, .first('0), .last(LAST), .tokens, .packages, .running(), .ends_run, .starts_step,
        .step_index, .word_valid(weights_valid), .word_pop(control_pop), .has_token(control_has_token), .token(), .row,
        .x_lane(), .source_bank, .source_lane, .dest_bank, .dest_lane, .in_tile(), .out_tile(), .head(), .part(),
        .first_in(), .last_in(), .border(), .next_first_in(), .fill_accesses, .fill_params, .fill_from_keys(),
        .fill_place(), .fill_index(), .fill_lane()
    );

    // run: the program, loading, the walk, storing
    typedef enum logic [3:0] {
        ENTER_TABLE, TABLE, TAKEN, CHECK, ENTER_LOAD, LOAD, LOADED, ENTER_RUN, RUN, DRAIN, OTHER, STORE
    } state_t;
    state_t state = ENTER_TABLE;
    logic [31:0] spent = 0;  // cycles in this state
    // pieces of records: of the header's, then of the steps'; a word comes with the first of those that lie in it
    logic header_taken = 0;
    logic [31:0] piece = 0, loaded = 0, load_part = 0, pixels_taken = 0;
    wire [31:0] all_pieces = header_taken ? pieces * NUM_STEPS : pieces;
    wire [31:0] pieces_per_word = pieces > 1 ? 1 : 32'(FILL_LANES) / RECORD_LANES;
    wire takes_word = piece % pieces_per_word == 0;
    wire table_pop = state == TABLE && takes_word && weights_valid;
    wire takes_piece = state == TABLE && (!takes_word || weights_valid);
    logic [INDEX_BITS-1:0] counted = BEFORE_FIRST;  // the step whose cycle this is
    logic [31:0] step_cycles [NUM_STEPS+1:0] = '{default: 0};  // loading, steps, storing
    logic [31:0] step_tokens [NUM_STEPS+1:0] = '{default: 0};
    // where its tokens come from and go to: sums of rows, and of lanes in WORK
    logic [63:0] step_rows [NUM_STEPS+1:0] = '{default: 0};
    logic [63:0] step_sources [NUM_STEPS+1:0] = '{default: 0};
    logic [63:0] step_dests [NUM_STEPS+1:0] = '{default: 0};
    logic [63:0] param_words = 0;
    wire [31:0] waited = loop_entry > ENTRY_CYCLES ? loop_entry - ENTRY_CYCLES : 0;
    logic load_there = 0;  // a word, in FrontWord's register
    wire load_goes = state == LOAD && loaded < position_words && load_there;
    wire load_ends = load_goes && load_part == LOAD_PARTS - 1;  // a word
    wire load_pop = state == LOAD && loaded + 32'(load_ends) < position_words && (!load_there || load_ends) && weights_valid;
    assign pixels_pop = state == LOAD && pixels_taken < pixels && pixels_valid;
    assign weights_pop = table_pop || load_pop || control_pop;
    assign begin_run = state == ENTER_RUN && spent == waited;
    wire [INDEX_BITS-1:0] place = counted + 1'b1;

    // the step at `at` begins
    task automatic go(input logic [INDEX_BITS-1:0] at);
        index <= at;
        counted <= at;
        spent <= 0;
        state <= at == LAST ? STORE : at == BEFORE_FIRST || steps[at][95:64] == 0 ? ENTER_RUN : OTHER;
    endtask

    always_ff @(posedge clock) begin
        if (!done) begin
            cycles <= cycles + 1;
            spent <= spent + 1;
            step_cycles[place] <= step_cycles[place] + 1;
            if (control_has_token) begin
                step_tokens[place] <= step_tokens[place] + 1;
                step_rows[place] <= step_rows[place] + 64'(row);
                step_sources[place] <= step_sources[place] + 64'(source_bank) * BANK_LANES + 64'(source_lane);
                step_dests[place] <= step_dests[place] + 64'(dest_bank) * BANK_LANES + 64'(dest_lane);
            end
            if (fill_accesses && fill_params) param_words <= param_words + 1;
            case (state)
                ENTER_TABLE: begin
                    tokens <= ROW_BITS'(rows);
                    piece <= 0;
                    if (spent + 1 == loop_entry) state <= TABLE;
                end
                TABLE: begin
                    piece <= piece + 32'(takes_piece);
                    if (piece + 32'(takes_piece) == all_pieces) begin
                        state <= TAKEN;
                        spent <= 0;
                    end
                end
                TAKEN: if (spent + 1 == (header_taken ? program_depth : header_depth)) begin
                    header_taken <= 1;
                    state <= header_taken ? CHECK : ENTER_TABLE;
                    spent <= 0;
                end
                CHECK: if (spent + 1 == loop_entry + NUM_STEPS + check_depth) begin
                    state <= ENTER_LOAD;
                    spent <= 0;
                end
                ENTER_LOAD: if (spent + 1 == loop_entry) state <= LOAD;
                LOAD: begin
                    loaded <= loaded + 32'(load_ends);
                    load_there <= load_pop || (load_there && !load_ends);
                    if (load_goes) load_part <= load_ends ? 0 : load_part + 1;
                    pixels_taken <= pixels_taken + 32'(pixels_pop);
                    if (loaded + 32'(load_ends) == position_words && pixels_taken + 32'(pixels_pop) == pixels) begin
                        state <= LOADED;
                        spent <= 0;
                    end
                end
                LOADED: if (spent + 1 == load_depth) go(BEFORE_FIRST);
                ENTER_RUN: if (begin_run) state <= RUN;
                RUN: begin
                    if (starts_step && step_index != BEFORE_FIRST) counted <= step_index;
                    if (ends_run) begin
                        state <= DRAIN;
                        spent <= 0;
                        index <= step_index;
                    end
                end
                DRAIN: if (spent + 1 == engine_depth) go(index);
                OTHER: if (spent + 1 == steps[index][95:64]) begin
                    tokens <= steps[index][32+:ROW_BITS];
                    packages <= steps[index][0+:ROW_BITS];
                    go(index + 1'b1);
                end
                STORE: if (spent + 1 == store_cycles) done <= 1;
            endcase
        end
    end

    always @(posedge done) begin
        for (int i = 0; i < NUM_STEPS + 2; i++)
            $display("step %0d %0d %0d %0d %0d",
                     step_cycles[i], step_tokens[i], step_rows[i], step_sources[i], step_dests[i]);
        $display("params %0d", param_words);
    end
endmodule
