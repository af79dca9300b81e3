// One lane of what fills a column of the tile, on its way to all columns: the stream's word, or K or V from memory.
// hls_templates/tile.hpp
module fill_lane(
    input clk, input [15:0] word, key, value, input streams, is_key, is_token, output reg [15:0] lane
);
    always @(posedge clk) lane <= streams ? word : is_key ? (is_token ? key : 16'd0) : value;
endmodule
