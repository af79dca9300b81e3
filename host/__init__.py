"""What runs beside the accelerator: preprocessing, image sources, the board's runtime. No torch in here."""
