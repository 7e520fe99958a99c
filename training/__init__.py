"""How the networks in `models/` are made; `CNNFashion` in `cnn_minst.py` puts it together."""
