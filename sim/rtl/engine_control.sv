// The engine's control in RTL: what control.hpp, the Fill of tile.hpp and the FrontWord of weight_stream.hpp say,
// register by register, without the datapath. It reads the steps of the program from a ROM, which answers two cycles
// after its address (the block RAM's own register and its output register), and makes tiles, fills and borders of them
// and of the token counts. Nothing is expanded for it beforehand: its cycles are evidence about the kernels' control,
// not a copy of the model's walk.
//   begin_run, index   engine_run(index): one cycle; both tokens and packages stand still until it is over
//   running            an iteration takes place
//   starts_step, step_index   the next iteration is the first of this step; step_index is where the run stopped, too
// A run's first iteration takes place ENTRY_CYCLES after begin_run: the ROM is asked twice, for the step and for the
// engine's next one, and then its first tile is planned as any other.
// Synthesizable; sim/rtl/levels.py maps it and counts the levels of logic between its registers.
`default_nettype none

module engine_control #(
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
    parameter int INDEX_BITS = 8,  // of a step; all ones: before the first
    parameter int ROW_BITS = 8,
    parameter int LANE_BITS = 12,
    parameter int TILE_BITS = 8,
    parameter int LENGTH_BITS = 8,
    localparam int WORDS_PER_COLUMN = TILE_IN / FILL_LANES,
    localparam int PARAM_WORDS = (TILE_OUT * PARAM_LANES + FILL_LANES - 1) / FILL_LANES,
    localparam int STREAM_ACCESSES = TILE_OUT * WORDS_PER_COLUMN,
    localparam int ACCESS_BITS = $clog2(STREAM_ACCESSES + PARAM_WORDS + 1)
) (
    input  wire clock,
    // a run
    input  wire begin_run,
    input  wire [INDEX_BITS-1:0] index,
    input  wire [INDEX_BITS-1:0] first,
    input  wire [INDEX_BITS-1:0] last,
    input  wire [ROW_BITS-1:0] tokens,
    input  wire [ROW_BITS-1:0] packages,
    output logic running,
    output wire  ends_run,  // with the iteration in progress
    output wire  starts_step,
    output wire  [INDEX_BITS-1:0] step_index,
    // the weight FIFO
    input  wire word_valid,
    output wire word_pop,
    // what the datapath is told
    output wire  has_token,
    output logic [ROW_BITS-1:0] token,
    output logic [ROW_BITS-1:0] row,
    output wire  [LANE_BITS-1:0] x_lane,
    output wire  [1:0] source_bank,
    output wire  [LANE_BITS-1:0] source_lane,
    output wire  [1:0] dest_bank,
    output wire  [LANE_BITS-1:0] dest_lane,
    output wire  [TILE_BITS-1:0] in_tile,
    output wire  [TILE_BITS-1:0] out_tile,
    output wire  [TILE_BITS-1:0] head,
    output wire  [TILE_BITS-1:0] part,
    output wire  first_in,
    output wire  last_in,
    output wire  border,
    output wire  next_first_in,
    output wire  fill_accesses,
    output wire  fill_params,
    output wire  fill_from_keys,
    output wire  [ACCESS_BITS-1:0] fill_place,
    output wire  [LANE_BITS-1:0] fill_index,
    output wire  [LANE_BITS-1:0] fill_lane
);
    localparam int PARTS_PER_HEAD = HEAD_LANES / TILE_OUT;
    localparam int IN_SHIFT = $clog2(TILE_IN);
    localparam int OUT_SHIFT = $clog2(TILE_OUT);
    localparam logic [1:0] PATCHES = 1, CANDIDATES = 2, FIRST_ROW = 3;  // Rows
    localparam logic [1:0] STREAM = 0, KEYS = 1;                        // Weights

    // a row of the program, as sim/rtl/anchor.py packs it
    typedef struct packed {
        logic engine;  // Op::ENGINE
        logic [1:0] rows;
        logic source_is_x;
        logic [1:0] weights;
        logic [LANE_BITS-1:0] source_lane;
        logic [LANE_BITS-1:0] dest_lane;
        logic [LANE_BITS-1:0] weights_lane;
        logic [TILE_BITS-1:0] in_tiles;
        logic [TILE_BITS-1:0] out_tiles;
        logic [INDEX_BITS-1:0] next_engine;
        logic [1:0] weight_width;  // 0: 16 bits, 1: 12, 2: 8
    } step_t;
    localparam int STEP_BITS = 8 + 3 * LANE_BITS + 2 * TILE_BITS + INDEX_BITS;

    // a tile's place in its pass
    typedef struct packed {
        step_t step;
        step_t next;
        logic [INDEX_BITS-1:0] index;
        logic [INDEX_BITS-1:0] next_index;
        logic [ROW_BITS-1:0] first_row;
        logic [ROW_BITS-1:0] num_rows;
        logic [TILE_BITS-1:0] in_tile;
        logic [TILE_BITS-1:0] out_tile;
        logic [TILE_BITS-1:0] in_left;
        logic [TILE_BITS-1:0] out_left;
        logic [TILE_BITS-1:0] head;
        logic [TILE_BITS-1:0] part;
    } place_t;

    // what that decides; the lanes are not yet in banks
    typedef struct packed {
        logic first_in;
        logic last_in;
        logic ends_pass;
        logic [LANE_BITS-1:0] source_lane;
        logic [LANE_BITS-1:0] dest_lane;
    } decided_t;

    typedef struct packed {
        logic streams;
        logic looks_up;
        logic takes;  // a word of the FIFO: there must be one
        logic ready;
        logic last;
        logic from_keys;
        logic params;
        logic packed_words;
        logic bytes;
        logic keeps_next;
        logic [1:0] phase;
        logic [ACCESS_BITS-1:0] left;
        logic [ACCESS_BITS-1:0] place;
        logic [LANE_BITS-1:0] index;
        logic [LANE_BITS-1:0] lane;
    } fill_t;

    typedef struct packed {
        place_t place;
        logic first_in;
        logic last_in;
        logic ends_pass;
        logic ends_run;
        logic [LANE_BITS-1:0] x_lane;
        logic [1:0] source_bank;
        logic [LANE_BITS-1:0] source_lane;
        logic [1:0] dest_bank;
        logic [LANE_BITS-1:0] dest_lane;
        logic [LENGTH_BITS-1:0] more_cycles;
        fill_t fill;
    } plan_t;

    // ---- where the loop stands (Position), the FIFO's first word (FrontWord)
    plan_t tile;
    fill_t fill;
    logic [ROW_BITS-1:0] tokens_left;
    logic [LENGTH_BITS-1:0] cycles_left;
    logic may_end;
    logic front_there;
    initial running = 0;
    initial may_end = 0;
    initial front_there = 0;

    // ---- the entry: the tile before the first one is one that ends its pass, and whose next step is the run's first
    localparam int ENTRY_CYCLES = 11;
    localparam int FETCHED = 3;  // the step is there
    logic [3:0] entry = 0;       // cycles since begin_run, 0: none
    logic fetched = 0, planned_first = 0;
    logic before_first;  // the run begins before `first`, with the idle step
    logic [INDEX_BITS-1:0] run_index;
    wire in_run = index >= first && index < last;
    always_ff @(posedge clock) begin
        entry <= begin_run ? 1 : planned_first ? 0 : entry == 0 ? 0 : entry + 1;
        fetched <= entry == 4'(FETCHED - 1);
        planned_first <= entry == 4'(ENTRY_CYCLES - 2);
        if (begin_run) begin
            run_index <= index;
            before_first <= index + 1'b1 == first;  // or else within them
        end
    end

    // ---- token counts, two registers deep: they stand still during a run
    logic [ROW_BITS-1:0] patches, candidates;
    logic [TILE_BITS-1:0] token_in_left, token_out_left;  // tiles of tokens, beyond one
    always_ff @(posedge clock) begin
        patches <= tokens - ROW_BITS'(PREFIX);
        candidates <= patches - packages;
        token_in_left <= TILE_BITS'((tokens - 1'b1) >> IN_SHIFT);
        token_out_left <= TILE_BITS'((tokens - 1'b1) >> OUT_SHIFT);
    end

    // ---- the program: address, block RAM's own register, its output register
    (* rom_style = "block" *) logic [STEP_BITS-1:0] rom [0:(1<<INDEX_BITS)-1];
    initial $readmemh("program.hex", rom);
    logic [INDEX_BITS-1:0] address;
    logic [STEP_BITS-1:0] word, fetched_word;
    wire [INDEX_BITS-1:0] after = tile.place.next.next_engine;
    wire [INDEX_BITS-1:0] wanted = begin_run ? index : after;
    wire wanted_is_in_run = begin_run ? in_run : after >= first && after < last;
    always_ff @(posedge clock) begin
        address <= wanted_is_in_run ? wanted : INDEX_BITS'(NUM_STEPS);
        word <= rom[address];
        fetched_word <= word;
    end
    step_t after_next;
    always_comb after_next = fetched_word;

    // ---- the tile behind, in kPlanCycles = 6 registers: the three of the ROM, beside which the tile waits,
    place_t waits1, waits2, waits3;
    decided_t decided1, decided2, decided3;
    decided_t now_decided;
    always_comb begin
        now_decided.first_in = tile.first_in;
        now_decided.last_in = tile.last_in;
        now_decided.ends_pass = tile.ends_pass;
        now_decided.source_lane = 0;
        now_decided.dest_lane = 0;
    end

    // its place,
    place_t begun, behind, place4;
    logic [ROW_BITS-1:0] first_row_of, num_rows_of;
    always_comb begin
        case (waits3.next.rows)
            PATCHES: begin first_row_of = ROW_BITS'(PREFIX); num_rows_of = patches; end
            CANDIDATES: begin first_row_of = ROW_BITS'(PREFIX); num_rows_of = candidates; end
            FIRST_ROW: begin first_row_of = 0; num_rows_of = 1; end
            default: begin first_row_of = 0; num_rows_of = tokens; end
        endcase
        begun.step = waits3.next;
        begun.next = after_next;
        begun.index = waits3.index + 1'b1;
        begun.next_index = waits3.next.next_engine;
        begun.first_row = first_row_of;
        begun.num_rows = waits3.next.engine ? num_rows_of : '0;
        begun.in_tile = 0;
        begun.out_tile = 0;
        if (!waits3.next.engine) begun.in_left = 0;
        else if (waits3.next.in_tiles != 0) begun.in_left = waits3.next.in_tiles - 1'b1;
        else begun.in_left = token_in_left;
        if (!waits3.next.engine) begun.out_left = 0;
        else if (waits3.next.out_tiles != 0) begun.out_left = waits3.next.out_tiles - 1'b1;
        else begun.out_left = token_out_left;
        begun.head = 0;
        begun.part = 0;
    end
    wire ends_head = waits3.part == TILE_BITS'(PARTS_PER_HEAD - 1);
    always_comb begin
        behind = waits3;
        if (decided3.last_in) begin
            behind.in_left = waits3.in_tile;
            behind.in_tile = 0;
            behind.out_tile = waits3.out_tile + 1'b1;
            behind.out_left = waits3.out_left - 1'b1;
            behind.head = ends_head ? waits3.head + 1'b1 : waits3.head;
            behind.part = ends_head ? '0 : waits3.part + 1'b1;
        end else begin
            behind.in_tile = waits3.in_tile + 1'b1;
            behind.in_left = waits3.in_left - 1'b1;
        end
    end

    // what that decides,
    place_t place5;
    decided_t decided5;
    logic follows5, longer_than_rmw5, longer_than_pipeline5;
    logic [LENGTH_BITS-1:0] rows_more5;
    logic [TILE_BITS-1:0] out_behind5, in_behind5;
    wire last_in4 = place4.in_left == 0;
    wire ends_pass4 = last_in4 && place4.out_left == 0;
    wire [LENGTH_BITS-1:0] rows4 = LENGTH_BITS'(place4.num_rows);

    // and what is made of it.
    plan_t plan6, planned;
    step_t filled5;
    always_comb begin
        filled5 = decided5.ends_pass ? place5.next : place5.step;
        plan6.place = place5;
        plan6.first_in = decided5.first_in;
        plan6.last_in = decided5.last_in;
        plan6.ends_pass = decided5.ends_pass;
        plan6.ends_run = decided5.ends_pass && !follows5;
        plan6.x_lane = place5.step.source_is_x ? decided5.source_lane : decided5.dest_lane;
        plan6.source_bank = 0;
        plan6.source_lane = decided5.source_lane;
        plan6.dest_bank = 0;
        plan6.dest_lane = decided5.dest_lane;
        for (int bank = 1; bank < 4; bank++) begin
            if (decided5.source_lane >= LANE_BITS'(bank * BANK_LANES)) begin
                plan6.source_bank = 2'(bank);
                plan6.source_lane = decided5.source_lane - LANE_BITS'(bank * BANK_LANES);
            end
            if (decided5.dest_lane >= LANE_BITS'(bank * BANK_LANES)) begin
                plan6.dest_bank = 2'(bank);
                plan6.dest_lane = decided5.dest_lane - LANE_BITS'(bank * BANK_LANES);
            end
        end
        if (decided5.ends_pass)
            plan6.more_cycles = longer_than_pipeline5 ? rows_more5 : LENGTH_BITS'(PIPELINE_CYCLES - 1);
        else plan6.more_cycles = longer_than_rmw5 ? rows_more5 : LENGTH_BITS'(RMW_CYCLES - 1);
        plan6.fill.streams = filled5.engine && filled5.weights == STREAM;
        plan6.fill.looks_up = filled5.engine && filled5.weights != STREAM;
        plan6.fill.takes = plan6.fill.streams;
        plan6.fill.ready = plan6.fill.looks_up;
        plan6.fill.packed_words = filled5.weight_width != 0;
        plan6.fill.bytes = filled5.weight_width == 2;
        plan6.fill.keeps_next = filled5.weight_width == 2 && !decided5.last_in;
        plan6.fill.phase = 0;
        plan6.fill.last = 0;
        plan6.fill.from_keys = filled5.weights == KEYS;
        plan6.fill.params = filled5.weights == STREAM && decided5.last_in;
        if (filled5.weights != STREAM) plan6.fill.left = ACCESS_BITS'(TILE_OUT);
        else if (decided5.last_in) plan6.fill.left = ACCESS_BITS'(STREAM_ACCESSES + PARAM_WORDS);
        else plan6.fill.left = ACCESS_BITS'(STREAM_ACCESSES);
        plan6.fill.place = 0;
        plan6.fill.index =
            (LANE_BITS'(out_behind5) << OUT_SHIFT) + (filled5.weights == KEYS ? '0 : filled5.weights_lane);
        plan6.fill.lane = (LANE_BITS'(in_behind5) << IN_SHIFT) + (filled5.weights == KEYS ? filled5.weights_lane : '0);
    end

    always_ff @(posedge clock) begin
        waits1 <= tile.place;
        decided1 <= now_decided;
        waits2 <= waits1;
        decided2 <= decided1;
        waits3 <= waits2;
        decided3 <= decided2;

        place4 <= decided3.ends_pass ? begun : behind;

        place5 <= place4;
        decided5.first_in <= place4.in_tile == 0;
        decided5.last_in <= last_in4;
        decided5.ends_pass <= ends_pass4;
        decided5.source_lane <= place4.step.source_lane + (LANE_BITS'(place4.in_tile) << IN_SHIFT);
        decided5.dest_lane <= place4.step.dest_lane + (LANE_BITS'(place4.out_tile) << OUT_SHIFT);
        follows5 <= place4.next.engine && place4.next_index == place4.index + 1'b1;
        longer_than_rmw5 <= rows4 > LENGTH_BITS'(RMW_CYCLES);
        longer_than_pipeline5 <= rows4 > LENGTH_BITS'(PIPELINE_CYCLES);
        rows_more5 <= rows4 - 1'b1;
        // the tile that is filled meanwhile: the next of this column, the next column's first, or the next pass's
        out_behind5 <= ends_pass4 ? '0 : last_in4 ? place4.out_tile + 1'b1 : place4.out_tile;
        in_behind5 <= last_in4 ? '0 : place4.in_tile + 1'b1;

        planned <= plan6;
    end

    // ---- an iteration: all from registers
    wire accesses = running && (fill.ready || (fill.takes && front_there));
    wire fill_done = !fill.streams && !fill.looks_up;
    assign border = may_end && (fill_done || (fill.last && (fill.ready || (fill.takes && front_there))));
    wire begins = border || planned_first;
    wire last_params = fill.params && fill.place == ACCESS_BITS'(PARAM_WORDS - 1);
    wire looks_for_word = running && (fill.takes || !front_there);
    wire kept = fill.bytes ? fill.phase[0] : fill.packed_words && fill.phase == 1;
    assign word_pop = looks_for_word && word_valid;
    assign has_token = running && tokens_left != 0;

    always_ff @(posedge clock) begin
        if (begin_run && index + 1'b1 == first) front_there <= 0;
        else if (looks_for_word) front_there <= word_valid;

        if (begins) begin
            tile <= planned;
            fill <= planned.fill;
            token <= 0;
            row <= planned.place.first_row;
            tokens_left <= planned.place.num_rows;
            cycles_left <= planned.more_cycles;
            may_end <= 0;
            running <= planned_first || !tile.ends_run;
        end else begin
            if (accesses) begin
                fill.params <= fill.params && !last_params;
                fill.place <= last_params ? '0 : fill.place + 1'b1;
                fill.index <= fill.index + 1'b1;
                fill.takes <= fill.streams && !fill.last && !fill.keeps_next;
                fill.ready <= !fill.last && (fill.looks_up || (fill.streams && fill.keeps_next));
                fill.keeps_next <= fill.params ? last_params && fill.bytes : kept;
                fill.phase <= fill.params ? 2'd0 : fill.phase + 2'd1;
                fill.streams <= fill.streams && !fill.last;
                fill.looks_up <= fill.looks_up && !fill.last;
                fill.last <= fill.left == 2;
                fill.left <= fill.left - 1'b1;
            end
            if (has_token) begin
                token <= token + 1'b1;
                row <= row + 1'b1;
                tokens_left <= tokens_left - 1'b1;
            end
            if (running) begin
                cycles_left <= cycles_left - 1'b1;
                may_end <= may_end || cycles_left == 1;
            end
            if (fetched) begin
                tile.ends_pass <= 1;
                tile.place.index <= run_index - 1'b1;
                tile.place.next <= after_next;
                if (before_first) tile.place.next.next_engine <= first;
            end
        end
    end

    assign ends_run = border && tile.ends_run;
    assign starts_step = begins && (planned_first || !tile.ends_run);
    assign step_index = begins ? planned.place.index : tile.place.index;
    assign x_lane = tile.x_lane;
    assign source_bank = tile.source_bank;
    assign source_lane = tile.source_lane;
    assign dest_bank = tile.dest_bank;
    assign dest_lane = tile.dest_lane;
    assign in_tile = tile.place.in_tile;
    assign out_tile = tile.place.out_tile;
    assign head = tile.place.head;
    assign part = tile.place.part;
    assign first_in = tile.first_in;
    assign last_in = tile.last_in;
    assign next_first_in = planned.first_in;
    assign fill_accesses = accesses;
    assign fill_params = fill.params;
    assign fill_from_keys = fill.from_keys;
    assign fill_place = fill.place;
    assign fill_index = fill.index;
    assign fill_lane = fill.lane;
endmodule
