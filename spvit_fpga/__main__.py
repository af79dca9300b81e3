"""`python -m spvit_fpga csim --model deit_s`: what `spvit` is where the project is not installed, and for torchrun."""

from spvit_fpga.cli import main

if __name__ == "__main__":
    main()
