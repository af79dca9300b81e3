"""What runs beside the accelerator on the board: the runtime, its measurements, the notebook. No torch in here."""
