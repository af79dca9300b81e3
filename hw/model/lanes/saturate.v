// The nearest number of OUT bits. hls_templates/fixed_point.hpp
module saturate #(parameter W = 25, parameter OUT = 16) (
    input signed [W-1:0] x, input too_large, negative, output signed [OUT-1:0] value
);
    wire fits = ~too_large & (&x[W-1:OUT-1] | ~|x[W-1:OUT-1]);
    wire sign = too_large ? negative : x[W-1];
    assign value = fits ? x[OUT-1:0] : {sign, {(OUT-1){~sign}}};
endmodule
