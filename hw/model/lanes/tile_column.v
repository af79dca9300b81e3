// The registers of one column of the tile: what is filled, what computes, what the tile adds, the shift; and the choice of
// the column by what the fill counts. hls_templates/tile.hpp
module tile_column #(parameter N = 64, parameter FILL = 32, parameter COLUMN = 37) (
    input clk, input swap, input first, input streams, input fills, input fills_bias,
    input [10:0] place, input [10:0] bias_place, input [16*N-1:0] lanes, input signed [47:0] bias_in, input [3:0] shift_in,
    output reg [16*N-1:0] active, output reg signed [47:0] bias, output reg [3:0] shift
);
    localparam PARTS = N / FILL;
    reg [16*N-1:0] shadow;
    reg signed [47:0] shadow_bias;
    reg [3:0] shadow_shift;
    integer i;
    always @(posedge clk) begin
        for (i = 0; i < PARTS; i = i + 1)
            if (fills & (streams ? place == COLUMN * PARTS + i : place == COLUMN))
                shadow[16*FILL*i +: 16*FILL] <= lanes[16*FILL*i +: 16*FILL];
        if (fills_bias & bias_place == (streams ? COLUMN / 8 : COLUMN)) begin
            shadow_bias <= bias_in;
            if (streams) shadow_shift <= shift_in;
        end
        if (swap) begin
            active <= shadow;
            bias <= shadow_bias;
            shadow_bias <= 48'd0;
            if (first) shift <= shadow_shift;
        end
    end
endmodule
