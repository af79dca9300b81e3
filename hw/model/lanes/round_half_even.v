// Drops the guard bits, half to even. hls_templates/fixed_point.hpp
module round_half_even #(parameter W = 30, parameter GUARD = 6) (
    input signed [W-1:0] value, input inexact, output signed [W-GUARD:0] nearest
);
    wire [GUARD:0] low = {value[GUARD-1:0], inexact};
    wire up = value[GUARD-1] & (|low[GUARD-1:0] | value[GUARD]);
    wire signed [W-GUARD-1:0] floor = value >>> GUARD;
    assign nearest = floor + $signed({1'b0, up});
endmodule
