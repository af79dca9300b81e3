// The registers of one column of the tile: what is filled, what computes, bias and shift. hls_templates/tile.hpp
module tile_column #(parameter N = 64, parameter FILL = 32) (
    input clk, input swap, input first,
    input [N/FILL-1:0] fill, input [16*N-1:0] word, input fill_bias, input signed [47:0] bias_in, input [5:0] shift_in,
    output reg [16*N-1:0] active, output reg signed [47:0] bias, output reg [5:0] shift
);
    reg [16*N-1:0] shadow;
    reg signed [47:0] shadow_bias;
    reg [5:0] shadow_shift;
    integer i;
    always @(posedge clk) begin
        for (i = 0; i < N / FILL; i = i + 1) if (fill[i]) shadow[16*FILL*i +: 16*FILL] <= word[16*FILL*i +: 16*FILL];
        if (fill_bias) begin
            shadow_bias <= bias_in;
            shadow_shift <= shift_in;
        end
        if (swap) begin
            active <= shadow;
            bias <= (first ? 48'sd0 : bias) + shadow_bias;
            shadow_bias <= 48'd0;
            if (first) shift <= shadow_shift;
        end
    end
endmodule
