"""The offline side: data, training, evaluation and export of detectors. Run from the checkout."""
