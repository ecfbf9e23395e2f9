"""How events become feature rows: decode, admission, keys, window kernels, rows; checkpoints and runners."""
