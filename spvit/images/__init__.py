"""Images as a model sees them, wherever it runs: numpy and Pillow alone, since the board needs them too.

sources     a folder, a file, scikit-learn's digits or photographs
preprocess  THE preprocessing: training, calibration, simulation and the board share it
"""
