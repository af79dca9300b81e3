// What fills the biases of every eighth column, on its way to them: the stream's, or the pair term of K or V.
// hls_templates/tile.hpp
module bias_group(
    input clk, input [47:0] word, input signed [47:0] term, input streams, output reg [47:0] bias
);
    always @(posedge clk) bias <= streams ? word : -term;
endmodule
