// The accelerator's skeleton in RTL: weight readers, FIFOs, tile loop, and a memory behind AXI-like ports. No arithmetic:
// what is left decides when things happen, and the cycles must be those of the timed C-simulation.
//   +schedule=FILE  one record per line, hex: op first second third (sim/rtl.py)
//   +words=N        of the weight stream; +pixels=N words of the image
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

module skeleton #(parameter int PORTS = 4, parameter int STREAM_LATENCY = 2, parameter int RECORDS = 1 << 20) (
    input  wire  clock,
    output logic done = 0,
    output logic [63:0] cycles = 0
);
    // what the clock assumes
    logic [31:0] words, pixels, read_latency, burst_beats, outstanding, beat_cost;
    logic [31:0] fifo_words, stripe_words, arriving_words;
    logic [127:0] schedule [RECORDS-1:0];
    string path;
    initial begin
        if (!$value$plusargs("schedule=%s", path)) $fatal(1, "+schedule is missing");
        $readmemh(path, schedule);
        if (!$value$plusargs("words=%d", words) || !$value$plusargs("pixels=%d", pixels)) $fatal(1, "sizes are missing");
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
        .clock, .beats(words), .read_latency, .burst_beats, .outstanding, .beat_cost, .valid(beat_valid), .pop(beat_pop)
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
    assign join_fires = all_stripes_valid && !arriving_full;
    fifo #(.LATENCY(STREAM_LATENCY)) arriving (
        .clock, .depth(arriving_words), .push(join_fires), .full(arriving_full), .pop(checksum_fires),
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

    // run: the schedule, record by record
    typedef enum logic [31:0] {WAIT, LOAD, STREAM_TILE, CHIP_TILE, DONE} op_t;
    logic [31:0] record = 0, cycle = 0, taken = 0, pixels_taken = 0;
    logic front_there = 0;  // the weight FIFO's first word, in a register (FrontWord)
    wire [31:0] op = schedule[record][127:96];
    wire [31:0] first = schedule[record][95:64];   // WAIT: cycles; LOAD: words; tiles: tokens
    wire [31:0] second = schedule[record][63:32];  // LOAD: pixels; tiles: accesses that fill the next
    wire [31:0] third = schedule[record][31:0];    // tiles: least cycles
    logic advances, ends;
    always_comb begin
        weights_pop = 0;
        pixels_pop = 0;
        advances = 0;  // the fill
        ends = 0;
        case (op)
            WAIT: ends = cycle + 1 >= first;
            LOAD: begin
                weights_pop = taken < first && weights_valid;
                pixels_pop = pixels_taken < second && pixels_valid;
                ends = taken + 32'(weights_pop) == first && pixels_taken + 32'(pixels_pop) == second;
            end
            STREAM_TILE, CHIP_TILE: begin
                advances = taken < second && (op == CHIP_TILE || front_there);
                weights_pop = weights_valid && (!front_there || (op == STREAM_TILE && advances));
                ends = cycle + 1 >= first && cycle + 1 >= third && taken + 32'(advances) == second;
            end
            default: ;
        endcase
    end
    always_ff @(posedge clock) begin
        if (op == DONE) begin
            done <= 1;
        end else begin
            cycles <= cycles + 1;
            cycle <= ends ? 0 : cycle + 1;
            taken <= ends ? 0 : taken + 32'(op == LOAD ? weights_pop : advances);
            if (op == STREAM_TILE || op == CHIP_TILE)
                front_there <= weights_pop || (front_there && !(op == STREAM_TILE && advances));
            pixels_taken <= ends ? 0 : pixels_taken + 32'(pixels_pop);
            if (ends) record <= record + 1;
        end
    end
endmodule
